"""Where a config changes: flags, and fields that depend on run, data, machine.

`train.fit_to_data`: a config made for a large set trains a small one for too
few steps, because an epoch has few batches. The rule gives small sets smaller
batches, more epochs and more dropout; a text that is read in streams also
another width, and noise in weights, symbols and targets. A large set has what
the config says. The learning rate stays: on a tenth of TREC, half of it for a
quarter of the batch lost accuracy. With `data.repeats=weight`, few different
documents are in one batch, and an epoch repeats it. The loss of a batch is
divided by its weight, so the documents of smaller batches would not count by
their numbers.

`train.adapt_to_length`: the fields of a recipe are for its data. With a small
text of the user's, a training may end before the first evaluation is due, the
learning rate be warm, or the first random parameters have left the average.
"""

import bisect
import copy
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from seqrnn import catalogue
from seqrnn.config import read as config_lib
from seqrnn.config.fields import conditions
from seqrnn.config.read import Config, flat, set_field
from seqrnn.config.rules import FITTED_FIELDS
from seqrnn.errors import UserError, counted

# Fields that `train.adapt_to_length` limits.
ADAPTED = "train.eval_every", "schedule.warmup_steps", "train.ema"
_BATCHES = 40  # The fewest batches of an epoch, if they have _ROWS or more.
_ROWS = 8
_STEPS = 1000  # The fewest steps of a training, in at most _EPOCHS.
_EPOCHS = 40
_DROPOUT = 0.05  # For each time that a window is read,
_MOST_DROPOUT = 0.5  # up to this.
# With `data.repeats=weight`:
_KINDS = 512  # The most different documents that are in one batch.
_LEAST_STEPS = 240  # Of a training.
# With `data.stateful`, by the symbols of the training split:
_LONG = 3_000_000  # Longer texts have what the config says.
_READ = 1.15e8  # This, divided by the symbols, is the square of the epochs.
_WIDE = 100_000, 16, 384  # From so many symbols on, rows and hidden size.
_SHARES = {  # From how many epochs on, the share of each, and the most.
  "model.dropout": (5, 0.02, 0.5),
  "model.weight_drop": (5, 0.01, 0.25),
  "model.symbol_dropout": (10, 0.002, 0.1),
  "train.label_smoothing": (5, 0.0006, 0.03),
}
# With `train.adapt_to_length`:
_WARMUP = 0.1  # The largest share of the steps.
_AVERAGED = 0.2  # The largest share that an average reaches back.


class Facts(NamedTuple):
  """Facts that a config depends on; None: not known yet, or not needed.

  Attributes:
    overrides: the values of the fields that flags set.
    by_user: the fields that flags or the config set.
    run: the fields that the run in the workdir has.
    cores: that this process may use.
    log_format: of the log of the training.
    parameters: a function config -> the number of parameters of its model.
    epoch: a function config -> the batches and the rows of a batch of an epoch.
  """

  overrides: dict[str, Any] = {}
  by_user: Collection[str] | None = None
  run: dict[str, Any] | None = None
  cores: int | None = None
  log_format: str | None = None
  parameters: Callable[[Config], int] | None = None
  epoch: Callable[[Config], tuple[int, int]] | None = None


def resolve(config: Config, facts: Facts) -> tuple[Config, list[str]]:
  """Fills in the fields that depend on facts.

  Returns:
    the config, and lines about the fields that the model or the data changed.

  Raises:
    UserError: a model of one unit has more than `model.parameters`.
  """
  config = copy.deepcopy(config)
  override(config, facts.overrides)
  if facts.by_user is not None:
    config.data.update(
      catalogue.needed_fields(
        config.data.source, facts.by_user, facts.overrides
      )
    )
  config_lib.expand(config)
  lines = []
  if facts.run is not None:
    _take_from_run(config, facts.run)
  if facts.cores is not None and config.train.cpu_devices is None:
    config.train.cpu_devices = _cpu_devices(config, facts.cores)
  if facts.log_format is not None:
    config.data.log_format = facts.log_format
  if facts.parameters is not None and config.model.parameters:
    lines += _fit_to_budget(config, facts.parameters)
  if facts.epoch is not None and config.train.fit_to_data:
    batches, rows = facts.epoch(config)  # At most a batch too many.
    lines += _fit_to_data(config, batches * rows)
  if facts.epoch is not None and config.train.adapt_to_length:
    lines += _adapt_to_length(config, facts.epoch(config)[0])
  return config, lines


def total_steps(config: Config, steps_per_epoch: int) -> int:
  """Returns the number of steps that the limits allow."""
  steps = config.train.epochs * steps_per_epoch
  return min(steps, config.train.max_steps or steps)


def fitted_names(config: Config | dict[str, Any]) -> list[str]:
  """Returns the names of the fields that the size of the data changes."""
  text = flat(config).get("train.fit_to_data") or ""
  names = [part.strip() for part in text.split(",")]
  return [name for name in FITTED_FIELDS if "all" in names or name in names]


def override(config: Config, overrides: dict[str, Any]):
  """Sets fields; hidden_size replaces the config's parameters.

  `train.fit_to_data` leaves these fields as they are.

  Raises:
    UserError: they set both.
  """
  for name, value in overrides.items():
    set_field(config, name, value)
  names = fitted_names(config)
  left = [name for name in names if name not in overrides]
  if left != names:
    config.train.fit_to_data = ",".join(left) or None
  model = config.model
  if "model.hidden_size" in overrides:
    if overrides.get("model.parameters") is not None:
      raise UserError(
        f"{config.model.hidden_size=}, {config.model.parameters=}: give one of"
        " the two"
      )
    model.parameters = None


def _cpu_devices(config: Config, cores: int) -> int:
  """Returns the number of CPU devices.

  The operations of small layers are too short to be split over cores. Two
  devices, each with half of the rows, are faster then; with large layers or few
  rows they are slower. The number affects rounding, so config.json keeps it.
  """
  model = config.model
  small = model.hidden_size <= 256
  if model.parameters:  # The hidden size is computed later, with JAX.
    small = model.parameters <= model.layers * 4 * 256**2
  return 2 if small and config.train.batch_size >= 16 and cores > 1 else 1


def _take_from_run(config: Config, run: dict[str, Any]):
  """Takes the fields that `resolve` has set for the run in the workdir."""
  fields = flat(config)
  wanted = config.model.parameters
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
  names += [name for name in config_lib.PLACES if same(fields[name], run[name])]
  for name in names:
    set_field(config, name, run[name])


def _fit_to_budget(
  config: Config, parameters: Callable[[Config], int]
) -> Iterator[str]:
  """Sets the largest hidden size that `model.parameters` allows."""
  model, budget = config.model, config.model.parameters

  def count(size: int) -> int:
    model.hidden_size = size
    return parameters(config)

  with_heads = model.cell in conditions.cells_with_heads()
  least = model.cell_heads if with_heads else 1
  # A unit has at least one parameter. A hidden size is a multiple of the heads,
  # and at most 2**24.
  sizes = range(least, min(budget, 2**24) + 1, least)
  size = least * bisect.bisect_right(sizes, budget, key=count)
  if not size:
    raise UserError(
      f"config.model.parameters={budget}: the smallest model, with"
      f" model.hidden_size={least}, has {count(least)}"
    )
  model.hidden_size = size
  yield f"model.parameters={budget}: model.hidden_size={size}"


def _fit_to_data(config: Config, windows: int) -> Iterator[str]:
  """Sets the fields that `train.fit_to_data` names, for this size of data."""
  names, before, changed = fitted_names(config), flat(config), []

  def put(name: str, value: float):
    if name in names and before[name] != value:
      changed.append(_changed(config, name, value))

  _fit(config, windows, put)
  if changed:
    why = f"at most {windows:,} windows; docs/howto/train.md has the rule"
    yield f"train.fit_to_data: {', '.join(changed)}: {why}"


def _fit(config: Config, windows: int, put: Callable[[str, float], None]):
  train = config.train
  epochs = train.epochs
  if config.data.repeats == "weight":
    if windows <= _KINDS:
      put("train.batch_size", max(windows, train.batch_size))
    needed = -(-_LEAST_STEPS // epochs)
    batches = -(-windows // train.batch_size)
    if batches < needed and train.samples_per_epoch is None:
      put("train.batches_per_epoch", needed)
    return
  if train.batches_per_epoch or train.samples_per_epoch:
    return  # With a part in an epoch, the size of the data is not known.
  if config.data.stateful:
    _fit_to_text(config, windows, put)
    return
  rows = 2 ** int(math.log2(max(windows / _BATCHES, _ROWS)))
  put("train.batch_size", min(rows, train.batch_size))
  batches = -(-windows // train.batch_size)
  put("train.epochs", max(min(-(-_STEPS // batches), _EPOCHS), epochs))
  if train.epochs > epochs:
    dropout = round(min(_DROPOUT * train.epochs, _MOST_DROPOUT), 2)
    put("model.dropout", max(dropout, config.model.dropout))


def _fit_to_text(
  config: Config, windows: int, put: Callable[[str, float], None]
):
  """`_fit` for a text that is read in streams."""
  train, model = config.train, config.model
  symbols = windows * config.data.window
  if symbols >= _LONG or config.task != "language_model":
    return
  least, rows, size = _WIDE
  wide = symbols >= least
  put("train.batch_size", min(rows if wide else _ROWS, train.batch_size))
  if wide and model.parameters is None:
    put("model.hidden_size", max(size, model.hidden_size))
  epochs = round((_READ / symbols) ** 0.5)
  put("train.epochs", max(epochs, train.epochs))
  batches = -(-windows // train.batch_size)
  epochs = -(-total_steps(config, batches) // batches)
  recurrent = conditions.cells_with_recurrent_kernel()
  for name, (first, share, most) in _SHARES.items():
    if name == "model.weight_drop" and model.cell not in recurrent:
      continue
    share = round(min(share * max(epochs - first, 0), most), 3)
    put(name, max(share, flat(config)[name]))


def _changed(config: Config, name: str, value: float) -> str:
  """Sets a field; returns its new value and the old one in words."""
  was = config_lib.text(flat(config)[name])
  set_field(config, name, value)
  return f"{name}={value} (was {was})"


def _adapt_to_length(config: Config, steps_per_epoch: int) -> Iterator[str]:
  """Limits evaluations, warm-up and averaging to a training of few steps."""
  total = total_steps(config, steps_per_epoch)
  reach = max(_AVERAGED * total, 2)  # An average reaches back 1 / (1 - ema).
  limits = steps_per_epoch, int(_WARMUP * total), round(1 - 1 / reach, 4)
  for name, limit in zip(ADAPTED, limits, strict=True):
    value = flat(config)[name]
    if value is not None and limit < value:
      line = _changed(config, name, limit)
      if limit < total:  # Else the end is evaluated, as without a limit.
        yield f"train.adapt_to_length: {line}: for {counted(total, 'step')}"
