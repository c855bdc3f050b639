"""Fits the settings of a training to the size of its data.

A config made for a large set trains a small one for too few steps, because an
epoch has few batches. The rule gives small sets smaller batches, more epochs
and more dropout. A large set has what the config says. The learning rate stays:
on a tenth of TREC, half of it for a quarter of the batch lost accuracy.

With `data.repeats=weight`, few different documents are in one batch, and an
epoch repeats it. The loss of a batch is divided by its weight, so the documents
of smaller batches would not count by their numbers.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path

from seqrnn.experiment import Experiment
from seqrnn.settings import config as config_lib
from seqrnn.settings.config import Config
from seqrnn.training.transfer import Start

_BATCHES = 40  # The fewest batches of an epoch, if they have _ROWS or more.
_ROWS = 8
_STEPS = 1000  # The fewest steps of a training, in at most _EPOCHS.
_EPOCHS = 40
_DROPOUT = 0.05  # For each time that a window is read,
_MOST_DROPOUT = 0.5  # up to this.
# With `data.repeats=weight`:
_KINDS = 512  # The most different documents that are in one batch.
_LEAST_STEPS = 240  # Of a training.


def settle(
  build: Callable[..., Experiment], start: Start, workdir: Path
) -> tuple[Config, Experiment]:
  """The config and the experiment of a run; one that has started keeps them."""
  config, experiment = start.config, start.experiment
  if not config.train.fit_to_data or (workdir / "config.json").exists():
    return config, experiment
  config = fitted(config, experiment)
  return config, build(config, experiment.vocabularies)


def fitted(config: Config, experiment: Experiment) -> Config:
  """The config with the fields that `train.fit_to_data` names changed.

  A line for each that is changed is printed.
  """
  searched = config_lib.searched(config_lib.flat(config))
  names = [x for x in config_lib.fitted_names(config) if x not in searched]
  epoch = experiment.batches("train", 0)
  windows = len(epoch) * epoch.batch_size  # At most a batch too many.
  made = copy.deepcopy(config)

  def put(name: str, value: float, why: str):
    fields, key = config_lib.locate(made, name)
    if name in names and fields[key] != value:
      before = config_lib.text(fields[key])
      print(f"train.fit_to_data: {name}={value} (was {before}): {why}")
      fields[key] = value

  if config.data.repeats == "weight":
    if windows <= _KINDS:
      put(
        "train.batch_size",
        max(windows, config.train.batch_size),
        f"at most {windows:,} different windows, for all in a batch",
      )
    batches = -(-windows // made.train.batch_size)
    needed = -(-_LEAST_STEPS // config.train.epochs)
    if batches < needed and config.train.samples_per_epoch is None:
      put(
        "train.batches_per_epoch",
        needed,
        f"for {_LEAST_STEPS} steps in {config.train.epochs} epochs",
      )
    return made
  rows = 2 ** int(math.log2(max(windows / _BATCHES, _ROWS)))
  put(
    "train.batch_size",
    min(rows, config.train.batch_size),
    f"at most {windows:,} windows, for {_BATCHES} batches an epoch",
  )
  batches = -(-windows // made.train.batch_size)
  epochs = min(-(-_STEPS // batches), _EPOCHS)
  put(
    "train.epochs",
    max(epochs, config.train.epochs),
    f"an epoch has at most {batches:,} batches, for {_STEPS:,} steps",
  )
  epochs = made.train.epochs
  if epochs > config.train.epochs:
    dropout = round(min(_DROPOUT * epochs, _MOST_DROPOUT), 2)
    put(
      "model.dropout",
      max(dropout, config.model.dropout),
      f"each window is read {epochs} times",
    )
  return made
