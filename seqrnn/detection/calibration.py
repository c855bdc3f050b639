"""Scores of normal sessions, each by a detector that has not seen it."""

import copy
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn import config as config_lib
from seqrnn.config import Config
from seqrnn.data import sessions as data
from seqrnn.data import splits
from seqrnn.detection import records
from seqrnn.detection.conformal import Calibration, combine
from seqrnn.detection.detector import (
  SCORES,
  Detector,
  SessionScores,
  combined_names,
  load_detector,
  round_scores,
)
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.runtime import files
from seqrnn.training import fit

COMBINED = "combined"
CALIBRATION = "calibration.npz"
_NEW = "calibration.new.npz"  # Its name until results that use it are written.
# Settings that invalidate a cached calibration, in addition to training's.
_SETTINGS = ("head", "unknown", "idle", "short", "top_mean", "top_k", "folds")


class NormalScores(NamedTuple):
  """Scores of normal sessions that the detector has not seen.

  Attributes:
    scores: name of a score, or COMBINED -> scores of the sessions.
    events: surprisal of the sessions' events.
  """

  scores: dict[str, Calibration]
  events: Calibration

  def combined(
    self, scores: dict[str, np.ndarray], settings: Config, own: bool = False
  ) -> np.ndarray:
    """The combined score of sessions.

    Args:
      scores: name -> scores of the sessions.
      settings: of `config.detect`.
      own: whether these are the calibration sessions themselves.
    """
    neg_log_p = [
      self.scores[name].neg_log_p(scores[name], own)
      for name in combined_names(settings)
    ]
    return combine(neg_log_p, settings.combine)


def calibrate(
  build: Callable[..., Experiment],
  workdir: Path,
  detector: Detector,
  read: Callable[[str], splits.Pieces],
  facts: Callable[[str], dict[str, Any]],
) -> NormalScores:
  """Scores normal sessions, or reads the scores cached in detect/.

  Args:
    build: config, vocabularies or None -> Experiment.
    workdir: of the run.
    detector: of the run.
    read: split -> its pieces.
    facts: of the run's experiment.

  Raises:
    UserError: there are no normal sessions to score, or training fails.
  """
  config = detector.config
  settings, fields = config.detect, config_lib.flat(config)
  depends_on = json.dumps(
    {
      "step": detector.step,
      "scores": list(detector.fitted),
      **{split: facts(split)["crc32"] for split in ("train", "validation")},
      **{n: v for n, v in fields.items() if n.startswith(config_lib.TRAINING)},
      **{f"detect.{name}": settings[name] for name in _SETTINGS},
    }
  )
  folder = workdir / "detect"
  folder.mkdir(exist_ok=True)
  new = folder / _NEW
  names = {f"score {name}" for name in (*SCORES, *detector.fitted)} | {"counts"}
  for path in (folder / CALIBRATION, new):
    arrays = {}
    with suppress(UserError):  # A missing or damaged file is written again.
      arrays = records.read_arrays(path)
    if str(arrays.pop("rests_on", "")) == depends_on and names <= set(arrays):
      if path != new:
        new.unlink(missing_ok=True)
      return normal_scores(arrays, settings)
  arrays = calibration_arrays(cross_fit(build, workdir, detector, read))
  with files.atomic_write(new, "wb") as file:
    arrays_and_text: dict[str, Any] = {**arrays, "rests_on": depends_on}
    np.savez_compressed(file, **arrays_and_text)
  return normal_scores(arrays, settings)


def keep_calibration(folder: Path, results: Path):
  """Moves a new calibration to the results that depend on it.

  Args:
    folder: in which `calibrate` has written it.
    results: folder of the new results, which will replace the old ones.

  Raises:
    MachineError: the file cannot be moved.
  """
  with files.write_errors(results / CALIBRATION):
    if (folder / _NEW).exists():
      os.replace(folder / _NEW, results / CALIBRATION)


def read_events(path: Path) -> Calibration:
  """Reads the surprisals of normal events from calibration.npz.

  Raises:
    UserError: the file is missing or damaged.
  """
  arrays = records.read_arrays(path)
  with records.reading(path):
    return _event_calibration(arrays)


def _event_calibration(arrays: dict[str, np.ndarray]) -> Calibration:
  return Calibration(round_scores(arrays["nll"]), arrays["event_counts"])


def calibration_arrays(parts: list[SessionScores]) -> dict[str, np.ndarray]:
  """The arrays of calibration.npz.

  Sessions that are flagged for their length have no part in them.

  Args:
    parts: scores of normal sessions.
  """
  arrays: dict[str, list[np.ndarray]] = {}
  for part in parts:
    kept = ~part.short
    sizes = np.diff(part.bounds)
    kept_N = np.repeat(kept, sizes)
    columns = {f"score {name}": x[kept] for name, x in part.scores.items()}
    columns["counts"] = part.counts[kept]
    columns["nll"] = part.nll[kept_N]
    columns["event_counts"] = np.repeat(part.counts, sizes)[kept_N]
    for name, column in columns.items():
      arrays.setdefault(name, []).append(column)
  return {name: np.concatenate(columns) for name, columns in arrays.items()}


def normal_scores(
  arrays: dict[str, np.ndarray], settings: Config
) -> NormalScores:
  """The normal scores in the arrays of calibration.npz.

  Raises:
    UserError: there are no sessions.
  """
  counts = arrays["counts"]
  if not len(counts):
    raise UserError(
      f"config.detect.short={settings.short!r}: every normal session has at"
      " most data.window events, so no session is left for calibration"
    )
  scores = {
    name.removeprefix("score "): array
    for name, array in arrays.items()
    if name.startswith("score ")
  }
  normal = NormalScores(
    {name: Calibration(array, counts) for name, array in scores.items()},
    _event_calibration(arrays),
  )
  combined = normal.combined(scores, settings, own=True)
  normal.scores[COMBINED] = Calibration(combined, counts)
  return normal


def cross_fit(
  build: Callable[..., Experiment],
  workdir: Path,
  detector: Detector,
  read: Callable[[str], splits.Pieces],
) -> list[SessionScores]:
  """Scores normal sessions, each by a detector that has not seen it.

  The run's own model scores the validation split. The training split has
  `detect.folds` parts. Each part is scored by a model that is trained once, in
  folds/ of the workdir, on all other parts.
  """

  def score(by: Detector, pieces: splits.Pieces) -> SessionScores:
    # Each fold has its own vocabulary, outside of which events are unknown.
    sessions = data.of_pieces(pieces, by.names)
    distinct = sessions.distinct()
    return by.score(sessions.take(distinct.first), distinct.counts)

  config = detector.config
  parts = [score(detector, read("validation"))]
  folds = config.detect.folds
  for k in range(1, folds + 1):
    print(
      f"fold {k} of {folds}: a model trained on the other training sessions"
    )
    fold = copy.deepcopy(config)
    fold.data.fold = f"{k}/{folds}"
    fold.checkpoint.step = None
    if fold.train.batches_per_epoch is fold.train.samples_per_epoch is None:
      # Epochs of a fold are shorter; the number of steps is that of the run.
      fold.train.epochs = round(config.train.epochs * folds / (folds - 1))
    folder = workdir / "folds" / f"{k}-of-{folds}"
    if _trained_otherwise(folder, fold):
      print(f"{folder}: was trained with other settings, and is trained again")
      shutil.rmtree(folder)
    fit.fit(build, fold, folder)
    seen, held_out = (
      splits.fold(read("train"), fold.data.fold, out) for out in (False, True)
    )
    parts.append(score(load_detector(build, fold, folder, seen), held_out))
  return parts


def _trained_otherwise(folder: Path, config: Config) -> bool:
  """Whether the model in a folder was trained with other settings."""
  path = folder / "config.json"
  if not path.exists():
    return False
  trained = config_lib.flat(config_lib.read_json(path))
  fields = config_lib.flat(config)
  return any(
    trained.get(name, fields[name]) != fields[name]
    for name in config_lib.CHANGEABLE
    if name not in config_lib.LIMITS
  )
