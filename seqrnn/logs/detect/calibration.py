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
from typing import NamedTuple

import numpy as np

from seqrnn.config import derived
from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data import splits
from seqrnn.data.logs import sessions as data
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.logs.values import KINDS
from seqrnn.data.splits import Pieces
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.logs.detect import inputs
from seqrnn.logs.detect.conformal import CrossCalibration
from seqrnn.logs.detect.detector import (
  VOCABULARY,
  Detector,
  Member,
  SessionScores,
  load_detector,
)
from seqrnn.logs.detect.scores import (
  BASELINES,
  COMBINED,
  combined_names,
  round_scores,
)
from seqrnn.logs.detect.selection import UNANSWERED, Selection, select
from seqrnn.runtime.console import console as make_console
from seqrnn.scoring.scorer import UNRANKED
from seqrnn.training import train

CALIBRATION = "calibration.npz"
# A checksum of the scores of some sessions, so that it changes with any score.
VERSION = "b364083f"
# Settings that invalidate a cached calibration, in addition to training's.
SETTINGS = ("head", "idle", "short", "top_k", "folds")
# Arrays of a calibration with a number for each event, and for each session,
# beside scores.
_EVENTS = ("nll", "event_counts")
_MOST = 2  # See `parts_of`.
# Those of distinct sessions; `order` has the row of every session of the log.
_SESSIONS = ("counts", "model", "sizes", "unknown")


class NormalScores(NamedTuple):
  """Scores of normal sessions by models that have not seen them.

  Attributes:
    scores: name of a score, or COMBINED -> scores of the sessions.
    events: surprisal of the sessions' events.
    names: of the scores that are combined.
    selection: which rows of calibration.npz are of these sessions.
    arrays: as of calibration.npz, of the selected rows.
  """

  scores: dict[str, CrossCalibration]
  events: CrossCalibration
  names: tuple[str, ...]
  selection: Selection
  arrays: dict[str, np.ndarray]

  def parts(self, scores: dict[str, np.ndarray]) -> np.ndarray:
    """As `parts_of`, by each model [parts, K, D].

    Their largest is the combined score. It is no -log p: it must be calibrated
    again.

    Args:
      scores: name -> scores of the sessions [K, D].
    """
    each = lambda name: self.scores[name].each_neg_log_p(scores[name])
    return parts_of({name: each(name) for name in self.names}, scores)


def calibrate(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  read: Callable[[str], Pieces],
  experiment: Experiment,
) -> tuple[Detector, dict[str, np.ndarray]]:
  """The detector of a run, and the arrays of calibration.npz in its workdir.

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
  arrays, scores = None, combined_names(config.detect)
  if path.exists():
    # A damaged file is written again.
    with suppress(UserError), inputs.reading(path):
      stored = inputs.load_arrays(path)
      if str(stored.pop("rests_on", "")) == key:
        of_every(stored, scores)
        arrays = stored
  steps = None if arrays is None else arrays["steps"].tolist()
  members = train_members(build, config, workdir, read, steps)
  names = experiment.vocabularies["symbols"]
  detector = load_detector(
    build,
    config,
    workdir,
    [(member.folder, member.step) for member in members],
    (data.of_pieces(member.train, names) for member in members),
  )._replace(members=members)
  if arrays is None or detector.steps != steps:
    arrays = score_held_out(detector)
    inputs.save_arrays(path, {**arrays, "rests_on": key})
  return detector, arrays


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
      **{name: value for name, (_, value) in training.items()},
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


def score_held_out(detector: Detector) -> dict[str, np.ndarray]:
  """The arrays of calibration.npz, from the models' held-out sessions."""
  parts, order, count = [], [], 0
  for k in range(len(detector.members)):
    sessions = detector.held_out(k)
    distinct = sessions.distinct()
    once = sessions.take(distinct.first)
    part = detector.alone(k).score(once, distinct.counts)
    rows_D = ~part.short
    number_D = count + np.cumsum(rows_D) - 1
    order.append(number_D[distinct.which[rows_D[distinct.which]]])
    count += int(rows_D.sum())
    parts.append(part)
  arrays = calibration_arrays(parts) | {"steps": np.array(detector.steps)}
  return arrays | {"order": np.concatenate(order)}


def calibration_arrays(parts: list[SessionScores]) -> dict[str, np.ndarray]:
  """The arrays of calibration.npz.

  Sessions that are flagged for their length, and those whose count is 0, have
  no part in them.

  Args:
    parts: scores of normal sessions by each model, K is 1.
  """
  arrays: dict[str, list[np.ndarray]] = {}
  for k, part in enumerate(parts):
    rows = ~part.short & (part.counts > 0)
    sizes = np.diff(part.bounds)
    rows_N = np.repeat(rows, sizes)
    columns = {f"score {name}": x[0, rows] for name, x in part.scores.items()}
    columns["counts"] = part.counts[rows]
    columns["model"] = np.full(rows.sum(), k)
    columns["sizes"] = sizes[rows]
    session_N = np.repeat(np.arange(len(sizes)), sizes)
    unknown_D = np.bincount(session_N, part.rank == UNRANKED, len(sizes))
    columns["unknown"] = unknown_D[rows] > 0
    columns["nll"] = part.member_nll[0, rows_N]
    columns["event_counts"] = np.repeat(part.counts, sizes)[rows_N]
    for name, column in columns.items():
      arrays.setdefault(name, []).append(column)
  return {name: np.concatenate(columns) for name, columns in arrays.items()}


def sessions_of(detector: Detector) -> Sessions:
  """The sessions of the rows of calibration.npz.

  They are distinct among those of a model; sessions of different models may be
  equal.
  """
  parts = []
  for k in range(len(detector.members)):
    sessions = detector.held_out(k)
    once = sessions.take(sessions.distinct().first)
    parts.append(once.take(np.flatnonzero(~detector.short(once))))
  return inputs.concatenate(parts)


def _rows(
  arrays: dict[str, np.ndarray], which: np.ndarray
) -> dict[str, np.ndarray]:
  """The arrays of some of the sessions and their events."""
  events, selected = np.repeat(which, arrays["sizes"]), dict(arrays)
  for name, array in arrays.items():
    if name in _EVENTS:
      selected[name] = array[events]
    elif name == "order":
      selected[name] = (np.cumsum(which) - 1)[array[which[array]]]
    elif name in _SESSIONS or name.startswith("score "):
      selected[name] = array[which]
  return selected


def named(arrays: dict[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
  """The arrays whose names start so, by the other part of their names."""
  return {
    name.removeprefix(start): array
    for name, array in arrays.items()
    if name.startswith(start)
  }


def normal_scores(
  arrays: dict[str, np.ndarray],
  settings: Config,
  answers: np.ndarray | None = None,
  further: dict[str, np.ndarray] | None = None,
) -> NormalScores:
  """The normal scores in the arrays of calibration.npz.

  Args:
    arrays: of calibration.npz.
    settings: of `config.detect`.
    answers: NORMAL, ANOMALOUS or UNANSWERED for each row; None: no answers.
    further: arrays of sessions that calibrate, too; None: there are none.

  Raises:
    UserError: there are no sessions, or none of a model is selected.
  """
  if not len(arrays["counts"]):
    raise UserError(
      f"config.detect.short={settings.short!r}: every normal session has at"
      " most data.window events, so no session is left for calibration"
    )
  selection = select(arrays, settings.contamination, answers)
  if further:
    count = len(further["counts"])
    together = {
      name: np.concatenate([arrays[name], column])
      for name, column in further.items()
      if name in arrays
    }
    rows = len(arrays["counts"]) + np.arange(count)
    rows = np.repeat(rows, further["counts"].astype(int))
    order, spread = arrays["order"], np.linspace(0, 1, len(rows))
    places = (spread * len(order)).astype(int)
    together["order"] = np.insert(order, places, rows)
    arrays = {**arrays, **together}
    selection = selection._replace(
      calibrates=np.append(selection.calibrates, np.ones(count, bool)),
      counts=arrays["counts"],
      answers=np.append(selection.answers, np.full(count, UNANSWERED)),
    )
  names = combined_names(settings)
  if settings.scores is None:
    names += tuple(kind for kind in KINDS if f"score {kind}" in arrays)
  for name in names:
    if f"score {name}" not in arrays:
      raise UserError(
        f"config.detect.scores={settings.scores!r}: the training sessions have"
        f" too few numbers or times for {name!r}"
      )
  return of_selection(arrays, selection, names)


def of_selection(
  arrays: dict[str, np.ndarray], selection: Selection, names: tuple[str, ...]
) -> NormalScores:
  """The normal scores of the selected sessions.

  Args:
    arrays: of calibration.npz.
    selection: which rows calibrate.
    names: of the scores that are combined.
  """
  arrays, models = _rows(arrays, selection.calibrates), len(arrays["steps"])
  counts, model = arrays["counts"], arrays["model"]
  by_model = CrossCalibration.by_model
  events = by_model(
    round_scores(arrays["nll"]),
    arrays["event_counts"],
    np.repeat(model, arrays["sizes"]),
    models,
  )
  by_name = {
    name: by_model(scores, counts, model, models)
    for name, scores in named(arrays, "score ").items()
  }
  combined = combined_rows(by_name, names, arrays, True)
  by_name[COMBINED] = by_model(combined, counts, model, models)
  return NormalScores(by_name, events, names, selection, arrays)


def of_every(
  arrays: dict[str, np.ndarray], names: tuple[str, ...]
) -> NormalScores:
  """As `of_selection`, of all sessions, some of which were perhaps selected."""
  every = np.ones(len(arrays["counts"]), bool)
  answers = np.full(len(every), UNANSWERED)
  selection = Selection(every, arrays["counts"], answers)
  return of_selection(arrays, selection, names)


def combined_rows(
  by_name: dict[str, CrossCalibration],
  names: tuple[str, ...],
  arrays: dict[str, np.ndarray],
  is_normal: np.ndarray | bool,
) -> np.ndarray:
  """The combined score of each row, by its own model [R].

  Args:
    by_name: the calibration of each score.
    names: of the scores that are combined.
    arrays: of calibration.npz.
    is_normal: as in `rows_neg_log_p`.
  """
  scores = {name: arrays[f"score {name}"] for name in names}
  of_rows = lambda name: by_name[name].rows_neg_log_p(
    scores[name], arrays["model"], is_normal
  )
  return parts_of({n: of_rows(n) for n in names}, scores).max(axis=0)


def parts_of(
  neg_log_p: dict[str, np.ndarray], scores: dict[str, np.ndarray]
) -> np.ndarray:
  """The parts of which the largest is the combined score [parts, ...].

  The first is -log of the product of the p-values of the scores of events
  (Fisher 1925). The others, of `KINDS`, are the evidence of values and of times
  in nats. A product with their p-values would hide anomalous events: a usual
  session in twenty has a p-value below 0.05. They are at most `_MOST` times
  -log p, because tails are extrapolated.

  Args:
    neg_log_p: name -> -log p.
    scores: name -> scores.
  """
  of_events = [x for name, x in neg_log_p.items() if name not in KINDS]
  parts = [
    np.minimum(np.expm1(scores[name]), _MOST * x)
    for name, x in neg_log_p.items()
    if name in KINDS
  ]
  product = np.sum(of_events, axis=0) if of_events else np.zeros_like(parts[0])
  return np.stack([product, *parts])
