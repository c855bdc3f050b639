"""Configs: what files and flags may say, and what they then mean."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs import base
from seqrnn.config import command
from seqrnn.config import read as config_lib
from seqrnn.errors import UserError


@pytest.fixture
def config():
  return base.get_config()


def override(config, name, given):
  config_lib.override(config, name, given)
  return config_lib.flat(config)[name]


@pytest.mark.parametrize(
  "name, text, value",
  [
    ("train.epochs", "12", 12),
    ("train.epochs", "1e5", 100_000),
    ("model.forget_bias", "1", 1.0),
    ("optimizer.learning_rate", "2e-3", 0.002),
    ("data.stateful", "True", True),
    ("data.boundaries", "0", False),
    ("sample.temperature", "0.5", (0.5,)),
    ("sample.temperature", "(0.2, 1,)", (0.2, 1.0)),
    ("sample.temperature", "[1,2]", (1.0, 2.0)),
    ("train.max_steps", "none", None),
    ("train.max_steps", "1e3", 1000),
    ("data.path", "None", None),
    ("model.initial_scale", "0.5", 0.5),
    ("sample.prime", "none", "none"),  # It is not optional: a text.
    ("sample.prime", "", ""),
  ],
)
def test_a_flag_has_the_type_of_its_field(config, name, text, value):
  found = override(config, name, text)
  assert (found, type(found)) == (value, type(value))


def test_none_empties_a_field_that_a_config_filled(config):
  config.train.max_steps = 3
  assert override(config, "train.max_steps", "none") is None
  assert override(config, "train.max_steps", "4") == 4


def test_a_name_is_found_in_its_group_and_a_near_one_proposed(config):
  group, key = config_lib.locate(config, "model.cell")
  assert group[key] == "lstm"
  assert config_lib.locate(config, "seed")[0] is config
  for wrong, hint in (
    ("hidden_size", "model.hidden_size"),
    ("modle.hidden_size", "model.hidden_size"),
    ("model.hidden", "model.hidden_size"),
    ("sample.temprature", "sample.temperature"),
    ("Seed", "seed"),
  ):
    with pytest.raises(UserError, match=f"did you mean {hint}\\?$"):
      config_lib.locate(config, wrong)
  for wrong in ("seed.x", "model.cell.x", "model.", "", "zzz"):
    with pytest.raises(UserError, match="no such field"):
      config_lib.locate(config, wrong)


def test_a_config_survives_its_file(config, tmp_path):
  config.sample.temperature = (0.2, 1.0)
  config.data.path = "/corpora/älter.txt"
  config.train.max_steps = 7
  config.optimizer.learning_rate = 0.1 + 0.2
  config_lib.save(config, tmp_path / "config.json")
  found = config_lib.read(tmp_path / "config.json")
  assert config_lib.flat(found) == config_lib.flat(config)
  assert config_lib.differences(config, found) == []
  # And it is still a config that flags may change.
  assert override(found, "train.max_steps", "none") is None
  assert override(found, "checkpoint.step", "8") == 8
  assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_file_may_hold_some_fields_only(config, tmp_path):
  path = tmp_path / "some.json"
  fields = {"model": {"forget_bias": 2, "cell": "gru"}, "sample": {}}
  fields["sample"]["temperature"] = [1, 0.5]
  path.write_text(json.dumps(fields))
  found = config_lib.read(path)
  assert config_lib.changes(config, found) == {
    "model.cell": ("lstm", "gru"),
    "model.forget_bias": (1.0, 2.0),
    "sample.temperature": ((1.0,), (1.0, 0.5)),
  }
  assert isinstance(found.model.forget_bias, float)
  assert config.model.cell == "lstm"  # What was given is left as it was.
  own = "import ml_collections\n\ndef get_config():\n  return "
  path = tmp_path / "own.py"
  path.write_text(f"{own}ml_collections.ConfigDict({{'seed': 3}})\n")
  assert config_lib.changes(config, config_lib.read(path)) == {"seed": (0, 3)}


@pytest.mark.parametrize("number", [None, 0, 2, True, 1.0, "1", "missing"])
def test_a_run_of_another_format_is_refused(config, tmp_path, number):
  path = tmp_path / "config.json"
  config_lib.save(config, path)
  assert config_lib.read_run(tmp_path) == config
  fields = json.loads(path.read_text()) | {"format": number}
  if number == "missing":
    del fields["format"]
    number = None
  path.write_text(json.dumps(fields))
  assert config_lib.read(path) == config  # A config of the user.
  with pytest.raises(UserError) as caught:
    config_lib.read_run(tmp_path)
  assert str(caught.value) == (
    f"{path}: format={number!r}: must be 1; another version of seqrnn wrote it,"
    " so train again in another --workdir"
  )


@pytest.mark.parametrize(
  "text",
  ['{"seed": true}', '{"seed": 1.0}', '{"model": {"tied": 1}}']
  + ['{"task": null}', '{"sample": {"temperature": 1}}']
  + ['{"model": {"dropout": "0"}}', '{"model": {"dropout": %s}}' % (10**400)]
  + ['{"seed": 1}{', "[" * 100_000, '{"zzz": 1}', '{"seed": {"zzz": 1}}'],
)
def test_a_file_that_is_wrong_is_named(tmp_path, text):
  path = tmp_path / "wrong.json"
  path.write_text(text)
  with pytest.raises(UserError) as caught:
    config_lib.read(path)
  assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("file", ["__init__.py", "base.py"])
def test_a_package_of_the_users_with_the_same_name_may_be_first(tmp_path, file):
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / file).write_text("")
  code = "from seqrnn.config import read; print(read.defaults().data.window)"
  root = Path(config_lib.__file__).parents[2]
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(root)},
    capture_output=True,
    text=True,
  )
  assert (done.stdout, done.stderr) == ("64\n", "")


def test_the_defaults_keep_all_rules(config):
  config_lib.check(config)


def test_every_field_has_a_rule(config):
  assert set(config_lib.RULES) == set(config_lib.flat(config))


@pytest.mark.parametrize("name", config_lib.RULES)
def test_a_rule_holds_without_the_types_of_the_base(config, name):
  """As where a value comes from a search, which has no types."""
  holds = config_lib.RULES[name].holds
  value = config_lib.flat(config)[name]
  group, key = config_lib.locate(config, name)
  kinds = (str, bool, int, float, tuple)
  others = {str: 1, bool: 1, int: 1.0, float: "1", tuple: 1.0}
  assert not holds(others[group.get_type(key)])
  assert not any(holds(kind) for kind in kinds)
  assert not holds([]) and not holds({}) and not holds(("a",))
  assert holds(value)
  assert holds(None) == (value is None)


ANY = {str: "any", bool: True, float: -1.0}  # What some fields may hold.


@pytest.mark.parametrize("name", config_lib.RULES)
def test_every_rule_refuses_something(config, name):
  holds, rule = config_lib.RULES[name].holds, config_lib.RULES[name].words
  group, key = config_lib.locate(config, name)
  kind = group.get_type(key)
  if kind in ANY and holds(ANY[kind]) and name != "predict.gap":
    return
  wrong = {str: "", tuple: (), int: -1, float: -1.0}
  value = ("x",) if name == "search.space" else wrong[kind]
  assert not holds(value)
  group[key] = value
  with pytest.raises(UserError) as caught:
    config_lib.check(config)
  rule += config_lib.RULES[name].fault(value)
  assert str(caught.value).endswith(f": {rule}")
  assert str(caught.value).startswith(f"config.{name}=")


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e39, 3.4028236e38])
def test_numbers_are_finite(config, value):
  for name in ("model.forget_bias", "optimizer.clip_norm"):
    group, key = config_lib.locate(config, name)
    group[key] = value
    with pytest.raises(UserError, match=": must be a finite"):
      config_lib.check(config)
    group[key] = 1.0
  config.sample.temperature = (1.0, value)
  with pytest.raises(UserError, match="config.sample.temperature="):
    config_lib.check(config)


@pytest.mark.parametrize(
  ("name", "value", "near"),
  [
    ("optimizer.learning_rate", 1e-320, 0.0),
    ("optimizer.epsilon", 1e-39, 0.0),  # XLA takes subnormal numbers as 0.
    ("optimizer.clip_norm", 1e-40, 0.0),
    ("model.dropout", 0.9999999999999999, 1.0),
    ("model.initial_scale", 1e-50, 0.0),
    ("train.ema", 1 - 1e-8, 1.0),
    ("sample.top_p", 1e-39, 0.0),
    ("detect.rate", 1e-50, 0.0),
  ],
)
def test_a_rule_holds_in_32_bits_too(config, name, value, near):
  group, key = config_lib.locate(config, name)
  group[key] = value
  with pytest.raises(UserError) as caught:
    config_lib.check(config)
  rule = config_lib.RULES[name].words
  assert str(caught.value) == (
    f"config.{name}={value!r}: {rule}; in 32 bits it is {near}"
  )
  group[key] = 0.5
  config_lib.check(config)


def test_a_temperature_divides_logits_that_stay_finite(config):
  config.sample.temperature = (0.0, 1e-30)
  config_lib.check(config)
  for low in (1e-31, 1e-39, 1e-320):
    config.sample.temperature = (1.0, low)
    with pytest.raises(UserError, match="each 0 or at least 1e-30"):
      config_lib.check(config)
  config.sample.temperature = (1.0,)
  config.optimizer.update(name="sgd", nesterov=True, momentum=1e-40)
  with pytest.raises(UserError, match="must be above 0"):
    config_lib.check(config)


def test_differences_are_told_by_name_within_the_prefixes_asked_for(config):
  other = base.get_config()
  other.model.cell = "gru"
  other.train.batch_size = 3
  other.train.max_steps = 9
  assert config_lib.differences(config, other) == [
    "model.cell: 'lstm' -> 'gru'",
    "train.batch_size: 64 -> 3",
    "train.max_steps: None -> 9",
  ]
  found = config_lib.changes(config, other, config_lib.IDENTITY)
  assert list(found) == ["model.cell", "train.batch_size"]
  assert list(config_lib.changes(config, other, config_lib.SHAPE)) == [
    "model.cell"
  ]


def test_what_shapes_a_model_is_part_of_its_identity(config):
  for names in (config_lib.IDENTITY, config_lib.SHAPE, command.NAMING):
    for name in names:
      assert any(field.startswith(name) for field in config_lib.flat(config))
  for field in config_lib.flat(config):
    shapes = field.startswith(config_lib.SHAPE)
    assert not shapes or field.startswith(config_lib.IDENTITY), field
