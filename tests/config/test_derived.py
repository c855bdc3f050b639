"""Configs made of another one: a copy each, the other one stays as it is."""

from seqrnn.config import combinations, derived
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from tests.conftest import message_of


def test_a_config_that_is_made_of_another_leaves_it_as_it_is():
  config = base.get_config()
  before = config_lib.flat(config)
  run, fields = before | {"train.cpu_devices": 2}, {"model.hidden_size": 3}
  for make, *arguments in (
    (derived.merge, fields, None, run, 2),
    (derived.checked, {"sample.length": 4}),
    (derived.streams, 6, 2),
    (derived.one_window, 99, 8),
    (derived.on_devices, 4),
    (derived.portable, {"data.path": "x"}, 7),
    (derived.trial, fields),
  ):
    assert config_lib.changes(config, make(config, *arguments)), make
  assert config_lib.flat(config) == before


def test_a_conflict_names_both_fields_their_values_and_the_rule():
  config = base.get_config()
  combinations.check_combinations(config)
  config.data.stateful, config.data.buckets = True, 3
  assert message_of(combinations.check_combinations, config) == (
    "config.data.stateful=True, config.data.buckets=3: streams have no padding,"
    " which buckets reduce"
  )
  known = [function.__name__ for function in combinations.RULES]
  rules = [
    name
    for name, value in vars(combinations).items()
    if getattr(value, "__module__", "") == combinations.__name__
    and list(getattr(value, "__annotations__", ())) == ["c"]
  ]
  assert sorted(known) == sorted(rules)  # No rule is left out.
