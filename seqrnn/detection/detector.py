"""A detector: a model and baselines, and how normal sessions score with them.

What counts as odd is learned of normal sessions alone: how high they score,
each scored by a detector that has not seen it.
"""

import copy
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn import config as configs
from seqrnn.config import Config
from seqrnn.data import sessions as data
from seqrnn.data import splits, vocabulary
from seqrnn.data.sessions import Sessions
from seqrnn.data.vocabulary import END, Vocabulary
from seqrnn.detection import baselines, records
from seqrnn.detection.conformal import Calibration, benjamini_hochberg, combine
from seqrnn.detection.findings import Findings
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.inference import scoring
from seqrnn.inference.scoring import Scores
from seqrnn.runtime import files, sharding
from seqrnn.runtime.checkpoint import restore_params
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.training import fit

# Of the network; the others are of baselines.
SCORES = ("max", "mean", "top_mean", "misses", "unknown")
COMBINED = "combined"
CALIBRATION = "calibration.npz"
_NEW = "calibration.new.npz"  # Until there are results that rest on it.
# What the scores of normal sessions rest on, beside the run.
_MEANING = ("head", "unknown", "short", "top_mean", "top_k", "folds")
_LOGITS = 2**26  # Of a batch.
_BUCKETS = 8  # Lengths to which sessions are padded.


class Scored(NamedTuple):
  """What a detector says of D distinct sessions and their N events.

  Attributes:
    nll: surprisal in nats [N], a floor under unknown ones.
    rank: 1 and how many events are likelier [N]; NEVER of an unknown one.
    targets: their ids [N].
    bounds: int64 [D + 1].
    scores: name -> float64 [D], higher is odder.
    counts: how often each session comes [D].
    short: which are flagged for their length alone [D].
    seconds: that the network took.
  """

  nll: np.ndarray
  rank: np.ndarray
  targets: np.ndarray
  bounds: np.ndarray
  scores: dict[str, np.ndarray]
  counts: np.ndarray
  short: np.ndarray
  seconds: float


class Detector(NamedTuple):
  """A model, and baselines, that have learned of the same normal sessions.

  Attributes:
    config: of the model's run.
    experiment: its task.
    params: over all devices.
    step: of its checkpoint.
    fitted: name -> baseline, as fitted.
  """

  config: Config
  experiment: Experiment
  params: Params
  step: int
  fitted: dict[str, Callable[[Sessions], np.ndarray]]

  @property
  def names(self) -> Vocabulary:
    """Of the events, as ids stand for them wherever this detector reads."""
    return self.experiment.vocabularies["symbols"]

  def say(self, sessions: Sessions, top_k: int) -> Scores:
    """The figures of each event of sessions."""
    head = self.experiment.heads[self.config.detect.head]
    score = _figures(head, top_k)
    run = scoring.scorer(self.experiment, sharding.mesh(), score)
    return run(self.params, sessions.pieces(self.names))

  def score(self, sessions: Sessions, counts: np.ndarray) -> Scored:
    """All scores of distinct sessions, which come so often."""
    settings = self.config.detect
    began = time.perf_counter()
    found = self.say(sessions, 0)
    seconds = time.perf_counter() - began
    bounds, rank = found.bounds, found.values["rank"]
    unknown = rank == scoring.UNRANKED
    nll = found.values["nll"].astype(np.float64)
    nll = np.where(unknown, np.maximum(nll, settings.unknown), nll)
    scores = aggregate(
      nll, rank, unknown, bounds, settings.top_mean, settings.top_k
    )
    short = np.zeros(len(counts), bool)
    if settings.short == "flag":
      short = np.diff(sessions.bounds) <= self.config.data.window
      scores = {name: np.where(short, np.inf, s) for name, s in scores.items()}
    scores |= {name: score(sessions) for name, score in self.fitted.items()}
    targets = found.values["targets"]
    return Scored(nll, rank, targets, bounds, scores, counts, short, seconds)


@lru_cache(CACHED_FUNCTIONS)
def _figures(head: Callable, top_k: int) -> Callable:
  """A function for `scorer`: of each event its figures and its id."""
  figures = scoring.event_scorer(head, top_k)

  def score(params, carry, batch):
    carry, found = figures(params, carry, batch)
    return carry, {**found, "targets": batch["targets"]}

  return score


def round_scores(scores: np.ndarray) -> np.ndarray:
  """Without the last digits, which differ where a session stands elsewhere.

  Equal sessions must score the same: normal ones often are each other's
  threshold.
  """
  return np.round(scores, 4)


def aggregate(
  nll: np.ndarray,
  rank: np.ndarray,
  unknown: np.ndarray,
  bounds: np.ndarray,
  top: int,
  top_k: int,
) -> dict[str, np.ndarray]:
  """Scores of sessions from the figures of their events; 0 where are none.

  Args:
    nll: of the events.
    rank: of the events.
    unknown: which of them are.
    bounds: of the sessions.
    top: how many of the largest surprisals `top_mean` is the mean of.
    top_k: beyond which rank an event is a miss.
  """
  sizes = np.diff(bounds)
  which = np.repeat(np.arange(len(sizes)), sizes)

  def add_up(values):
    return np.bincount(which, values, minlength=len(sizes))

  falling = nll[np.lexsort((-nll, which))]
  among = np.arange(len(nll)) - np.repeat(bounds[:-1], sizes) < top
  highest = np.zeros(len(sizes))
  highest[sizes > 0] = falling[bounds[:-1][sizes > 0]]
  return {
    "max": round_scores(highest),
    "mean": round_scores(add_up(nll) / np.maximum(sizes, 1)),
    "top_mean": round_scores(
      add_up(np.where(among, falling, 0)) / np.clip(sizes, 1, top)
    ),
    "misses": add_up(rank > top_k),
    "unknown": add_up(unknown),
  }


def learn(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  normal: splits.Pieces,
) -> Detector:
  """The detector of a run that has been trained on some normal sessions."""
  vocabularies = vocabulary.load(workdir / "vocabulary.json")
  experiment = build(whole(config, vocabularies), vocabularies)
  place = sharding.replicated(sharding.mesh())
  params, step = restore_params(
    workdir, config.checkpoint.step, shapes(experiment), place
  )
  settings = config.detect
  seen = data.of_pieces(normal, experiment.vocabularies["symbols"])
  fitted = {
    name: fit(seen)
    for name, fit in baselines.BASELINES.items()
    if settings.baselines or name in chosen(settings)
  }
  return Detector(config, experiment, params, step, fitted)


def whole(config: Config, vocabularies: dict[str, Vocabulary]) -> Config:
  """The config with which sessions are read whole, however training cut them.

  Then the state goes through a session from its begin to its end. One so long
  that the logits of a batch would not fit in memory begins anew on its way.
  """
  config = copy.deepcopy(config)
  how = config.data
  how.repeats = "each"  # They are distinct already.
  if how.mapping == "many_to_many":
    rows = scoring.ROWS * sharding.mesh().size
    longest = _LOGITS // (rows * len(vocabularies["symbols"]))
    how.stateful, how.buckets = False, _BUCKETS
    how.window = max(how.window, longest)
  return config


def chosen(settings: Config) -> list[str]:
  """The scores that are combined.

  Raises:
    UserError: there is none of a name, or one comes twice.
  """
  names = [name.strip() for name in settings.scores.split(",")]
  known = (*SCORES, *baselines.BASELINES)
  for name in names:
    if name not in known or names.count(name) > 1:
      raise UserError(
        f"config.detect.scores={settings.scores!r}: must be some of"
        f" {', '.join(known)}, separated by commas, each once"
      )
  return names


class Normal(NamedTuple):
  """How normal sessions score that a detector has not seen.

  Attributes:
    scores: name -> the scores of sessions, `combined` among them.
    events: surprisal of their events.
  """

  scores: dict[str, Calibration]
  events: Calibration

  def combined(
    self, scores: dict[str, np.ndarray], settings: Config, own: bool = False
  ) -> np.ndarray:
    """The combined score; `own`: of the calibration sessions themselves."""
    neg_log_p = [
      self.scores[name].neg_log_p(scores[name], own)
      for name in chosen(settings)
    ]
    return combine(neg_log_p, settings.combine)


def calibrate(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  detector: Detector,
  read: Callable[[str], splits.Pieces],
  facts: Callable[[str], dict[str, Any]],
) -> Normal:
  """How normal sessions score; kept in detect/ until what it rests on changes.

  Args:
    build: as in `run`.
    config: of the run.
    workdir: of the run.
    detector: of the run.
    read: split -> its pieces.
    facts: of the experiment.

  Raises:
    UserError: there is no session to say so; or training does.
  """
  settings = config.detect
  fields = configs.flat(config)
  rests_on = json.dumps(
    {
      "step": detector.step,
      "scores": list(detector.fitted),
      **{split: facts(split)["crc32"] for split in ("train", "validation")},
      **{n: v for n, v in fields.items() if n.startswith(configs.TRAINING)},
      **{f"detect.{name}": settings[name] for name in _MEANING},
    }
  )
  folder = workdir / "detect"
  folder.mkdir(exist_ok=True)
  new = folder / _NEW
  made = {f"score {name}" for name in (*SCORES, *detector.fitted)} | {"counts"}
  for path in (folder / CALIBRATION, new):
    arrays = {}
    with suppress(UserError):  # It is not there, or damaged, and made again.
      arrays = records.read_arrays(path)
    if str(arrays.pop("rests_on", "")) == rests_on and made <= set(arrays):
      if path != new:
        new.unlink(missing_ok=True)
      return normal_of(arrays, settings)
  arrays = gathered(cross_fit(build, config, workdir, detector, read))
  with files.atomic_write(new, "wb") as file:
    arrays_and_text: dict[str, Any] = {**arrays, "rests_on": rests_on}
    np.savez_compressed(file, **arrays_and_text)
  return normal_of(arrays, settings)


def keep_calibration(folder: Path, results: Path):
  """Puts a new calibration to the results that rest on it.

  Args:
    folder: where `calibrate` has written it.
    results: which will take the place of the older ones.

  Raises:
    MachineError: it cannot be moved.
  """
  with files.write_errors(results / CALIBRATION):
    if (folder / _NEW).exists():
      os.replace(folder / _NEW, results / CALIBRATION)


def gathered(parts: list[Scored]) -> dict[str, np.ndarray]:
  """All that a calibration is made of; sessions flagged anyway have no part."""
  ruled = [np.repeat(~part.short, np.diff(part.bounds)) for part in parts]
  scores = {
    f"score {name}": np.concatenate(
      [part.scores[name][~part.short] for part in parts]
    )
    for name in parts[0].scores
  }
  return {
    **scores,
    "counts": np.concatenate([part.counts[~part.short] for part in parts]),
    "nll": np.concatenate(
      [part.nll[some] for part, some in zip(parts, ruled, strict=True)]
    ),
    "event_counts": np.concatenate(
      [
        np.repeat(part.counts, np.diff(part.bounds))[some]
        for part, some in zip(parts, ruled, strict=True)
      ]
    ),
  }


def normal_of(arrays: dict[str, np.ndarray], settings: Config) -> Normal:
  """The calibration; each session counts as often as it comes.

  Raises:
    UserError: there is none.
  """
  counts = arrays["counts"]
  if not len(counts):
    raise UserError(
      f"config.detect.short={settings.short!r}: all normal sessions are short,"
      " with no more events than data.window, and none tells how others score"
    )
  scores = {
    name.removeprefix("score "): array
    for name, array in arrays.items()
    if name.startswith("score ")
  }
  normal = Normal(
    {name: Calibration(array, counts) for name, array in scores.items()},
    Calibration(round_scores(arrays["nll"]), arrays["event_counts"]),
  )
  combined = normal.combined(scores, settings, own=True)
  normal.scores[COMBINED] = Calibration(combined, counts)
  return normal


def cross_fit(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  detector: Detector,
  read: Callable[[str], splits.Pieces],
) -> list[Scored]:
  """Scores of normal sessions, each by a detector that has not seen it.

  Those of validation are scored by the run's own model, those of training by
  one of `detect.folds` others, each trained without them in folds/ of the
  workdir, once.
  """

  def score(by: Detector, pieces: splits.Pieces) -> Scored:
    # A fold has a vocabulary of its own: what it has not seen is unknown to it.
    sessions = data.of_pieces(pieces, by.names)
    same = sessions.distinct()
    return by.score(sessions.take(same.first), same.counts)

  parts = [score(detector, read("validation"))]
  folds = config.detect.folds
  for k in range(1, folds + 1):
    print(f"fold {k} of {folds}: a model that does not see a part of training")
    part = copy.deepcopy(config)
    part.data.fold = f"{k}/{folds}"
    part.checkpoint.step = None
    if part.train.batches_per_epoch is part.train.samples_per_epoch is None:
      # Its epochs are shorter; it takes as many steps as the run.
      part.train.epochs = round(config.train.epochs * folds / (folds - 1))
    folder = workdir / "folds" / f"{k}-of-{folds}"
    if _trained_otherwise(folder, part):
      print(f"{folder}: trained with other settings; trained again")
      shutil.rmtree(folder)
    fit.fit(build, part, folder)
    seen, held_out = (
      splits.fold(read("train"), part.data.fold, out) for out in (False, True)
    )
    parts.append(score(learn(build, part, folder, seen), held_out))
  return parts


def _trained_otherwise(folder: Path, config: Config) -> bool:
  """Whether the model in a folder was trained with other settings."""
  path = folder / "config.json"
  if not path.exists():
    return False
  trained = configs.flat(configs.read_json(path))
  fields = configs.flat(config)
  return any(
    trained.get(name, fields[name]) != fields[name]
    for name in configs.CHANGEABLE
    if name not in configs.LIMITS
  )


def decide(
  scored: Scored, combined: np.ndarray, normal: Normal, settings: Config
) -> tuple[np.ndarray, np.ndarray]:
  """Which sessions are flagged, and which events.

  Short ones that are always flagged are flagged beside `detect.rule`: it
  decides about the others as if there were no short ones.
  """
  limit = normal.events.threshold(settings.event_rate)
  odd = round_scores(scored.nll) > limit
  if settings.rule == "topk":
    odd = scored.rank > settings.top_k
  calibration, ruled = normal.scores[COMBINED], ~scored.short
  match settings.rule:
    case "rate":
      flags = combined > calibration.threshold(settings.rate)
    case "budget":
      flags = np.zeros(len(combined), bool)
      order = np.argsort(-combined, kind="stable")
      flags[order[ruled[order]][: settings.budget]] = True
    case "bh":
      p = calibration.p_values(combined)
      tested = np.repeat(p[ruled], scored.counts[ruled])
      flagged = tested[benjamini_hochberg(tested, settings.false_share)]
      flags = p <= flagged.max(initial=0)
    case _:  # events, topk
      which = np.repeat(np.arange(len(combined)), np.diff(scored.bounds))
      flags = np.bincount(which, odd, minlength=len(combined)) > 0
  return flags | scored.short, odd


def detect(detector: Detector, normal: Normal, sessions: Sessions) -> Findings:
  """What a detector finds in sessions."""
  settings = detector.config.detect
  distinct = sessions.distinct()
  once = sessions.take(distinct.first)
  scored = detector.score(once, distinct.counts)
  combined = normal.combined(scored.scores, settings)
  combined[scored.short] = np.inf
  flags, odd = decide(scored, combined, normal, settings)
  sizes = np.diff(scored.bounds)
  ends = np.zeros(len(flags), bool)
  ends[sizes > 0] = scored.targets[scored.bounds[1:][sizes > 0] - 1] == END
  return Findings(
    sessions=sessions,
    distinct=distinct,
    names=detector.names,
    nll=scored.nll,
    rank=scored.rank,
    targets=scored.targets,
    bounds=scored.bounds,
    # What is scored are a session's last events.
    offsets=np.diff(once.bounds) + ends - sizes,
    event_p=normal.events.p_values(round_scores(scored.nll)),
    event_flags=odd,
    scores={COMBINED: combined, **scored.scores},
    p=np.where(
      scored.short, np.nan, normal.scores[COMBINED].p_values(combined)
    ),
    flags=flags,
    short=scored.short,
    seconds=scored.seconds,
  )
