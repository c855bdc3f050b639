"""Completes the config of a run by its model and data, once, before training.

`train.fit_to_data`: a config made for a large set trains a small one for too
few steps, because an epoch has few batches. Small sets have smaller batches,
more epochs and more dropout; a text that is read in streams also another width,
and noise in weights, symbols and targets. A large set has what the config says.
With `data.repeats=weight`, few different documents are in one batch, and an
epoch repeats it; the loss of a batch is divided by its weight, so the documents
of smaller batches would not count by their numbers. Where hardly any documents
are equal, smaller batches train as well, for less.

The constants were fitted; docs/howto/train.md has the losses beside those of
other values.

  constants               found by
  _BATCHES to _DROPOUT    validation accuracy on a tenth of TREC and two more
                          sets; half of the learning rate for a quarter of the
                          batch lost accuracy on TREC, so the rate stays
  _KINDS, _LEAST_STEPS    configs/sessions.py and detect.py, on logs with few
                          distinct sessions
  _READ, _WIDE, _NOISE    validation loss of War and Peace, cut to the first
                          four lengths below:

  symbols      epochs  rows  units  dropout  weights  symbols  smoothing
     50,000        48     8    288     0.5      0.25    0.076      0.026
    200,000        24    16    384     0.38     0.19    0.028      0.011
    600,000        14    16    384     0.18     0.09    0.008      0.005
  1,000,000        11    16    384     0.12     0.06    0.002      0.004
  2,000,000         8    16    384     0.06     0.03    0          0.002

`train.adapt_to_length`: the fields of a recipe are for its data. With a small
text of the user's, a training may end before the first evaluation is due, the
learning rate be warm, or the first random parameters have left the average.
"""

import bisect
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import NamedTuple

from seqrnn.config import read as config_lib
from seqrnn.config.field import Fields, FieldValue
from seqrnn.config.fields import conditions
from seqrnn.config.read import Config, flat, set_field
from seqrnn.config.rules import FITTED_FIELDS
from seqrnn.errors import UserError, counted

Size = Callable[[Config], int]  # The parameters of the model of a config.
# Batches, rows of each, and the documents that they stand for.
EpochSize = Callable[[Config], tuple[int, int, int]]
Put = Callable[[str, FieldValue], None]  # Sets a field by its name.

# Fields that `train.adapt_to_length` limits.
ADAPTED = "train.eval_every", "schedule.warmup_steps", "train.ema"
_BATCHES = 40  # The fewest batches of an epoch, if they have _ROWS or more.
_ROWS = 8
_STEPS = 1000  # The fewest steps of a training, in at most _EPOCHS.
_EPOCHS = 40
# With `data.repeats=weight`:
_KINDS = 512  # The most different documents that are in one batch.
_ALIKE = 1.25  # Documents a window, below which they count alike.
_LEAST_STEPS = 240  # Of a training.
# With `data.stateful`, by the symbols of the training split:
_LONG = 3_000_000  # Longer texts have what the config says.
_READ = 1.15e8  # This, divided by the symbols, is the square of the epochs.
_WIDE = 100_000, 16, 384  # From so many symbols on, rows and hidden size.
# With `train.adapt_to_length`:
_WARMUP = 0.1  # The largest share of the steps.
_SHOWN = 5  # Evaluations of a training whose last checkpoint counts.
_AVERAGED = 0.2  # The largest share that an average reaches back.


class Noise(NamedTuple):
  """A field that grows with the number of epochs, in which windows are reread.

  Attributes:
    after: the number of epochs without it.
    share: for each further epoch.
    most: the largest value.
  """

  after: int
  share: float
  most: float

  def of(self, epochs: int, digits: int = 3) -> float:
    """The value for this number of epochs."""
    return round(
      min(self.share * max(epochs - self.after, 0), self.most), digits
    )


_DROPOUT = Noise(0, 0.05, 0.5)
# Of texts with a label or numbers, by words:
_READS: Fields = {
  "data.lowercase": True,
  "data.punctuation": True,
  "model.wide": True,
  "model.parts": 5,
}
_WINDOWS = 48, 96, 192
_WHOLE = 2**16  # Symbols of a window that cuts no text.
_CUT = 3  # Windows of a text, above which texts are documents, or code.
_FEW_CUT = 1.1
_SMOOTHING = 0.1
_FEW = 3_000  # Windows, below which a tenth more is worth a second training.
_UNSURE = 10_000  # Windows, below which validation cannot choose a checkpoint.
_NOISE = {  # With `data.stateful`.
  "model.dropout": Noise(5, 0.02, 0.5),
  "model.weight_drop": Noise(5, 0.01, 0.25),
  "model.symbol_dropout": Noise(10, 0.002, 0.1),
  "train.label_smoothing": Noise(5, 0.0006, 0.03),
}


def resolve(
  config: Config, parameters: Size | None = None, epoch: EpochSize | None = None
) -> tuple[Config, list[str]]:
  """Fills in the fields that depend on the model and the data.

  Args:
    config: as `derived.merge` makes it.
    parameters: counts those of a model.
    epoch: counts the batches of an epoch, the rows of a batch, and the
      documents of the split.

  Returns:
    the config, and lines about the fields that changed.

  Raises:
    UserError: a model of one unit has more than `model.parameters`, or a second
      training would be of another model.
  """
  config, lines = deepcopy(config), []
  if parameters is not None and config.model.parameters:
    lines += _fit_to_budget(config, parameters)
  if epoch is not None and "data.window" in fitted_names(config):
    lines += _fit_window(config, epoch)
  if epoch is not None and config.train.fit_to_data:
    batches, rows, documents = epoch(config)  # At most a batch too many.
    lines += _fit_to_data(config, batches * rows, documents)
  if epoch is not None and config.train.adapt_to_length:
    lines += _adapt_to_length(config, epoch(config)[0])
  train = config.train
  if train.refit and train.choice == "best" and config.model.wide:
    raise UserError(
      "train.refit=True: must be False with train.choice='best' and model.wide:"
      " the second training would fit the wide part in another way"
    )
  return config, lines


def read_words(config: Config) -> tuple[Config, list[str]]:
  """Fills in how words of labelled texts are read, before there are any.

  Word vectors, and another run, have a spelling of their own, which stays.
  """
  config, names = deepcopy(config), fitted_names(config)
  others = config.model.embedding_path, config.train.start_from
  reads = dict(_READS)
  if config.task == "regression":  # Dropout and a maximum lessen a number.
    reads["model.pooling"] = "mean"
  changed = [
    _changed(config, name, value)
    for name, value in reads.items()
    if _labels_texts(config) and name in names and flat(config)[name] != value
    if others == (None, None) or not name.startswith("data.")
    if name != "model.parts" or config.model.wide
  ]
  why = f"task={config.task}, data.unit=word"
  line = f"train.fit_to_data: {', '.join(changed)}: {why}"
  return config, [line] * bool(changed)


def _labels_texts(config: Config) -> bool:
  labels = config.task in ("classification", "regression")
  return labels and config.data.unit == "word"


def total_steps(config: Config, steps_per_epoch: int) -> int:
  """Returns the number of steps that the limits allow."""
  steps = config.train.epochs * steps_per_epoch
  return min(steps, config.train.max_steps or steps)


def fitted_names(config: Config | Fields) -> list[str]:
  """Returns the names of the fields that the size of the data changes."""
  text = flat(config).get("train.fit_to_data") or ""
  names = [part.strip() for part in text.split(",")]
  return [name for name in FITTED_FIELDS if "all" in names or name in names]


def _fit_to_budget(config: Config, parameters: Size) -> Iterator[str]:
  """Sets the largest hidden size that `model.parameters` allows."""
  model, budget = config.model, config.model.parameters

  def count(size: int) -> int:
    model.hidden_size = size
    return parameters(config)

  with_heads = model.cell in conditions.cells_with("may_have_heads")
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


def _fit_window(config: Config, epoch: EpochSize) -> Iterator[str]:
  """Sets the least window that cuts few of the labelled texts.

  The end of a text that is cut would weigh as much as its beginning.
  """
  if not _labels_texts(config) or config.data.keep != "all":
    return

  def windows(length: int) -> int:
    changed = deepcopy(config)
    changed.data.window, changed.train.batch_size = length, 1
    return epoch(changed)[0]

  longest = windows(_WINDOWS[-1])
  if longest <= _CUT * windows(_WHOLE):
    fits = (w for w in _WINDOWS if windows(w) <= _FEW_CUT * longest)
    window = max(next(fits), config.data.window)
    if window != config.data.window:
      line = _changed(config, "data.window", window)
      yield f"train.fit_to_data: {line}: that cuts few texts"


def _fit_to_data(config: Config, windows: int, documents: int) -> Iterator[str]:
  """Sets the fields that `train.fit_to_data` names, for this size of data."""
  names, before, changed = fitted_names(config), flat(config), []

  def put(name: str, value: FieldValue):
    if name in names and before[name] != value:
      changed.append(_changed(config, name, value))

  _fit(config, windows, documents, put)
  if changed:
    why = f"at most {windows:,} windows; docs/howto/train.md has the rule"
    yield f"train.fit_to_data: {', '.join(changed)}: {why}"


def _fit(config: Config, windows: int, documents: int, put: Put):
  train = config.train
  epochs = train.epochs
  if config.data.repeats == "weight":
    if windows <= min(_KINDS, documents / _ALIKE):
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
  few = _labels_texts(config) and windows < _UNSURE
  # The layers count little beside a wide part that is fitted.
  steps = _STEPS // 2 if few and config.model.wide else _STEPS
  put("train.epochs", max(min(-(-steps // batches), _EPOCHS), epochs))
  if train.epochs > epochs:
    dropout = _DROPOUT.of(train.epochs, digits=2)
    put("model.dropout", max(dropout, config.model.dropout))
  if few:
    put("train.choice", "best" if train.patience else "last")
    put("train.refit", windows < _FEW and train.choice != "best")
    if config.task == "classification":
      put("train.label_smoothing", max(_SMOOTHING, train.label_smoothing))


def _fit_to_text(config: Config, windows: int, put: Put):
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
  recurrent = conditions.cells_with("recurrent_product")
  for name, noise in _NOISE.items():
    if name != "model.weight_drop" or model.cell in recurrent:
      put(name, max(noise.of(epochs), flat(config)[name]))


def _changed(config: Config, name: str, value: FieldValue) -> str:
  """Sets a field; returns its new value and the old one in words."""
  was = config_lib.text(flat(config)[name])
  set_field(config, name, value)
  return f"{name}={value} (was {was})"


def _adapt_to_length(config: Config, steps_per_epoch: int) -> Iterator[str]:
  """Limits evaluations, warm-up and averaging to a training of few steps."""
  total = total_steps(config, steps_per_epoch)
  reach = max(_AVERAGED * total, 2)  # An average reaches back 1 / (1 - ema).
  every = steps_per_epoch
  if config.train.choice == "last":  # Its evaluations choose nothing.
    every = max(every, total // _SHOWN)
  limits = every, int(_WARMUP * total), round(1 - 1 / reach, 4)
  for name, limit in zip(ADAPTED, limits, strict=True):
    value = flat(config)[name]
    if value is not None and limit < value:
      line = _changed(config, name, limit)
      if limit < total:  # Else the end is evaluated, as without a limit.
        yield f"train.adapt_to_length: {line}: for {counted(total, 'step')}"
