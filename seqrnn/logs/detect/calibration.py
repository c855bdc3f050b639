"""Scores of normal sessions, each by a model that has not seen it."""

import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data import splits
from seqrnn.data.logs.sessions import Sessions
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.logs.detect import folds, inputs, records
from seqrnn.logs.detect.baselines import BASELINES
from seqrnn.logs.detect.conformal import (
  Calibration,
  CrossCalibration,
  beta_interval,
  combine,
  event_rate,
)
from seqrnn.logs.detect.detector import (
  Detector,
  SessionScores,
  combined_names,
  load_detector,
  round_scores,
)
from seqrnn.logs.detect.selection import (
  UNANSWERED,
  Choice,
  Combination,
  Judged,
  Selection,
  choose,
  select,
)
from seqrnn.runtime import files

COMBINED = "combined"
CALIBRATION = "calibration.npz"
# Settings that invalidate a cached calibration, in addition to training's.
SETTINGS = ("head", "idle", "short", "top_k", "folds")
_INJECTED = 100  # Sessions of a model with each kind of anomaly.


class NormalScores(NamedTuple):
  """Scores of normal sessions by models that have not seen them.

  Attributes:
    scores: name of a score, or COMBINED -> scores of the sessions.
    events: surprisal of the sessions' events.
    leave_one_out: the combined score of the sessions as `neg_log_p` of each
      against the other sessions of its model.
    as_new: the combined score that new sessions equal to them get.
    choice: the scores that are combined.
    selection: which rows of calibration.npz calibrate events.
    calibrates: whether a row is of these sessions, bool [R].
    arrays: as of calibration.npz, of the selected rows.
  """

  scores: dict[str, CrossCalibration]
  events: CrossCalibration
  leave_one_out: Calibration
  as_new: CrossCalibration
  choice: Choice
  selection: Selection
  calibrates: np.ndarray
  arrays: dict[str, np.ndarray]

  def record(self) -> dict[str, Any]:
    """The part of report.json: sessions left out, and the chosen scores."""
    names, how = self.choice.combination
    chosen = {
      "names": list(names),
      "combine": how,
      "injected": {
        "average_precision": self.choice.precision,
        "standard": self.choice.standard,
        "alone": self.choice.alone,
      },
    }
    return {**self.selection.record(), "scores": chosen}

  def thresholds(self, settings: Config) -> dict[str, Any]:
    """The rates of sessions and events in report.json."""
    sessions, events = self.scores[COMBINED], self.events
    return {
      "sessions": {
        "rate": settings.rate,
        "calibration": sessions.n,
        "resolution": sessions.resolution,
        "rate_95": beta_interval(settings.rate, sessions.n),
      },
      "events": {
        "rate": event_rate(settings),
        "calibration": events.n,
        "resolution": events.resolution,
      },
    }

  def combined(self, scores: dict[str, np.ndarray]) -> np.ndarray:
    """The combined score of sessions by each model [K, D].

    Args:
      scores: name -> scores of the sessions [K, D].
    """
    names, how = self.choice.combination
    return np.stack(
      [
        combine(
          [self.scores[n].groups[k].neg_log_p(scores[n][k]) for n in names], how
        )
        for k in range(len(self.events.groups))
      ]
    )


def calibrate(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  read: Callable[[str], splits.Pieces],
  facts: Callable[[str], dict[str, Any]],
) -> tuple[Detector, dict[str, np.ndarray]]:
  """The detector of a run, and the arrays of calibration.npz in its workdir.

  Folds are trained, and sessions scored, unless calibration.npz is of the same
  settings and data.

  Args:
    build: config, vocabularies or None -> Experiment.
    config: of the run.
    workdir: of the run.
    read: split -> its pieces.
    facts: of the run's experiment.

  Raises:
    UserError: there are no normal sessions to score, or training fails.
  """
  path, key = workdir / CALIBRATION, _key(config, workdir, facts)
  arrays = None
  if path.exists():
    with suppress(UserError):  # A damaged file is written again.
      arrays = records.read_arrays(path)
      if str(arrays.pop("rests_on", "")) != key:
        arrays = None
  steps = None if arrays is None else arrays["steps"].tolist()
  members = folds.members_of(build, config, workdir, read, steps)
  detector = load_detector(build, config, workdir, members)
  if arrays is None or detector.steps != steps:
    arrays = _score(detector)
    with files.atomic_write(path, "wb") as file:
      arrays_and_text: dict[str, Any] = {**arrays, "rests_on": key}
      np.savez_compressed(file, **arrays_and_text)
  return detector, arrays


def _score(detector: Detector) -> dict[str, np.ndarray]:
  """The arrays of calibration.npz, from the models' held-out sessions."""
  rng = np.random.default_rng(0)
  held_out, injected, kinds, choosing = [], [], [], []
  for k in range(len(detector.members)):
    sessions, alone = detector.held_out(k), detector.alone(k)
    distinct = sessions.distinct()
    once = sessions.take(distinct.first)
    held_out.append(alone.score(once, distinct.counts))
    which = distinct.which
    half = np.sort(rng.permutation(len(which))[: (len(which) + 1) // 2])
    choosing_D = np.bincount(which[half], minlength=len(distinct.counts))
    choosing.append(choosing_D[~held_out[k].short])
    mixed, kind = inputs.inject_each(rng, sessions.take(half), _INJECTED)
    injected.append(alone.score(mixed, np.ones(len(kind), np.int64)))
    kinds.append(kind)
  arrays = calibration_arrays(held_out)
  arrays["choosing"] = np.concatenate(choosing)  # Of the sessions in counts.
  for name, column in calibration_arrays(injected).items():
    if name.startswith("score ") or name == "model":
      arrays[f"injected {name}"] = column
  long = [~part.short for part in injected]
  pairs = zip(kinds, long, strict=True)
  arrays["injected kind"] = np.concatenate([k[some] for k, some in pairs])
  arrays["steps"] = np.array(detector.steps)
  arrays["seen"] = np.asarray(detector.models.seen).astype(np.uint8).ravel()
  return arrays


def _key(
  config: Config, workdir: Path, facts: Callable[[str], dict[str, Any]]
) -> str:
  """The settings and data of the scores of normal sessions, as a text."""
  settings, fields = config.detect, config_lib.flat(config)
  return json.dumps(
    {
      "version": 2,  # Of the arrays.
      "scores": sorted(BASELINES),
      "vocabulary": zlib.crc32((workdir / folds.VOCABULARY).read_bytes()),
      **{split: facts(split)["crc32"] for split in ("train", "validation")},
      **{n: v for n, v in fields.items() if n.startswith(config_lib.TRAINING)},
      **{f"detect.{name}": settings[name] for name in SETTINGS},
    }
  )


def _by_model(
  scores: np.ndarray, counts: np.ndarray, model: np.ndarray, models: int
) -> CrossCalibration:
  """The calibration of scores, each by the model of a number from 0."""
  some = (model == k for k in range(models))
  return CrossCalibration([Calibration(scores[s], counts[s]) for s in some])


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
    columns["nll"] = part.member_nll[0, rows_N]
    columns["event_counts"] = np.repeat(part.counts, sizes)[rows_N]
    for name, column in columns.items():
      arrays.setdefault(name, []).append(column)
  return {name: np.concatenate(columns) for name, columns in arrays.items()}


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
    further: arrays of sessions that are normal; None: there are none.

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
    arrays, selection = joined(arrays, further, selection)
  if settings.scores is None:
    chooses = selection.calibrates & (arrays["choosing"] > 0)
    half = records.without({**arrays, "counts": arrays["choosing"]}, ~chooses)
    choice = choose(_judged(half, *_by_name(half)))
  else:
    names = tuple(combined_names(settings))
    choice = Choice(Combination(names, "fisher"))
  return of_choice(arrays, selection, choice)


def joined(
  arrays: dict[str, np.ndarray],
  further: dict[str, np.ndarray],
  selection: Selection,
) -> tuple[dict[str, np.ndarray], Selection]:
  """The arrays and the selection with further sessions, which calibrate."""
  count = len(further["counts"])
  further = {**further, "choosing": np.zeros(count, np.int64)}
  together = {
    name: np.concatenate([arrays[name], column])
    for name, column in further.items()
    if name in arrays
  }
  return {**arrays, **together}, selection._replace(
    calibrates=np.append(selection.calibrates, np.ones(count, bool)),
    counts=together["counts"],
    answers=np.append(selection.answers, np.full(count, UNANSWERED)),
  )


def of_choice(
  arrays: dict[str, np.ndarray], selection: Selection, choice: Choice
) -> NormalScores:
  """The normal scores of the selected sessions, with chosen scores.

  Args:
    arrays: of calibration.npz.
    selection: which rows calibrate.
    choice: the scores that are combined.
  """
  selected = records.without(arrays, ~selection.calibrates)
  events = _by_model(
    round_scores(selected["nll"]),
    selected["event_counts"],
    np.repeat(selected["model"], selected["sizes"]),
    len(selected["steps"]),
  )
  if choice.replaced:
    arrays = {**arrays, "counts": arrays["counts"] - arrays["choosing"]}
  calibrates = selection.calibrates & (arrays["counts"] > 0)
  arrays = records.without(arrays, ~calibrates)
  counts, model = arrays["counts"], arrays["model"]
  scores, by_name = _by_name(arrays)
  names, how = choice.combination
  count = len(arrays["steps"])
  combined, leave_one_out, as_new = np.zeros((3, len(counts)))
  for k in range(count):
    some = model == k
    groups = [(by_name[name].groups[k], scores[name][some]) for name in names]
    for column, is_normal in ((combined, True), (as_new, False)):
      column[some] = combine(
        [g.neg_log_p(s, is_normal) for g, s in groups], how
      )
  by_name[COMBINED] = _by_model(combined, counts, model, count)
  for k, group in enumerate(by_name[COMBINED].groups):
    some = model == k
    leave_one_out[some] = group.neg_log_p(combined[some], leave_one_out=True)
  return NormalScores(
    by_name,
    events,
    Calibration(leave_one_out, counts),
    _by_model(as_new, counts, model, count),
    choice,
    selection,
    calibrates,
    selected,
  )


def _by_name(
  arrays: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, CrossCalibration]]:
  """The scores of sessions by name, and their calibrations."""
  scores = records.named(arrays, "score ")
  counts, model, count = arrays["counts"], arrays["model"], len(arrays["steps"])
  return scores, {
    name: _by_model(array, counts, model, count)
    for name, array in scores.items()
  }


def _judged(
  arrays: dict[str, np.ndarray],
  scores: dict[str, np.ndarray],
  by_name: dict[str, CrossCalibration],
) -> list[Judged]:
  """-log p of the normal and of the injected sessions by each model."""
  injected = records.named(arrays, "injected score ")
  judged = []
  for k in range(len(by_name["max"].groups)):
    normal, other = arrays["model"] == k, arrays["injected model"] == k
    groups = {name: by_name[name].groups[k] for name in scores}
    judged.append(
      Judged(
        {
          n: g.neg_log_p(scores[n][normal], leave_one_out=True)
          for n, g in groups.items()
        },
        arrays["counts"][normal],
        {n: g.neg_log_p(injected[n][other]) for n, g in groups.items()},
        arrays["injected kind"][other],
      )
    )
  return judged
