"""Where a run is, and what follows from that alone."""

import math
from dataclasses import dataclass

from seqrnn.config import Config


@dataclass
class Position:
  """Where a run is: what a checkpoint holds beside arrays.

  Attributes:
    step: updates made so far.
    epoch: the running epoch, from 0.
    batch: batches of it that are done.
    evaluated: the step of the last evaluation.
    best: the lowest validation loss.
    best_step: its step.
    waited: evaluations since then.
    stalled: those of them since the plateau schedule last acted.
    crc32: of the training data.
    rollbacks: how often the run went back because a loss was not finite.
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
  rollbacks: int = 0


def reached_end(config: Config, position: Position) -> bool:
  """Whether all epochs, or all steps, are done."""
  limit = config.train.max_steps
  return position.epoch >= config.train.epochs or (
    limit is not None and position.step >= limit
  )


def out_of_patience(config: Config, position: Position) -> bool:
  """Whether nothing has gained for as long as `train.patience` waits."""
  patience = config.train.patience
  return patience is not None and position.waited >= patience


def limits_reached(config: Config, position: Position) -> list[str]:
  """The limits by which nothing is left to train; none: training goes on."""
  train = config.train
  limits = {
    "train.epochs": position.epoch >= train.epochs,
    "train.max_steps": position.step >= (train.max_steps or math.inf),
    "train.patience": out_of_patience(config, position),
  }
  return [name for name, here in limits.items() if here]


def evaluation_due(config: Config, position: Position) -> bool:
  """Whether an evaluation belongs here and has not been made."""
  if position.evaluated == position.step:
    return False
  if reached_end(config, position):
    return True
  if config.train.eval_every is None:
    return position.batch == 0
  return position.step % config.train.eval_every == 0
