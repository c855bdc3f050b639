"""The sessions of a follower, event time, and when silence ends a session.

Event time is that of a log, or its lines, whatever the machine's time is.
"""

import heapq
import itertools
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from seqrnn.data.idle_times import IdleTimes
from seqrnn.data.logs.templates import NO_VALUES

LEAP = 3600.0  # Seconds; a longer step needs confirmation.
_LONG = 12 * LEAP  # A longer step forward, or any back, needs one more time.
_CONFIRMED = 2  # Times one after the other that confirm a step.
_STALE = 1000  # Entries of a heap of sessions that have ended.


# Names of clocks -> their fields, as JSON; and new events.
ClockFields = dict[str, Any]


@dataclass
class EventClock:
  """The latest time of events that arrive; it does not follow single errors.

  A time that is more than an hour ahead of the clock, or behind it, moves the
  clock only when later times follow it, whatever their distance: one for a step
  of up to half a day ahead, two for other steps. A time is an error if a time
  that is more than an hour earlier follows it on the same side of the clock, or
  a time of the clock.

  Attributes:
    now: in seconds; -inf before the first time.
    begin: the first time.
    ahead, behind: times that are not confirmed yet.
  """

  now: float = -math.inf
  begin: float = math.inf
  ahead: list[float] = field(default_factory=list)
  behind: list[float] = field(default_factory=list)

  def read(self, time: float):
    """Reads the finite time of an event, in seconds."""
    if self.now == -math.inf:
      self.now = self.begin = time
    step = time - self.now
    if step >= -LEAP:
      self.behind.clear()
    if abs(step) <= LEAP:
      self.ahead.clear()
      self.now = max(self.now, time)
      return
    leaps = self.ahead if step > 0 else self.behind
    leaps[:] = [*(leap for leap in leaps if leap <= time + LEAP), time]
    is_short = 0 < leaps[0] - self.now <= _LONG
    if len(leaps) < _CONFIRMED + (not is_short):
      return
    self.now, *later = leaps
    self.begin = min(self.begin, self.now)
    leaps.clear()
    for leap in later:
      self.read(leap)


@dataclass
class LineClock:
  """Counts lines; a line may have events of several sessions.

  Attributes:
    now: number of lines.
    last: the line of the last event; None: unknown.
  """

  now: int = 0
  last: int | None = None

  def read(self, line: int | None) -> bool:
    """Reads the line of an event; whether it is another than the last one.

    Args:
      line: its number; those of a rotated log begin at 1 again. None: unknown.
    """
    if line is not None and line == self.last:
      return False
    before, self.last = self.last or 0, line
    if line is None:
      self.now += 1
    else:
      self.now += line - before if line > before else line
    return True


OPEN, DORMANT, CLOSED = "open", "dormant", "closed"


@dataclass(eq=False, slots=True)
class OpenSession:
  """The events of a session so far.

  Attributes:
    name: of the session.
    begins: whether the first event is the begin of the session.
    phase: OPEN, DORMANT or CLOSED.
    number: that no other session of the follower has; 0: it is new.
    turn: orders sessions by their last event or end.
    last: the event time when the last event arrived.
    severity: of the verdicts so far.
    saved: number of its events that are stored.
    deadline: the event time after which its silence has ended it, or it does
      not wake up any more.
    symbols: its events as read.
    times: of the events, in seconds; NaN: unknown.
    lines: of the events; 0: unknown.
    values: the numbers in the line of each event, filled up with NaN.
  """

  name: str = ""
  begins: bool = True
  phase: str = OPEN
  number: int = 0
  turn: int = 0
  last: float = -math.inf
  severity: int = 0
  saved: int = 0
  deadline: float = math.inf
  symbols: list[str] = field(default_factory=list)
  times: array = field(default_factory=partial(array, "d"))
  lines: array = field(default_factory=partial(array, "q"))
  values: list[tuple[float, ...]] = field(default_factory=list)

  def append(self, symbol: str, time: float, line: int, values=NO_VALUES):
    """Adds an event."""
    self.symbols.append(symbol)
    self.times.append(time)
    self.lines.append(line)
    self.values.append(values)


class SessionStep(NamedTuple):
  """A new event of a session, or its end.

  Attributes:
    session: the session.
    size: number of its events, the new one included.
    now: the event time; None: unknown.
    ends: whether the session has its end; None: it has a new event.
    gone: seconds before each event that do not count, as in `Sessions.without`;
      empty: all count.
    left_out: number of events that are left out or replaced.
  """

  session: OpenSession
  size: int
  now: float | None = None
  ends: bool | None = None
  gone: Sequence[float] = ()
  left_out: int = 0


class Waiting:
  """Open sessions, the longest idle first, and sessions that may go on.

  A session that silence has ended is dormant until twice the longest idle time
  is over: a later event wakes it up, so that the session is not cut in two.

  Attributes:
    open: by name.
    dormant: by name.
    changed: sessions of which something else is stored.
  """

  def __init__(self, idle: IdleTimes, sessions: Iterable[OpenSession] = ()):
    by_turn = sorted(sessions, key=lambda session: session.turn)
    self.open = {s.name: s for s in by_turn if s.phase == OPEN}
    self.dormant = {s.name: s for s in by_turn if s.phase == DORMANT}
    self.changed: dict[OpenSession, None] = {}
    self._turns = by_turn[-1].turn if by_turn else 0
    self._heap: list[tuple[float, int, OpenSession]] = []
    self._order = itertools.count()  # Orders equal deadlines.
    self._idle = idle
    for session in by_turn:
      self._set_deadline(session)

  @property
  def sessions(self) -> list[OpenSession]:
    """All sessions."""
    return [*self.open.values(), *self.dormant.values()]

  def touch(self, session: OpenSession, now: float):
    """Notes an event of a session at a time."""
    self.open.pop(session.name, None)
    self.dormant.pop(session.name, None)
    self.open[session.name] = session
    session.last = now
    self._change(session, OPEN)
    self._set_deadline(session)

  def move(self, before: float, now: float):
    """Moves the event time, so that its steps are no silence of sessions.

    Sessions without a time get the first one. A step ahead is confirmed by
    events that were noted at the time before it: they get their own.
    """
    if now < before:
      for session in self.sessions:
        session.last -= before - now
        self.changed[session] = None
        self._set_deadline(session)
    elif now - before > LEAP:
      for session in [*self.open.values()]:
        if before == -math.inf or session.times[-1] > before + LEAP:
          self.touch(session, min(now, session.times[-1]))

  def close(self, session: OpenSession, phase: str = CLOSED):
    """Ends an open or a dormant session; `phase` is its new one."""
    del (self.open if session.phase == OPEN else self.dormant)[session.name]
    self._change(session, phase)
    session.deadline = math.inf
    if phase == DORMANT:
      self.dormant[session.name] = session
      self._set_deadline(session)

  def silent(self, now: float) -> list[OpenSession]:
    """The sessions that silence has ended, which the caller closes."""
    ended: set[OpenSession] = set()
    while self._heap and self._heap[0][0] < now:
      deadline, _, session = heapq.heappop(self._heap)
      if session.deadline != deadline:
        continue  # It has another one.
      if session.phase == DORMANT:
        self.close(session)
      else:
        ended.add(session)
    # An order that does not depend on what the heap was before.
    return sorted(ended, key=lambda session: (session.deadline, session.name))

  def _change(self, session: OpenSession, phase: str):
    self._turns += 1
    session.phase, session.turn = phase, self._turns
    session.number = session.number or session.turn
    self.changed[session] = None

  def _set_deadline(self, session: OpenSession):
    """Sets the time when a session ends, or does not wake up any more."""
    silence = 2 * self._idle.longest
    if session.phase == OPEN:
      silence = self._idle.after(session.symbols[-1])
    session.deadline = session.last + silence
    if session.deadline < math.inf:
      heapq.heappush(self._heap, (session.deadline, next(self._order), session))
    if len(self._heap) > 2 * (len(self.open) + len(self.dormant)) + _STALE:
      self._heap = [one for one in self._heap if one[0] == one[2].deadline]
      heapq.heapify(self._heap)
