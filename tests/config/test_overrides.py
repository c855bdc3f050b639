"""Flags that set fields, and messages about flags that do not exist."""

import pytest

from seqrnn import program
from seqrnn.config import overrides
from seqrnn.errors import UserError


def values(*flags):
  """The fields that a command line sets."""
  parsed = program.define()
  program.parse(parsed, ["run.py", *flags])
  return overrides.from_flags(parsed)


def test_a_flag_sets_a_field():
  cases = {
    "--config.model.hidden_size=3": {"model.hidden_size": 3},
    "--config.model.hidden_size 3": {"model.hidden_size": 3},
    "-config.train.max_steps=1e3": {"train.max_steps": 1000},
    "--config.train.max_steps=none": {"train.max_steps": None},
    "--config.optimizer.learning_rate -3": {"optimizer.learning_rate": -3.0},
    "--config.data.path=": {"data.path": ""},
    "--config.data.path==a=b": {"data.path": "=a=b"},
    "--config.data.stateful": {"data.stateful": True},
    "--noconfig.data.stateful": {"data.stateful": False},
    "--config.seed=3 --config.seed=4": {"seed": 4},
    "--config.model.merge=SUM": {"model.merge": "sum"},
    "--config.sample.temperature=.5,1": {"sample.temperature": (0.5, 1.0)},
    "--config.search.space=a=1 --config.search.space=b=2": {
      "search.space": ("a=1", "b=2")
    },
  }
  before, after = ["--config", "x", "--nodebug"], ["--mode=train"]
  faults = [
    (typed, result)
    for typed, expected in cases.items()
    if (result := values(*before, *typed.split(), *after)) != expected
  ]
  assert not faults


def test_a_wrong_flag_is_refused_in_a_line(capfd):
  cases = {
    "--config.lr=3": "--config.lr: no such flag; did you mean"
    " --config.optimizer.learning_rate?",
    "--hidden_size=3": "--hidden_size: no such flag; did you mean"
    " --config.model.hidden_size?",
    "--config.name=adam": "--config.name: no such flag; did you mean"
    " --config.optimizer.name or --config.schedule.name?",
    "--workdri=x": "--workdri: no such flag; did you mean --workdir?",
    "--Mode=x": "--Mode: no such flag; did you mean --mode?",
    "--model=lstm": "--model: is a group of fields, which --help=model lists; a"
    " flag sets one field, such as --config.model.cell",
    "--zzz=1": "--zzz: no such flag",
    "--noconfig.data.stateful=3": "--noconfig.data.stateful=3 does not take an"
    " argument",
    "--config.seed=x": "--config.seed=x: must be a whole number",
    "--config.train.max_steps=x": "--config.train.max_steps=x: must be a whole"
    " number, or none",
  }
  faults = []
  for typed, expected in cases.items():
    assert program.main(["run.py", typed]) == 2
    if (line := capfd.readouterr().err) != f"error: {expected}\n":
      faults.append((typed, line))
  assert not faults


def test_a_hint_is_only_given_for_a_near_name():
  with pytest.raises(UserError, match="^--config.x: no such flag$"):
    overrides.refuse_unknown("config.x", ["mode"])
