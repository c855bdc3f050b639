"""A wheel, installed in an empty environment: the command `seqrnn`."""

import os
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import TINY, write_text

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "seqrnn", "experiments", "configs")
SETUPTOOLS = int(metadata.version("setuptools").partition(".")[0])


def run(*command, cwd):
  """The output of a command, which must succeed."""
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  done = subprocess.run(
    list(map(str, command)),
    cwd=cwd,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done
  return done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
  """The folder with the programs of an environment that has the wheel.

  It also finds the packages of the environment of the tests, after its own.
  """
  if SETUPTOOLS < 77:
    pytest.skip("setuptools is older than pyproject.toml requires")
  folder = tmp_path_factory.mktemp("wheel")
  for name in SOURCES:  # A build writes beside the sources.
    copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
    copy(ROOT / name, folder / name)
  pip = [sys.executable, "-m", "pip", "-q"]
  flags = ["--no-deps", "--no-build-isolation", "--no-index"]
  run(*pip, "wheel", ".", *flags, cwd=folder)
  [wheel] = folder.glob("*.whl")
  environment = folder / "environment"
  venv.create(environment, symlinks=True)
  [packages] = environment.glob("lib/python*/site-packages")
  outer = [path for path in sys.path if path.endswith("-packages")]
  (packages / "outer.pth").write_text("\n".join(outer))
  python = environment / "bin" / "python"
  run(*pip, f"--python={python}", "install", "--no-deps", wheel, cwd=folder)
  return environment / "bin"


def test_the_command_has_what_a_checkout_has(programs, tmp_path):
  script = "import seqrnn, configs.base; print(seqrnn.__path__[0])"
  place = run(programs / "python", "-c", script, cwd=tmp_path).strip()
  assert place.startswith(str(programs.parent))  # Not the one of the tests.
  assert Path(place, "py.typed").exists()
  assert list(Path(place).glob("reporting/*.jinja"))
  assert list(Path(place).glob("*.toml"))
  write_text(tmp_path)
  fields = {**TINY, "data.path": "corpus"}
  flags = [f"--config.{name}={value}" for name, value in fields.items()]
  line = ["--config=rnn", "--mode=describe", *flags]
  out = run(programs / "seqrnn", *line, cwd=tmp_path)
  assert "parameters" in out
  line = [programs / "python", "-m", "seqrnn", "--help"]
  assert run(*line, cwd=tmp_path) == run(
    programs / "seqrnn", "--help", cwd=tmp_path
  )
