"""Training on unlabelled text first (`data.pretrain_path`).

The folder `pretrained` of the workdir is a run of its own: a language model, or
for a bidirectional network a gap model with all heads, whose towers read what
the two directions will read. The labelled run starts from it.
"""

import copy
from collections.abc import Callable
from pathlib import Path

from seqrnn.data.corpora import SPLITS
from seqrnn.errors import Interrupted, UserError
from seqrnn.experiment import Experiment
from seqrnn.runtime import checkpoint, files
from seqrnn.settings import config as config_lib
from seqrnn.settings.config import Config
from seqrnn.training import rates
from seqrnn.training.fit import check_owner, fit
from seqrnn.training.started import pretrained

# Fields of the first run, and those of the config that give their values.
_GIVEN = {
  "data.path": "data.pretrain_path",
  "data.window": "train.pretrain_window",
  "optimizer.learning_rate": "train.pretrain_rate",
  "train.epochs": "train.pretrain_epochs",
}
# Fields that belong to the labelled data or to the run on them.
_LABELLED = (
  *("data.pretrain_path", *(f"data.{split}_path" for split in SPLITS)),
  *("data.format", "data.split", "data.fold", "data.keep", "data.buckets"),
  *("data.min_length", "data.max_length", "data.tags_file"),
  *("data.word_column", "data.tag_column", "model.letters", "model.pooling"),
  *("train.pretrain_epochs", "train.pretrain_rate", "train.pretrain_window"),
  *("train.freeze", "train.unfreeze_every", "optimizer.layer_decay"),
  *("train.max_steps", "train.batches_per_epoch", "train.samples_per_epoch"),
  *("train.class_weights", "train.eval_every", "train.patience"),
  "train.fit_to_data",  # It would change train.pretrain_epochs.
  *("train.asgd", "train.label_smoothing", "model.bidirectional"),
)


def pretrain(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Trains or resumes the run in `pretrained`, unless the other has begun.

  Raises:
    UserError, Interrupted: as `fit`, of either run.
  """
  if checkpoint.steps(workdir / "checkpoints"):
    return
  config = check_owner(config, workdir)
  experiment = build(config, None)  # Its mistakes are reported before an epoch.
  for split in SPLITS[:2]:
    experiment.batches(split, 0)
  rates.shares(experiment, config, 1, None)
  files.make_workdir(workdir)
  print(f"pretraining on {config.data.pretrain_path}")
  try:
    fit(build, config_of(config), pretrained(workdir))
  except UserError as error:
    raise UserError(_as_given(str(error), config)) from None
  except Interrupted as stop:  # The workdir has no run of its own yet.
    event, how = f"pretraining: {stop.event}", "repeat the command to resume"
    raise Interrupted(event, stop.status, how) from None
  print(f"training on {config.data.path or config.data.source}")


def _as_given(message: str, config: Config) -> str:
  """A message about the first run, with the fields that the user has set."""
  fields = config_lib.flat(config)
  for name, given in _GIVEN.items():
    if fields[given] is not None:
      message = message.replace(f"{name}=", f"{given}=", 1)
  return message


def config_of(config: Config) -> Config:
  """Returns the config of the pretraining of a run.

  Raises:
    UserError: a setting of the model excludes such a model.
  """
  plain, made = config_lib.flat(config_lib.defaults()), copy.deepcopy(config)
  train = config.train
  changed = {name: plain[name] for name in _LABELLED} | {
    "task": "language_model",
    "data.source": "files",
    "data.path": config.data.pretrain_path,
    "data.test_fraction": 0.0,
    "data.window": train.pretrain_window or config.data.window,
    "optimizer.learning_rate": (
      train.pretrain_rate or config.optimizer.learning_rate
    ),
    "train.epochs": train.pretrain_epochs,
  }
  if config.model.bidirectional:
    changed |= {"task": "gap_model", "model.heads": "all"}
  for name, value in changed.items():
    group, key = config_lib.locate(made, name)
    group[key] = value
  config_lib.check(made)
  return made
