"""Advice before and after a training of few steps."""

import math

from seqrnn.config.read import Config
from seqrnn.errors import counted
from seqrnn.training.position import Position, limits_reached

_FEW = 1000  # Steps; fewer are mentioned at the end,
_UNTRAINED = 240  # and fewer than these before the first step, too.
_EPOCHS = 40  # The most that are advised.


def few_steps(config: Config, total_steps: int) -> list[str]:
  """Returns a line before a training of few steps."""
  epochs = _advised_epochs(config, total_steps, config.train.epochs)
  if config.train.max_steps is None and total_steps < _UNTRAINED and epochs:
    return [
      f"only {counted(total_steps, 'step')}, too few for most networks;"
      f" --config.train.epochs={epochs} trains longer"
    ]
  return []


def _advised_epochs(config: Config, steps: int, epochs: int) -> int | None:
  """Returns the epochs for _FEW steps; None if these epochs are enough."""
  if config.data.unit == "log" or steps >= _FEW:
    return None
  more = min(math.ceil(_FEW / steps * epochs), _EPOCHS)
  return more if more > epochs else None


def advice(config: Config, position: Position) -> list[str]:
  """Returns a line if a training had few epochs and steps, and still gained.

  A long training on a log would learn the anomalies of the log, too.
  """
  ended = limits_reached(config, position) == ["train.epochs"]
  if not ended or position.best_step < position.step:
    return []
  epochs = _advised_epochs(config, position.step, position.epoch)
  if epochs is None:
    return []
  return [
    f"only {position.step:,} steps, and the loss still fell;"
    f" --config.train.epochs={epochs}, in another --workdir, trains longer"
  ]
