"""Baselines of detection: each learns from normal sessions and scores others.

`fit = BASELINES[name]`, `score = fit(train)`, and `score(test)` is float64
[sessions], higher for what is odder; equal sessions are scored once. None has
an empty session, and an event that was never seen is one like any other.
"""

import functools
from collections.abc import Callable, Iterator

import numpy as np
from scipy.spatial.distance import cdist

from seqrnn.data.sessions import Sessions
from seqrnn.data.vocabulary import BEGIN, END

Score = Callable[[Sessions], np.ndarray]

_BLOCK = 2**22  # Distances that are in memory at once.
_STIDE = 6  # Events of a run, as Forrest et al. 1996 have them.


class Chain:
  """A Markov chain by Witten and Bell (1991), with begin and end symbols.

  p(x | c) = (n(cx) + t(c) p(x | c')) / (n(c) + t(c)), where n counts, t(c) is
  how many symbols are known to follow the context c, and c' is c without its
  oldest symbol. Below the empty context, each symbol that was seen and one that
  never was are equally likely.
  """

  def __init__(self, train: Sessions, order: int):
    self._order = order
    symbols, asked = self._padded(train)
    self._symbols = np.unique(symbols)
    self._kinds = len(np.unique(symbols[asked]))
    codes = self._codes(symbols)
    contexts, count = np.zeros(len(codes), np.int64), 1
    # For each length of the context: all runs of it and a symbol, how often
    # they come; and of each context, how often it does, and followed by what.
    self._tables = []
    for _ in range(order + 1):
      runs, places = np.unique(self._run(contexts, codes), return_inverse=True)
      n = np.bincount(places[asked], minlength=len(runs))
      context = runs // (len(self._symbols) + 1)
      totals = np.bincount(context, n, minlength=count)
      kinds = np.bincount(context, n > 0, minlength=count)
      self._tables.append((runs, n, totals, kinds))
      contexts, count = _before(places), len(runs)

  def probabilities(self, sessions: Sessions) -> np.ndarray:
    """Of the events of each session and of its end after them, float64."""
    symbols, asked = self._padded(sessions)
    p = np.full(len(symbols), 1 / (self._kinds + 1))
    for n, total, kinds in self._counts(symbols):
      mixed = (n + kinds * p) / np.maximum(total + kinds, 1)
      p = np.where(total > 0, mixed, p)
    return p[asked]

  def novel(self, sessions: Sessions) -> np.ndarray:
    """Whether the run of order + 1 symbols that ends there never came, bool."""
    symbols, asked = self._padded(sessions)
    *_, (n, _, _) = self._counts(symbols)
    return n[asked] == 0

  def _counts(self, symbols: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """n(cx), n(c), t(c) at each place, by the length of c."""
    codes = self._codes(symbols)
    contexts = np.zeros(len(codes), np.int64)  # -1: it never came.
    for runs, n, totals, kinds in self._tables:
      run = np.where(contexts < 0, -1, self._run(contexts, codes))
      places = np.minimum(np.searchsorted(runs, run), len(runs) - 1)
      known = runs[places] == run
      yield tuple(
        np.where(some, values[index], 0)
        for some, values, index in (
          (known, n, places),
          (contexts >= 0, totals, contexts),
          (contexts >= 0, kinds, contexts),
        )
      )
      contexts = _before(np.where(known, places, -1))

  def _padded(self, sessions: Sessions) -> tuple[np.ndarray, np.ndarray]:
    """Symbols with as many BEGIN as a context has; which of them are asked."""
    more = self._order + 1
    ends = (sessions.bounds + more * np.arange(len(sessions.bounds)))[1:] - 1
    symbols = np.full(len(sessions.ids) + more * len(ends), BEGIN)
    asked = np.zeros(len(symbols), bool)
    number = np.repeat(np.arange(len(ends)), np.diff(sessions.bounds))
    places = np.arange(len(number)) + number * more + self._order
    symbols[places], symbols[ends] = sessions.ids, END
    asked[places] = asked[ends] = True
    return symbols, asked

  def _codes(self, symbols: np.ndarray) -> np.ndarray:
    """Numbers of symbols; the last one is of those never seen."""
    return _numbers(symbols, self._symbols)

  def _run(self, contexts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """A number for a context and the symbol after it."""
    return contexts * (len(self._symbols) + 1) + codes


def _before(values: np.ndarray) -> np.ndarray:
  """What stands one place before each; before the first one, 0."""
  return np.concatenate([[0], values[:-1]])


def _numbers(values: np.ndarray, known: np.ndarray) -> np.ndarray:
  """The place of each in a sorted array; its length where there is none."""
  places = np.searchsorted(known, values)
  found = known[np.minimum(places, len(known) - 1)] == values
  return np.where(found, places, len(known))


def _once(fit: Callable[[Sessions], Score]) -> Callable[[Sessions], Score]:
  """The same, of equal sessions the first alone."""

  @functools.wraps(fit)
  def fit_once(train: Sessions) -> Score:
    score = fit(train)

    def score_once(test: Sessions) -> np.ndarray:
      distinct = test.distinct()
      return score(test.take(distinct.first))[distinct.which]

    return score_once

  return fit_once


def markov(order: int) -> Callable[[Sessions], Score]:
  """Mean surprisal in nats, of a chain; order 0 is naive Bayes."""

  @_once
  def fit(train):
    chain = Chain(train, order)

    def score(test):
      nll = -np.log(chain.probabilities(test))
      bounds = test.bounds + np.arange(len(test.bounds))
      return np.add.reduceat(nll, bounds[:-1]) / np.diff(bounds)

    return score

  return fit


@_once
def stide(train: Sessions) -> Score:
  """The share of runs of events, begin and end among them, that never came."""
  chain = Chain(train, _STIDE - 1)

  def score(test):
    bounds = test.bounds + np.arange(len(test.bounds))
    novel = np.add.reduceat(chain.novel(test).astype(float), bounds[:-1])
    return novel / np.diff(bounds)

  return score


@_once
def unseen(train: Sessions) -> Score:
  """How many events never came."""
  known = np.unique(train.ids)

  def score(test):
    new = ~np.isin(test.ids, known)
    return np.add.reduceat(new.astype(float), test.bounds[:-1])

  return score


@_once
def length(train: Sessions) -> Score:
  """How many events a session is shorter, or longer, than any before."""
  sizes = np.diff(train.bounds)
  low, high = sizes.min(), sizes.max()

  def score(test):
    size = np.diff(test.bounds)
    return np.maximum(np.maximum(low - size, size - high), 0).astype(float)

  return score


@_once
def count_vector(train: Sessions) -> Score:
  """Distance to the nearest session, by how often each event is in it.

  sum |a - b| / sum (a + b), which is from 0 to 1 (Bray and Curtis 1957).
  """
  known = np.unique(train.ids)

  def vectors(sessions):
    count, kinds = len(sessions.bounds) - 1, len(known) + 1
    number = np.repeat(np.arange(count), np.diff(sessions.bounds))
    place = number * kinds + _numbers(sessions.ids, known)
    counts = np.bincount(place, minlength=count * kinds)
    return np.unique(counts.reshape(count, kinds), axis=0, return_inverse=True)

  normal, _ = vectors(train.take(train.distinct().first))

  def score(test):
    distinct, which = vectors(test)
    rows = max(_BLOCK // len(normal), 1)
    nearest = [
      cdist(distinct[i : i + rows], normal, "braycurtis").min(axis=1)
      for i in range(0, len(distinct), rows)
    ]
    return np.concatenate(nearest)[which]

  return score


def union(train: Sessions) -> Score:
  """The last three: what is above .05 has a new event, length or counts.

  A distance of .05 between count vectors was chosen on HDFS.
  """
  event, size, counts = unseen(train), length(train), count_vector(train)

  def score(test):
    return 1.0 * (event(test) > 0) + (size(test) > 0) + counts(test)

  return score


BASELINES: dict[str, Callable[[Sessions], Score]] = {
  **{f"markov_{order}": markov(order) for order in range(1, 6)},
  "naive_bayes": markov(0),
  "stide": stide,
  "unseen": unseen,
  "length": length,
  "count_vector": count_vector,
  "union": union,
}
