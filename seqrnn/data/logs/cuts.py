"""Cuts: which sessions of a log its begin or its end cuts.

A session is open if the log ends before the session has been silent for the
idle time of its last event: further events may follow there. It is cut at its
begin if its first event is in the idle time before such events after the begin
of the log: earlier events may have been before the log.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from seqrnn.data.logs import formats
from seqrnn.data.read.columns import Column, taken
from seqrnn.errors import counted

_CHUNK = 2**18  # Events that are handled together.
_QUANTILE = 0.99  # Of the longest silences of sessions: the longest idle time.
_KNOWN = 20  # Occurrences of an event that has an idle time of its own.
_SURE = 200  # A session surely has ended if, of so many alike, one goes on.
_MARGIN = 2.0  # New sessions have longer silences than those of training.
_PATIENCE = 10  # Idle times after which every session surely has ended.


class Cuts(NamedTuple):
  """What decides which sessions of a log are cut.

  Times are in seconds; in a log without times, in lines.

  Attributes:
    log: its name, for messages.
    clock: "seconds" or "lines".
    idle: the longest idle time.
    before_D: float64 [sessions], from the begin of the log to the first event.
    after_D: float64 [sessions], from the last event to the end of the log.
    first_V: float64 [symbols], the idle time before each symbol.
    last_V: float64 [symbols], the idle time after each symbol.
    first_D: float64 [sessions], the idle time before its first event.
    last_D: float64 [sessions], the idle time after its last event.
    patience: the longest time after which a session surely has ended.
    patience_V: float64 [symbols], this time after each symbol.
  """

  log: str
  clock: str
  idle: float
  before_D: np.ndarray
  after_D: np.ndarray
  first_V: np.ndarray
  last_V: np.ndarray
  first_D: np.ndarray
  last_D: np.ndarray
  patience: float
  patience_V: np.ndarray

  @property
  def begun(self) -> np.ndarray:
    """Whether each session began in the log, bool [sessions]."""
    return self.before_D >= self.first_D

  @property
  def ended(self) -> np.ndarray:
    """Whether each session ended in the log, bool [sessions]."""
    return self.after_D >= self.last_D

  def with_idle(self, idle: float) -> "Cuts":
    """With one idle time after all events, and none before that is longer."""
    return self._replace(
      idle=idle,
      first_D=np.minimum(self.first_D, idle),
      last_D=np.full(len(self.last_D), idle),
      patience=idle,
      patience_V=np.full(len(self.patience_V), idle),
    )

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
        f"{self.log}: of {counted(len(self.after_D), 'session')},"
        f" {', '.join(parts)}"
        f" (idle time: {self.idle:.6g} {self.clock})"
      )


# Parts of a run read the same log.
_report_once = functools.lru_cache(maxsize=2**8)(formats.report)


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
    before_D = np.nan_to_num(first_D - begin, nan=math.inf)
    after_D = np.nan_to_num(end - last_D, nan=math.inf)
    first_D, last_D = ids[bounds[:-1]], ids[bounds[1:] - 1]
    idle, count = self._idle, functools.partial(np.bincount, minlength=symbols)
    if idle is not None:
      patience, last_V = idle, np.full(symbols, idle)
      patience_V = last_V
    else:
      gaps, idle, patience = gap_D[np.diff(bounds) > 1], 0.0, 0.0
      if len(gaps):
        idle = float(np.quantile(gaps, _QUANTILE, method="higher"))
        patience = float(min(_PATIENCE * idle, _MARGIN * np.fmax.reduce(gaps)))
      ends_V = count(last_D[after_D >= idle])
      last_V, silence_V = (
        _idle_times(_silences(times, ids, bounds, 0), n_V, most, most)
        for n_V, most in ((ends_V, idle), (ends_V // _SURE, patience / _MARGIN))
      )
      patience_V = _MARGIN * silence_V
    first_V = np.zeros(symbols)
    if self._reads:
      begins_V = count(first_D[before_D >= idle])
      first_V = _idle_times(_silences(times, ids, bounds, 1), begins_V, idle, 0)
    of_sessions = first_V[first_D], last_V[last_D]
    return Cuts(
      *(self._log, clock, idle, before_D, after_D, first_V, last_V),
      *(*of_sessions, patience, patience_V),
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


def _silences(
  times_N: np.ndarray, ids: np.ndarray, bounds: np.ndarray, side: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields the silences in some sessions, each with an event beside it.

  Args:
    times_N: of the events.
    ids: of the events.
    bounds: of the sessions.
    side: 0: the event before a silence; 1: the event after it.
  """
  for start, stop in _chunks(bounds):
    part = slice(bounds[start], bounds[stop])
    gaps = np.diff(times_N[part])
    inside = ~np.isnan(gaps)
    inside[bounds[start + 1 : stop] - bounds[start] - 1] = False
    yield ids[part][side : side + len(gaps)][inside], gaps[inside]


def _idle_times(
  silences: Iterator[tuple[np.ndarray, np.ndarray]],
  ends_V: np.ndarray,
  longest: float,
  unknown: float,
) -> np.ndarray:
  """The idle time beside each symbol, float64.

  Of the sessions that were silent for longer there, at most half went on; the
  others ended. So the silence that counts is the one after as many longer
  silences as there are ends, or as a smaller number, of which fewer went on.

  Args:
    silences: in sessions, each with the event beside it.
    ends_V: the number of sessions that surely ended so, or a smaller one.
    longest: the longest idle time.
    unknown: the idle time of an event that is too rare to have its own.
  """
  total_V, kept_ids, kept_gaps = ends_V.copy(), np.zeros(0, int), np.zeros(0)
  for some, gaps in silences:
    total_V += np.bincount(some, minlength=len(total_V))
    some = np.concatenate([kept_ids, some])
    gaps = np.concatenate([kept_gaps, gaps])
    order = np.lexsort((-gaps, some))
    some, gaps = some[order], gaps[order]
    rank = np.arange(len(some)) - np.searchsorted(some, some)
    is_among = rank <= ends_V[some]
    kept_ids, kept_gaps = some[is_among], gaps[is_among]
  idle_V = np.zeros(len(total_V))
  count_V = np.bincount(kept_ids, minlength=len(total_V))
  is_full = count_V > ends_V
  idle_V[is_full] = kept_gaps[np.cumsum(count_V)[is_full] - 1]
  return np.where(total_V < _KNOWN, unknown, np.minimum(idle_V, longest))
