"""Every config in configs/: it has a card, is valid, and trains two steps."""

import ast
import random
import shutil
import sysconfig
import types
from pathlib import Path

import pytest

from seqrnn import catalogue, cli
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from seqrnn.data.sources import embedded
from tests.conftest import read_csv

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "configs").glob("*.py"))
# One of each kind of program; the others, of the same parts, are slow tests.
TRAINED = ("brnn", "ud_ewt")
# What a user's own file may be.
FORMS = {
  "tab": "".join(f"{n % 2}\t_\tone two {n}\n" for n in range(40)),
  "text": "".join(n * f"1 2 install x{n}:all {n}\n" for n in range(40)),
  "char_rnn": "".join(random.Random(0).choices("abcde \n", k=3000)),
  "conllu": "".join(
    f"1\t{n}\t_\t{'XY'[n % 2]}{6 * chr(9)}_\n\n" for n in range(40)
  ),
}
SHARES = "data.validation_fraction", "data.test_fraction"


def test_each_opens_with_a_card_and_keeps_all_rules():
  for path in PATHS:
    card = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    title = (card or "").splitlines()[0]
    assert title.endswith(".") and len(title) < 80, path
    config = config_lib.read_config(path)
    config_lib.check(config)
    changes = config_lib.changes(base.get_config(), config)
    assert bool(changes) == (path.stem != "base"), path


@pytest.fixture(scope="module")
def library(tmp_path_factory):
  """A small part of the standard library."""
  folder = tmp_path_factory.mktemp("library")
  whole = Path(sysconfig.get_paths()["stdlib"])
  for name in ("json", "html", "wsgiref"):
    ignored = shutil.ignore_patterns("__pycache__", "entities.py")
    shutil.copytree(whole / name, folder / name, ignore=ignored)
  for path in sorted(whole.glob("[b-c]*.py")):
    if path.stat().st_size < 10_000:
      shutil.copy(path, folder)
  for function in (embedded.stdlib, embedded.opcodes):
    function.cache_clear()
  with pytest.MonkeyPatch.context() as patch:
    paths = types.SimpleNamespace(get_paths=lambda: {"stdlib": str(folder)})
    patch.setattr(embedded, "sysconfig", paths)
    patch.setattr(embedded, "_MODULES", 2)
    yield
  for function in (embedded.stdlib, embedded.opcodes):
    function.cache_clear()


def small(path, folder):
  """Flags that make a config small; the task, data and schedule stay."""
  config = config_lib.read_config(path)
  flags = {"train.max_steps": 2, "train.batch_size": 8, "data.window": 8}
  flags |= dict.fromkeys(SHARES, 0.1)
  if config.data.min_count > 1:  # Too few come twice.
    flags["data.min_count"] = 1
  flags["model.hidden_size"] = 8
  if config.model.embedding_size is not None:
    flags["model.embedding_size"] = 8
  if config.data.source in ("files", *catalogue.sets()):  # Not here.
    text = folder / "text.txt"
    text.write_text(
      FORMS[path.stem if path.stem in FORMS else config.data.format]
    )
    flags |= {"data.source": "files", "data.path": text}
    flags |= dict.fromkeys(SHARES, 0.2)
  return [f"--config.{name}={value}" for name, value in flags.items()]


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(
      path.stem, marks=[] if path.stem in TRAINED else pytest.mark.slow
    )
    for path in PATHS
  ],
)
def test_it_trains_two_steps(name, library, tmp_path, capfd):
  del library
  path = ROOT / "configs" / f"{name}.py"
  workdir = tmp_path / "run"
  argv = ["run.py", f"--config={path}", f"--workdir={workdir}"]
  status = cli.main([*argv, *small(path, tmp_path)])
  assert status == 0, capfd.readouterr().err
  rows = read_csv(workdir / "metrics.csv")
  assert [row["step"] for row in rows] == ["2"]
  # Nats a symbol, or a frame of 88 notes.
  limit = 100 if name in ("odyssey", "polyphony") else 10
  assert 0 < float(rows[0]["validation_loss"]) < limit
