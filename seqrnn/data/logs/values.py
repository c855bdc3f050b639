"""Values and times: how unusual the numbers and the silences of a session are.

The first numbers in the lines of an event have a distribution each. So has the
time since the session's event before, for each pair of events and, where a pair
is rare, for the event. `fit` describes the tails of these distributions by
quantiles. A new value has a p-value: of both tails, or of the upper one for a
time. The score of a session is the evidence that its least p-values are less
than those of as many values by chance, or that all its times are several times
as long. It is 0 for most sessions, and rounded, so that sessions of the same
events stay equal.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.data.logs.sessions import Sessions, owners
from seqrnn.data.logs.templates import PLACES
from seqrnn.data.vocabulary import UNKNOWN

VALUE, GAP = MEASURES = "value", "gap"
WORDS = {VALUE: "a value", GAP: "a silence"}  # At the begin of a reason.

_LEVELS = (0.05, 0.01, 0.002)  # The probabilities of a tail with a quantile.
_FEWEST = 30  # Values of a distribution.
_BEYOND = 5  # Values beyond a quantile, at least.
_NUMBERS = 0.95  # The share of an event's lines that have a number at a place.
_EVENTS = 2**19  # About the number of events in the sessions of a fit.
_TRIMMED = 0.05  # The share of the sessions that may be anomalous.
_DRIFTED = 0.05  # The share of later values that may be in the tails of 0.01.
_FLOOR = 3.0  # Nats of evidence that are no score.
_TINY = np.finfo(float).tiny
_LEAST = 0.1  # The scale of a tail where all values are equal.
_BINS = 50  # Octaves of numbers, from a thousandth on.
_PRIOR = 0.1  # Numbers in each bin, beside those that are known.
_NEAR = (0.25, 0.5, 0.25)  # Weights of a bin and of those beside it.
_NO_KEY = np.iinfo(np.int64).max  # Larger than all keys of distributions.
_SLOWER = (2, 3, 4, 5)  # Octaves by which a slow session is slower.


class Tails(NamedTuple):
  """The tails of G distributions.

  Attributes:
    keys: int64 [G], sorted, as those of `_observe`.
    units: float64 [2, G], of the numbers in the lower and in the upper tail.
    edges: float64 [2, levels, G], arcsinh of the quantiles in this unit; those
      of the lower tail have their signs changed.
    slopes: float64 [2, G], beyond the last edge, a tail is exponential in the
      same scale, with this mean.
    log_p: float64 [bins, G], of the numbers in each octave.
  """

  keys: np.ndarray
  units: np.ndarray
  edges: np.ndarray
  slopes: np.ndarray
  log_p: np.ndarray

  def take(self, some: np.ndarray) -> "Tails":
    """Some of the distributions."""
    return Tails(*(column[..., some] for column in self))

  def index(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of the distribution of each key, and whether there is one."""
    numbers = np.searchsorted(self.keys, keys)
    return numbers, np.append(self.keys, _NO_KEY)[numbers] == keys

  def of(self, observed: "_Observed") -> tuple[np.ndarray, np.ndarray]:
    """As `index` of each value, by its key, or else by its other one."""
    (index, known), (other, also) = map(self.index, observed[:2])
    return np.where(known, index, other), known | also


class Unusual(NamedTuple):
  """The most unusual value of each session, or its most unusual time.

  Attributes:
    scores: float64 [sessions], 0 for most.
    positions: int64 [sessions], of its event in the session; -1: there is none.
    numbers: float64 [sessions], the value, or the time in seconds.
    usual: float64 [2, sessions], the range of nine values of ten.
  """

  scores: np.ndarray
  positions: np.ndarray
  numbers: np.ndarray
  usual: np.ndarray

  def words(self, j: int, measure: str) -> str:
    """The value or the time of a session, with its usual range."""
    number, low, high = (
      f"{float(f'{x:.6g}'):,.0f}" if 100 <= abs(x) < 1e15 else f"{x:.3g}"
      for x in (self.numbers[j], *self.usual[:, j])
    )
    unit, usual = " s" * (measure == GAP), f"{low} to {high}"
    usual = low if low == high else usual
    return f"{WORDS[measure]} of {number}{unit}, usually {usual}{unit}"


class _Observed(NamedTuple):
  """The values of a measure in sessions, as far as there are numbers.

  Attributes:
    keys: of the distribution of each; of a time, that of its pair of events.
    others: of the distribution that counts where this one is not known.
    numbers: the values.
    events: the index of the event of each.
    sessions: the index of the session of each.
  """

  keys: np.ndarray
  others: np.ndarray
  numbers: np.ndarray
  events: np.ndarray
  sessions: np.ndarray

  def take(self, some: np.ndarray) -> "_Observed":
    """Some of the values."""
    return _Observed(*(column[some] for column in self))


def _observe(sessions: Sessions, measure: str) -> _Observed:
  """The values of a measure; no distribution is of two measures."""
  ids, sizes = sessions.ids.astype(np.int64), np.diff(sessions.bounds)
  events = np.arange(len(ids))
  if measure == VALUE:
    assert sessions.values is not None
    events = np.repeat(events, PLACES)
    numbers = sessions.values.ravel().astype(np.float64)
    keys = ids[events] * (PLACES + 1) + np.tile(np.arange(PLACES), len(ids))
    others = keys
  else:
    assert sessions.seconds is not None
    numbers = np.diff(sessions.seconds, prepend=np.nan)
    numbers[sessions.bounds[:-1][sizes > 0]] = np.nan
    before = np.append(UNKNOWN, ids)[:-1]
    others = ids * (PLACES + 1) + PLACES
    keys = np.where(before == UNKNOWN, others, -(before << 32 | ids))
  known = ~np.isnan(numbers) & (ids[events] != UNKNOWN)
  session = owners(sessions.bounds)[events]
  return _Observed(keys, others, numbers, events, session).take(known)


def fit(sessions: Sessions) -> Tails:
  """The distributions in normal sessions, of which a few may be anomalous.

  A place needs numbers in nearly all lines of its event. A distribution whose
  later values are in the tails of its earlier ones, as of a counter, is left
  out.

  Args:
    sessions: in the order of the log. Of many, some are taken, evenly.
  """
  step = len(sessions.ids) // _EVENTS + 1
  some = sessions.take(np.arange(0, len(sessions.bounds) - 1, step))
  measures = [x for x in MEASURES if _column(some, x) is not None]
  return joined([_fit(some, measure) for measure in measures])


def joined(parts: Sequence[Tails]) -> Tails:
  """All distributions of the parts.

  Raises:
    ValueError, IndexError: an array has a wrong shape.
  """
  shapes = (2, 0), (2, len(_LEVELS), 0), (2, 0), (_BINS, 0)
  nothing = np.zeros(0, np.int64), *map(np.zeros, shapes)
  columns = zip(nothing, *parts, strict=True)
  tails = Tails(*(np.concatenate(x, axis=-1) for x in columns))
  return tails.take(np.argsort(tails.keys))


def _fit(sessions: Sessions, measure: str) -> Tails:
  """The distributions of a measure."""
  observed = _observe(sessions, measure)
  scores = _scored(_tails(observed), observed, sessions.bounds, measure).scores
  usual = scores <= np.quantile(scores, 1 - _TRIMMED)
  trimmed = observed.take(usual[observed.sessions])
  tails = _tails(trimmed)
  is_early = trimmed.events < len(sessions.ids) // 2
  early = _tails(trimmed.take(is_early), _FEWEST // 2)
  later = _of_both(trimmed.take(~is_early))
  nats = np.nan_to_num(_nats(early, later, measure), nan=np.inf)
  later_G = _totals(tails, later.keys)
  beyond_G = _totals(tails, later.keys[nats > -np.log(_LEVELS[1])])
  stays = beyond_G <= _DRIFTED * later_G
  if measure == VALUE:
    lines_G = np.bincount(sessions.ids)[tails.keys // (PLACES + 1)]
    stays &= _totals(tails, observed.keys) >= _NUMBERS * lines_G
  return tails.take(stays)


def _totals(tails: Tails, keys: np.ndarray) -> np.ndarray:
  """The number of keys of each distribution [G]."""
  index, known = tails.index(keys)
  return np.bincount(index[known], minlength=len(tails.keys))


def _of_both(observed: _Observed) -> _Observed:
  """The values, those of two distributions once for each of them."""
  twice = observed.keys != observed.others
  both = zip(observed, observed.take(twice), strict=True)
  keys, others, *columns = (np.concatenate(pair) for pair in both)
  keys[len(twice) :] = others[len(twice) :]
  return _Observed(keys, keys, *columns)


def _tails(observed: _Observed, fewest: int = _FEWEST) -> Tails:
  """The distributions that have enough values."""
  from scipy.ndimage import correlate1d

  keys, _, numbers, *_ = _of_both(observed)
  order = np.lexsort((numbers, keys))
  numbers = numbers[order]
  keys, first, group, counts = np.unique(keys[order], True, True, True)
  enough = counts >= fewest  # Few pairs of events have.
  some = enough[group]
  cells = (np.cumsum(enough) - 1)[group[some]] * _BINS + _octaves(numbers[some])
  keys, first, counts = keys[enough], first[enough], counts[enough]
  counts_GB = np.bincount(cells, minlength=len(keys) * _BINS).reshape(-1, _BINS)
  log_p = np.log(correlate1d(counts_GB + _PRIOR, _NEAR, mode="nearest"))

  def quantile(level: float, rounded: Callable) -> np.ndarray:
    return numbers[first + rounded(level * (counts - 1)).astype(int)]

  levels = np.array(_LEVELS)
  low_LG = np.stack([quantile(level, np.floor) for level in levels])
  high_LG = np.stack([quantile(1 - level, np.ceil) for level in levels])
  middle_G = quantile(0.5, np.floor)
  largest_G = np.abs([low_LG[0], middle_G, high_LG[0]]).max(axis=0)
  largest_G[largest_G == 0] = 1
  # The lower tail of positive numbers is in the scale of their logarithms.
  units = np.stack(
    [np.where(low_LG[0] > 0, low_LG[0] / 100, largest_G), largest_G]
  )
  signs = np.array([-1, 1])[:, None]
  edges = signs[..., None] * np.arcsinh(
    np.stack([low_LG, high_LG]) / units[:, None]
  )
  widths = edges - signs[..., None] * np.arcsinh(middle_G / units)[:, None]
  means = widths / np.log(0.5 / levels)[:, None]
  slopes = np.where(means[:, 0] > 0, means[:, 0], _LEAST)
  least = slopes
  for n in range(1, len(levels)):
    has = counts * levels[n] >= _BEYOND
    beyond = edges[:, n - 1] + least * np.log(levels[n - 1] / levels[n])
    edges[:, n] = np.where(has, edges[:, n], beyond)
    slopes = np.where(has & (means[:, n] > 0), means[:, n], slopes)
  return Tails(keys, units, edges, slopes, log_p.T)


def _octaves(numbers: np.ndarray) -> np.ndarray:
  """The bin of each number, 0 below half a thousandth."""
  octaves = np.log2(1 + 1000 * np.maximum(numbers, 0)).round().astype(int)
  return np.minimum(octaves, _BINS - 1)


def _nats(tails: Tails, observed: _Observed, measure: str) -> np.ndarray:
  """-log p of each value, 0 in the usual range; NaN: no distribution."""
  index, known = tails.of(observed)
  index, numbers = index[known], observed.numbers[known]
  nats, sides = np.zeros(len(index)), (0, 1) if measure == VALUE else (1,)
  for side in sides:
    scaled = np.arcsinh(numbers / tails.units[side, index]) * (2 * side - 1)
    edges = tails.edges[side][:, index]
    of_side = np.full(len(index), -np.log(len(sides) * _LEVELS[0]))
    for n in range(1, len(_LEVELS)):
      width = edges[n] - edges[n - 1]
      share = np.clip((scaled - edges[n - 1]) / np.where(width, width, 1), 0, 1)
      share = np.where(width, share, scaled > edges[n])
      of_side += share * np.log(_LEVELS[n - 1] / _LEVELS[n])
    beyond = np.maximum(scaled - edges[-1], 0)
    of_side += beyond / tails.slopes[side, index]
    nats = np.maximum(nats, np.where(scaled > edges[0], of_side, 0))
  every = np.full(len(known), np.nan)
  every[known] = nats
  return every


def _slower(tails: Tails, observed: _Observed, count: int) -> np.ndarray:
  """The evidence that all times of a session are longer, in nats [sessions].

  It is the logarithm of the likelihood if all are 4, 8, 16 or 32 times as long,
  divided by that of usual times. Times that are 0 are no evidence.
  """
  index, known = tails.of(observed)
  octave = _octaves(observed.numbers)
  known &= octave > 0
  index, octave = index[known], octave[known]
  usual = tails.log_p[octave, index]
  sums = [
    np.bincount(
      observed.sessions[known],
      tails.log_p[np.maximum(octave - more, 1), index] - usual,
      count,
    )
    for more in _SLOWER
  ]
  return np.logaddexp.reduce(sums) - np.log(len(sums))


def _scored(
  tails: Tails, observed: _Observed, bounds: np.ndarray, measure: str
) -> Unusual:
  """The most unusual values of sessions, and their scores.

  If the k-th smallest of n p-values is p < k / n, the evidence is n times the
  divergence of a coin of k / n from one of p, about -log of the chance of k
  such values (Berk and Jones 1979). It counts together with that of `_slower`.
  The score is log(1 + nats) of what the largest evidence has above `_FLOOR`,
  rounded.
  """
  nats, count = _nats(tails, observed, measure), len(bounds) - 1
  known = ~np.isnan(nats)
  total_D = np.bincount(observed.sessions[known], minlength=count)
  slower_D = (
    _slower(tails, observed, count) if measure == GAP else np.zeros(count)
  )
  some = nats > 0
  observed, nats = observed.take(some), nats[some]
  # Equal numbers of a session, as of the parts of a block, count once.
  order = np.lexsort((-nats, observed.numbers, observed.sessions))
  pairs = np.stack([observed.sessions, observed.numbers])[:, order]
  order = order[np.any(np.diff(pairs, prepend=-1) != 0, axis=0)]
  order = order[np.lexsort((-nats[order], observed.sessions[order]))]
  observed, nats = observed.take(order), nats[order]
  session = observed.sessions
  rank = np.arange(len(session)) - np.searchsorted(session, session) + 1
  total, p = total_D[session], np.exp(-nats)
  share = rank / total
  rest = np.maximum(1 - p, _TINY)  # A p just below 1 is rounded to 1.
  ratio = np.where(rank < total, (1 - share) / rest, 1)  # 0 log 0 is 0.
  evidence = share * (nats + np.log(share)) + (1 - share) * np.log(ratio)
  scores = np.zeros(count)
  np.maximum.at(scores, session, np.where(p < share, total * evidence, 0))
  first = rank == 1
  which = session[first]
  scores[which] += np.maximum(slower_D[which], -_FLOOR)
  index, _ = tails.of(observed.take(first))
  positions, numbers = np.full(count, -1), np.full(count, np.nan)
  usual = np.full((2, count), np.nan)
  positions[which] = observed.events[first] - bounds[which]
  numbers[which] = observed.numbers[first]
  signs = np.array([-1, 1])[:, None]
  quantiles = signs * np.sinh(tails.edges[:, 0]) * tails.units
  usual[:, which] = quantiles[:, index]
  scores = np.round(np.log1p(np.maximum(scores - _FLOOR, 0)), 1)
  return Unusual(scores, positions, numbers, usual)


def most_unusual(sessions: Sessions, tails: Tails, measure: str) -> Unusual:
  """The most unusual value or time of each session, and its score."""
  return _scored(tails, _observe(sessions, measure), sessions.bounds, measure)


def with_unusual(
  sessions: Sessions, models: Sequence[Tails], measures: Sequence[str]
) -> Sessions:
  """The sessions with the scores of their values of these measures."""
  if not measures or sessions.unusual is not None:
    return sessions
  count = len(sessions.bounds) - 1
  unusual = np.zeros((count, len(measures), len(models)), np.float32)
  for part in sessions.parts(_EVENTS // 4):
    some = sessions.take(part)
    for number, measure in enumerate(measures):
      if _column(some, measure) is not None:
        observed = _observe(some, measure)
        for k, tails in enumerate(models):
          scored = _scored(tails, observed, some.bounds, measure)
          unusual[part, number, k] = scored.scores
  return sessions._replace(unusual=unusual)


def measures_of(models: Sequence[Tails]) -> list[str]:
  """The measures of which each model has a distribution."""
  is_gap = [(x.keys < 0) | (x.keys % (PLACES + 1) == PLACES) for x in models]
  has = {VALUE: [not x.all() for x in is_gap], GAP: [x.any() for x in is_gap]}
  return [measure for measure in MEASURES if all(has[measure])]


def _column(sessions: Sessions, measure: str) -> np.ndarray | None:
  return sessions.values if measure == VALUE else sessions.seconds
