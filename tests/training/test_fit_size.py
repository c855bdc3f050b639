"""Settings that the size of the data changes."""

from typing import Any

from seqrnn.config import read as config_lib
from seqrnn.config.resolve import Facts, resolve
from seqrnn.config.rules import FITTED_FIELDS
from seqrnn.configs import base


def config_of(given: Any = "all", **fields: Any) -> Any:
  config: Any = base.get_config()
  config.train.fit_to_data = given
  config.update_from_flattened_dict(
    {"train.epochs": 3, "train.batch_size": 32, **fields}
  )
  return config


def fitted(config, windows):
  """The fields that change for a number of windows."""
  rows = min(config.train.batch_size, windows)
  facts = Facts(epoch=lambda _: (-(-windows // rows), rows))
  fields, lines = resolve(config, facts)
  print("\n".join(lines))
  changes = config_lib.changes(config, fields, FITTED_FIELDS)
  return {name: new for name, (_, new) in changes.items()}


def test_a_small_set_is_read_more_often(capsys):
  found = fitted(config_of(), 544)
  assert found == {
    "train.batch_size": 8,
    "train.epochs": 15,
    "model.dropout": 0.5,
  }
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 3
  assert lines[0] == (
    "train.fit_to_data: train.batch_size=8 (was 32): at most 544 windows, for"
    " 40 batches an epoch"
  )


def test_a_large_set_has_what_the_config_says():
  assert fitted(config_of(), 32 * 1000) == {}
  assert fitted(config_of(None), 544) == {}
  assert fitted(config_of("train.epochs"), 544) == {"train.epochs": 40}
  config = config_of(**{"train.epochs": 100, "model.dropout": 0.6})
  assert fitted(config, 544) == {"train.batch_size": 8}
  assert fitted(config_of(**{"train.batch_size": 4}), 10**6) == {}


def test_few_different_sessions_are_read_more_often(capsys):
  """In one batch: its loss is divided by the weight of the batch."""
  fields = {"data.repeats": "weight", "train.epochs": 8}
  found = fitted(config_of(**fields), 267)
  assert found == {"train.batch_size": 288, "train.batches_per_epoch": 30}
  lines = capsys.readouterr().out.splitlines()
  assert lines == [
    "train.fit_to_data: train.batch_size=288 (was 32): at most 288 different"
    " windows, for all in a batch",
    "train.fit_to_data: train.batches_per_epoch=30 (was none): for 240 steps in"
    " 8 epochs",
  ]
  assert fitted(config_of(**fields), 32 * 30) == {}
