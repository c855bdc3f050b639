"""Baselines of detection: each learns from normal sessions and scores others.

`fit = BASELINES[name]`, `score = fit(train)`, and `score(test)` is float64
[sessions], higher for more anomalous sessions; equal sessions are scored once.
No session may be empty. Events absent from training have no special treatment.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.spatial.distance import cdist

from seqrnn.data.sessions import Sessions
from seqrnn.data.vocabulary import BEGIN, END

Score = Callable[[Sessions], np.ndarray]

_BLOCK = 2**22  # Distances in memory at once.
_STIDE = 6  # Events of a run (Forrest et al. 1996).


class Chain:
  """A Markov chain by Witten and Bell (1991), with begin and end symbols.

  p(x | c) = (n(cx) + t(c) p(x | c')) / (n(c) + t(c)), where n counts, t(c) is
  the number of distinct symbols that follow the context c in training, and c'
  is c without its oldest symbol. Below the empty context the distribution is
  uniform over the symbols seen and one for all unseen symbols.
  """

  def __init__(self, train: Sessions, order: int):
    self._order = order
    symbols, scored = self._padded(train)
    self._symbols = np.unique(symbols)
    self._kinds = len(np.unique(symbols[scored]))
    codes = _index(symbols, self._symbols)
    contexts, count = np.zeros(len(codes), np.int64), 1
    # For each length of the context: the distinct runs of a context and a
    # symbol; n of each run; n and t of each context. The last entry of the
    # counts is 0, for a run or a context that is not in training.
    self._tables = []
    for _ in range(order + 1):
      runs, places = np.unique(self._run(contexts, codes), return_inverse=True)
      n = np.bincount(places[scored], minlength=len(runs) + 1)
      context = np.append(runs // (len(self._symbols) + 1), count)
      totals = np.bincount(context, n, minlength=count + 1)
      kinds = np.bincount(context, n > 0, minlength=count + 1)
      self._tables.append((runs, n, totals, kinds))
      contexts, count = _shifted(places), len(runs)

  def probabilities(self, sessions: Sessions) -> np.ndarray:
    """P of each event of each session, then of its end, float64."""
    symbols, scored = self._padded(sessions)
    p = np.full(len(symbols), 1 / (self._kinds + 1))
    for n, total, kinds in self._counts(symbols):
      mixed = (n + kinds * p) / np.maximum(total + kinds, 1)
      p = np.where(total > 0, mixed, p)
    return p[scored]

  def novel(self, sessions: Sessions) -> np.ndarray:
    """Whether the run of order + 1 symbols ending at each place is new."""
    symbols, scored = self._padded(sessions)
    *_, (n, _, _) = self._counts(symbols)
    return n[scored] == 0

  def _counts(self, symbols: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """n(cx), n(c), t(c) at each place, by rising length of c."""
    codes = _index(symbols, self._symbols)
    contexts = np.zeros(len(codes), np.int64)
    for runs, n, totals, kinds in self._tables:
      places = _index(self._run(contexts, codes), runs)
      yield n[places], totals[contexts], kinds[contexts]
      contexts = _shifted(places)

  def _padded(self, sessions: Sessions) -> tuple[np.ndarray, np.ndarray]:
    """Symbols with BEGIN before and END after sessions; which are scored."""
    more = self._order + 1
    ends = (sessions.bounds + more * np.arange(len(sessions.bounds)))[1:] - 1
    symbols = np.full(len(sessions.ids) + more * len(ends), BEGIN)
    scored = np.zeros(len(symbols), bool)
    number = np.repeat(np.arange(len(ends)), np.diff(sessions.bounds))
    places = np.arange(len(number)) + number * more + self._order
    symbols[places], symbols[ends] = sessions.ids, END
    scored[places] = scored[ends] = True
    return symbols, scored

  def _run(self, contexts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """A number for a context and the symbol after it."""
    return contexts * (len(self._symbols) + 1) + codes


def _shifted(values: np.ndarray) -> np.ndarray:
  """The value one place before each; 0 before the first."""
  return np.concatenate([[0], values[:-1]])


def _index(values: np.ndarray, known: np.ndarray) -> np.ndarray:
  """The index of each value in a sorted array; its length if it is absent."""
  places = np.searchsorted(known, values)
  present = known[np.minimum(places, len(known) - 1)] == values
  return np.where(present, places, len(known))


def _chain_mean(
  order: int, value: Callable[[Chain, Sessions], np.ndarray]
) -> Callable[[Sessions], Score]:
  """A baseline: the mean of a chain's values over a session and its end."""

  def fit(train: Sessions) -> Score:
    chain = Chain(train, order)

    def score(test: Sessions) -> np.ndarray:
      bounds = test.bounds + np.arange(len(test.bounds))
      return np.add.reduceat(value(chain, test), bounds[:-1]) / np.diff(bounds)

    return score

  return fit


def markov(order: int) -> Callable[[Sessions], Score]:
  """Mean surprisal in nats under a chain; order 0 is naive Bayes."""
  return _chain_mean(
    order, lambda chain, test: -np.log(chain.probabilities(test))
  )


def stide(train: Sessions) -> Score:
  """The share of runs of events, begin and end included, that are new."""
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
  """How many events a session is shorter or longer than all in training."""
  sizes = np.diff(train.bounds)
  low, high = sizes.min(), sizes.max()

  def score(test):
    size = np.diff(test.bounds)
    return np.maximum(np.maximum(low - size, size - high), 0).astype(float)

  return score


def count_vector(train: Sessions) -> Score:
  """Distance to the nearest session in training, by counts of each event.

  sum |a - b| / sum (a + b), between 0 and 1 (Bray and Curtis 1957).
  """
  known = np.unique(train.ids)

  def vectors(sessions):
    count, kinds = len(sessions.bounds) - 1, len(known) + 1
    number = np.repeat(np.arange(count), np.diff(sessions.bounds))
    place = number * kinds + _index(sessions.ids, known)
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
  """`unseen`, `length` and `count_vector` together.

  A session scores above 0.05 if it has a new event, a new length or new counts;
  a distance of 0.05 between count vectors was chosen on HDFS.
  """
  event, size, counts = unseen(train), length(train), count_vector(train)

  def score(test):
    return 1.0 * (event(test) > 0) + (size(test) > 0) + counts(test)

  return score


def _once(fit: Callable[[Sessions], Score]) -> Callable[[Sessions], Score]:
  """The same baseline; of equal sessions it scores only the first."""

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
