"""Cuts: which sessions of a log its begin or its end cuts.

A session is open if the log ends before the session has been silent for its
idle time: further events may follow. A session is cut at its begin if its first
event is less than the idle time after the begin of the log, and sessions that
began later do not begin with such an event.
"""

import functools
import math
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from seqrnn.data import formats
from seqrnn.data.columns import Column, taken
from seqrnn.errors import visible

_CHUNK = 2**20  # Events that are handled together.
_RARELY = 0.01  # The share of sessions that counts as practically none.
_UNITS = {"days": 86400, "hours": 3600, "minutes": 60}  # In seconds.


class Cuts(NamedTuple):
  """What decides which sessions of a log are cut.

  Times are in seconds; in a log without times, in lines.

  Attributes:
    log: its name, for messages.
    clock: "seconds" or "lines".
    before: float64 [sessions], from the begin of the log to the first event.
    after: float64 [sessions], from the last event to the end of the log.
    idle: the longest idle time, that of the begin of a log.
    idle_V: float64 [symbols], the idle time of sessions whose last event it is.
    inner_V: bool [symbols], whether sessions have such an event, but do not
      begin with it.
    idle_D: float64 [sessions], the idle time of each session.
    odd_D: bool [sessions], whether sessions do not begin with its first event.
  """

  log: str
  clock: str
  before: np.ndarray
  after: np.ndarray
  idle: float
  idle_V: np.ndarray
  inner_V: np.ndarray
  idle_D: np.ndarray
  odd_D: np.ndarray

  @property
  def begun(self) -> np.ndarray:
    """Whether each session began in the log, bool [sessions]."""
    return ~(self.odd_D & (self.before < self.idle))

  @property
  def ended(self) -> np.ndarray:
    """Whether each session ended in the log, bool [sessions]."""
    return self.after >= self.idle_D

  def report(self):
    """Prints on stderr how many sessions are cut, unless none is."""
    parts = [
      f"{count:,} {what}"
      for count, what in (
        (np.sum(~self.ended), "open at its end"),
        (np.sum(~self.begun), "cut at its begin"),
      )
      if count
    ]
    if parts:
      _report_once(
        f"{self.log}: of {len(self.after):,} sessions, {', '.join(parts)}"
        f" (idle time: {self._duration()}, detect.idle={self.idle:.10g})"
      )

  def _duration(self) -> str:
    units = _UNITS.items() if self.clock == "seconds" else ()
    for name, seconds in units:
      if self.idle >= 2 * seconds:
        return f"{self.idle / seconds:.1f} {name}"
    return f"{self.idle:.4g} {self.clock}"


@functools.lru_cache(maxsize=2**8)  # Parts of a run read the same log.
def _report_once(text: str):
  print(visible(text), file=sys.stderr)


class Clock:
  """Collects the times of a log's events, from which `Cuts` are learned."""

  def __init__(
    self,
    log: str,
    idle: float | None = None,
    lines: bool = False,
    times: bool = True,
  ):
    """Begins with no event.

    Args:
      log: its name.
      idle: the idle time; None: it is learned.
      lines: whether lines are a clock where no event has a time.
      times: whether times are read.
    """
    self._log, self._idle = log, idle
    self._lines, self._reads = lines, times
    self._begin, self._end, self._last = math.inf, -math.inf, 0
    self._read, self._now = (), math.nan  # The times read last.
    self._times = Column("<f8")

  def read(self, times: tuple[str, ...], line: int) -> float:
    """The time of the next event in seconds, NaN where it has none.

    Args:
      times: as `formats.seconds`.
      line: of the event.
    """
    self._last = line
    if times != self._read:
      self._read, self._now = times, math.nan
      now = formats.seconds(times) if self._reads else None
      if now is not None:
        self._begin, self._end = min(self._begin, now), max(self._end, now)
        self._now = now
    return self._now

  def append(self, now: float):
    """Adds an event of a session, by its time."""
    self._times.append(now)

  def cuts(
    self,
    order: np.ndarray | slice,
    lines: np.ndarray,
    ids: np.ndarray,
    bounds: np.ndarray,
    symbols: int,
  ) -> Cuts | None:
    """What decides in the log; None: it has no clock.

    Args:
      order: of the added events, session by session.
      lines: of the events in this order.
      ids: of the events in this order.
      bounds: of the sessions.
      symbols: the number of distinct events.
    """
    times = self._times.numbers()
    if self._end >= self._begin:
      begin, end, clock = self._begin, self._end, "seconds"
      times = taken(times, order)
    elif self._lines:
      begin, end, clock, times = 1, self._last, "lines", lines
    else:
      return None
    first_D, last_D, gap_D = _extent(times, bounds)
    # A session without any time is whole.
    before = np.nan_to_num(first_D - begin, nan=math.inf)
    after = np.nan_to_num(end - last_D, nan=math.inf)
    idle = self._idle
    if idle is not None:
      idle_V = np.full(symbols, idle)
    else:
      gaps = gap_D[np.diff(bounds) > 1]
      idle = 0.0
      if len(gaps):
        idle = float(np.quantile(gaps, 1 - _RARELY, method="higher"))
      idle_V = _idle_times(times, ids, bounds, after >= idle, (symbols, idle))
    inner_V = _inner(ids, bounds, before >= idle, symbols)
    first_D, last_D = ids[bounds[:-1]], ids[bounds[1:] - 1]
    of_sessions = idle_V[last_D], inner_V[first_D]
    return Cuts(
      self._log, clock, before, after, idle, idle_V, inner_V, *of_sessions
    )


def _chunks(bounds: np.ndarray) -> Iterator[tuple[int, int]]:
  """Yields the first session of some, and the one after the last of them."""
  start = 0
  while start < len(bounds) - 1:
    stop = np.searchsorted(bounds, bounds[start] + _CHUNK, "right") - 1
    stop = max(int(stop), start + 1)
    yield start, stop
    start = stop


def _extent(
  times_N: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The earliest time, the latest, and the longest silence of each session."""
  parts = [np.zeros((3, 0))]
  for start, stop in _chunks(bounds):
    times = times_N[bounds[start] : bounds[stop]]
    starts = bounds[start:stop] - bounds[start]
    gaps = np.diff(times, prepend=times[0])
    gaps[starts] = 0  # Not from one session to the next.
    reduced = (
      np.fmin.reduceat(times, starts),
      np.fmax.reduceat(times, starts),
      np.fmax.reduceat(gaps, starts),
    )
    parts.append(np.stack(reduced))
  first_D, last_D, gap_D = np.concatenate(parts, axis=1)
  return first_D, last_D, gap_D


def _idle_times(
  times_N: np.ndarray,
  ids: np.ndarray,
  bounds: np.ndarray,
  ended_D: np.ndarray,
  shape: tuple[int, float],
) -> np.ndarray:
  """The idle time after each symbol, float64.

  Of the sessions that were silent for as long after such an event, only
  `_RARELY` went on. It is the longest idle time where no session ended so.

  Args:
    times_N: of the events.
    ids: of the events.
    bounds: of the sessions.
    ended_D: whether a session surely ended in the log.
    shape: the number of symbols, and the longest idle time.
  """
  symbols, longest = shape
  ends_V = np.bincount(ids[bounds[1:][ended_D] - 1], minlength=symbols)
  # As many of the longest silences as are few beside the ends, and one.
  most_V = np.where(ends_V, 1 + ends_V * _RARELY / (1 - _RARELY), 0).astype(int)
  kept_ids, kept_gaps = ids[:0], np.zeros(0)
  for start, stop in _chunks(bounds):
    part = slice(bounds[start], bounds[stop])
    gaps = np.diff(times_N[part], append=math.nan)
    gaps[bounds[start + 1 : stop + 1] - 1 - bounds[start]] = math.nan
    known = (most_V[ids[part]] > 0) & ~np.isnan(gaps)
    some = np.concatenate([kept_ids, ids[part][known]])
    gaps = np.concatenate([kept_gaps, gaps[known]])
    order = np.lexsort((-gaps, some))
    some, gaps = some[order], gaps[order]
    rank = np.arange(len(some)) - np.searchsorted(some, some)
    kept = rank < most_V[some]
    kept_ids, kept_gaps = some[kept], gaps[kept]
  idle_V = np.where(ends_V, 0, longest)
  count_V = np.bincount(kept_ids, minlength=symbols)
  full_V = (count_V == most_V) & (most_V > 0)
  shortest = kept_gaps[np.cumsum(count_V)[full_V] - 1]
  idle_V[full_V] = np.minimum(shortest, longest)
  return idle_V


def _inner(
  ids: np.ndarray, bounds: np.ndarray, later_D: np.ndarray, symbols: int
) -> np.ndarray:
  """Whether each symbol is in sessions but practically never begins them.

  Args:
    ids: of the events.
    bounds: of the sessions.
    later_D: whether a session surely began in the log.
    symbols: their number.
  """
  first_D = ids[bounds[:-1]]
  begins_V = np.bincount(first_D[later_D], minlength=symbols)
  others_V = -np.bincount(first_D, minlength=symbols)
  for start in range(0, len(ids), _CHUNK):
    others_V += np.bincount(ids[start : start + _CHUNK], minlength=symbols)
  return begins_V < _RARELY * np.minimum(others_V, np.sum(later_D))
