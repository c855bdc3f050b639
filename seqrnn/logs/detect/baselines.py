"""Baselines of detection: each learns from normal sessions and scores others.

`fit = BASELINES[name]`, `score = fit(train)`, and `score(test)` is float64
[sessions], higher for more anomalous sessions; equal sessions are scored once.
No session may be empty. Events absent from training have no special treatment.
A session that its log cuts is scored by the events that the log has of it.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.spatial.distance import cdist

from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.vocabulary import BEGIN, END

Score = Callable[[Sessions], np.ndarray]

_BLOCK = 2**22  # Distances in memory at once.
_STIDE = 6  # Length of the n-grams (Forrest et al. 1996).


class Chain:
  """A Markov chain with smoothing by Witten and Bell (1991).

  Each session has begin symbols before it and an end symbol after it. Where its
  log cuts it, its first event is not scored, or there is no end symbol.

  p(x | c) = (n(cx) + t(c) p(x | c')) / (n(c) + t(c)), where n counts, t(c) is
  the number of distinct symbols that follow the context c in training, and c'
  is c without its oldest symbol. The empty context backs off to a uniform
  distribution over the symbols of training and one symbol for all others.
  """

  def __init__(self, train: Sessions, order: int):
    self._order = order
    symbols, scored = self._padded(train)
    self._symbols = np.unique(symbols)
    self._kinds = len(np.unique(symbols[scored]))
    codes = _index(symbols, self._symbols)
    contexts, count = np.zeros(len(codes), np.int64), 1
    # For each n from 1 on: the distinct n-grams, a context and a symbol each;
    # n of each n-gram; n and t of each context. The last entry of the counts is
    # 0, for an n-gram or a context that is not in training.
    self._tables = []
    for _ in range(order + 1):
      numbers = self._gram(contexts, codes)
      grams, indices = np.unique(numbers, return_inverse=True)
      n = np.bincount(indices[scored], minlength=len(grams) + 1)
      context = np.append(grams // (len(self._symbols) + 1), count)
      totals = np.bincount(context, n, minlength=count + 1)
      kinds = np.bincount(context, n > 0, minlength=count + 1)
      self._tables.append((grams, n, totals, kinds))
      contexts, count = _shifted(indices), len(grams)

  def probabilities(self, sessions: Sessions) -> np.ndarray:
    """P of each event and of the end of each session, float64."""
    symbols, scored = self._padded(sessions)
    p = np.full(len(symbols), 1 / (self._kinds + 1))
    for n, total, kinds in self._counts(symbols):
      mixed = (n + kinds * p) / np.maximum(total + kinds, 1)
      p = np.where(total > 0, mixed, p)
    return p[scored]

  def novel(self, sessions: Sessions) -> np.ndarray:
    """Whether the (order + 1)-gram that ends at each event is new, bool."""
    symbols, scored = self._padded(sessions)
    *_, (n, _, _) = self._counts(symbols)
    return n[scored] == 0

  def _counts(self, symbols: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields n(cx), n(c) and t(c) at each symbol, for c of length 0, 1, ..."""
    codes = _index(symbols, self._symbols)
    contexts = np.zeros(len(codes), np.int64)
    for grams, n, totals, kinds in self._tables:
      indices = _index(self._gram(contexts, codes), grams)
      yield n[indices], totals[contexts], kinds[contexts]
      contexts = _shifted(indices)

  def _padded(self, sessions: Sessions) -> tuple[np.ndarray, np.ndarray]:
    """Symbols with BEGIN before and END after sessions; bool: it is scored."""
    more = self._order + 1
    ends = (sessions.bounds + more * np.arange(len(sessions.bounds)))[1:] - 1
    symbols = np.full(len(sessions.ids) + more * len(ends), BEGIN)
    scored = np.zeros(len(symbols), bool)
    number = np.repeat(np.arange(len(ends)), np.diff(sessions.bounds))
    indices = np.arange(len(number)) + number * more + self._order
    symbols[indices], symbols[ends] = sessions.ids, END
    scored[indices] = True
    scored[indices[sessions.bounds[:-1]]], scored[ends] = sessions.whole
    return symbols, scored

  def _gram(self, contexts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The number of the n-gram of a context and the symbol after it."""
    return contexts * (len(self._symbols) + 1) + codes


def _shifted(values: np.ndarray) -> np.ndarray:
  """The values moved one position to the right, with 0 at the first one."""
  return np.concatenate([[0], values[:-1]])


def _index(values: np.ndarray, known: np.ndarray) -> np.ndarray:
  """The index of each value in a sorted array; its length if it is absent."""
  indices = np.searchsorted(known, values)
  present = known[np.minimum(indices, len(known) - 1)] == values
  return np.where(present, indices, len(known))


def _chain_mean(
  order: int, value: Callable[[Chain, Sessions], np.ndarray]
) -> Callable[[Sessions], Score]:
  """A baseline: the mean of a chain's values over a session and its end.

  It is 0 for a session of which nothing is scored.
  """

  def fit(train: Sessions) -> Score:
    chain = Chain(train, order)

    def score(test: Sessions) -> np.ndarray:
      begins, ends = test.whole
      sizes = np.diff(test.bounds) + begins + ends - 1
      number = np.repeat(np.arange(len(sizes)), sizes)
      sums = np.bincount(number, value(chain, test), minlength=len(sizes))
      return sums / np.maximum(sizes, 1)

    return score

  return fit


def markov(order: int) -> Callable[[Sessions], Score]:
  """Mean surprisal in nats under a chain; order 0 is naive Bayes."""
  return _chain_mean(
    order, lambda chain, test: -np.log(chain.probabilities(test))
  )


def stide(train: Sessions) -> Score:
  """The share of new n-grams, including those with begin or end symbols."""
  novel = lambda chain, test: chain.novel(test).astype(float)
  return _chain_mean(_STIDE - 1, novel)(train)


def unseen(train: Sessions) -> Score:
  """The number of events that are not in training."""
  known = np.unique(train.ids)

  def score(test):
    new = ~np.isin(test.ids, known)
    return np.add.reduceat(new.astype(float), test.bounds[:-1])

  return score


def length(train: Sessions) -> Score:
  """Number of events by which a length is outside the range of training.

  A session that its log cuts is never too short.
  """
  sizes = np.diff(train.bounds)
  low, high = sizes[_is_whole(train)].min(initial=sizes.max()), sizes.max()

  def score(test):
    size = np.diff(test.bounds)
    short = np.where(_is_whole(test), low - size, 0)
    return np.maximum(np.maximum(short, size - high), 0).astype(float)

  return score


def count_vector(train: Sessions) -> Score:
  """Distance of the event counts to those of the nearest training session.

  It is sum |a - b| / sum (a + b), between 0 and 1 (Bray and Curtis 1957). For a
  session that its log cuts, b counts no more events than a: min(a, b).
  """
  known = np.unique(train.ids)

  def vectors(sessions):
    count, kinds = len(sessions.bounds) - 1, len(known) + 1
    number = np.repeat(np.arange(count), np.diff(sessions.bounds))
    cell = number * kinds + _index(sessions.ids, known)
    counts = np.bincount(cell, minlength=count * kinds)
    return np.unique(counts.reshape(count, kinds), axis=0, return_inverse=True)

  normal, _ = vectors(train.take(train.distinct().first))
  sizes = normal.sum(axis=1)

  def nearest(sessions, distance):
    if not len(sessions.names):
      return np.zeros(0)
    distinct, which = vectors(sessions)
    rows = max(_BLOCK // len(normal), 1)
    nearest_rows = [
      distance(distinct[i : i + rows]).min(axis=1)
      for i in range(0, len(distinct), rows)
    ]
    return np.concatenate(nearest_rows)[which]

  def to_whole(counts):
    return cdist(counts, normal, "braycurtis")

  def to_part(counts):
    size = counts.sum(axis=1, keepdims=True)
    common = (size + sizes - cdist(counts, normal, "cityblock")) / 2
    return (size - common) / (size + common)

  def score(test):
    whole = _is_whole(test)
    distances = np.empty(len(whole))
    for some, distance in ((whole, to_whole), (~whole, to_part)):
      distances[some] = nearest(test.take(np.flatnonzero(some)), distance)
    return distances

  return score


def _is_whole(sessions: Sessions) -> np.ndarray:
  """Whether its log cuts no part of each session."""
  begins, ends = sessions.whole
  return begins & ends


def union(train: Sessions) -> Score:
  """The sum of (`unseen` > 0), (`length` > 0) and `count_vector`.

  A session scores above 0.05 if it has a new event, a new length or counts at a
  distance above 0.05; this distance was chosen on HDFS.
  """
  event, size, counts = unseen(train), length(train), count_vector(train)

  def score(test):
    return 1.0 * (event(test) > 0) + (size(test) > 0) + counts(test)

  return score


def _once(fit: Callable[[Sessions], Score]) -> Callable[[Sessions], Score]:
  """The same baseline, but it scores equal sessions once."""

  def fit_once(train: Sessions) -> Score:
    score = fit(train)

    def score_once(test: Sessions) -> np.ndarray:
      distinct = test.distinct()
      return score(test.take(distinct.first))[distinct.which]

    return score_once

  return fit_once


_FITS: dict[str, Callable[[Sessions], Score]] = {
  **{f"markov_{order}": markov(order) for order in range(1, 6)},
  "naive_bayes": markov(0),
  "stide": stide,
  "unseen": unseen,
  "length": length,
  "count_vector": count_vector,
  "union": union,
}
BASELINES = {name: _once(fit) for name, fit in _FITS.items()}
