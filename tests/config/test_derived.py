"""Configs made of another one: a copy each, the other one stays as it is."""

from seqrnn.config import combinations, derived
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from tests.conftest import message_of


def test_a_config_that_is_made_of_another_leaves_it_as_it_is():
  config = base.get_config()
  config.train.batches_per_epoch = 5
  before = config_lib.flat(config)
  run = config_lib.flat(base.get_config()) | {"train.cpu_devices": 2}
  fields = {"model.hidden_size": 3}
  made = {
    "merge": (derived.merge(config, fields, None, run, 2), 2),
    "checked": (derived.checked(config, {"sample.length": 4}), 1),
    "streams": (derived.streams(config, 6, 2), 4),
    "one_window": (derived.one_window(config, 99, 8), 2),
    "one_direction": (derived.one_direction(config), 0),
    "on_devices": (derived.on_devices(config, 4), 1),
    "portable": (derived.portable(config, {"data.path": "x"}, 7), 2),
    "trial": (derived.trial(config, fields), 1),
  }
  assert config_lib.flat(config) == before
  for name, (new, count) in made.items():
    assert len(config_lib.changes(config, new)) == count, name
  config.model.letters = 8
  assert derived.speller(config.model).hidden_size == 8
  assert derived.plain_text(config.data).format == "text"
  assert config.model.hidden_size == before["model.hidden_size"]


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
