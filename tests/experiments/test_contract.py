"""A task that is none of the five, in every mode; the modes of a task."""

import json
import re

import jax
import numpy as np
import pytest

from seqrnn import cli, experiment, experiments
from seqrnn.config import read as config_lib
from seqrnn.errors import UserError
from tests import share
from tests.conftest import read_csv, tiny

MODES = (
  "train, evaluate, predict, embed, describe, search, report, export, config"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder in which the task `share` is trained."""
  folder = tmp_path_factory.mktemp("share")
  fields = {"task": "share", "optimizer.learning_rate": 0.01}
  (folder / "config.json").write_bytes(config_lib.encoded(tiny(folder, fields)))
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(experiments.TASKS, "share", share)
    yield folder


@pytest.fixture
def main(folder, capfd):
  """A function mode -> status, output; trains if there is no run yet."""
  begin = ["run.py", f"--workdir={folder / 'run'}"]

  def call(mode, *more):
    status = cli.main([*begin, f"--mode={mode}", *more])
    return status, capfd.readouterr()

  if not (folder / "run").exists():
    status, said = call("train", f"--config={folder / 'config.json'}")
    assert status == 0, said.err
    (folder / "said").write_text(said.out)
  return call


def test_its_figures_are_means_over_sequences_in_its_own_unit(folder, main):
  said = (folder / "said").read_text()
  assert "nats" not in said and "bits" not in said and "accuracy" not in said
  [shown] = re.findall(r"validation ([0-9.]+) squared error(?:  best)?\n", said)
  [row] = read_csv(folder / "run" / "metrics.csv")
  names = {name for name in row if name.startswith("validation_")}
  assert names == {"validation_loss", "validation_absolute_error"}
  assert f"{float(row['validation_loss']):.4f}" == shown
  status, said = main("evaluate")
  assert status == 0, said.err
  record = json.loads((folder / "run" / "evaluation.json").read_text())
  assert not {"perplexity", "accuracy", "bits_per_symbol"} & set(record)
  run = experiments.load(folder / "run")
  outputs = jax.jit(run.experiment.predict)
  squared, absolute, weight = 0.0, 0.0, 0.0
  for batch in run.experiment.batches("test", 0):
    _, outputs_BN1 = outputs(run.params, (), batch)
    error = np.asarray(outputs_BN1)[..., 0] - batch["targets"]
    squared += (error**2 * batch["weights"]).sum()
    absolute += (abs(error) * batch["weights"]).sum()
    weight += batch["weights"].sum()
  assert record["loss"] == pytest.approx(squared / weight, rel=1e-5)
  assert record["absolute_error"] == pytest.approx(absolute / weight, rel=1e-5)
  figures = run.evaluate()
  assert figures == {name: record[name] for name in figures}


def test_its_numbers_are_written_beside_the_true_ones(folder, main):
  status, said = main("predict", "--config.predict.sequences=4")
  assert status == 0, said.err
  assert "bits" not in said.out and "probabilit" not in said.out
  rows = read_csv(folder / "run" / "predictions.csv")
  names = ["sequence", "position", "input", "truth", "prediction"]
  assert [list(row) for row in rows] == [names] * 4
  run = experiments.load(folder / "run")
  symbols = run.experiment.vocabularies["symbols"]
  batch = run.experiment.batches("validation", 0)[0]
  _, outputs_BN1 = jax.jit(run.experiment.predict)(run.params, (), batch)
  for n, row in enumerate(rows):
    text = symbols.text(batch["inputs"][n])
    assert row["input"] == text
    truth = text.count(symbols.symbols[0]) / len(text)
    assert float(row["truth"]) == pytest.approx(truth, rel=1e-5)
    number = float(np.asarray(outputs_BN1)[n, 0, 0])
    assert float(row["prediction"]) == pytest.approx(number, rel=1e-4)
    assert row["prediction"] in said.out

  (folder / "f").write_text("abba")
  for source in ("text=abba", f"path={folder / 'f'}"):
    status, said = main("predict", f"--config.predict.{source}")
    assert status == 0, said.err
    [row] = read_csv(folder / "run" / "predictions.csv")
    assert row["input"] == "abba" and row["truth"] == "0.5"
  [number] = run.predict("abba")
  assert f"{number.numbers.item():.6g}" == row["prediction"]


def test_a_missing_mode_is_refused_in_one_line(folder, main, monkeypatch):
  def refused(mode, modes):
    status, said = main(mode)
    assert status == 2
    [line] = [x for x in said.err.splitlines() if not x.startswith("may read ")]
    assert line.startswith(f"error: --mode={mode}: task='share' ")
    assert line.endswith(f"; its modes are {modes}")

  refused("sample", MODES)
  refused("detect", MODES)
  run = experiments.load(folder / "run")
  rule = f"run: task='share' .*; its modes are {MODES}"
  with pytest.raises(UserError, match=rule):
    run.sample("abc")
  with pytest.raises(UserError, match="cannot score"):
    run.score("abc")
  build = share.build
  monkeypatch.setattr(
    share, "build", lambda *args: build(*args)._replace(predict=None)
  )
  refused("predict", "train, evaluate, search, report, export, config")


def test_modes_follow_from_the_fields(tmp_path):
  gap = {"task": "gap_model"}
  music = {"task": "polyphony", "data.source": "chords"}
  labels = {"task": "classification", "data.format": "files"}
  for fields, lacks in (
    ({}, set()),
    ({**gap, "model.heads": "joint"}, {"sample"}),
    ({**gap, "model.heads": "all"}, set()),
    (music, {"predict", "embed", "detect", "review"}),
    (labels, {"sample", "detect", "review"}),
  ):
    task = experiments.build(tiny(tmp_path, fields), None)
    assert set(config_lib.MODES) - set(experiment.modes(task)) == lacks
    bare = task._replace(decoder=None, heads={})
    assert not {"sample", "detect", "review"} & set(experiment.modes(bare))
