"""Adapts evaluations, warm-up and averaging to a training of few steps.

The fields of a recipe are for its data. With a small text of the user's, a
training may end before the first evaluation is due, the learning rate be warm,
or the first random parameters have left the average.
"""

import copy
import math

from seqrnn.errors import counted
from seqrnn.settings import config as config_lib
from seqrnn.settings.config import Config
from seqrnn.training.position import Position, limits_reached

_WARMUP = 0.1  # The largest share of the steps.
_AVERAGED = 0.2  # The largest share that an average reaches back.
_FEW = 1000  # Steps; fewer are mentioned at the end,
_UNTRAINED = 240  # and fewer than these before the first step, too.
_EPOCHS = 40  # The most that are advised.
_EFFECTS = {
  "train.eval_every": "the model is evaluated every {} steps, not {}",
  "schedule.warmup_steps": "the learning rate rises over {} steps, not {}",
  "train.ema": "the mean of the parameters decays by {}, not {}",
}


def total_steps(config: Config, steps_per_epoch: int) -> int:
  """Returns the number of steps that the limits allow."""
  steps = config.train.epochs * steps_per_epoch
  return min(steps, config.train.max_steps or steps)


def adapted(config: Config, steps_per_epoch: int, total_steps: int) -> Config:
  """Returns the config with what `train.adapt_to_length` limits.

  Args:
    config: the settings of the run.
    steps_per_epoch: the number of batches of an epoch.
    total_steps: the number of steps of the training.
  """
  if not config.train.adapt_to_length:
    return config
  config = copy.deepcopy(config)
  train, schedule = config.train, config.schedule
  if train.eval_every is not None:
    train.eval_every = min(train.eval_every, steps_per_epoch)
  schedule.warmup_steps = min(schedule.warmup_steps, int(_WARMUP * total_steps))
  if train.ema is not None:  # It reaches back 1 / (1 - ema) steps.
    reach = max(_AVERAGED * total_steps, 2)
    train.ema = min(train.ema, round(1 - 1 / reach, 4))
  return config


def lines(config: Config, own: Config, total_steps: int) -> list[str]:
  """Returns lines before a training: its limited fields, and few steps."""
  few = []
  epochs = _advised_epochs(config, total_steps, config.train.epochs)
  if config.train.max_steps is None and total_steps < _UNTRAINED and epochs:
    few = [
      f"only {counted(total_steps, 'step')}, too few for most networks;"
      f" --config.train.epochs={epochs} trains longer"
    ]
  return few + [
    f"for only {counted(total_steps, 'step')},"
    f" {_EFFECTS[name].format(new, old)} ({name}; train.adapt_to_length)"
    for name, (old, new) in config_lib.changes(config, own).items()
  ]


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
