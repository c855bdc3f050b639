"""A detector: trained networks and fitted baselines that score sessions."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config import derived
from seqrnn.config.read import Config
from seqrnn.data import vocabulary
from seqrnn.data.logs.sessions import Key, Sessions, of_pieces, ranges, sums
from seqrnn.data.logs.values import Tails, measures_of, with_unusual
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import END, RESERVED, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Build, Carry, Experiment, Params
from seqrnn.logs.detect.scores import (
  NETWORK,
  Learned,
  Score,
  baselines,
  network_scores,
)
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.scoring import scorer
from seqrnn.training.checkpoint import restore_params

VOCABULARY = "vocabulary.json"
_LOGITS = 2**25  # Logits of a batch, at most.
_EVENTS = 2**18  # About the number of events that are scored at once.
# The columns of `SessionScores` with a value for each event, or each session.
_OF_EVENTS = ("nll", "rank", "member_nll", "targets")
_OF_SESSIONS = ("counts", "short", "lengths")
_BUCKETS = 8  # Number of lengths to which sessions are padded.


class Ensemble(NamedTuple):
  """K models of the same shapes and vocabulary.

  Attributes:
    params: a tree of arrays [K, ...], replicated over all devices.
    seen: bool [K, V], the symbols in the training sessions of each. A model
      reads and scores all other symbols as the unknown one.
  """

  params: Params
  seen: jax.Array | np.ndarray


@lru_cache(CACHED_FUNCTIONS)
def carry_of(
  carry: Callable[[int], Carry], count: int
) -> Callable[[int], Carry]:
  """The initial carry of all members: arrays [B, K, ...]."""

  def start(batch_size):
    one = carry(batch_size)
    return jax.tree.map(lambda x: jnp.stack([x] * count, axis=1), one)

  return start


@lru_cache(CACHED_FUNCTIONS)
def event_scorer(
  head: Callable[..., tuple[Carry, jax.Array]], top_k: int
) -> Callable[[Ensemble, Carry, Batch], tuple[Carry, dict[str, jax.Array]]]:
  """A function for `scorer`, whose params are an Ensemble.

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
      scores = scorer.target_scores(logits_BNV, seen["targets"])
      return jax.nn.softmax(logits_BNV), carry, scores

    def add(total_BNV, member):
      chances_BNV, carry, scores = one(member)
      return total_BNV + chances_BNV, (carry, scores["nll"], scores["rank"])

    members = *ensemble, jax.tree.map(by_member, carry)
    # To trace a member for this shape would take as long as its scan.
    none_BNV = jnp.zeros((*batch["targets"].shape, ensemble.seen.shape[1]))
    total_BNV, (carry, nll_KBN, rank_KBN) = jax.lax.scan(add, none_BNV, members)
    least = jnp.finfo(total_BNV.dtype).tiny  # Log of 0 is not finite.
    mean_BNV = jnp.log(jnp.maximum(total_BNV / len(ensemble.seen), least))
    values = {
      **scorer.target_scores(mean_BNV, batch["targets"], top_k),
      "member_nll": jnp.moveaxis(nll_KBN, 0, -1),
      "member_rank": jnp.moveaxis(rank_KBN, 0, -1),
      "targets": batch["targets"],
    }
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), carry), values

  return score


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


class SessionScores(NamedTuple):
  """Scores of D distinct sessions and of their N events by K members.

  Attributes:
    nll: surprisal in nats by the mean prediction of the members [N].
    rank: 1 plus the number of events that are likelier by this prediction [N];
      UNRANKED for events that no member has seen.
    member_nll: surprisal in nats by each member [K, N].
    targets: ids of the events [N].
    bounds: int64 [D + 1]; session d has the events bounds[d] : bounds[d + 1].
    scores: name -> float64 [K, D], higher is more anomalous.
    counts: number of sessions equal to each distinct session [D].
    short: whether a session is flagged for its length alone [D].
    lengths: number of events, without end symbols [D].
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

  def events(self, d: int) -> slice:
    """The events of a session."""
    return slice(*self.bounds[d : d + 2].tolist())

  def count(self, values_N: np.ndarray) -> np.ndarray:
    """The sum of a value of the events over each session, int [D]."""
    return sums(values_N, self.bounds).astype(int)

  def take(self, which: np.ndarray) -> "SessionScores":
    """The scores of some of the sessions."""
    places, bounds = ranges(self.bounds[which], self.bounds[which + 1])
    columns = {x: getattr(self, x)[..., places] for x in _OF_EVENTS}
    columns |= {x: getattr(self, x)[which] for x in _OF_SESSIONS}
    scores = {name: x[:, which] for name, x in self.scores.items()}
    return self._replace(bounds=bounds, scores=scores, **columns)

  @classmethod
  def concatenate(cls, parts: "Sequence[SessionScores]") -> "SessionScores":
    """All sessions of some parts."""
    join = lambda columns: np.concatenate([*columns], axis=-1)
    scores = {x: join(y.scores[x] for y in parts) for x in parts[0].scores}
    names = (*_OF_EVENTS, *_OF_SESSIONS)
    columns = {x: join(getattr(y, x) for y in parts) for x in names}
    bounds = np.append(0, np.cumsum(join(np.diff(x.bounds) for x in parts)))
    return parts[0]._replace(bounds=bounds, scores=scores, **columns)

  def offset(self, d: int) -> int:
    """The position in a session of its first scored event.

    The scored events are its last ones, and perhaps its end.
    """
    targets = self.targets[self.events(d)]
    has_end = len(targets) > 0 and targets[-1] == END
    return int(self.lengths[d]) + int(has_end) - len(targets)


class Detector(NamedTuple):
  """Models, and baselines that are fitted to the same normal sessions.

  Attributes:
    config: of the run.
    experiment: its task.
    members: where the models come from; empty: restored from deployed.npz.
    steps: of their checkpoints.
    models: the models.
    fitted: for each model, name of a baseline -> function sessions -> scores.
    tails: for each model, the distributions of values and times.
    measures: of `MEASURES`, those of which each model has a distribution.
    learned: for each model, what its baselines have learned.
    scored: by their keys, sessions whose scores are known, without those of
      values and times; None: each is scored again.
  """

  config: Config
  experiment: Experiment
  members: list[Member]
  steps: list[int]
  models: Ensemble
  fitted: list[dict[str, Score]]
  tails: Sequence[Tails] = ()
  measures: Sequence[str] = ()
  learned: Sequence[Learned] = ()
  scored: dict[Key, SessionScores] | None = None

  @property
  def names(self) -> Vocabulary:
    """The vocabulary of the events."""
    return self.experiment.vocabularies["symbols"]

  def score_events(self, sessions: Sessions, top_k: int) -> scorer.Scores:
    """The values of `event_scorer` for each event of distinct sessions."""
    # Few lengths, hence few programs to compile.
    whole = scorer.in_few_lengths(self.experiment)._replace(
      carry=carry_of(self.experiment.carry, len(self.steps))
    )
    head = self.experiment.heads[self.config.detect.head]
    score = event_scorer(head, top_k)
    begins, ends = sessions.whole
    sizes = np.diff(sessions.bounds) + begins + ends - 1
    if not sizes.any():  # No batch can be made of them.
      return _nothing(len(sizes), len(self.steps))
    rows = int(_rows(sessions, len(self.names)).min())
    run = scorer.scorer(whole, sharding.mesh(), score, rows)
    return run(self.models, sessions.pieces(self.names))

  def held_out(self, k: int) -> Sessions:
    """The held-out sessions of a member, with its scores of their values."""
    sessions = of_pieces(self.members[k].held_out, self.names)
    return self.alone(k).with_unusual(sessions)

  def held_out_once(self) -> Sessions:
    """The events of the sessions in the table of `score_held_out`."""
    parts = []
    for k in range(len(self.members)):
      sessions = self.held_out(k)
      once = sessions.take(sessions.distinct().first)
      parts.append(once.take(np.flatnonzero(~self.short(once))))
    return Sessions.concatenate(parts)

  def with_unusual(self, sessions: Sessions) -> Sessions:
    """Sessions with the scores of their values and times, by each model."""
    return with_unusual(sessions, self.tails, self.measures)

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
      tails=self.tails[some],
    )

  def score(self, sessions: Sessions, counts: np.ndarray) -> SessionScores:
    """All scores of distinct sessions.

    Args:
      sessions: to score.
      counts: number of sessions equal to each of them.
    """
    if sessions.unusual is None:
      return self._score(sessions, counts)
    plain = sessions.bare()
    first, which, _ = plain.distinct()
    scored = self._once(plain.take(first), counts[first]).take(which)
    by_measure = np.moveaxis(sessions.unusual.astype(float).round(1), 0, -1)
    scores = scored.scores | dict(zip(self.measures, by_measure, strict=True))
    return scored._replace(counts=counts, scores=scores)

  def _once(self, sessions: Sessions, counts: np.ndarray) -> SessionScores:
    """As `_score`, but for sessions whose scores are known."""
    if (known := self.scored) is None:
      return self._score(sessions, counts)
    keys = [*sessions.session_keys()]
    new = np.flatnonzero([key not in known for key in keys])
    if len(new):
      scores = self._score(sessions.take(new), counts[new])
      for n, d in enumerate(new.tolist()):
        known[keys[d]] = scores.take(np.array([n]))
    every = SessionScores.concatenate([known[key] for key in keys])
    return every._replace(counts=counts)

  def _score(self, sessions: Sessions, counts: np.ndarray) -> SessionScores:
    """All scores of distinct sessions, whose values and times are usual.

    Some are scored at a time, so that little is held beside scores. Long ones
    come last, so that others have more rows in a batch.
    """
    order = np.argsort(-_rows(sessions, len(self.names)), kind="stable")
    some = sessions.take(order)
    parts = [
      self._part(some.take(part), counts[order[part]])
      for part in some.parts(_EVENTS)
    ] or [self._part(sessions, counts)]
    return SessionScores.concatenate(parts).take(np.argsort(order))

  def _part(self, sessions: Sessions, counts: np.ndarray) -> SessionScores:
    events = self.score_events(sessions, 0)
    bounds, values = events.bounds, events.values
    short, ranks_KN = self.short(sessions), values["member_rank"].T
    nlls_KN = values["member_nll"].T
    models = zip(nlls_KN, ranks_KN, self.fitted, strict=True)
    by_model = [
      network_scores(nll_N, rank_N, bounds, self.config.detect.top_k)
      | dict.fromkeys(self.measures, np.zeros(len(short)))
      | {name: score(sessions) for name, score in fitted.items()}
      for nll_N, rank_N, fitted in models
    ]
    scores = {x: np.stack([y[x] for y in by_model]) for x in by_model[0]}
    scores |= {x: np.where(short, np.inf, scores[x]) for x in NETWORK}
    unknown_N = np.all(ranks_KN == scorer.UNRANKED, axis=0)
    rank = np.where(unknown_N, scorer.UNRANKED, values["rank"])
    return SessionScores(
      *(values["nll"], rank, nlls_KN, values["targets"], bounds, scores),
      *(counts, short, np.diff(sessions.bounds)),
    )


def _nothing(sessions: int, members: int) -> scorer.Scores:
  """The scores of sessions without events to score."""
  by_member = np.zeros((0, members), np.float32)
  values = {
    **dict.fromkeys(("nll", "entropy"), np.zeros(0, np.float32)),
    **dict.fromkeys(("rank", "targets"), np.zeros(0, np.int32)),
    **dict.fromkeys(("member_nll", "member_rank"), by_member),
  }
  bounds = np.zeros(sessions + 1, np.int64)
  return scorer.Scores(values, bounds, np.arange(sessions))


def _rows(sessions: Sessions, symbols: int) -> np.ndarray:
  """For each session, the rows of a batch whose logits fit in memory.

  They are powers of two: few shapes, hence few programs to compile.
  """
  padded = 2 ** np.ceil(np.log2(np.diff(sessions.bounds) + 2))
  most = np.maximum(_LOGITS // (padded * symbols), 1)
  return np.minimum(2 ** np.floor(np.log2(most)), scorer.ROWS).astype(int)


def load_detector(
  build: Build,
  config: Config,
  workdir: Path,
  checkpoints: Sequence[tuple[Path, int | None]],
  known: Iterable[tuple[Learned, Tails]],
  wanted: Iterable[str],
) -> Detector:
  """Restores models, and their baselines.

  Args:
    build: config, vocabularies or None -> Experiment.
    config: of the run.
    workdir: of the run, whose vocabulary the models have, too.
    checkpoints: the folder and the step of each model; None: the best one.
    known: what baselines have learned from the training sessions of each
      model, and the distributions of their values and times.
    wanted: the names of the baselines.

  Raises:
    UserError: a session has an event that the vocabulary lacks.
  """
  vocabularies = vocabulary.load(workdir / VOCABULARY)
  experiment = build(whole_sessions(config, vocabularies), vocabularies)
  restored = [restore_params(*one, experiment) for one in checkpoints]
  stack = lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves])
  params = jax.tree.map(stack, *(params for params, _ in restored))
  seen = np.zeros((len(checkpoints), len(vocabularies["symbols"])), bool)
  seen[:, : len(RESERVED)] = True
  learned, tails = map(list, zip(*known, strict=True))
  for seen_V, one in zip(seen, learned, strict=True):
    if one.known.max(initial=0) >= len(seen_V):
      raise UserError(f"{workdir / VOCABULARY}: lacks events of the detection")
    seen_V[one.known] = True
  fitted = [baselines(one, wanted) for one in learned]
  replicated = sharding.replicated(sharding.mesh())
  models = jax.device_put(Ensemble(params, seen), replicated)
  steps = [step for _, step in restored]
  measures = measures_of(tails)
  return Detector(
    *(config, experiment, [], steps, models, fitted, tails, measures, learned)
  )


def whole_sessions(
  config: Config, vocabularies: dict[str, Vocabulary]
) -> Config:
  """The config with one window per session, whatever window training used.

  The carry then runs from the begin to the end of a session. Only a session
  whose own logits would not fit in memory has several windows.
  """
  longest = _LOGITS // len(vocabularies["symbols"])
  return derived.one_window(config, longest, _BUCKETS)
