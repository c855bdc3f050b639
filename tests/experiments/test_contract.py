"""A task that is none of the five, in every mode; the modes of a task."""

import csv
import json
import re

import jax
import numpy as np
import pytest
from matplotlib import image

from seqrnn import cli, experiment, experiments
from seqrnn.config import read as config_lib
from seqrnn.errors import UserError
from seqrnn.modes import predict
from seqrnn.training import train
from tests import share
from tests.conftest import Page, tiny

MODES = (
  "train, evaluate, predict, embed, describe, search, report, export, config"
)


@pytest.fixture
def registered(monkeypatch):
  """`task=share`."""
  monkeypatch.setitem(experiments.TASKS, "share", share)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A workdir in which the task was trained, with its output."""
  folder = tmp_path_factory.mktemp("share")
  fields = {
    "task": "share",
    "train.epochs": 2,
    "optimizer.learning_rate": 0.01,
  }
  config_lib.save(tiny(folder, fields), folder / "config.json")
  return folder


@pytest.fixture
def main(folder, registered, rendered, capfd):
  """A function mode -> status, output; trains if there is no run yet."""
  del registered, rendered
  begin = ["run.py", f"--workdir={folder / 'run'}"]

  def call(mode, *more):
    status = cli.main([*begin, f"--mode={mode}", *more])
    return status, capfd.readouterr()

  if not (folder / "run").exists():
    status, said = call("train", f"--config={folder / 'config.json'}")
    assert status == 0, said.err
    (folder / "said").write_text(said.out)
  return call


def test_it_trains_in_its_own_unit(folder, main):
  del main
  said = (folder / "said").read_text()
  assert "nats" not in said and "bits" not in said and "accuracy" not in said
  lines = re.findall(r"validation ([0-9.]+) squared error(?:  best)?\n", said)
  assert len(lines) == 2
  with (folder / "run" / "metrics.csv").open() as file:
    rows = list(csv.DictReader(file))
  names = {name for name in rows[0] if name.startswith("validation_")}
  assert names == {"validation_loss", "validation_absolute_error"}
  assert f"{float(rows[-1]['validation_loss']):.4f}" == lines[-1]
  # One panel, as there is no accuracy.
  drawn = image.imread(folder / "run" / "history.png")
  assert drawn.std() > 0


def test_its_figures_are_means_over_sequences(folder, main):
  status, said = main("evaluate")
  assert status == 0, said.err
  record = json.loads((folder / "run" / "evaluation.json").read_text())
  assert not {"perplexity", "accuracy", "bits_per_symbol"} & set(record)
  loaded = experiments.load(folder / "run")
  task = loaded.experiment
  squared, absolute, weight = 0.0, 0.0, 0.0
  for batch in task.batches("test", 0):
    _, outputs_BN1 = task.predict(loaded.params, (), batch)
    error = np.asarray(outputs_BN1)[..., 0] - batch["targets"]
    squared += (error**2 * batch["weights"]).sum()
    absolute += (abs(error) * batch["weights"]).sum()
    weight += batch["weights"].sum()
  assert record["loss"] == pytest.approx(squared / weight, rel=1e-5)
  assert record["absolute_error"] == pytest.approx(absolute / weight, rel=1e-5)
  figures = loaded.evaluate()
  assert figures == {name: record[name] for name in figures}


def test_a_report_without_accuracy(folder, main):
  status, said = main("report")
  assert status == 0, said.err
  page = Page((folder / "run" / "report.html").read_text())
  assert page.faults == []
  assert "squared error a sequence, test split" in page.text
  assert "sequences per second" in page.text and "nats" not in page.text


def test_it_is_searched(folder, main):
  pytest.importorskip("optuna")
  workdir = f"--workdir={folder / 'search'}"
  status, said = main(
    "search",
    workdir,
    f"--config={folder / 'config.json'}",
    "--config.search.trials=2",
    "--config.search.workers=1",
    "--config.train.max_steps=2",
    "--config.search.space=model.hidden_size=grid(3,4)",
    "--config.search.method=grid",
  )
  assert status == 0, said.err
  assert "best validation loss" in said.out and "nats" not in said.out


def predicted(folder):
  """The rows of predictions.csv."""
  with (folder / "run" / "predictions.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def test_its_numbers_are_written_beside_the_true_ones(folder, main):
  status, said = main("predict", "--config.predict.sequences=4")
  assert status == 0, said.err
  rows = predicted(folder)
  names = ["sequence", "position", "input", "truth", "prediction"]
  assert [list(row) for row in rows] == [names] * 4
  loaded = experiments.load(folder / "run")
  symbols = loaded.experiment.vocabularies["symbols"]
  [batch, *_] = loaded.experiment.batches("validation", 0)
  _, outputs_BN1 = loaded.experiment.predict(loaded.params, (), batch)
  for n, row in enumerate(rows):
    text = symbols.text(batch["inputs"][n])
    assert row["input"] == text
    truth = text.count(symbols.symbols[0]) / len(text)
    assert float(row["truth"]) == pytest.approx(truth, rel=1e-5)
    number = float(outputs_BN1[n, 0, 0])
    assert float(row["prediction"]) == pytest.approx(number, rel=1e-4)
    assert row["prediction"] in said.out
  assert "bits" not in said.out and "probabilit" not in said.out


def test_the_number_of_a_text_is_written(folder, main):
  (folder / "f").write_text("abba")
  for source in ("text=abba", f"path={folder / 'f'}"):
    status, said = main("predict", f"--config.predict.{source}")
    assert status == 0, said.err
    [row] = predicted(folder)
    assert row["input"] == "abba" and row["truth"] == "0.5"
  [found] = experiments.load(folder / "run").predict("abba")
  assert f"{found.numbers.item():.6g}" == row["prediction"]


def test_several_numbers_have_columns_and_an_unknown_one_is_empty(
  tmp_path, registered, capsys
):
  del registered
  config = tiny(tmp_path, {"task": "share", "train.max_steps": 1})
  train.fit(experiments.build, config, tmp_path / "run")

  def twice(config, vocabularies):
    task = share.build(config, vocabularies)

    def unknown(batch):
      share_BN = batch["targets"]
      return batch | {"targets": np.stack([share_BN, share_BN * np.nan], -1)}

    def predict(params, carry, batch):
      carry, outputs_BN1 = task.predict(params, carry, batch)
      return carry, jax.numpy.concatenate([outputs_BN1, -outputs_BN1], -1)

    made = lambda *which, **how: task.batches(*which, **how).map(unknown)
    return task._replace(batches=made, predict=predict)

  found = predict.run(twice, config, tmp_path / "run")
  assert "?" in capsys.readouterr().out
  for row, p in zip(predicted(tmp_path), found, strict=True):
    assert list(row)[3:] == [
      *("truth_1", "prediction_1", "truth_2", "prediction_2")
    ]
    assert float(row["truth_1"]) == pytest.approx(p.targets[0, 0], rel=1e-5)
    assert row["truth_2"] == ""
    assert float(row["prediction_2"]) == -float(row["prediction_1"])


@pytest.mark.parametrize("mode", ["sample", "detect"])
def test_a_missing_mode_is_refused_in_one_line(mode, main):
  status, said = main(mode)
  assert status == 2
  [line] = [x for x in said.err.splitlines() if ": input " not in x]
  assert line.startswith(f"error: --mode={mode}: task='share' ")
  assert line.endswith(f"; its modes are {MODES}")


def test_without_outputs_it_is_refused_in_one_line(main, monkeypatch):
  build = share.build
  monkeypatch.setattr(
    share, "build", lambda *args: build(*args)._replace(predict=None)
  )
  status, said = main("predict")
  assert status == 2
  [line] = [x for x in said.err.splitlines() if ": input " not in x]
  assert line.startswith("error: --mode=predict: task='share' ")
  assert line.endswith(
    "; its modes are train, evaluate, search, report, export, config"
  )
  assert main("evaluate")[0] == 0


def test_it_is_refused_from_python_too(folder, main):
  del main
  loaded = experiments.load(folder / "run")
  rule = f"run: task='share' .*; its modes are {MODES}"
  with pytest.raises(UserError, match=rule):
    loaded.sample("abc")
  with pytest.raises(UserError, match="cannot score"):
    loaded.score("abc")


# Fields of a task -> the modes that it lacks.
LACKS = [
  ({}, set()),
  ({"model.heads": "joint", "task": "gap_model"}, {"sample"}),
  ({"model.heads": "all", "task": "gap_model"}, set()),
  (
    {"task": "polyphony", "data.source": "chords"},
    {"predict", "embed", "detect", "review"},
  ),
  (
    {"task": "classification", "data.format": "files"},
    {"sample", "detect", "review"},
  ),
]


@pytest.mark.parametrize(("fields", "lacks"), LACKS)
def test_modes_follow_from_the_fields(tmp_path, fields, lacks):
  task = experiments.build(tiny(tmp_path, fields), None)
  assert set(config_lib.MODES) - set(experiment.modes(task)) == lacks
  bare = task._replace(decoder=None, heads={})
  assert not {"sample", "detect", "review"} & set(experiment.modes(bare))
