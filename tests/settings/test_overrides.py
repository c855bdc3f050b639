"""Flags that set fields, as users type them, and messages about them."""

import os

import pytest

from seqrnn.errors import UserError
from seqrnn.settings.overrides import Override, as_typed, refuse_unknown, split

FLAGS = ["config", "workdir", "mode", "debug"]


@pytest.mark.parametrize(
  ("typed", "field", "value"),
  [
    ("--config.model.hidden_size=3", "model.hidden_size", "3"),
    ("--model.hidden_size=3", "model.hidden_size", "3"),
    ("--hidden_size=3", "model.hidden_size", "3"),
    ("-hidden_size=3", "model.hidden_size", "3"),
    ("--hidden-size 3", "model.hidden_size", "3"),
    ("--config.hidden_size -3", "model.hidden_size", "-3"),
    ("--hidden_size=", "model.hidden_size", ""),
    ("--hidden_size==a=b", "model.hidden_size", "=a=b"),
    ("--stateful", "data.stateful", True),
    ("--nostateful", "data.stateful", False),
    ("--noconfig.data.stateful", "data.stateful", False),
    ("--nodata.stateful", "data.stateful", False),
    ("--normal_labels=x", "detect.normal_labels", "x"),
    ("--seed=3", "seed", "3"),  # Not that of a group.
    ("--task=x", "task", "x"),
    ("--search.space.model.dropout=x", "search.space.model.dropout", "x"),
    ("--name=adam", None, "adam"),  # Several groups have it.
    ("--lr=3", None, "3"),
    ("--x", None, True),
    ("--config.=3", None, "3"),
    ("--model.=3", None, "3"),
    ("--\u00fc=3", None, "3"),
  ],
)
def test_a_flag_sets_a_field(typed, field, value):
  before, after = ["--config", "x", "--nodebug"], ["--mode=hidden_size=3"]
  found, rest = split([*before, *typed.split(), *after], FLAGS)
  assert rest == [*before, *after]
  assert found == [Override(typed.partition("=")[0].split()[0], field, value)]


@pytest.mark.parametrize(
  "argument",
  ["--help", "-h", "--help=model", "--", "---x", "-", "", "x=3", "-3"],
)
def test_other_arguments_are_left(argument):
  assert split([argument], FLAGS) == ([], [argument])


@pytest.mark.parametrize(
  ("typed", "expected"),
  [
    (
      "--lr=3",
      "no such flag; did you mean --config.optimizer.learning_rate=3?",
    ),
    ("--lr", "no such flag; did you mean --config.optimizer.learning_rate?"),
    (
      "--config.train.lr=3",
      "no such flag; did you mean --config.optimizer.learning_rate=3?",
    ),
    (
      "--name=adam",
      "several groups have this field; did you mean"
      " --config.optimizer.name=adam or --config.schedule.name=adam?",
    ),
    ("--workdri=x", "no such flag; did you mean --workdir=x?"),
    ("--Mode=x", "no such flag; did you mean --mode=x?"),
    ("--mdoe=x", "no such flag; did you mean --mode=x?"),
    (
      "--model=lstm",
      "is a group of fields, which --help=model lists; a flag sets one field,"
      " such as --config.model.cell",
    ),
    ("--zzz=1", "no such flag"),
  ],
)
def test_an_unknown_flag_is_named_as_typed(typed, expected):
  overrides, _ = split(["--seed=3", typed], FLAGS)
  with pytest.raises(UserError) as caught:
    refuse_unknown(overrides, FLAGS)
  assert str(caught.value) == f"{typed}: {expected}"


@pytest.mark.parametrize(
  ("typed", "message", "expected"),
  [
    ("--seed=-1", "config.seed=-1: must", "--seed=-1: must"),
    ("--seed=x", "config.seed='x': must", "--seed=x: must"),
    ("--seed=1e3", "config.seed=1000: must", "--seed=1e3: must"),
    ("--seed", "config.seed: needs", "--seed: needs"),
    (
      "--model.cell=GRU",
      "x with model.cell='gru': y",
      "x with --model.cell=GRU: y",
    ),
    (
      "--stateful",
      "config.data.stateful=True, config.data.step=3: no",
      "--stateful, config.data.step=3: no",
    ),
    (
      "--detect.state=~/x",
      f"config.detect.state={os.path.expanduser('~/x')!r}: no",
      "--detect.state=~/x: no",
    ),
    ("--data.path=a\\1", "data.path='a\\\\1': no", "--data.path=a\\1: no"),
    # Another value or field, or a rule that names the field.
    ("--seed=1", "config.seed=12: must", "config.seed=12: must"),
    ("--seed=1", "sample.seed=1: must", "sample.seed=1: must"),
    (
      "--seed=1",
      "w: other settings, seed: 0 -> 1",
      "w: other settings, seed: 0 -> 1",
    ),
    (
      "--dropout=.1",
      "search.space.model.dropout=0.1: x",
      "search.space.model.dropout=0.1: x",
    ),
  ],
)
def test_a_message_names_a_flag_as_typed(typed, message, expected):
  overrides, _ = split([typed], FLAGS)
  assert as_typed(message, overrides) == expected


def test_the_last_flag_of_a_name_is_the_one_that_a_message_has():
  overrides, _ = split(["--seed=3", "--seed"], FLAGS)
  found = as_typed("config.seed: needs a value", overrides)
  assert found == "--seed: needs a value"
