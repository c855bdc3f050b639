"""Scores of normal sessions, each by a model that has not seen it.

The models are the run's own, or one for each fold. A fold is a part of the
training sessions, and the model that is trained on the other parts.

There are two passes. In the first one, a fold is a block of time: anomalous
sessions come in bursts, which the models of other blocks have not seen. What is
found there is left out of the second pass. In that, each fold has blocks of all
times, so its model knows the work of each night and the newest version.
"""

import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.config.resolve import total_steps
from seqrnn.data import splits
from seqrnn.data.logs.sessions import Sessions, of_pieces
from seqrnn.data.logs.values import fit
from seqrnn.data.read import stored
from seqrnn.data.splits import Read
from seqrnn.errors import UserError
from seqrnn.experiment import Build, Experiment
from seqrnn.logs.detect.detector import (
  VOCABULARY,
  Detector,
  Member,
  load_detector,
)
from seqrnn.logs.detect.normal import NormalSessions, contaminates
from seqrnn.logs.detect.scores import BASELINES, STANDARD, fitted_names, learn
from seqrnn.training import checkpoint
from seqrnn.training.folds import fit_folds
from seqrnn.training.setup import check_owner

CALIBRATION = "calibration.npz"
# A checksum of the scores of some sessions, so that it changes with any score.
VERSION = "4987f26f"
# Settings that invalidate a cached calibration, in addition to training's.
SETTINGS = ("head", "idle", "short", "top_k", "folds")
LEFT_OUT = "left_out.npz"  # What the first pass has found.
_FEWEST = 500  # Sessions: in fewer, a second mode is not told apart.
_STEPS = 120  # Of the first pass, at most: those of a burst are learned later.
_LOGS = 8  # In so many logs, one normal session may be left out of training.
_BLOCKS = 4  # Of each fold in the second pass.
_RECURS = 30  # Sessions with an event that is none of an anomaly.


class Prepared(NamedTuple):
  """A run that can detect.

  Attributes:
    build: config, vocabularies or None -> Experiment.
    config: of the run.
    workdir: of the run.
    experiment: of the run.
    read: split -> its pieces.
    keep: as of `kept.Splits`, called when they have served.
  """

  build: Build
  config: Config
  workdir: Path
  experiment: Experiment
  read: Read
  keep: Callable[[], None]


def calibrate(
  run: Prepared, compared: bool = False
) -> tuple[Detector, NormalSessions]:
  """The detector of a run, and its normal sessions, as in calibration.npz.

  Folds are trained, and sessions scored, unless calibration.npz is of the same
  settings and data.

  Args:
    run: whose models are the detector, or are trained again for each fold.
    compared: as of `fitted_names`.

  Raises:
    UserError: there are no normal sessions to score, or training fails.
  """
  config, workdir, read = run.config, run.workdir, run.read
  pieces, folds = read("train"), config.detect.folds
  left = np.zeros(len(pieces), bool)
  if not folds:
    step, held_out = config.checkpoint.step, read("validation")
    members = [Member(workdir, step, pieces, held_out)]
  else:
    if len(pieces) >= _FEWEST and config.detect.contamination:
      left = _left_out(run)
    fold_of = splits.blocks(pieces, folds, _BLOCKS)
    trained = train_members(run, np.where(left, -1, fold_of))
    members = [
      member._replace(held_out=splits.some(pieces, fold_of == k))
      for k, member in enumerate(trained)
    ]
  models = [member.folder.name for member in members if folds]
  path, key = workdir / CALIBRATION, _key(run, models)
  normal, baselines = None, fitted_names(config.detect, compared)
  if path.exists():
    with suppress(UserError):  # A damaged file is written again.
      normal = NormalSessions.load(path, key, baselines)
  detector = _load(run, members, baselines)
  if normal is None or detector.steps != normal.steps.tolist():
    normal = score_held_out(detector, pieces.document[left])
    normal.save(path, key)
    lines = fold_lines(fold_losses(normal)) if folds else []
    print("".join(f"{line}\n" for line in lines), end="")
  run.keep()
  return detector, normal


def _load(
  run: Prepared, members: list[Member], baselines: Iterable[str]
) -> Detector:
  """The detector of some models, with some baselines."""
  names = run.experiment.vocabularies["symbols"]
  trained = (of_pieces(member.train, names) for member in members)
  return load_detector(
    *(run.build, run.config, run.workdir),
    [(member.folder, member.step) for member in members],
    ((learn(x, baselines), fit(x)) for x in trained),
    baselines,
  )._replace(members=members)


def _left_out(run: Prepared) -> np.ndarray:
  """Whether the second pass leaves each training session out.

  The evidence against a session must be strong: it may only be rare, and would
  then be flagged whenever it recurs. It stays if an equal one does, or if it
  has an event that is new in its fold and recurs: it is of a new version, or of
  the work of a night.
  """
  settings = run.config.detect
  path, most = run.workdir / LEFT_OUT, settings.contamination
  key = _key(run, [f"{most}", f"{_steps(run)}"])
  if path.exists():
    with suppress(UserError):  # A damaged file is written again.
      arrays = stored.load_arrays(path)
      if str(arrays.get("rests_on")) == key:
        return arrays["left"]
  pieces = run.read("train")
  fold_of = splits.blocks(pieces, settings.folds)
  members = train_members(run, fold_of, _STEPS)
  standard = [name for name in BASELINES if name in STANDARD]
  detector = _load(run, members, standard)
  table = score_held_out(detector)
  sessions = of_pieces(pieces, detector.names)
  left = np.zeros(len(pieces), bool)
  anomalous = contaminates(table, most, _LOGS)
  left[~detector.short(sessions)] = anomalous[table.order]
  left &= ~recurring(sessions, fold_of)
  which = sessions.distinct().which
  left = np.bincount(which, ~left)[which] == 0
  stored.save_arrays(path, {"left": left, "rests_on": key})
  for member in detector.members:  # They have served.
    shutil.rmtree(member.folder)
  return left


def recurring(sessions: Sessions, fold_of: np.ndarray) -> np.ndarray:
  """Whether each session has an event that recurs, but in its fold alone."""
  session, event = sessions.events_once()
  symbols, recurs = event.max(initial=0) + 1, np.zeros(len(fold_of), bool)
  sessions_KV = np.zeros((fold_of.max() + 1, symbols), int)
  np.add.at(sessions_KV, (fold_of[session], event), 1)
  total_V = sessions_KV.sum(axis=0)
  alone_KV = (sessions_KV == total_V) & (total_V >= _RECURS)
  recurs[session[alone_KV[fold_of[session], event]]] = True
  return recurs


def _key(run: Prepared, models: list[str]) -> str:
  """The settings and data of the scores of normal sessions, as a text."""
  settings, splits_used = run.config.detect, ("train", "validation")
  return json.dumps(
    {
      "version": VERSION,
      "scores": sorted(BASELINES),
      "models": models,
      "vocabulary": zlib.crc32((run.workdir / VOCABULARY).read_bytes()),
      **{x: run.experiment.facts(x)["crc32"] for x in splits_used},
      **config_lib.settings(run.config, config_lib.TRAINING),
      **{f"detect.{name}": settings[name] for name in SETTINGS},
    }
  )


def _steps(run: Prepared) -> int:
  """The number of steps of the run until its checkpoint."""
  config, workdir, experiment = run.config, run.workdir, run.experiment
  step = checkpoint.select(workdir / "checkpoints", config.checkpoint.step)
  if step == 1:  # Of an export, whose training is not known.
    step = total_steps(config, len(experiment.batches("train", 0)))
  return step


def train_members(
  run: Prepared, fold_of: np.ndarray, most: float = math.inf
) -> list[Member]:
  """The models of a detector; trains the folds that are not trained.

  A fold has its own sessions held out. Its model is trained on those of all
  other folds, for as many steps as the run until its checkpoint. The name of
  its folder, in folds/ of the workdir, is a checksum of all that it depends on.

  Args:
    run: whose folds these are.
    fold_of: the number of the fold of each training session, from 0; -1: it is
      in none, so that it neither trains nor calibrates a model.
    most: steps that are taken.

  Raises:
    UserError: training fails, or the run was trained with other fields.
  """
  build, config, workdir, experiment, read, _ = run
  pieces, count = read("train"), fold_of.max() + 1
  step = int(min(_steps(run), most))
  settings = config_lib.settings(config, config_lib.TRAINING)
  content = [step, experiment.facts("train")["crc32"], settings]
  key = zlib.crc32(json.dumps([*content, fold_of.tolist()]).encode())
  folders = [workdir / "folds" / f"{key:08x}-{k + 1}" for k in range(count)]
  held_out_KD = np.arange(count)[:, None] == fold_of
  trains_KD = ~held_out_KD & (fold_of >= 0)
  if not all((x / "checkpoints" / str(step)).is_dir() for x in folders):
    why = "for a few steps, to find what does not belong, "
    print(
      f"detect.folds={count}: trains {count} models,"
      f" {why * math.isfinite(most)}each without one of {count} parts of the"
      " training sessions; detect.folds=0 trains none"
    )
    config = check_owner(config, workdir)
    fit_folds(build, config, experiment, folders, trains_KD, step)
  return [
    Member(folder, step, *(splits.some(pieces, x) for x in both))
    for folder, *both in zip(folders, trains_KD, held_out_KD, strict=True)
  ]


def score_held_out(
  detector: Detector, left: np.ndarray | Sequence[int] = ()
) -> NormalSessions:
  """The held-out sessions of each model, with its scores.

  Args:
    detector: of the models.
    left: the documents that a first pass has left out.
  """
  tables, places = [], []
  for k, member in enumerate(detector.members):
    sessions, document = detector.held_out(k), member.held_out.document
    distinct = sessions.distinct()
    once = sessions.take(distinct.first)
    scored = detector.alone(k).score(once, distinct.counts)
    out = np.isin(document[distinct.first], left)
    tables.append(
      NormalSessions.of_scores(scored, k, detector.steps, distinct.which, out)
    )
    places.append(document[~scored.short[distinct.which]])
  table = NormalSessions.concatenate(tables)
  in_log = np.argsort(np.concatenate(places), kind="stable")
  return table._replace(order=table.order[in_log])


def fold_losses(normal: NormalSessions) -> list[float]:
  """The loss of each fold in nats an event, by the model that has not it."""
  model_N, K = np.repeat(normal.model, normal.sizes), len(normal.steps)
  weight_K = np.bincount(model_N, normal.event_counts, K)
  total_K = np.bincount(model_N, normal.nll * normal.event_counts, K)
  return (total_K / np.maximum(weight_K, 1)).tolist()


def fold_lines(losses: Sequence[float]) -> list[str]:
  """The loss of each fold; one of more than twice the others' is named."""
  lines, K = [], len(losses)
  for k, loss in enumerate(losses):
    text = f"fold {k + 1} of {K}: {loss:.4f} nats an event by the others' model"
    if K > 1 and loss > 2 * (others := np.median(np.delete(losses, k))):
      text += f"; more than twice as many as the {others:.4f} of the others"
    lines.append(text)
  return lines
