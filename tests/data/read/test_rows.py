"""A batch has no more rows than there are windows, whatever was asked for."""

import signal

import pytest

import experiments
from seqrnn.data.batches.segments import Segments
from seqrnn.data.documents import Document
from seqrnn.errors import Interrupted
from seqrnn.runtime import signals
from seqrnn.training import step as step_lib
from seqrnn.training import train
from seqrnn.training.checkpoint import steps
from tests.conftest import tiny, write_text

HUGE = {"train.batch_size": 3000, "data.window": 5000}


def built(tmp_path, **fields):
  return experiments.build(tiny(tmp_path, fields), None)


def shapes(experiment, split="train", epochs=3):
  found = {
    batch["inputs"].shape[:2]
    for epoch in range(epochs)
    for batch in experiment.batches(split, epoch)
  }
  sizes = {experiment.batches(split, e).batch_size for e in range(epochs)}
  assert sizes == {rows for rows, _ in found}
  return found


@pytest.mark.parametrize(
  ("fields", "expected"),
  [
    ({}, {(3, 5000)}),  # Three documents.
    ({"task": "gap_model"}, {(3, 5000)}),
    ({"data.buckets": 4}, {(3, 255)}),
    ({"train.batches_per_epoch": 2}, {(3, 5000)}),
    ({"train.samples_per_epoch": 7}, {(3, 5000)}),
    # 241 symbols each: as many windows without an offset, in all epochs.
    ({"data.window": 50, "data.random_offset": True}, {(15, 50)}),
    ({"data.mapping": "many_to_one", "data.window": 230}, {(3, 230)}),
    # Rows are streams of less than a symbol; a window holds what there is.
    ({"data.stateful": True}, {(3000, 1)}),
    ({"data.stateful": True, "train.batch_size": 16}, {(16, 46)}),
  ],
)
def test_rows_of_training(tmp_path, fields, expected):
  assert shapes(built(tmp_path, **{**HUGE, **fields})) == expected


def test_steps_of_an_epoch_are_those_asked_for(tmp_path):
  for fields, expected in (
    ({"train.batches_per_epoch": 4}, 4),
    ({"train.samples_per_epoch": 10}, 4),  # Of three rows.
    ({}, 1),
    ({"data.stateful": True, "train.batches_per_epoch": 4}, 4),
  ):
    experiment = built(tmp_path, **HUGE, **fields)
    assert len(experiment.batches("train", 1)) == expected


def test_rows_of_what_is_evaluated_or_given(tmp_path):
  experiment = built(tmp_path, **HUGE)
  for split in ("validation", "test"):
    assert shapes(experiment, split, 1) == {(3, 5000)}
  segments = Segments(
    tiny(tmp_path, {"train.batch_size": 16}),
    experiment.vocabularies["symbols"],
    length=9,
    minimum=2,
  )
  for count, rows in ((1, 1), (3, 8), (8, 8), (9, 16), (40, 16)):
    texts = [Document("x", "ab" * 3, "x")] * count
    assert segments.batches(texts, 0, ordered=True).batch_size == rows


def test_rows_of_music(tmp_path):
  fields = {"data.source": "chords", "data.split": "auto"}
  experiment = built(tmp_path, task="polyphony", **{**HUGE, **fields})
  [(rows, frames)] = shapes(experiment, "validation", 1)
  assert rows == 30 and frames < 100  # Pieces, and frames of the longest.
  [(rows, _)] = shapes(experiment, "train", 2)
  assert rows == 240


@pytest.mark.parametrize(
  "fields",
  [{"model.dropout": 0.5}, {"task": "gap_model"}],
  ids=["language_model", "gap_model"],
)
def test_a_larger_batch_trains_what_one_of_all_windows_does(tmp_path, fields):
  # The probe reads a window once for each of its symbols: they are few.
  texts = str(write_text(tmp_path, symbols=60))
  fields |= {"data.window": 60, "train.epochs": 3, "data.path": texts}
  for rows in (3, 400):
    config = tiny(tmp_path, {**fields, "train.batch_size": rows})
    train.fit(experiments.build, config, tmp_path / str(rows))
  tables = [tmp_path / name / "metrics.csv" for name in ("3", "400")]
  assert tables[0].read_bytes() == tables[1].read_bytes()


def test_a_carry_of_more_rows_goes_on(tmp_path):
  """Checkpoints hold the rows of the config, as those of old runs do."""
  fields = {"task": "polyphony", "data.source": "chords", "data.window": 99}
  fields |= {"train.batch_size": 300, "train.max_steps": 2}
  fields["checkpoint.every"] = 1
  config = tiny(tmp_path, fields)
  whole = train.fit(experiments.build, config, tmp_path / "whole")
  config.train.max_steps = 1
  train.fit(experiments.build, config, tmp_path / "parts")
  config.train.max_steps = 2
  assert train.fit(experiments.build, config, tmp_path / "parts") == whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_while_its_first_step_is_compiled(
  tmp_path, monkeypatch, number
):
  original, compiled = step_lib.make_step, []

  def make_step(*args):
    step = original(*args)

    def compiling(state, batch, rate):
      if len(compiled) == 1:
        signal.raise_signal(number)
        compiled.append("and nobody has heard it")
      return step(state, batch, rate)

    compiling.lower = step.lower
    return compiling

  monkeypatch.setattr(step_lib, "make_step", make_step)
  monkeypatch.setattr(train, "probe", lambda *_: compiled.append("probe"))
  config = tiny(tmp_path, {"train.batches_per_epoch": 2, "train.epochs": 1})
  workdir = tmp_path / "run"
  for epochs, place in ((1, "before the first step"), (2, "saved at step 2")):
    if epochs == 2:
      compiled.append("no signal")
      train.fit(experiments.build, config, workdir)
    compiled.clear()
    config.train.epochs = epochs
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=place) as stop:
      train.fit(experiments.build, config, workdir)
    assert stop.value.status == 128 + number
    assert compiled == ["probe"]
    assert signal.getsignal(number) is before
    assert steps(workdir / "checkpoints") == ([2] if epochs == 2 else [])


def test_a_signal_that_came_before_is_not_lost():
  """As while a trial of a search is compiled."""
  with signals.catch_signals() as caught:
    signal.raise_signal(signal.SIGTERM)
    with signals.catch_signals() as inner:
      assert inner == caught == [signal.SIGTERM]
      inner.at_once = True
      with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
  with signals.catch_signals() as caught:
    assert caught == []
