"""train: trains or resumes a run, on all devices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqrnn.config.read import Config
from seqrnn.experiment import Experiment
from seqrnn.training.train import fit


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> dict[str, Any]:
  """Trains until the epochs are done or the validation loss stops improving.

  Returns:
    the fields of the last Position.

  Raises:
    UserError, Interrupted: as `fit`.
  """
  return fit(build, config, workdir)
