"""train: trains or resumes a run, on all devices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqrnn.experiment import Experiment
from seqrnn.settings.config import Config
from seqrnn.training.fit import fit
from seqrnn.training.pretraining import pretrain


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> dict[str, Any]:
  """Trains until the epochs are done or the validation loss stops improving.

  With `data.pretrain_path` another run comes first, on this text.

  Returns:
    the fields of the last Position.

  Raises:
    UserError, Interrupted: as `fit`.
  """
  if config.data.pretrain_path is not None:
    pretrain(build, config, workdir)
  return fit(build, config, workdir)
