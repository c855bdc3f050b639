"""LogCuts: which sessions of a log its begin or its end cuts.

A session is open if the log ends before the session has been silent for the
idle time of its last event: further events may follow there. It is cut at its
begin if its first event is in the idle time before such events after the begin
of the log: earlier events may have been before the log.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np

from seqrnn import errors
from seqrnn.data.idle_times import IdleTimes, LogCuts
from seqrnn.data.read.columns import Texts, parts_of
from seqrnn.errors import counted

_CHUNK = 2**18  # Events that are handled together.
# The longest idle time is this quantile of the longest silences of sessions.
_QUANTILE = 0.99
_KNOWN = 20  # Occurrences of an event that has an idle time of its own.
_SURE = 200  # A session surely has ended if, of so many alike, one goes on.
_MARGIN = 2.0  # New sessions have longer silences than those of training.
_PATIENCE = 10  # Idle times after which every session surely has ended.


def report(cuts: LogCuts):
  """Prints on stderr how many sessions are cut, unless none is."""
  counts = {
    "open at its end": np.sum(~cuts.ended),
    "cut at its begin": np.sum(~cuts.begun),
  }
  parts = [f"{count:,} {words}" for words, count in counts.items() if count]
  if parts:
    _report_once(
      f"{cuts.log}: of {counted(len(cuts.after_D), 'session')},"
      f" {', '.join(parts)} (idle time: {cuts.idle.longest:.6g}"
      f" {cuts.idle.clock})"
    )


# Parts of a run read the same log.
_report_once = functools.lru_cache(maxsize=2**8)(errors.report)


@dataclasses.dataclass
class Clock:
  """The begin and the end of a log, from which `LogCuts` are learned.

  Attributes:
    log: its name.
    idle: the idle time; None: it is learned.
    lines: whether lines are a clock where no event has a time.
    times: whether times are a clock.
  """

  log: str
  idle: float | None = None
  lines: bool = False
  times: bool = True

  def __post_init__(self):
    self._begin, self._end, self._last = math.inf, -math.inf, 0

  def read(self, line: int, time: float | None):
    """Reads the line and the time of an event; None: it has no time."""
    self._last = line
    if self.times and time is not None:
      self._begin, self._end = min(self._begin, time), max(self._end, time)

  def cuts(
    self,
    times: np.ndarray,
    lines: np.ndarray,
    events: Texts,
    bounds: np.ndarray,
  ) -> LogCuts | None:
    """What decides in the log; None: it has no clock.

    Args:
      times: of the events, session by session, NaN: unknown.
      lines: of the events.
      events: as read.
      bounds: of the sessions.
    """
    if self._end >= self._begin:
      begin, end, clock = self._begin, self._end, "seconds"
    elif self.lines:
      begin, end, clock, times = 1, self._last, "lines", lines
    else:
      return None
    first_D = np.fmin.reduceat(times, bounds[:-1]).astype(float)
    last_D = np.fmax.reduceat(times, bounds[:-1]).astype(float)
    # A session without any time is whole.
    before_D = np.nan_to_num(first_D - begin, nan=math.inf)
    after_D = np.nan_to_num(end - last_D, nan=math.inf)
    ids, symbols = events.ids, events.symbols
    count = functools.partial(np.bincount, minlength=len(symbols))
    idle, patience = self.idle, self.idle or 0.0
    last_V = patience_V = np.full(len(symbols), patience)
    if idle is None:
      gaps, idle = _longest_silences(times, bounds), 0.0
      if len(gaps):
        idle = float(np.quantile(gaps, _QUANTILE, method="higher"))
        patience = float(min(_PATIENCE * idle, _MARGIN * np.fmax.reduce(gaps)))
      ends_V = count(ids[bounds[1:] - 1][after_D >= idle])
      last_V, silence_V = (
        _idle_times(_silences(times, ids, bounds, 0), n_V, most, most)
        for n_V, most in ((ends_V, idle), (ends_V // _SURE, patience / _MARGIN))
      )
      patience_V = _MARGIN * silence_V
    first_V = np.zeros(len(symbols))
    if self.times:
      begins_V = count(ids[bounds[:-1]][before_D >= idle])
      first_V = _idle_times(_silences(times, ids, bounds, 1), begins_V, idle, 0)
    first = {symbols[v]: float(first_V[v]) for v in np.flatnonzero(first_V)}
    of_log, of_growing = (
      IdleTimes(
        *(clock, longest, first),
        {symbols[v]: float(of_V[v]) for v in np.flatnonzero(of_V != longest)},
      )
      for longest, of_V in ((idle, last_V), (patience, patience_V))
    )
    whole = of_log.whole(events, bounds, before_D, after_D)
    return LogCuts(self.log, of_log, of_growing, before_D, after_D, *whole)


def _longest_silences(times_N: np.ndarray, bounds: np.ndarray) -> np.ndarray:
  """The longest silence of each session that has several events."""
  longest = [np.zeros(0)]
  for start, stop in parts_of(bounds, _CHUNK):
    starts = bounds[start:stop] - bounds[start]
    times = times_N[bounds[start] : bounds[stop]]
    gaps = np.diff(times, prepend=times[0])
    gaps[starts] = 0  # No silence goes over a session's end.
    longest.append(np.fmax.reduceat(gaps, starts))
  return np.concatenate(longest)[np.diff(bounds) > 1]


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
  for start, stop in parts_of(bounds, _CHUNK):
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
