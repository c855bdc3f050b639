"""The modes, one module each. The first line of each explains the mode."""

from pathlib import Path

import jax

from seqrnn.config.read import MODES, Config
from seqrnn.data import splits, vocabulary
from seqrnn.data.sources.corpora import read_files
from seqrnn.data.splits import Pieces
from seqrnn.errors import UserError
from seqrnn.experiment import Build, Experiment, Params
from seqrnn.training.checkpoint import restore_params, select


def load_model(
  build: Build,
  config: Config,
  workdir: Path,
  mode: str | None,
  sharding: jax.sharding.Sharding | None = None,
) -> tuple[Experiment, Params, int]:
  """The experiment of a run; the parameters of its checkpoint, and its step.

  Args:
    build: config, vocabularies -> Experiment.
    config: of the run.
    workdir: of the run.
    mode: a mode that the task must have; None: any task will do.
    sharding: of the parameters; None: all are on the first device.

  Raises:
    UserError: the task lacks the mode, or there is no such checkpoint.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  if mode is not None:
    require_mode(experiment, mode, config.task)
  step = config.checkpoint.step
  if step is None and _reads_validation(config, mode):
    # Parameters of `train.refit` have been trained on it.
    step = select(workdir / "checkpoints", None)
  return experiment, *restore_params(workdir, step, experiment, sharding)


def _reads_validation(config: Config, mode: str | None) -> bool:
  """Whether a mode compares answers with those of the validation split."""
  predict = config.predict
  texts = predict.text is not None or predict.path is not None
  return (
    mode == "report"
    or (mode == "evaluate" and config.evaluate.split == "validation")
    or (mode == "predict" and predict.split == "validation" and not texts)
  )


def read_user_files(
  field: str, path: str, experiment: Experiment, config: Config
) -> Pieces:
  """The texts of files that a field names, with or without labels."""
  labels, known = experiment.labels, None
  if labels is not None or experiment.by_text:
    known = set(labels.symbols if labels else ())
  return splits.whole(read_files(field, path, config.data, known))


_DETECTION = "detect", "review", "refresh"
_WHY_NOT = {
  "predict": "has no labels, numbers or next symbols to predict for a text",
  "sample": "cannot write one symbol after the other",
  "embed": "reads no text whose states could be written",
  "describe": "has no outputs to show",
  **dict.fromkeys(_DETECTION, "gives events no probabilities"),
}


def modes_of(experiment: Experiment) -> tuple[str, ...]:
  """The modes that a task has: those that its fields allow."""
  has_outputs = experiment.predict is not None
  reads_text = has_outputs and experiment.reads == "symbol"
  has = {
    "predict": reads_text and experiment.gives != "sigmoid",
    "sample": experiment.decoder is not None,
    "embed": reads_text,
    "describe": has_outputs,
    **dict.fromkeys(_DETECTION, bool(experiment.heads)),
  }
  return tuple(mode for mode in MODES if has.get(mode, True))


def require_mode(
  experiment: Experiment, mode: str, task: str, where: str = "", why: str = ""
):
  """Refuses a mode that a task does not have.

  Args:
    experiment: the task.
    mode: the mode.
    task: its name.
    where: the begin of the message; empty: the flag of the mode.
    why: the reason; empty: that of the mode.

  Raises:
    UserError: says why, and which modes there are.
  """
  known = modes_of(experiment)
  if mode in known:
    return
  why = why or _WHY_NOT[mode]
  if mode == "sample" and experiment.unless:
    why += f" unless {experiment.unless}"
  raise UserError(
    f"{where or f'--mode={mode}'}: task={task!r} {why}; its modes are"
    f" {', '.join(known)}"
  )
