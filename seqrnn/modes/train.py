"""train: trains or resumes a run, on all devices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.settings.config import Config
from seqrnn.training import length
from seqrnn.training.fit import fit
from seqrnn.training.position import Position
from seqrnn.training.pretraining import pretrain
from seqrnn.training.started import pretrained


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> dict[str, Any]:
  """Trains until the epochs are done or the validation loss stops improving.

  With `data.pretrain_path` another run comes first, on this text.

  Returns:
    the fields of the last Position.

  Raises:
    UserError: as `fit`, or the workdir has the first part of another training.
    Interrupted: as `fit`.
  """
  if config.data.pretrain_path is not None:
    pretrain(build, config, workdir)
  elif pretrained(workdir).exists() and not (workdir / "config.json").exists():
    raise UserError(
      f"--workdir={workdir}: holds the first part of a training with"
      " data.pretrain_path; set this field, too, or name another --workdir"
    )
  position = fit(build, config, workdir)
  for line in length.advice(config, Position(**position)):
    print(line)
  return position
