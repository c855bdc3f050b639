"""seqrnn from Python: what `import seqrnn` gives."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import experiments
import seqrnn
from seqrnn.training import fit
from tests.conftest import tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A folder with the runs a, b and c, of another size, and corpus."""
  folder = tmp_path_factory.mktemp("trained")
  config = tiny(folder, {"train.max_steps": 2, "train.eval_every": 1})
  fit.fit(experiments.build, config, folder / "runs" / "a")
  shutil.copytree(folder / "runs" / "a", folder / "runs" / "b")
  config.optimizer.learning_rate = 0.5
  fit.fit(experiments.build, config, folder / "runs" / "c")
  return folder


def test_the_import_is_instant_and_the_names_are_there():
  code = (
    "import seqrnn, sys; found = [m for m in ('jax', 'numpy', 'experiments')"
    " if m in sys.modules]; assert not found, found;"
    " assert set(seqrnn.__all__) <= set(dir(seqrnn))"
  )
  subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
  for name in seqrnn.__all__:
    assert getattr(seqrnn, name).__doc__
  with pytest.raises(AttributeError, match="no attribute 'lode'"):
    seqrnn.lode  # noqa: B018


def test_another_package_of_that_name_is_refused(monkeypatch):
  other = ModuleType("experiments")
  other.__file__ = "/home/me/experiments/__init__.py"
  monkeypatch.setitem(sys.modules, "experiments", other)
  with pytest.raises(seqrnn.UserError, match="/home/me/experiments/.*rename"):
    seqrnn.load("runs/a")


def test_metrics_are_a_table(trained):
  run = seqrnn.load(trained / "runs" / "a")
  with (run.workdir / "metrics.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert run.metrics.names == tuple(rows[0])
  assert run.metrics["step"].tolist() == [1, 2]
  for name in ("validation_loss", "train_accuracy"):
    assert run.metrics[name].tolist() == [float(row[name]) for row in rows]
  (run.workdir / "metrics.csv").rename(trained / "moved.csv")
  assert len(run.metrics) == 0
  (trained / "moved.csv").rename(run.workdir / "metrics.csv")


def test_predictions_are_decoded(trained):
  run = seqrnn.load(trained / "runs" / "a")
  [found] = run.predict("abca", top_k=3)
  symbols = run.experiment.vocabularies["symbols"]
  assert found.likely == [symbols.names(ids) for ids in found.ids]
  assert np.shape(found.likely) == found.probabilities.shape == (5, 3)
  assert found.best == [names[0] for names in found.likely]
  text = repr(found)
  assert text.startswith("Prediction('a': ") and "ids" not in text
  assert f"{found.best[3]!r} {found.probabilities[3][0]:.3f}" in text
  long = found._replace(truth=found.truth * 3, likely=found.likely * 3)
  long = long._replace(probabilities=np.tile(found.probabilities, (3, 1)))
  assert repr(long).endswith("; 7 more)") and repr(long).count(";") == 8
  # Numbers have no likely ones.
  shares = found._replace(likely=[], probabilities=np.empty((0, 0)))
  shares = shares._replace(numbers=np.array([[0.25, 4]] * 5))
  assert repr(shares).startswith("Prediction('a': 0.25 4; 'b': ")


def test_runs_are_gathered(trained, monkeypatch, capsys):
  monkeypatch.chdir(trained)
  table = seqrnn.runs()
  assert table["run"].tolist() == ["a", "b", "c"]
  varied = [name for name in table.names if "." in name]
  assert varied == ["optimizer.learning_rate"]
  assert table["optimizer.learning_rate"][2] == 0.5
  for row in table:
    rows = list(seqrnn.load(Path("runs", row["run"])).metrics)
    best = min(rows, key=lambda one: one["validation_loss"])
    for name in ("step", "train_loss", "validation_accuracy"):
      assert row[name] == best[name]
  assert "test_loss" not in table
  # Only an evaluation of that checkpoint counts.
  for name, step in (("a", table["step"][0]), ("b", 99)):
    record = {"split": "test", "step": int(step), "loss": 1.5, "symbols": 7}
    Path("runs", name, "evaluation.json").write_text(json.dumps(record))
  found = seqrnn.runs("runs/?")
  assert found["test_loss"].tolist()[:1] == [1.5]
  assert np.isnan(found["test_loss"][1:]).all()
  assert seqrnn.runs("runs/a", "runs/*")["run"].tolist() == ["a", "b", "c"]
  shutil.copytree("runs/a", "more/a")
  assert seqrnn.runs("runs/a", "more/a")["run"].tolist() == ["runs/a", "more/a"]
  assert capsys.readouterr().err == ""


def test_runs_that_are_broken_or_missing(
  trained, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(seqrnn.UserError, match=r"runs/\*: matches no folder"):
    seqrnn.runs()
  with pytest.raises(seqrnn.UserError, match="runs/a: has no run"):
    seqrnn.runs("runs/a")
  for name in "abc":
    shutil.copytree(trained / "runs" / "a", tmp_path / "runs" / name)
  Path("runs/b/config.json").write_text("{")
  for name in ("metrics.csv", "manifest.json"):  # Stopped before an evaluation.
    Path("runs/c", name).unlink()
  Path("runs/other").mkdir()
  Path("runs/c/evaluation.json").write_text("[1]")
  table = seqrnn.runs("runs/*")
  assert table["run"].tolist() == ["a", "c"] and np.isnan(table["step"][1])
  [line] = [x for x in capsys.readouterr().err.splitlines() if "warning" in x]
  assert line.startswith("warning: left out, runs/b/config.json: ")
  with pytest.raises(seqrnn.UserError, match="runs/b/config.json"):
    seqrnn.runs("runs/b", "runs/*")
  Path("runs/a/evaluation.json").write_text("[1]")
  with pytest.raises(seqrnn.UserError, match="evaluation.json: must be an"):
    seqrnn.runs("runs/a")
  with pytest.raises(seqrnn.UserError, match="no run can be read"):
    seqrnn.runs("runs/b*")
