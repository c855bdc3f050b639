"""A clone, an editable installation and a wheel run the same program."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import TINY, write_text

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "run.py")
FOLDERS = ("seqrnn", "experiments", "configs")
OWN = """\
from seqrnn.configs import rnn


def get_config():
  config = rnn.get_config()
  config.model.hidden_size = 7
  return config
"""
PIP = (sys.executable, "-m", "pip", "-q")
FLAGS = ("--no-deps", "--no-build-isolation", "--no-index")


def run(*command, cwd):
  """The output of a command, which must succeed."""
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  line = list(map(str, command))
  done = subprocess.run(
    line, cwd=cwd, env=environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done
  return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
  """A copy of the repository, with its symbolic links."""
  if int(metadata.version("setuptools").partition(".")[0]) < 77:
    pytest.skip("setuptools is older than pyproject.toml requires")
  folder = tmp_path_factory.mktemp("clone")
  for name in SOURCES:
    shutil.copy(ROOT / name, folder)
  for name in FOLDERS:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / name, folder / name, True, ignored)
  return folder


def environment(folder, *requirement, cwd):
  """The programs of an environment, which also has the tests' packages."""
  venv.create(folder, symlinks=True)
  [packages] = folder.glob("lib/python*/site-packages")
  outer = [path for path in sys.path if path.endswith("-packages")]
  (packages / "zz.pth").write_text("\n".join(outer))
  python = folder / "bin" / "python"
  run(*PIP, f"--python={python}", "install", *FLAGS, *requirement, cwd=cwd)
  return folder / "bin"


def test_each_way_runs_the_same(clone, tmp_path):
  run(*PIP, "wheel", ".", *FLAGS, cwd=clone)
  [wheel] = clone.glob("*.whl")
  names = zipfile.ZipFile(wheel).namelist()
  tops = {name.partition("/")[0].partition("-")[0] for name in names}
  assert tops == {"seqrnn"}
  model = "seqrnn/zoo/surnames/model.safetensors"
  assert {"seqrnn/configs/rnn.py", "seqrnn/py.typed", model} < {*names}
  assert any(name.endswith(".jinja") for name in names)
  shutil.rmtree(clone / "build", ignore_errors=True)
  installed = environment(tmp_path / "a", wheel, cwd=tmp_path)
  editable = environment(tmp_path / "b", "-e", clone, cwd=tmp_path)
  write_text(tmp_path)
  (tmp_path / "own.py").write_text(OWN)
  fields = {**TINY, "data.path": "corpus"}
  del fields["model.hidden_size"]
  line = ["--config=own.py", "--mode=describe"]
  line += [f"--config.{name}={value}" for name, value in fields.items()]
  script = "from seqrnn.configs import base; print(base.__file__)"
  outputs = set()
  for program, folder in (
    ([installed / "seqrnn"], tmp_path / "a"),
    ([editable / "seqrnn"], clone),
    ([editable / "python", clone / "run.py"], clone),
  ):
    python = program[0].parent / "python"
    path = run(python, "-c", script, cwd=tmp_path)
    assert path.startswith(str(folder))
    outputs.add(run(*program, *line, cwd=tmp_path))
    run(*program, "--config=configs/rnn.py", "--mode=config", cwd=tmp_path)
  assert len(outputs) == 1
