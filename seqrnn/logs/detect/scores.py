"""Scores of sessions: their names, their reasons in words, and baselines.

The networks give the scores `NETWORK`. Each other score learns from normal
sessions: `score = baselines(learn(train, names), names)[name]`, and
`score(test)` is float64 [sessions]. A higher score is more anomalous. No
session may be empty. A session that its log cuts is scored by the events that
the log has of it.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.sessions import Sessions, owners, sums
from seqrnn.data.logs.values import GAP, MEASURES, VALUE
from seqrnn.data.read.columns import Arrays
from seqrnn.data.vocabulary import BEGIN, END, UNKNOWN
from seqrnn.errors import UserError

COMBINED = "combined"
UNSEEN, COUNTS = "unknown", "counts"
SHORT, EVENT, PAIR = "short", "event", "pair"  # Reasons that are no scores.
NETWORK = ("max", "mean", "top_mean", "misses")
# The scores that are combined by default. Of those that have the least p-value,
# the first one is the reason for an alarm.
STANDARD = (UNSEEN, COUNTS, "max", "mean", "markov_5")

# The reasons for alarms in words.
WORDS = {
  "max": "one improbable event",
  "mean": "improbable events overall",
  "top_mean": "several improbable events",
  "misses": "many improbable events",
  UNSEEN: "an unknown event",
  PAIR: "events in an unknown order",
  **{f"markov_{order}": "unusual order of events" for order in range(1, 6)},
  "naive_bayes": "unusual events",
  "stide": "new sequences of events",
  COUNTS: "too many, or too few, of an event",
  "length": "unusual length",
  "count_vector": "unusual counts of events",
  "union": "unknown events, unusual length or counts",
  VALUE: "an unusual value",
  GAP: "an unusual silence",
  SHORT: "few events",
  EVENT: "a flagged event",
}


def in_words(reason: str) -> str:
  """A reason in words; empty: the session is not flagged."""
  return WORDS.get(reason, "")


TOP = 5  # The surprisals of the score top_mean.
_STIDE = 6  # Length of the n-grams (Forrest et al. 1996).

Score = Callable[[Sessions], np.ndarray]


def combined_names(settings: Config) -> tuple[str, ...]:
  """The names of the scores that are combined.

  Raises:
    UserError: a name is unknown or occurs twice.
  """
  if settings.scores is None:
    return STANDARD
  names = [name.strip() for name in settings.scores.split(",")]
  known = (*NETWORK, *BASELINES, *MEASURES)
  for name in names:
    if name not in known or names.count(name) > 1:
      raise UserError(
        f"config.detect.scores={settings.scores!r}: must be some of"
        f" {', '.join(known)}, separated by commas, each once"
      )
  return tuple(names)


def fitted_names(settings: Config, compared: bool) -> list[str]:
  """The names of the baselines that a detection needs, sorted.

  Args:
    settings: of `config.detect`.
    compared: whether labels are known, so that all are compared.

  Raises:
    UserError: as `combined_names`.
  """
  needed = {*STANDARD, *combined_names(settings)}
  return sorted(name for name in BASELINES if compared or name in needed)


def round_scores(scores: np.ndarray) -> np.ndarray:
  """Removes the last digits, which depend on a session's place in a batch.

  Equal sessions must have equal scores, because the score of one is often the
  threshold of another.
  """
  return np.round(scores.astype(np.float64), 4)


def network_scores(
  nll: np.ndarray, rank: np.ndarray, bounds: np.ndarray, top_k: int
) -> Arrays:
  """The scores `NETWORK` of each session [D]; 0 for one without events.

  Args:
    nll: surprisal of the sessions' events in nats [N].
    rank: 1 plus the number of likelier events; UNRANKED for unknown events.
    bounds: session d has the events bounds[d] : bounds[d + 1].
    top_k: events of a higher rank are misses.
  """
  sizes, session_N = np.diff(bounds), owners(bounds)
  sorted_nll = nll[np.lexsort((-nll, session_N))]  # Falls in each session.
  position = np.arange(len(nll)) - np.repeat(bounds[:-1], sizes)
  of = lambda values_N: sums(values_N, bounds)
  largest = lambda count: of(np.where(position < count, sorted_nll, 0))
  return {
    "max": round_scores(largest(1)),
    "mean": round_scores(of(nll) / np.maximum(sizes, 1)),
    "top_mean": round_scores(largest(TOP) / np.clip(sizes, 1, TOP)),
    "misses": of(rank > top_k),
  }


class Learned(NamedTuple):
  """All that baselines learn from normal sessions.

  It grows with the variety of the sessions, not with their number.

  Attributes:
    known: the ids of their events, sorted [S].
    grams: int64, the distinct n-grams of padded sessions, a context and a
      symbol each, sorted, for each n from 1 on.
    times: int64, how often each occurs where it is scored. After those of each
      n comes a 0, for an n-gram that is not in training.
    sizes: the number of n-grams of each n.
    low, high: the logarithms of 1 plus the least, and the greatest, count of
      each event in a session, and of unknown events [S + 1].
    lengths: the least and the greatest number of events [2].
    vectors: the distinct counts of events in a session [types, S + 1]; it has
      no row if no score compares them.
  """

  known: np.ndarray
  grams: np.ndarray
  times: np.ndarray
  sizes: np.ndarray
  low: np.ndarray
  high: np.ndarray
  lengths: np.ndarray
  vectors: np.ndarray

  @classmethod
  def of_columns(cls, columns: Arrays) -> "Learned":
    """The arrays of a file.

    Raises:
      TypeError, ValueError: a column is missing or has another length.
    """
    learned = cls(**columns)
    known, grams, times, sizes, low, high, lengths, vectors = learned
    widths = {len(known) + 1, len(low), len(high), *vectors.shape[1:]}
    totals = {len(grams), len(times) - len(sizes), int(sizes.sum())}
    columns_of = len(sizes), len(lengths), vectors.ndim
    fits = len(widths) == len(totals) == 1 and columns_of == (_STIDE, 2, 2)
    fits &= all(x.ndim == 1 and x.dtype.kind == "i" for x in learned[:4])
    if not fits:
      raise ValueError("the columns of its baselines do not fit each other")
    return learned


def learn(train: Sessions, names: Iterable[str]) -> Learned:
  """What the baselines of these names learn from sessions."""
  train = train.once()
  known, sizes = np.unique(train.ids), np.diff(train.bounds)
  shortest = sizes[_is_whole(train)].min(initial=sizes.max())
  vectors = np.zeros((0, len(known) + 1), np.int64)
  if {"count_vector", "union"} & {*names}:
    vectors = np.unique(_vectors(train, known), axis=0)
    vectors = vectors[np.argsort(vectors.sum(axis=1), kind="stable")]
  columns = [known, *_grams(train, known), *_count_range(train, known)]
  lengths = np.array([shortest, sizes.max()])
  return Learned._make([*columns, lengths, vectors])


def _grams(train: Sessions, known: np.ndarray) -> tuple[np.ndarray, ...]:
  """The columns `grams`, `times` and `sizes` of `Learned`."""
  known, order = np.union1d(known, [BEGIN, END]), _STIDE - 1
  symbols, scored = _padded(train, order)
  codes = _index(symbols, known)
  counts: Any = train.counts
  weights = np.repeat(counts, np.diff(train.bounds) + order + 1)[scored]
  contexts, every, times = np.zeros(len(codes), np.int64), [], []
  for _ in range(_STIDE):
    numbers = contexts * (len(known) + 1) + codes
    grams, indices = np.unique(numbers, return_inverse=True)
    every.append(grams)
    times.append(np.bincount(indices[scored], weights, len(grams) + 1))
    contexts = _shifted(indices)
  sizes = np.array([*map(len, every)])
  return np.concatenate(every), np.concatenate(times).astype(np.int64), sizes


class Chain:
  """A Markov chain with smoothing by Witten and Bell (1991).

  Each session has begin symbols before it and an end symbol after it. Where its
  log cuts it, its first event is not scored, or there is no end symbol.

  p(x | c) = (n(cx) + t(c) p(x | c')) / (n(c) + t(c)), where n counts, t(c) is
  the number of distinct symbols that follow the context c in training, and c'
  is c without its oldest symbol. The empty context backs off to a uniform
  distribution over the symbols of training and one symbol for all others.

  Attributes:
    learned: from the sessions of training.
    count_vector: the score, which two baselines have.
  """

  def __init__(self, learned: Learned, order: int = _STIDE - 1):
    self.learned, self._order = learned, order
    self.count_vector = count_vector(learned)
    self._symbols, count = np.union1d(learned.known, [BEGIN, END]), 1
    bounds = np.cumsum(learned.sizes)
    grams_of = np.split(learned.grams, bounds)
    times_of = np.split(learned.times, bounds + np.arange(len(bounds)) + 1)
    self._distinct = np.count_nonzero(times_of[0])
    # For each n from 1 on: the distinct n-grams; n of each n-gram; n and t of
    # each context. The last entry of the counts is 0.
    self._tables = []
    for grams, n in zip(grams_of[: order + 1], times_of, strict=False):
      context = np.append(grams // (len(self._symbols) + 1), count)
      totals = np.bincount(context, n, minlength=count + 1)
      followers = np.bincount(context, n > 0, minlength=count + 1)
      self._tables.append((grams, n, totals, followers))
      count = len(grams)

  def of_order(self, order: int) -> "Chain":
    """The chain of an order that is not higher, with the same tables."""
    chain = copy.copy(self)
    chain._order, chain._tables = order, self._tables[: order + 1]
    return chain

  def probabilities(self, sessions: Sessions) -> np.ndarray:
    """P of each event and of the end of each session, float64."""
    symbols, scored = _padded(sessions, self._order)
    p = np.full(len(symbols), 1 / (self._distinct + 1))
    for n, total, followers in self._counts(symbols):
      mixed = (n + followers * p) / np.maximum(total + followers, 1)
      p = np.where(total > 0, mixed, p)
    return p[scored]

  def novel(self, sessions: Sessions) -> np.ndarray:
    """Whether the (order + 1)-gram that ends at each event is new, bool.

    That of an event of another vocabulary always is.
    """
    symbols, scored = _padded(sessions, self._order)
    *_, (n, _, _) = self._counts(symbols)
    return (n[scored] == 0) | (symbols[scored] == UNKNOWN)

  def _counts(self, symbols: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields n(cx), n(c) and t(c) at each symbol, for c of length 0, 1, ..."""
    codes = _index(symbols, self._symbols)
    contexts = np.zeros(len(codes), np.int64)
    for grams, n, totals, followers in self._tables:
      numbers = contexts * (len(self._symbols) + 1) + codes
      indices = _index(numbers, grams)
      yield n[indices], totals[contexts], followers[contexts]
      contexts = _shifted(indices)


def _padded(sessions: Sessions, order: int) -> tuple[np.ndarray, np.ndarray]:
  """Symbols with BEGIN before and END after sessions; bool: it is scored."""
  more = order + 1
  ends = (sessions.bounds + more * np.arange(len(sessions.bounds)))[1:] - 1
  symbols = np.full(len(sessions.ids) + more * len(ends), BEGIN)
  scored = np.zeros(len(symbols), bool)
  indices = np.arange(len(sessions.ids)) + order
  indices += owners(sessions.bounds) * more
  symbols[indices], symbols[ends] = sessions.ids, END
  scored[indices] = True
  scored[indices[sessions.bounds[:-1]]], scored[ends] = sessions.whole
  return symbols, scored


def _shifted(values: np.ndarray) -> np.ndarray:
  """The values moved one position to the right, with 0 at the first one."""
  return np.concatenate([[0], values[:-1]])


def _index(values: np.ndarray, known: np.ndarray) -> np.ndarray:
  """The index of each value in a sorted array; its length if it is absent."""
  indices = np.searchsorted(known, values)
  present = known[np.minimum(indices, len(known) - 1)] == values
  return np.where(present, indices, len(known))


def _sums(values: np.ndarray, sessions: Sessions) -> np.ndarray:
  """The sum of a chain's values over each session."""
  return sums(values, np.append(0, np.cumsum(_scored(sessions))))


def _mean(values: np.ndarray, sessions: Sessions) -> np.ndarray:
  """The mean of a chain's values over each session; 0 where it has none."""
  return _sums(values, sessions) / np.maximum(_scored(sessions), 1)


def _scored(sessions: Sessions) -> np.ndarray:
  """The number of events of each session that a chain scores."""
  begins, ends = sessions.whole
  return np.diff(sessions.bounds) + begins + ends - 1


def unknown(chain: Chain) -> Score:
  """log(1 + n) of n unknown events and unknown pairs of neighbours.

  Begin and end are neighbours, too. An unknown event is in two unknown pairs.
  """
  pairs, alone = chain.of_order(1), chain.of_order(0)

  def score(test):
    return np.log1p(_sums(pairs.novel(test) + 1.0 * alone.novel(test), test))

  return score


def _counted(some: Sessions, known: np.ndarray) -> tuple[np.ndarray, ...]:
  """Session, symbol and count of the events that a session has."""
  symbols = len(known) + 1
  cells = owners(some.bounds) * symbols + _index(some.ids, known)
  cells, sizes = np.unique(cells, return_counts=True)
  return *np.divmod(cells, symbols), sizes


def _count_range(train: Sessions, known: np.ndarray) -> tuple[np.ndarray, ...]:
  """The columns `low` and `high` of `Learned`."""
  session, symbol, size = _counted(train, known)
  is_whole = _is_whole(train)
  high, some = np.zeros(len(known) + 1, int), is_whole[session]
  np.maximum.at(high, symbol, size)
  low = high.copy()
  np.minimum.at(low, symbol[some], size[some])
  has = np.bincount(symbol[some], minlength=len(low))  # Sessions, of each.
  low[has < max(is_whole.sum(), 1)] = 0
  return np.log1p(low), np.log1p(high)


def counts(learned: Learned) -> Score:
  """By how much counts of symbols are outside the range of training.

  It is the sum of |log((1 + n) / (1 + m))| over the symbols whose count n is
  outside, where m is the nearest count inside. Unknown events are one symbol.
  No symbol is too rare in a session that its log cuts.
  """
  known, low, high = learned.known, learned.low, learned.high

  def score(test):
    session, symbol, size = _counted(test, known)
    total = lambda x: np.bincount(session, x, len(test.names))
    size = np.log1p(size)
    enough = total(np.minimum(size, low[symbol]))
    few = np.where(_is_whole(test), low.sum() - enough, 0)
    return round_scores(total(np.maximum(size - high[symbol], 0)) + few)

  return score


def markov(order: int, chain: Chain) -> Score:
  """Mean surprisal in nats under a chain; order 0 is naive Bayes."""
  chain = chain.of_order(order)
  return lambda test: _mean(-np.log(chain.probabilities(test)), test)


def stide(chain: Chain) -> Score:
  """The share of new n-grams, including those with begin or end symbols."""
  return lambda test: _mean(chain.novel(test).astype(float), test)


def length(learned: Learned) -> Score:
  """Number of events by which a length is outside the range of training.

  A session that its log cuts is never too short.
  """
  low, high = learned.lengths

  def score(test):
    size = np.diff(test.bounds)
    short = np.where(_is_whole(test), low - size, 0)
    return np.maximum(np.maximum(short, size - high), 0).astype(float)

  return score


def _vectors(sessions: Sessions, known: np.ndarray) -> np.ndarray:
  """The counts of the events of each session, and of unknown ones."""
  session, symbol, size = _counted(sessions, known)
  counts = np.zeros((len(sessions.names), len(known) + 1), np.int64)
  counts[session, symbol] = size
  return counts


def count_vector(learned: Learned) -> Score:
  """Distance of the event counts to those of the nearest training session.

  It is sum |a - b| / sum (a + b), between 0 and 1 (Bray and Curtis 1957). For a
  session that its log cuts, b counts no more events than a: min(a, b).
  """
  normal = learned.vectors
  sizes, first = np.unique(normal.sum(axis=1), return_index=True)
  # The counts of each symbol in a type; larger ones are its limit.
  table: dict[np.dtype, np.ndarray] = {}
  last: list = [None, None]  # Two baselines score the same sessions in a row.

  def score(test: Sessions) -> np.ndarray:
    if last[0] is not test:
      last[:] = test, distance(test)
    return last[1]

  def distance(test: Sessions) -> np.ndarray:
    marked = np.column_stack([_vectors(test, learned.known), _is_whole(test)])
    distinct, which = np.unique(marked, axis=0, return_inverse=True)
    nearest = np.zeros(len(distinct))
    for n, (*counts, is_whole) in enumerate(distinct.tolist()):
      size = sum(counts)
      if (kind := np.min_scalar_type(size)) not in table:
        table[kind] = np.minimum(normal.T, np.iinfo(kind).max).astype(kind, "C")
      common, least = np.zeros((2, len(normal)), kind)
      for symbol, count in enumerate(counts):
        if count:  # The minimum of an array and a number is slow.
          least.fill(count)
          common += np.minimum(table[kind][symbol], least, out=least)
      # Of the training sessions of each size, the nearest one.
      most = np.maximum.reduceat(common, first).astype(float)
      other = sizes if is_whole else most
      nearest[n] = np.min((size + other - 2 * most) / (size + other))
    return nearest[which]

  return score


def _is_whole(sessions: Sessions) -> np.ndarray:
  """Whether its log cuts no part of each session."""
  begins, ends = sessions.whole
  return begins & ends


def union(learned: Learned, counts: Score) -> Score:
  """1 for an unknown event, 1 for a new length, and `count_vector`.

  A session scores above 0.05 if it has a new event, a new length or counts at a
  distance above 0.05; this distance was chosen on HDFS.
  """
  size = length(learned)

  def score(test):
    new = ~np.isin(test.ids, learned.known)
    new = np.logical_or.reduceat(new, test.bounds[:-1])
    return 1.0 * new + (size(test) > 0) + counts(test)

  return score


BASELINES: dict[str, Callable[[Chain], Score]] = {
  **{f"markov_{order}": partial(markov, order) for order in range(1, _STIDE)},
  "naive_bayes": partial(markov, 0),
  "stide": stide,
  UNSEEN: unknown,
  COUNTS: lambda chain: counts(chain.learned),
  "length": lambda chain: length(chain.learned),
  "count_vector": lambda chain: chain.count_vector,
  "union": lambda chain: union(chain.learned, chain.count_vector),
}


def baselines(learned: Learned, names: Iterable[str]) -> dict[str, Score]:
  """Name of a baseline -> its score, by all that it has learned."""
  chain = Chain(learned)
  return {name: BASELINES[name](chain) for name in names}
