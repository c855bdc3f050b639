"""The models of a detector: the run's own, or one for each fold."""

import copy
import io
import math
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data import splits
from seqrnn.experiment import Experiment
from seqrnn.logs.detect.detector import Member
from seqrnn.runtime import files
from seqrnn.runtime.console import console as make_console
from seqrnn.training import train

VOCABULARY = "vocabulary.json"


def members_of(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  read: Callable[[str], splits.Pieces],
  steps: list[int] | None,
) -> list[Member]:
  """The models of a detector; trains the folds that are not trained.

  The training split has `detect.folds` parts. A model is trained, in folds/ of
  the workdir, on all but one part. Without folds, the run's own model is the
  detector, and the validation split is held out.

  Args:
    build: config, vocabularies or None -> Experiment.
    config: of the run.
    workdir: of the run.
    read: split -> its pieces.
    steps: of the checkpoints of folds that are trained; None: not known.

  Raises:
    UserError: training fails.
  """
  folds = config.detect.folds
  if not folds:
    step = config.checkpoint.step
    return [Member(workdir, step, read("train"), read("validation"))]
  folders = [workdir / "folds" / f"{k}-of-{folds}" for k in range(1, folds + 1)]
  chosen: list[int | None] = [None] * folds  # The best ones.
  if steps and all(
    (folder / "checkpoints" / str(step)).is_dir()
    for folder, step in zip(folders, steps, strict=True)
  ):
    chosen = [*steps]
  else:
    print(
      f"detect.folds={folds}: trains {folds} models, each without one of"
      f" {folds} parts of the training sessions"
    )
    for folder in folders:
      _train(build, config, folder)
  members = []
  for k, (folder, step) in enumerate(zip(folders, chosen, strict=True), 1):
    seen, held_out = (
      splits.fold(read("train"), f"{k}/{folds}", out) for out in (False, True)
    )
    members.append(Member(folder, step, seen, held_out))
  return members


def _train(build: Callable[..., Experiment], config: Config, folder: Path):
  """Trains the model of a fold, if it is not trained.

  It has the vocabulary of the run, and as many epochs, of fewer batches.
  """
  k, folds = folder.name.split("-of-")
  config = copy.deepcopy(config)
  config.data.fold = f"{k}/{folds}"
  config.checkpoint.step = config.train.fit_to_data = None
  for name in ("batches_per_epoch", "samples_per_epoch"):
    if (count := config.train[name]) is not None:
      config.train[name] = math.ceil(count * (1 - 1 / int(folds)))
  vocabulary = (folder.parents[1] / VOCABULARY).read_bytes()
  path = folder / VOCABULARY
  other = path.exists() and path.read_bytes() != vocabulary
  if other or _trained_otherwise(folder, config):
    print(f"{folder}: was trained with other settings, and is trained again")
    shutil.rmtree(folder)
  if not path.exists():
    folder.mkdir(parents=True, exist_ok=True)
    with files.atomic_write(path, "wb") as file:
      file.write(vocabulary)
  _fit(build, config, folder, f"fold {k} of {folds}")


class _Steps(io.StringIO):
  """The stdout of a training, of which only the lines of steps are printed."""

  def __init__(self, report: Callable[[str], None]):
    super().__init__()
    self._report = report

  def write(self, text: str) -> int:
    for line in text.splitlines():
      if match := re.match(r"step [\d,]+ of [\d,]+", line):
        self._report(match[0])
    return len(text)


def _fit(
  build: Callable[..., Experiment], config: Config, folder: Path, name: str
):
  """Trains the model of a fold, and prints a line about it."""
  # Of the stdout of now, which the training does not have.
  console, total = make_console(file=sys.stdout), config.train.epochs

  def evaluated(row: dict[str, Any]) -> bool:
    loss = row["validation_loss"]
    status.update(f"{name}: epoch {row['epoch']} of {total}, loss {loss:.4f}")
    return False

  def stepped(steps: str):
    if not console.is_terminal:  # A terminal has the status.
      console.print(f"{name}: {steps}", soft_wrap=True)

  with (
    console.status(f"{name}: training") as status,
    redirect_stdout(_Steps(stepped)),
  ):
    result = train.fit(build, config, folder, evaluated)
  console.print(
    f"{name}: a model of the other training sessions, validation loss"
    f" {result['best']:.4f} at step {result['best_step']} of {result['step']}",
    soft_wrap=True,
  )


def _trained_otherwise(folder: Path, config: Config) -> bool:
  """Whether the model in a folder was trained with other settings."""
  if not (folder / "config.json").exists():
    return False
  trained = config_lib.read_run(folder)
  groups = ("optimizer.", "schedule.", "train.")
  names = [name for name in config_lib.IDENTITY if name.startswith(groups)]
  return trained.train.epochs > config.train.epochs or bool(
    config_lib.changes(trained, config, names)
  )
