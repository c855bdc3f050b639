"""A detector: trained models and fitted baselines that score sessions."""

import copy
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config.read import Config
from seqrnn.data import vocabulary
from seqrnn.data.logs import sessions as data
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import END, RESERVED, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Carry, Experiment, Params, shapes
from seqrnn.logs.detect import baselines, selection
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.scoring import scoring
from seqrnn.scoring.scoring import Scores
from seqrnn.training.checkpoint import restore_params


class Ensemble(NamedTuple):
  """K models of the same shapes and vocabulary.

  Attributes:
    params: a tree of arrays [K, ...], replicated over all devices.
    seen: bool [K, V], the symbols in the training sessions of each. A model
      reads and scores all other symbols as the unknown one.
  """

  params: Params
  seen: Any


def restore_models(
  experiment: Experiment, members: Sequence[tuple[Path, int | None]]
) -> tuple[Params, list[int]]:
  """The parameters of models, a tree of arrays [K, ...], and their steps."""
  restored = [
    restore_params(folder, step, shapes(experiment)) for folder, step in members
  ]
  stack = lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves])
  params = jax.tree.map(stack, *(params for params, _ in restored))
  return params, [step for _, step in restored]


@lru_cache(CACHED_FUNCTIONS)
def carry_of(
  carry: Callable[[int], Carry], count: int
) -> Callable[[int], Carry]:
  """The initial carry of all members: arrays [B, K, ...]."""

  def start(batch_size):
    one = carry(batch_size)
    return jax.tree.map(lambda x: jnp.stack([x] * count, axis=1), one)

  return start


def mean_logits(total_BNV: jax.Array, count: int) -> jax.Array:
  """The logits of the mean of predictions, given the sum of probabilities."""
  least = jnp.finfo(total_BNV.dtype).tiny  # Log of 0 is not finite.
  return jnp.log(jnp.maximum(total_BNV / count, least))


@lru_cache(CACHED_FUNCTIONS)
def event_scorer(
  head: Callable[..., tuple[Carry, jax.Array]], top_k: int
) -> Callable[[Ensemble, Carry, Batch], tuple[Carry, dict[str, jax.Array]]]:
  """A function for `scoring.scorer`, whose params are an Ensemble.

  Its values are the `target_scores` of the mean of the members' predictions
  [B, N, ...], `member_nll` and `member_rank` [B, N, K], and the id of each
  event, `targets`.

  The members compute one after the other, in one compiled program.

  Args:
    head: of `Experiment.heads`.
    top_k: as in `target_scores`.
  """

  def score(ensemble, carry, batch):
    by_member = lambda x: jnp.moveaxis(x, 1, 0)

    def one(member):
      params, seen_V, carry = member
      seen = dict(batch)
      for name in ("inputs", "targets"):
        seen[name] = jnp.where(seen_V[batch[name]], batch[name], UNKNOWN)
      carry, logits_BNV = head(params, carry, seen)
      scores = scoring.target_scores(logits_BNV, seen["targets"])
      return jax.nn.softmax(logits_BNV), carry, scores

    def add(total_BNV, member):
      chances_BNV, carry, scores = one(member)
      outputs = carry, scores["nll"], scores["rank"]
      return total_BNV + chances_BNV, outputs

    members = *ensemble, jax.tree.map(by_member, carry)
    first = jax.tree.map(lambda x: x[0], members)
    chances = jax.eval_shape(one, first)[0]
    total_BNV, (carry, nll_KBN, rank_KBN) = jax.lax.scan(
      add, jnp.zeros(chances.shape, chances.dtype), members
    )
    mean_BNV = mean_logits(total_BNV, len(ensemble.seen))
    values = {
      **scoring.target_scores(mean_BNV, batch["targets"], top_k),
      "member_nll": jnp.moveaxis(nll_KBN, 0, -1),
      "member_rank": jnp.moveaxis(rank_KBN, 0, -1),
      "targets": batch["targets"],
    }
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), carry), values

  return score


TOP = 5  # The surprisals of the score top_mean.
UNKNOWN_NATS = 20.0  # The least surprisal of an event unseen in training.
# Names of the network's scores; all other scores are of baselines.
SCORES = ("max", "mean", "top_mean", "misses", "unknown")
_LOGITS = 2**25  # Logits of a batch, at most.
_BUCKETS = 8  # Number of lengths to which sessions are padded.


class SessionScores(NamedTuple):
  """Scores of D distinct sessions and of their N events by K members.

  Attributes:
    nll: surprisal in nats by the mean prediction of the members [N], at least
      UNKNOWN_NATS for unknown events.
    rank: 1 plus the number of events that are likelier by this prediction [N];
      UNRANKED for unknown events.
    member_nll: surprisal in nats by each member [K, N].
    targets: ids of the events [N].
    bounds: int64 [D + 1]; session d has the events bounds[d] : bounds[d + 1].
    scores: name -> float64 [K, D], higher is more anomalous.
    counts: number of sessions equal to each distinct session [D].
    short: whether a session is flagged for its length alone [D].
    lengths: number of events, without end symbols [D].
    seconds: run time of the networks.
  """

  nll: np.ndarray
  rank: np.ndarray
  member_nll: np.ndarray
  targets: np.ndarray
  bounds: np.ndarray
  scores: dict[str, np.ndarray]
  counts: np.ndarray
  short: np.ndarray
  lengths: np.ndarray
  seconds: float

  @property
  def offsets(self) -> np.ndarray:
    """The position in each session of its first scored event [D]."""
    sizes = np.diff(self.bounds)
    ends = np.zeros(len(sizes), bool)
    ends[sizes > 0] = self.targets[self.bounds[1:][sizes > 0] - 1] == END
    # The scored events are the last events of a session.
    return self.lengths + ends - sizes


class Member(NamedTuple):
  """A trained model of a detector, and its sessions.

  Attributes:
    folder: of its checkpoints.
    step: of the checkpoint; None: the best one.
    train: the sessions that it was trained on.
    held_out: normal sessions that it has not seen.
  """

  folder: Path
  step: int | None
  train: Pieces
  held_out: Pieces


class Detector(NamedTuple):
  """Models, and baselines that are fitted to the same normal sessions.

  Attributes:
    config: of the run.
    experiment: its task.
    members: where the models come from.
    steps: of their checkpoints.
    models: the models.
    fitted: for each model, name of a baseline -> function sessions -> scores.
  """

  config: Config
  experiment: Experiment
  members: list[Member]
  steps: list[int]
  models: Ensemble
  fitted: list[dict[str, Callable[[Sessions], np.ndarray]]]

  @property
  def names(self) -> Vocabulary:
    """The vocabulary of the events."""
    return self.experiment.vocabularies["symbols"]

  def score_events(self, sessions: Sessions, top_k: int) -> Scores:
    """The values of `event_scorer` for each event."""
    head = self.experiment.heads[self.config.detect.head]
    experiment, count = self.experiment, len(self.steps)
    batches = experiment.batches
    whole = experiment._replace(
      carry=carry_of(experiment.carry, count),
      # Few lengths, hence few programs to compile.
      batches=lambda *split, **how: batches(*split, **how).map(
        scoring.pad_time
      ),
    )
    score = event_scorer(head, top_k)
    begins, ends = sessions.whole
    sizes = np.diff(sessions.bounds) + begins + ends - 1
    if not sizes.any():  # No batch can be made of them.
      return _nothing(len(sizes), count)
    rows_J = _rows(sessions, len(self.names))
    rows_J[sizes == 0] = rows_J[sizes > 0].min()
    parts = []
    for rows in np.unique(rows_J).tolist():
      run = scoring.scorer(whole, sharding.mesh(), score, rows)
      some = np.flatnonzero(rows_J == rows)
      pieces = sessions.take(some).pieces(self.names)
      parts.append((some, run(self.models, pieces)))
    return parts[0][1] if len(parts) == 1 else _joined(parts)

  def held_out(self, k: int) -> Sessions:
    """The held-out sessions of a member."""
    return data.of_pieces(self.members[k].held_out, self.names)

  def short(self, sessions: Sessions) -> np.ndarray:
    """Whether each session is flagged for its length alone, bool [D]."""
    sizes = np.diff(sessions.bounds)
    flagged = self.config.detect.short == "flag"
    return flagged & (sizes <= self.config.data.window)

  def alone(self, k: int) -> "Detector":
    """The detector that is one of the members."""
    some = slice(k, k + 1)
    return self._replace(
      members=self.members[some],
      steps=self.steps[some],
      models=jax.tree.map(lambda x: x[some], self.models),
      fitted=self.fitted[some],
    )

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
    bounds, values = events.bounds, events.values
    nll = _with_floor(values["nll"], values["rank"], UNKNOWN_NATS)
    ranks_KN = values["member_rank"].T
    nlls_KN = _with_floor(values["member_nll"].T, ranks_KN, UNKNOWN_NATS)
    by_member = [
      {
        **_surprisal_scores(nll_N, bounds),
        "misses": _sums(rank_N > settings.top_k, bounds),
        "unknown": _sums(rank_N == scoring.UNRANKED, bounds),
      }
      for nll_N, rank_N in zip(nlls_KN, ranks_KN, strict=True)
    ]
    short = self.short(sessions)
    if short.any():
      by_member = [
        {name: np.where(short, np.inf, s) for name, s in scores.items()}
        for scores in by_member
      ]
    for scores, fitted in zip(by_member, self.fitted, strict=True):
      scores |= {name: score(sessions) for name, score in fitted.items()}
    return SessionScores(
      nll=nll,
      rank=values["rank"],
      member_nll=nlls_KN,
      targets=values["targets"],
      bounds=bounds,
      scores={
        name: np.stack([scores[name] for scores in by_member])
        for name in by_member[0]
      },
      counts=counts,
      short=short,
      lengths=np.diff(sessions.bounds),
      seconds=seconds,
    )


def _nothing(sessions: int, members: int) -> Scores:
  """The scores of sessions without events to score."""
  by_member = np.zeros((0, members), np.float32)
  values = {
    **dict.fromkeys(("nll", "entropy"), np.zeros(0, np.float32)),
    **dict.fromkeys(("rank", "targets"), np.zeros(0, np.int32)),
    **dict.fromkeys(("member_nll", "member_rank"), by_member),
  }
  bounds = np.zeros(sessions + 1, np.int64)
  return Scores(values, bounds, np.arange(sessions))


def _rows(sessions: Sessions, symbols: int) -> np.ndarray:
  """For each session, the rows of a batch whose logits fit in memory.

  They are powers of two: few shapes, hence few programs to compile.
  """
  padded = 2 ** np.ceil(np.log2(np.diff(sessions.bounds) + 2))
  most = np.maximum(_LOGITS // (padded * symbols), 1)
  return np.minimum(2 ** np.floor(np.log2(most)), scoring.ROWS).astype(int)


def _joined(parts: list[tuple[np.ndarray, Scores]]) -> Scores:
  """The scores of several parts of the sessions, in the order of all.

  Args:
    parts: indices of sessions, and their scores; each session is distinct.
  """
  sizes = np.zeros(sum(len(some) for some, _ in parts), np.int64)
  for some, scores in parts:
    sizes[some] = np.diff(scores.bounds)
  bounds = np.concatenate([[0], np.cumsum(sizes)])
  indices = [
    data.ranges(bounds[some], bounds[some + 1])[0] for some, _ in parts
  ]
  order = np.argsort(np.concatenate(indices))
  values = jax.tree.map(
    lambda *columns: np.concatenate(columns)[order],
    *(scores.values for _, scores in parts),
  )
  return Scores(values, bounds, np.arange(len(sizes)))


def _with_floor(nll: np.ndarray, rank: np.ndarray, floor: float) -> np.ndarray:
  """Surprisals, those of unknown events at least UNKNOWN_NATS."""
  return np.where(rank == scoring.UNRANKED, np.maximum(nll, floor), nll)


def round_scores(scores: np.ndarray) -> np.ndarray:
  """Removes the last digits, which depend on a session's place in a batch.

  Equal sessions must have equal scores, because the score of one is often the
  threshold of another.
  """
  return np.round(scores.astype(np.float64), 4)


def _sums(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
  """The sum over the events of each session [D]; 0 without events."""
  session_N = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
  return np.bincount(session_N, values, minlength=len(bounds) - 1)


def _surprisal_scores(
  nll: np.ndarray, bounds: np.ndarray
) -> dict[str, np.ndarray]:
  """Maximum, mean, and mean of the TOP largest surprisals of each session.

  All are 0 for a session without events.
  """
  sizes = np.diff(bounds)
  session_N = np.repeat(np.arange(len(sizes)), sizes)
  sorted_nll = nll[np.lexsort((-nll, session_N))]  # Falls in each session.
  position = np.arange(len(nll)) - np.repeat(bounds[:-1], sizes)
  largest = lambda count: _sums(
    np.where(position < count, sorted_nll, 0), bounds
  )
  return {
    "max": round_scores(largest(1)),
    "mean": round_scores(_sums(nll, bounds) / np.maximum(sizes, 1)),
    "top_mean": round_scores(largest(TOP) / np.clip(sizes, 1, TOP)),
  }


def load_detector(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  members: list[Member],
) -> Detector:
  """Restores the models and fits baselines to the sessions of each.

  Args:
    build: config, vocabularies or None -> Experiment.
    config: of the run.
    workdir: of the run, whose vocabulary the members have, too.
    members: of the
  """
  vocabularies = vocabulary.load(workdir / "vocabulary.json")
  experiment = build(whole_sessions(config, vocabularies), vocabularies)
  names = experiment.vocabularies["symbols"]
  seen, fitted = [], []
  for member in members:
    sessions = data.of_pieces(member.train, names)
    seen.append(seen_symbols(sessions, names))
    fitted.append(
      {name: fit(sessions) for name, fit in baselines.BASELINES.items()}
    )
  params, steps = restore_models(
    experiment, [(member.folder, member.step) for member in members]
  )
  replicated = sharding.replicated(sharding.mesh())
  models = jax.device_put(Ensemble(params, np.stack(seen)), replicated)
  return Detector(config, experiment, members, steps, models, fitted)


def seen_symbols(sessions: Sessions, names: Vocabulary) -> np.ndarray:
  """Whether each id is in the sessions or is reserved, bool [V]."""
  seen = np.zeros(len(names), bool)
  seen[: len(RESERVED)] = True
  seen[sessions.ids] = True
  return seen


def whole_sessions(
  config: Config, vocabularies: dict[str, Vocabulary]
) -> Config:
  """The config with one window per session, whatever window training used.

  The carry then runs from the begin to the end of a session. Only a session
  whose own logits would not fit in memory has several windows.
  """
  config = copy.deepcopy(config)
  settings = config.data
  settings.repeats = "each"  # The sessions are distinct already.
  if settings.mapping == "many_to_many":
    longest = _LOGITS // len(vocabularies["symbols"])
    settings.stateful, settings.buckets = False, _BUCKETS
    settings.window = max(settings.window, longest)
  return config


def combined_names(settings: Config) -> list[str]:
  """The names in `detect.scores`, or those among which it is chosen.

  Raises:
    UserError: a name is unknown or occurs twice.
  """
  if settings.scores is None:
    return list(selection.CANDIDATES)
  names = [name.strip() for name in settings.scores.split(",")]
  known = (*SCORES, *baselines.BASELINES)
  for name in names:
    if name not in known or names.count(name) > 1:
      raise UserError(
        f"config.detect.scores={settings.scores!r}: must be some of"
        f" {', '.join(known)}, separated by commas, each once"
      )
  return names
