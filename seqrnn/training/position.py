"""The position of a run, and whether an evaluation or a checkpoint is due."""

import math
from dataclasses import dataclass

from seqrnn.config.read import Config


@dataclass
class Position:
  """The numbers that a checkpoint holds beside its arrays.

  Attributes:
    step: the number of updates so far.
    epoch: the current epoch, from 0.
    batch: the number of batches done in this epoch.
    evaluated: the step of the last evaluation.
    best: the lowest validation loss.
    best_step: the step of the lowest validation loss.
    waited: the number of evaluations since best_step.
    stalled: like `waited`, but reset where the plateau schedule lowers the
      learning rate.
    crc32: the checksum of the training data.
  """

  step: int = 0
  epoch: int = 0
  batch: int = 0
  evaluated: int = 0
  best: float = math.inf
  best_step: int = 0
  waited: int = 0
  stalled: int = 0
  crc32: int = 0

  def advance(self, batches: int) -> bool:
    """Counts a step; returns whether it ends an epoch of `batches` batches."""
    self.step += 1
    self.batch += 1
    if self.batch < batches:
      return False
    self.epoch, self.batch = self.epoch + 1, 0
    return True


def limits_reached(config: Config, position: Position) -> list[str]:
  """Returns the fields whose limits the position has reached."""
  train = config.train
  limits = {
    "train.epochs": position.epoch >= train.epochs,
    "train.max_steps": position.step >= (train.max_steps or math.inf),
    "train.patience": out_of_patience(config, position),
  }
  return [name for name, reached in limits.items() if reached]


def reached_end(config: Config, position: Position) -> bool:
  """Returns whether `train.epochs` or `train.max_steps` is reached."""
  limits = limits_reached(config, position)
  return "train.epochs" in limits or "train.max_steps" in limits


def out_of_patience(config: Config, position: Position) -> bool:
  """Returns whether `train.patience` evaluations brought no improvement."""
  patience = config.train.patience
  return patience is not None and position.waited >= patience


def evaluation_due(config: Config, position: Position) -> bool:
  """Returns whether this step is to be evaluated and has not been yet."""
  if position.evaluated == position.step:
    return False
  if reached_end(config, position):
    return True
  if config.train.eval_every is None:
    return position.batch == 0
  return position.step % config.train.eval_every == 0


def save_due(config: Config, position: Position) -> bool:
  """Returns whether a checkpoint is due without an evaluation, which saves."""
  every = config.checkpoint.every
  if every is None or position.step % every:
    return False
  return not evaluation_due(config, position)
