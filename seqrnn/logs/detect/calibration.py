"""Scores of normal sessions, each by a model that has not seen it.

The models are the run's own, or one for each fold. A fold is a part of the
training sessions, and the model that is trained without it.
"""

import io
import json
import shutil
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np

from seqrnn.config import derived
from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data import splits
from seqrnn.data.logs import sessions as data
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.splits import Pieces
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.logs.detect.detector import (
  VOCABULARY,
  Detector,
  Member,
  load_detector,
)
from seqrnn.logs.detect.normal import NormalSessions
from seqrnn.logs.detect.scores import BASELINES
from seqrnn.runtime.console import console as make_console
from seqrnn.training import train

CALIBRATION = "calibration.npz"
# A checksum of the scores of some sessions, so that it changes with any score.
VERSION = "b364083f"
# Settings that invalidate a cached calibration, in addition to training's.
SETTINGS = ("head", "idle", "short", "top_k", "folds")


def calibrate(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  read: Callable[[str], Pieces],
  experiment: Experiment,
) -> tuple[Detector, NormalSessions]:
  """The detector of a run, and its normal sessions, as in calibration.npz.

  Folds are trained, and sessions scored, unless calibration.npz is of the same
  settings and data.

  Args:
    build: config, vocabularies or None -> Experiment.
    config: of the run.
    workdir: of the run.
    read: split -> its pieces.
    experiment: of the run.

  Raises:
    UserError: there are no normal sessions to score, or training fails.
  """
  path, key = workdir / CALIBRATION, _key(config, workdir, experiment)
  normal = None
  if path.exists():
    with suppress(UserError):  # A damaged file is written again.
      normal = NormalSessions.load(path, key)
  steps = None if normal is None else normal.steps.tolist()
  members = train_members(build, config, workdir, read, steps)
  names = experiment.vocabularies["symbols"]
  detector = load_detector(
    build,
    config,
    workdir,
    [(member.folder, member.step) for member in members],
    (data.of_pieces(member.train, names) for member in members),
  )._replace(members=members)
  if normal is None or detector.steps != steps:
    normal = score_held_out(detector)
    normal.save(path, key)
  return detector, normal


def _key(config: Config, workdir: Path, experiment: Experiment) -> str:
  """The settings and data of the scores of normal sessions, as a text."""
  settings, defaults = config.detect, config_lib.defaults()
  # Without the defaults, a field that seqrnn adds leaves the calibration valid.
  training = config_lib.changes(defaults, config, config_lib.TRAINING)
  splits_used = ("train", "validation")
  return json.dumps(
    {
      "version": VERSION,
      "scores": sorted(BASELINES),
      "vocabulary": zlib.crc32((workdir / VOCABULARY).read_bytes()),
      **{split: experiment.facts(split)["crc32"] for split in splits_used},
      # The checksums are of the data, wherever they are.
      **{n: v for n, (_, v) in training.items() if n not in config_lib.PLACES},
      **{f"detect.{name}": settings[name] for name in SETTINGS},
    }
  )


def train_members(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  read: Callable[[str], Pieces],
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
  chosen = steps or [None] * folds  # None: the best one.
  if not all(
    (folder / "checkpoints" / str(step)).is_dir()
    for folder, step in zip(folders, chosen, strict=True)
  ):
    print(
      f"detect.folds={folds}: trains {folds} models, each without one of"
      f" {folds} parts of the training sessions; detect.folds=0 trains none"
    )
    chosen = [None] * folds
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
  config = derived.fold(config, int(k), int(folds))
  folder.mkdir(parents=True, exist_ok=True)
  shutil.copyfile(folder.parents[1] / VOCABULARY, folder / VOCABULARY)
  name = f"fold {k} of {folds}"
  with redirect_stdout(io.StringIO()):
    result = train.fit(build, config, folder)
  make_console().print(
    f"{name}: a model of the other training sessions, validation loss"
    f" {result['best']:.4f} at step {result['best_step']} of {result['step']}",
    soft_wrap=True,
  )


def score_held_out(detector: Detector) -> NormalSessions:
  """The held-out sessions of each model, with its scores."""
  tables = []
  for k in range(len(detector.members)):
    sessions = detector.held_out(k)
    distinct = sessions.distinct()
    once = sessions.take(distinct.first)
    scored = detector.alone(k).score(once, distinct.counts)
    tables.append(
      NormalSessions.of_scores(scored, k, detector.steps, distinct.which)
    )
  return NormalSessions.concatenate(tables)


def held_out_sessions(detector: Detector) -> Sessions:
  """The events of the sessions in the table of `score_held_out`."""
  parts = []
  for k in range(len(detector.members)):
    sessions = detector.held_out(k)
    once = sessions.take(sessions.distinct().first)
    parts.append(once.take(np.flatnonzero(~detector.short(once))))
  return Sessions.concatenate(parts)
