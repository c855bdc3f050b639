"""The modes, one module each. The first line of each explains the mode."""

from collections.abc import Callable
from pathlib import Path

from seqrnn.config.read import Config
from seqrnn.data import vocabulary
from seqrnn.experiment import Experiment, Params, require, shapes
from seqrnn.training.checkpoint import restore_params


def load_model(
  build: Callable[..., Experiment], config: Config, workdir: Path, mode: str
) -> tuple[Experiment, Params]:
  """The experiment of a run, and the parameters of its checkpoint.

  Raises:
    UserError: the task lacks the mode, or there is no such checkpoint.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  require(experiment, mode, config.task)
  step = config.checkpoint.step
  return experiment, restore_params(workdir, step, shapes(experiment))[0]
