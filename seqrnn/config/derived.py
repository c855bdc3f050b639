"""Configs that are made of another one: a function for each, by what it makes.

Each returns a copy. No other module changes a config: `merge` makes the one of
a command, resolve.py completes it once for a run, and the others are of modes
that need other data or settings than the training.
"""

from collections.abc import Collection, Mapping
from copy import deepcopy

from seqrnn import catalogue
from seqrnn.config import read as config_lib
from seqrnn.config.field import Fields, FieldValue
from seqrnn.config.read import Config, flat, set_field
from seqrnn.config.resolve import ADAPTED, fitted_names
from seqrnn.errors import UserError


def copy(config: Config, fields: Mapping[str, FieldValue] = {}) -> Config:
  """Returns a copy with other values of fields, by their dotted names."""
  config = deepcopy(config)
  for name, value in fields.items():
    set_field(config, name, value)
  return config


def merge(
  config: Config,
  overrides: Mapping[str, FieldValue] = {},
  by_user: Collection[str] | None = None,
  run: Fields | None = None,
  cores: int | None = None,
) -> Config:
  """The config of a command: a base, flags, a run in the workdir, a machine.

  Args:
    config: the base.
    overrides: the values of the fields that flags set.
    by_user: the fields that flags or the config set; None: a public data set
      changes no fields.
    run: the fields of the run in the workdir; None: it has none.
    cores: that this process may use; None: `train.cpu_devices` stays as it is.

  Raises:
    UserError: the flags set the hidden size and the number of parameters.
  """
  config = override(config, overrides)
  if by_user is not None:
    source = config.data.source
    config.data.update(catalogue.needed_fields(source, by_user, overrides))
  config_lib.expand(config)
  if run is not None:
    config = copy(config, {name: run[name] for name in _taken(config, run)})
  if cores is not None and config.train.cpu_devices is None:
    config.train.cpu_devices = _cpu_devices(config, cores)
  return config


def override(config: Config, overrides: Fields) -> Config:
  """The config with other fields; hidden_size replaces the parameters.

  `train.fit_to_data` leaves these fields as they are.

  Raises:
    UserError: they set both.
  """
  config = copy(config, overrides)
  names = fitted_names(config)
  left = [name for name in names if name not in overrides]
  if left != names:
    config.train.fit_to_data = ",".join(left) or None
  if "model.hidden_size" in overrides:
    if overrides.get("model.parameters") is not None:
      raise UserError(
        f"{config.model.hidden_size=}, {config.model.parameters=}: give one of"
        " the two"
      )
    config.model.parameters = None
  return config


def _taken(config: Config, run: Fields) -> list[str]:
  """The fields that `resolve` has set for a run, and that stay in it."""
  fields, wanted = flat(config), config.model.parameters
  names = [name for name in fitted_names(config) if name in fitted_names(run)]
  names += [name for name in config_lib.CPU if fields[name] is None]
  if wanted is not None and wanted == run.get("model.parameters"):
    names.append("model.hidden_size")
  if config.data.log_format == "auto" and run.get("data.log_format"):
    names.append("data.log_format")
  if config.train.adapt_to_length and run.get("train.adapt_to_length"):
    for name in ADAPTED:
      if None not in (fields[name], run[name]) and run[name] < fields[name]:
        names.append(name)
  same = config_lib.same_path
  return names + [x for x in config_lib.PLACES if same(fields[x], run[x])]


def _cpu_devices(config: Config, cores: int) -> int:
  """The number of CPU devices.

  The operations of small layers are too short to be split over cores. Two
  devices, each with half of the rows, are faster then; with large layers or few
  rows they are slower. The number affects rounding, so config.json keeps it.
  """
  model = config.model
  small = model.hidden_size <= 256
  if model.parameters:  # The hidden size is computed later, with JAX.
    small = model.parameters <= model.layers * 4 * 256**2
  return 2 if small and config.train.batch_size >= 16 and cores > 1 else 1


def checked(config: Config, fields: Fields) -> Config:
  """The config with settings of a user or of a file, which are checked.

  Raises:
    UserError: a field does not exist, or a value breaks a rule.
  """
  config = copy(config)
  for name, value in fields.items():
    config_lib.override(config, name, value)
  config_lib.expand(config)
  config_lib.check(config)
  return config


def on_devices(config: Config, count: int) -> Config:
  """The config with the number of CPU devices that JAX has started with."""
  return copy(config, {"train.cpu_devices": count})


def refreshed(config: Config, log: str, start: str | None) -> Config:
  """The config of the next model of a run, of another log.

  Args:
    config: of the run.
    log: the lines that it learns, all of them.
    start: the run whose parameters are its first; None: random ones.
  """
  paths = [f"data.{name}_path" for name in ("train", "validation", "test")]
  paths += ["detect.anomalous_path", "detect.labels", "detect.refresh"]
  fields = dict.fromkeys((*paths, "checkpoint.step", "detect.path"))
  fields |= {"data.path": log, "data.test_fraction": 0.0, "detect.inject": 0.0}
  return copy(config, fields | {"train.start_from": start})


def for_detection(run: Config, config: Config) -> Config:
  """The config of a run with all fields of `detect` of another config."""
  names = [name for name in flat(config) if name.startswith("detect.")]
  return copy(run, {name: flat(config)[name] for name in names})


def refit(config: Config, steps: int) -> Config:
  """The config of a training on training and validation texts."""
  fields = {"train.choice": "all", "train.refit": False}
  limits = {"train.max_steps": steps, "train.eval_every": steps}
  others = dict.fromkeys(
    ("train.fit_to_data", "train.patience", "checkpoint.step")
  )
  return copy(config, fields | limits | others)


def one_direction(config: Config) -> Config:
  """The config of the forward tower of a gap model, a language model."""
  return copy(config, {"model.bidirectional": False})


def plain_text(data: Config) -> Config:
  """The fields of `data` for texts without labels, one a line."""
  return copy(data, {"format": "text"})


def speller(model: Config) -> Config:
  """The fields of `model` for the layer that reads the letters of a word."""
  width = {"hidden_size": model.letters, "embedding_size": model.letters}
  return copy(model, width | {"layers": 1})


def streams(config: Config, segment: int, rows: int) -> Config:
  """The config with data that are read as streams, in segments."""
  fields = {"data.stateful": True, "data.window": segment, "data.offset": 0}
  fields |= {"data.random_offset": False, "data.repeats": "each"}
  whole = "train.batches_per_epoch", "train.samples_per_epoch"
  empty = dict.fromkeys(("data.step", "data.buckets", *whole))
  return copy(config, fields | empty | {"train.batch_size": rows})


def one_window(config: Config, longest: int, buckets: int) -> Config:
  """The config with one window per session, whatever window training used.

  The carry then runs from the begin to the end of a session. Only a session of
  more than `longest` symbols, and than a window of training, has several.
  """
  config = copy(config, {"data.repeats": "each"})  # They are distinct already.
  data = config.data
  if data.mapping == "many_to_many":
    data.stateful, data.buckets = False, buckets
    data.window = max(data.window, longest)
  return config


def portable(config: Config, recorded: Fields, step: int) -> Config:
  """The config of an export: no setting of this machine, paths as typed."""
  places = {name: recorded.get(name) for name in config_lib.PLACES}
  machine = dict.fromkeys(config_lib.CPU)
  return copy(config, places | machine | {"checkpoint.step": step})


def trial(config: Config, fields: Fields) -> Config:
  """The config of a trial of a search, with the fields that were chosen.

  Raises:
    UserError: they set both `hidden_size` and `parameters` of the model.
  """
  config = override(config, fields)
  config.search.space, config.search.storage = (), None  # It searches nothing.
  config.train.refit = False  # The loss of validation is to be compared.
  config_lib.expand(config)
  return config
