"""The modes, one module each. The first line of each explains the mode."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqrnn.config.read import Config
from seqrnn.data import splits, vocabulary
from seqrnn.data.sources.corpora import read_files
from seqrnn.data.splits import Pieces
from seqrnn.experiment import Experiment, Params, require
from seqrnn.training.checkpoint import restore_params


def load_model(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  mode: str,
  sharding: Any = None,
) -> tuple[Experiment, Params, int]:
  """The experiment of a run; the parameters of its checkpoint, and its step.

  Raises:
    UserError: the task lacks the mode, or there is no such checkpoint.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  require(experiment, mode, config.task)
  step = config.checkpoint.step
  return experiment, *restore_params(workdir, step, experiment, sharding)


def read_user_files(
  field: str, path: str, experiment: Experiment, config: Config
) -> Pieces:
  """The texts of files that a field names, with or without labels."""
  labels, known = experiment.labels, None
  if labels is not None or experiment.by_text:
    known = set(labels.symbols if labels else ())
  return splits.whole(read_files(field, path, config.data, known))
