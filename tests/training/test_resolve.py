"""Fields that the data, the length of a training or a budget determine."""

import json
from typing import Any

import pytest

from seqrnn import cli, experiments
from seqrnn.config import read as config_lib
from seqrnn.config.derived import merge
from seqrnn.config.resolve import read_words, resolve
from seqrnn.configs import base, brnn, rnn, sentences, text_generation
from seqrnn.errors import UserError
from seqrnn.training import setup, train
from tests.conftest import tiny


def changes(config, batches, rows=1, documents=10**6):
  """The fields that an epoch of so many batches changes, and the lines."""
  resolved, lines = resolve(config, epoch=lambda _: (batches, rows, documents))
  changed = config_lib.changes(config, resolved)
  return {name: new for name, (_, new) in changed.items()}, [*lines]


def limited(config, steps_per_epoch, total_steps):
  config = config.copy_and_resolve_references()
  config.train.epochs = config.train.max_steps = total_steps
  config.train.fit_to_data = None
  return changes(config, steps_per_epoch)[0]


def test_a_short_training_is_evaluated_each_epoch():
  config: Any = rnn.get_config()
  names = "train.eval_every", "schedule.warmup_steps", "train.ema"
  expected = dict(zip(names, (36, 28, 0.9826), strict=True))
  assert limited(config, 36, 288) == expected
  expected = dict(zip(names, (1, 0, 0.5), strict=True))
  assert limited(config, 1, 2) == expected
  config.train.adapt_to_length = False
  assert limited(config, 36, 288) == {}
  assert limited(base.get_config(), 1, 1) == {}


def test_the_corpus_of_a_recipe_limits_nothing():
  for recipe in (rnn, brnn, text_generation):
    config: Any = recipe.get_config()
    config_lib.check(config)
    batches = len(experiments.build(config, None).batches("train", 0))
    # The library of another Python may be a little smaller.
    batches = round(batches * 1.02)
    assert limited(config, batches, batches * config.train.epochs) == {}
    assert changes(config, batches, config.train.batch_size)[0] == {}


def test_a_run_records_the_fields_that_it_limits(tmp_path, capsys):
  fields = {
    "train.adapt_to_length": True,
    "train.batches_per_epoch": 2,
    "train.eval_every": 100,
    "train.epochs": 3,
  }
  config: Any = tiny(tmp_path, fields)
  workdir = tmp_path / "run"
  workdir.mkdir()
  started = train.make_training(experiments.build, config, workdir)
  assert started.config.train.eval_every == 2
  assert (
    "train.adapt_to_length: train.eval_every=2 (was 100): for 6 steps\n"
  ) in capsys.readouterr().out
  setup.write_record(started.config, started.experiment, workdir)
  # A longer training, too: the run keeps them.
  config.train.epochs = 60
  kept = merge(config, run=config_lib.flat(started.config))
  assert kept.train.eval_every == 2
  config = setup.check_owner(config, workdir)
  resumed = train.make_training(experiments.build, config, workdir)
  assert resumed.config.train.eval_every == 2
  assert resumed.total_steps == 120


def fitted(windows, names: str | None = "all", documents=10**6, **fields):
  """The fields that `train.fit_to_data` changes, and the lines."""
  config: Any = base.get_config()
  config.train.fit_to_data = names
  fields = {"train__epochs": 3, "train__batch_size": 32} | fields
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in fields.items()}
  )
  rows = min(config.train.batch_size, windows)
  return changes(config, -(-windows // rows), rows, documents)


def test_a_small_set_is_read_more_often():
  small = {"train.batch_size": 8, "train.epochs": 15, "model.dropout": 0.5}
  changed, lines = fitted(544)
  assert changed == small
  assert lines == [
    "train.fit_to_data: train.batch_size=8 (was 32), train.epochs=15 (was 3),"
    " model.dropout=0.5 (was 0.0): at most 544 windows; docs/howto/train.md has"
    " the rule"
  ]
  assert fitted(544, "train.epochs")[0] == {"train.epochs": 40}
  changed, _ = fitted(544, train__epochs=100, model__dropout=0.6)
  assert changed == {"train.batch_size": 8}


def test_a_large_set_has_what_the_config_says():
  assert fitted(32 * 1000) == fitted(544, None) == ({}, [])
  assert fitted(10**6, train__batch_size=4) == ({}, [])


def test_a_short_text_is_read_more_often():
  streams = {"data__stateful": True, "data__window": 64}
  changed, lines = fitted(45_056 // 64, **streams)
  assert changed == {
    "train.batch_size": 8,
    "train.epochs": 51,
    "model.dropout": 0.5,
    "model.weight_drop": 0.25,
    "model.symbol_dropout": 0.082,
    "train.label_smoothing": 0.028,
  }
  [line] = lines
  assert all(
    f" {name}={value} (was " in line for name, value in changed.items()
  )
  names = "train.epochs,model.weight_drop"
  changed, _ = fitted(704, names, model__cell="min_lstm", **streams)
  assert changed == {"train.epochs": 51}
  changed, _ = fitted(704, train__max_steps=350, **streams)  # Four epochs.
  assert "model.dropout" not in changed
  changed, _ = fitted(40_000, **streams)
  assert changed["model.hidden_size"] == 384 and changed["train.epochs"] == 7
  assert changed["train.batch_size"] == 16
  assert fitted(50_000, **streams) == ({}, [])
  assert fitted(704, train__batches_per_epoch=22, **streams) == ({}, [])


def test_few_different_sessions_are_read_more_often():
  """In one batch: its loss is divided by the weight of the batch."""
  fields = {"data__repeats": "weight", "train__epochs": 8}
  changed, lines = fitted(267, **fields)
  assert changed == {"train.batch_size": 288, "train.batches_per_epoch": 30}
  assert [line.count(" (was ") for line in lines] == [2]
  assert fitted(32 * 30, **fields) == ({}, [])
  changed, _ = fitted(267, documents=300, **fields)  # Most count alike.
  assert changed == {"train.batches_per_epoch": 30}


def parameters(H):
  return 3 * H * H + 5 * H + 2


@pytest.mark.parametrize(
  ("budget", "cell", "expected"),
  [
    (parameters(7) - 1, "lstm", 6),
    (parameters(7), "lstm", 7),  # It has no heads.
    (parameters(7), "mlstm", 4),
    (2**31 - 1, "lstm", 26754),
  ],
)
def test_the_largest_model_within_the_budget(tmp_path, budget, cell, expected):
  count = lambda config: parameters(config.model.hidden_size)
  fields = {"model.cell": cell, "model.cell_heads": 4}
  config = tiny(tmp_path, {**fields, "model.parameters": budget})
  assert resolve(config, count)[0].model.hidden_size == expected
  assert config.model.hidden_size == 8  # The config itself is unchanged.


def test_a_run_keeps_its_hidden_size(tmp_path, capfd):
  base = tmp_path / "base.json"
  fields = {"train.max_steps": 1, "model.hidden_size": 3}
  base.write_text(tiny(tmp_path, fields).to_json())
  workdir = tmp_path / "run"

  def go(budget):
    argv = ["run.py", f"--config={base}", f"--workdir={workdir}"]
    status = cli.main([*argv, f"--config.model.parameters={budget}"])
    return status, capfd.readouterr()

  status, shown = go(750)  # As many as 8 units need.
  assert status == 0
  assert "model.parameters=750: model.hidden_size=8\n" in shown.out
  written = json.loads((workdir / "config.json").read_text())["model"]
  assert written["parameters"] == 750 and written["hidden_size"] == 8
  status, shown = go(750)
  assert status == 0 and "hidden_size" not in shown.out
  status, shown = go(751)
  assert status == 2 and "holds another run" in shown.err


def test_a_config_of_labelled_texts_reads_words_in_lower_case():
  config: Any = sentences.get_config()
  words, [line] = read_words(config)
  reads = {"data.lowercase", "data.punctuation", "model.wide", "model.parts"}
  assert config_lib.changes(config, words).keys() == reads
  assert line.endswith("(was none): task=classification, data.unit=word")
  few = changes(words, 100, 8)[0]
  alone = changes(merge(words, {"model.wide": False}), 100, 8)[0]
  assert few["train.epochs"] == 10 and alone["train.epochs"] == 20
  assert few["train.choice"] == "last"
  assert few["train.label_smoothing"] == 0.1 and few["train.refit"]
  stopping = merge(words, {"train.patience": 3})
  assert not {"train.choice", "train.refit"} & {*changes(stopping, 100, 8)[0]}
  both = merge(words, {"train.choice": "best", "train.refit": True})
  with pytest.raises(UserError, match="train.refit=True: must be False with"):
    changes(both, 100, 8)
  assert "train.refit" not in changes(words, 375, 8)[0]
  assert "train.choice" not in changes(words, 1250, 8)[0]
  for size, window in ((50, 96), (90, 96), (250, 192), (48, 48), (900, 48)):
    texts = lambda c, n=size: (60 * -(-n // c.data.window), 32, 60)
    fitted = resolve(words, epoch=texts)[0]
    assert fitted.data.window == window, size
  numbers = read_words(merge(config, {"task": "regression"}))[0]
  assert numbers.model.pooling == "mean"
  spelling = {"data.lowercase", "data.punctuation"}
  for fields, kept in (
    ({"data.unit": "char"}, reads),
    ({"task": "tagging"}, reads),
    ({"train.fit_to_data": None}, reads),
    ({"train.start_from": "run"}, spelling),
    ({"model.wide": False}, {"model.wide", "model.parts"}),
  ):
    merged = merge(config, fields)
    names = config_lib.changes(merged, read_words(merged)[0]).keys()
    assert names == reads - kept, (fields, names)
