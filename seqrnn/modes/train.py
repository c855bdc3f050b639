"""train: trains or resumes a run, on all devices."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqrnn.config.read import Config
from seqrnn.experiment import Experiment
from seqrnn.training.checkpoint import Position
from seqrnn.training.train import fit, limits_reached

_FEW = 1000  # Steps; a training of fewer may end with advice.
_EPOCHS = 40  # The most that are advised.


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> dict[str, Any]:
  """Trains until the epochs are done or the validation loss stops improving.

  Returns:
    the fields of the last Position.

  Raises:
    UserError, Interrupted: as `fit`.
  """
  position = fit(build, config, workdir)
  if line := advice(config, Position(**position)):
    print(line)
  return position


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
