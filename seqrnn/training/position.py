"""The position of a run, and the evaluations and checkpoints that are due."""

import math
from dataclasses import dataclass

from seqrnn.config.read import Config

_FEW = 1000  # Steps; a training of fewer may end with advice.
_EPOCHS = 40  # The most that are advised.


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
    crc32: the checksum of the training data; None: the parameters are those of
      an export, without the state of an optimizer.
  """

  step: int = 0
  epoch: int = 0
  batch: int = 0
  evaluated: int = 0
  best: float = math.inf
  best_step: int = 0
  waited: int = 0
  stalled: int = 0
  crc32: int | None = None

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
  patience = math.inf if train.patience is None else train.patience
  limits = {
    "train.epochs": position.epoch >= train.epochs,
    "train.max_steps": position.step >= (train.max_steps or math.inf),
    "train.patience": position.waited >= patience,
  }
  return [name for name, reached in limits.items() if reached]


def evaluation_due(config: Config, position: Position) -> bool:
  """Returns whether this step is to be evaluated and has not been yet."""
  if position.evaluated == position.step:
    return False
  if {*limits_reached(config, position)} - {"train.patience"}:
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


def advice(config: Config, position: Position) -> str | None:
  """Returns a line if a training had few epochs and steps, and still gained.

  A long training on a log would learn the anomalies of the log, too.
  """
  ended = limits_reached(config, position) == ["train.epochs"]
  if not ended or position.best_step < position.step:
    return None
  epochs = min(math.ceil(_FEW / position.step * position.epoch), _EPOCHS)
  if config.data.unit == "log" or epochs <= position.epoch:
    return None
  return (
    f"only {position.step:,} steps, and the loss still fell;"
    f" --config.train.epochs={epochs}, in another --workdir, trains longer"
  )
