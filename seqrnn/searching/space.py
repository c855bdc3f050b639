"""The search space: fields of a config and their distributions."""

import copy
import re
from contextlib import suppress
from typing import Any, NoReturn

from optuna.distributions import (
  CategoricalDistribution,
  FloatDistribution,
  IntDistribution,
)

from seqrnn.errors import UserError
from seqrnn.settings import config as config_lib
from seqrnn.settings import recipes
from seqrnn.settings.config import FIELDS, Config

# Name of a field -> Optuna's distribution; under _REST + name the distribution
# of 1 - the field.
Space = dict[str, Any]
_REST = "1 - "
LEARNING_RATE = "optimizer.learning_rate"
_FORMS = (
  "must be log_uniform(low, high), uniform(low, high), integer(low, high),"
  " one_minus_log_uniform(low, high), choice(a, b, ...) or grid(a, b, ...)"
)


def parse(config: Config) -> Space:
  """The search space that `config.search.space` describes.

  Raises:
    UserError: a text has none of the forms, a value breaks its field's rule,
      or the method cannot use the form.
  """
  space, names, method = {}, set(), config.search.method
  for given in config.search.space:
    name, _, text = (part.strip() for part in given.partition("="))
    where = f"config.search.space={given!r}"
    if name in names:
      raise UserError(f"{where}: {name} stands in the space twice")
    names.add(name)
    distribution = _parse(config, name, text, where)
    rest = _REST if text.startswith("one_minus") else ""
    space[rest + name] = distribution
    if method == "grid" and not isinstance(
      distribution, CategoricalDistribution
    ):
      raise UserError(f"{where}: search.method='grid' needs grid(a, b, ...)")
    if method == "coarse" and name != LEARNING_RATE:
      raise UserError(
        f"{where}: search.method='coarse' searches {LEARNING_RATE} alone"
      )
  if not space and method != "coarse":
    raise UserError(
      "config.search.space: is empty; name what to search, as in"
      f" --config.search.space='{LEARNING_RATE}=log_uniform(1e-4, 1e-1)'"
    )
  if method == "coarse":
    space = {LEARNING_RATE: FloatDistribution(1e-8, 3.0, log=True)}
  return space


def _parse(config: Config, name: str, text: str, where: str) -> Any:
  def refuse(rule: str) -> NoReturn:
    raise UserError(f"{where}: {rule}")

  if name not in FIELDS or not name.startswith(config_lib.TRAINING):
    refuse(recipes.no_such_field(name))
  if name in config_lib.CPU:
    refuse("must be none: a process has one value for all its trials")
  match = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", text, re.DOTALL)
  kinds = {
    "uniform": [float],
    "integer": [int],
    "log_uniform": [int, float],
    "one_minus_log_uniform": [float],
  }
  if not match or match[1] not in (*kinds, "choice", "grid"):
    refuse(_FORMS)
  form = match[1]
  trial = copy.deepcopy(config)
  values = []
  if not match[2].strip():
    refuse(f"{form}() has no values; {_FORMS}")
  parts = match[2].split(",")
  if form in kinds:
    with suppress(ValueError):  # Not numbers: the field's rule says more.
      bounds = [float(part) for part in parts]
      if len(bounds) != 2 or bounds[0] >= bounds[1]:
        refuse(f"must be {form}(low, high), low below high")
  for part in parts:
    try:
      config_lib.override(trial, name, part.strip())
    except UserError as error:
      refuse(f"of which {error}")
    value = config_lib.flat(trial)[name]
    values.append(value)
    if form == "one_minus_log_uniform" and isinstance(value, int | float):
      value = 1 - value
    rule = config_lib.broken(name, value)
    if rule is not None:
      refuse(f"of which {value!r} {rule}")
  if form in ("choice", "grid"):
    return CategoricalDistribution(values)
  group, key = config_lib.locate(config, name)
  kind = group.get_type(key)
  if kind not in kinds[form]:
    others = "choice(a, b, ...) or grid(a, b, ...)"
    other = {int: "integer(low, high)", float: "uniform(low, high)"}.get(kind)
    refuse(f"the field has {other or others}")
  if len(values) != 2 or None in values or not values[0] < values[1]:
    refuse(f"must be {form}(low, high), low below high")
  log = form.endswith("log_uniform")
  if log and values[0] <= 0:
    refuse("low must be above 0")
  if kind is int:
    return IntDistribution(*values, log=log)
  return FloatDistribution(*values, log=log)


def trial_config(config: Config, values: dict[str, Any]) -> Config:
  """The config of a trial."""
  config = copy.deepcopy(config)
  model, search = config.model, config.search
  if "model.hidden_size" in values:
    model.parameters = None  # model.hidden_size replaces it.
  for name, value in values.items():
    if name.startswith(_REST):
      name, value = name.removeprefix(_REST), 1 - value
    group, key = config_lib.locate(config, name)
    group[key] = value
  if search.method == "coarse" and not model.tied:
    model.parameters = None
    model.hidden_size = min(model.hidden_size, search.coarse_size)
  search.space = ()  # A trial searches nothing.
  search.storage = search.workers = None
  config_lib.expand(config)
  return config
