"""A detector: a trained model and fitted baselines that score sessions."""

import copy
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.config import Config
from seqrnn.data import sessions as data
from seqrnn.data import splits, vocabulary
from seqrnn.data.sessions import Sessions
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.detection import baselines
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.inference import scoring
from seqrnn.inference.scoring import Scores
from seqrnn.runtime import sharding
from seqrnn.runtime.checkpoint import restore_params
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

# Names of the network's scores; all other scores are of baselines.
SCORES = ("max", "mean", "top_mean", "misses", "unknown")
_LOGITS = 2**26  # Logits of a batch, at most.
_BUCKETS = 8  # Number of lengths to which sessions are padded.


class SessionScores(NamedTuple):
  """Scores of D distinct sessions and of their N events.

  Attributes:
    nll: surprisal in nats [N], at least `detect.unknown` for unknown events.
    rank: 1 plus the number of likelier events [N]; UNRANKED for unknown events.
    targets: ids of the events [N].
    bounds: int64 [D + 1]; session d has the events bounds[d] : bounds[d + 1].
    scores: name -> float64 [D], higher is more anomalous.
    counts: number of sessions equal to each distinct session [D].
    short: whether a session is flagged for its length alone [D].
    seconds: run time of the network.
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
  """A model, and baselines that are fitted to the same normal sessions.

  Attributes:
    config: of the model's run.
    experiment: its task.
    params: replicated over all devices.
    step: of the checkpoint.
    fitted: name of a baseline -> function sessions -> scores.
  """

  config: Config
  experiment: Experiment
  params: Params
  step: int
  fitted: dict[str, Callable[[Sessions], np.ndarray]]

  @property
  def names(self) -> Vocabulary:
    """The vocabulary of the events."""
    return self.experiment.vocabularies["symbols"]

  def score_events(self, sessions: Sessions, top_k: int) -> Scores:
    """The `scoring.target_scores` of each event, with its id as `targets`."""
    head = self.experiment.heads[self.config.detect.head]
    score = _event_scorer(head, top_k)
    run = scoring.scorer(self.experiment, sharding.mesh(), score)
    return run(self.params, sessions.pieces(self.names))

  def score(self, sessions: Sessions, counts: np.ndarray) -> SessionScores:
    """All scores of distinct sessions.

    Args:
      sessions: to score.
      counts: number of sessions equal to each of them.
    """
    settings = self.config.detect
    began = time.perf_counter()
    events = self.score_events(sessions, 0)
    seconds = time.perf_counter() - began
    bounds, rank = events.bounds, events.values["rank"]
    unknown = rank == scoring.UNRANKED
    nll = events.values["nll"].astype(np.float64)
    nll = np.where(unknown, np.maximum(nll, settings.unknown), nll)
    scores = {
      **_surprisal_scores(nll, bounds, settings.top_mean),
      "misses": _sums(rank > settings.top_k, bounds),
      "unknown": _sums(unknown, bounds),
    }
    short = np.zeros(len(counts), bool)
    if settings.short == "flag":
      short = np.diff(sessions.bounds) <= self.config.data.window
      scores = {name: np.where(short, np.inf, s) for name, s in scores.items()}
    scores |= {name: score(sessions) for name, score in self.fitted.items()}
    targets = events.values["targets"]
    return SessionScores(
      nll, rank, targets, bounds, scores, counts, short, seconds
    )


@lru_cache(CACHED_FUNCTIONS)
def _event_scorer(head: Callable, top_k: int) -> Callable:
  """A function for `scorer`: `target_scores` and the id of each event."""
  target_scores = scoring.event_scorer(head, top_k)

  def score(params, carry, batch):
    carry, values = target_scores(params, carry, batch)
    return carry, {**values, "targets": batch["targets"]}

  return score


def round_scores(scores: np.ndarray) -> np.ndarray:
  """Removes the last digits, which depend on a session's place in a batch.

  Equal sessions must have equal scores, because the score of one is often the
  threshold of another.
  """
  return np.round(scores, 4)


def _sums(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
  """The sum over the events of each session [D]; 0 without events."""
  session_N = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
  return np.bincount(session_N, values, minlength=len(bounds) - 1)


def _surprisal_scores(
  nll: np.ndarray, bounds: np.ndarray, top: int
) -> dict[str, np.ndarray]:
  """Maximum, mean, and mean of the `top` largest surprisals of each session.

  All are 0 for a session without events.
  """
  sizes = np.diff(bounds)
  session_N = np.repeat(np.arange(len(sizes)), sizes)
  sorted_nll = nll[np.lexsort((-nll, session_N))]  # Falls in each session.
  place = np.arange(len(nll)) - np.repeat(bounds[:-1], sizes)
  largest = lambda count: _sums(np.where(place < count, sorted_nll, 0), bounds)
  return {
    "max": round_scores(largest(1)),
    "mean": round_scores(_sums(nll, bounds) / np.maximum(sizes, 1)),
    "top_mean": round_scores(largest(top) / np.clip(sizes, 1, top)),
  }


def load_detector(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  normal: splits.Pieces,
) -> Detector:
  """Restores the model of a run and fits the baselines to normal sessions."""
  vocabularies = vocabulary.load(workdir / "vocabulary.json")
  experiment = build(whole_sessions(config, vocabularies), vocabularies)
  params, step = restore_params(
    workdir,
    config.checkpoint.step,
    shapes(experiment),
    sharding.replicated(sharding.mesh()),
  )
  settings = config.detect
  sessions = data.of_pieces(normal, experiment.vocabularies["symbols"])
  fitted = {
    name: fit(sessions)
    for name, fit in baselines.BASELINES.items()
    if settings.baselines or name in combined_names(settings)
  }
  return Detector(config, experiment, params, step, fitted)


def whole_sessions(
  config: Config, vocabularies: dict[str, Vocabulary]
) -> Config:
  """The config with one window per session, whatever window training used.

  The carry then runs from the begin to the end of a session. Only a session
  whose batch of logits would not fit in memory has several windows.
  """
  config = copy.deepcopy(config)
  settings = config.data
  settings.repeats = "each"  # The sessions are distinct already.
  if settings.mapping == "many_to_many":
    rows = scoring.ROWS * sharding.mesh().size
    longest = _LOGITS // (rows * len(vocabularies["symbols"]))
    settings.stateful, settings.buckets = False, _BUCKETS
    settings.window = max(settings.window, longest)
  return config


def combined_names(settings: Config) -> list[str]:
  """The names in `detect.scores`: the scores that are combined.

  Raises:
    UserError: a name is unknown or occurs twice.
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
