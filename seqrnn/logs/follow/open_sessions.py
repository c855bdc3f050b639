"""The sessions of a follower, event time, and when silence ends a session.

Event time is that of a log, or its lines, whatever the machine's time is.
"""

import heapq
import math
from array import array
from typing import Any

import numpy as np

from seqrnn.logs.detect.deployed import IdleTimes

LEAP = 3600.0  # Seconds; a longer step needs confirmation.
_LONG = 12 * LEAP  # A longer step forward, or any back, needs one more time.
_CONFIRMED = 2  # Times one after the other that confirm a step.
_STALE = 1000  # Entries of a heap of sessions that are no longer kept.


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
  """

  def __init__(self):
    self.now, self.begin = -math.inf, math.inf
    # Times that are not confirmed yet.
    self._ahead: list[float] = []
    self._behind: list[float] = []

  def read(self, time: float):
    """Reads the finite time of an event, in seconds."""
    if self.now == -math.inf:
      self.now = self.begin = time
    step = time - self.now
    if step >= -LEAP:
      self._behind.clear()
    if abs(step) <= LEAP:
      self._ahead.clear()
      self.now = max(self.now, time)
      return
    leaps = self._ahead if step > 0 else self._behind
    leaps[:] = [*(leap for leap in leaps if leap <= time + LEAP), time]
    is_short = 0 < leaps[0] - self.now <= _LONG
    if len(leaps) < _CONFIRMED + (not is_short):
      return
    self.now, *later = leaps
    self.begin = min(self.begin, self.now)
    leaps.clear()
    for leap in later:
      self.read(leap)

  def state(self) -> dict[str, Any]:
    """What `restore` takes."""
    leaps = [*self._ahead, *self._behind]
    return {"now": self.now, "begin": self.begin, "leaps": leaps}

  def restore(self, state: dict[str, Any]):
    """Sets the clock as it was."""
    self.now, self.begin = float(state["now"]), float(state["begin"])
    leaps = [float(time) for time in state["leaps"]]
    self._ahead = [leap for leap in leaps if leap > self.now]
    self._behind = [leap for leap in leaps if leap <= self.now]


class LineClock:
  """Counts lines; a line may have events of several sessions.

  Attributes:
    now: number of lines.
  """

  def __init__(self):
    self.now = 0
    self._last: int | None = None

  def read(self, line: int | None) -> bool:
    """Reads the line of an event; whether it is another than the last one.

    Args:
      line: its number; those of a rotated log begin at 1 again. None: unknown.
    """
    if line is not None and line == self._last:
      return False
    before, self._last = self._last or 0, line
    if line is None:
      self.now += 1
    else:
      self.now += line - before if line > before else line
    return True

  def state(self) -> list[Any]:
    """What `restore` takes."""
    return [self.now, self._last]

  def restore(self, state: list[Any]):
    """Sets the clock as it was."""
    self.now, self._last = state


class OpenSession:
  """The events of a session so far.

  Attributes:
    name: of the session.
    number: that no other session of the follower has; 0: it is new.
    turn: orders sessions by their last event or end.
    saved: number of its events in the database.
    symbols: its events as read.
    ids: of the vocabulary.
    times: of the events, in seconds; NaN: unknown.
    lines: of the events; 0: unknown.
    begins: whether the first event is the begin of the session.
    last: the event time when the last event arrived.
    deadline: the event time after which its silence has ended it.
    waits: the earliest time in the heap of deadlines at which it is looked at.
    severity: of the verdicts so far.
    state_S: of the models after the first `read` events; None: not computed.
    read: number of events that the models have read.
    nats: surprisal of the events that they have read.
    highest_K: the highest surprisal by each model.
    unknown_K: the number of events that each model has not seen in training.
    unknown: the number of events that are not in the vocabulary.
  """

  __slots__ = (
    *(
      "name",
      "number",
      "turn",
      "saved",
      "symbols",
      "ids",
      "times",
      "lines",
      "begins",
      "last",
    ),
    *("deadline", "waits", "severity", "state_S", "read", "nats"),
    *("highest_K", "unknown_K", "unknown"),
  )

  def __init__(self, name: str, begins: bool, models: int):
    self.name, self.begins = name, bool(begins)
    self.number = self.turn = self.saved = 0
    self.symbols: list[str] = []
    self.ids, self.times, self.lines = array("i"), array("d"), array("q")
    self.last, self.deadline, self.waits = -math.inf, math.inf, math.inf
    self.severity = 0
    self.forget(models)

  def forget(self, models: int):
    """Forgets what the models have computed."""
    self.state_S: np.ndarray | None = None
    self.read, self.nats = 0, array("f")
    self.highest_K, self.unknown_K = [0.0] * models, [0] * models
    self.unknown = 0

  def append(self, symbol: str, id: int, time: float, line: int):
    """Adds an event."""
    self.symbols.append(symbol)
    self.ids.append(id)
    self.times.append(time)
    self.lines.append(line)


class Waiting:
  """Open sessions, the longest idle first, and sessions that may go on.

  A session that silence has ended is dormant until twice the longest idle time
  is over: a later event wakes it up, so that the session is not cut in two.

  Attributes:
    open: by name.
    dormant: by name.
    changed: sessions of which something else is stored.
  """

  def __init__(self, idle: IdleTimes):
    self.open: dict[str, OpenSession] = {}
    self.dormant: dict[str, OpenSession] = {}
    self.changed: dict[OpenSession, None] = {}
    self._idle, self._turns = idle, 0
    self._heap: list[tuple[float, int, OpenSession]] = []
    self._number = 0  # Orders equal deadlines.

  def touch(self, session: OpenSession, now: float):
    """Notes an event of a session at a time."""
    self.open.pop(session.name, None)
    self.dormant.pop(session.name, None)
    self.open[session.name] = session
    session.last = now
    self._change(session)
    self._set_deadline(session)

  def _change(self, session: OpenSession):
    self._turns += 1
    session.turn = self._turns
    session.number = session.number or session.turn
    self.changed[session] = None

  def _set_deadline(self, session: OpenSession):
    if self._idle.clock:
      session.deadline = session.last + self._idle.after(session.symbols[-1])
      if session.deadline < session.waits:
        self._wait(session, session.deadline)

  def move(self, before: float, now: float):
    """Moves the event time, so that its steps are no silence of sessions.

    Sessions without a time get the first one. A step ahead is confirmed by
    events that were noted at the time before it: they get their own.
    """
    if now < before:
      self._set_back(before - now)
    elif now - before > LEAP:
      for session in [*self.open.values()]:
        if before == -math.inf or session.times[-1] > before + LEAP:
          self.touch(session, min(now, session.times[-1]))

  def put_back(self, sessions: list[tuple[OpenSession, bool]]):
    """Adds stored sessions, each with whether it is open."""
    for session, is_open in sorted(sessions, key=lambda pair: pair[0].turn):
      self._turns = session.turn
      (self.open if is_open else self.dormant)[session.name] = session

  def set_idle(self, idle: IdleTimes):
    """Waits for the silences of another detection, or of a stored state."""
    self._idle = idle
    self._heap.clear()
    for session in (*self.open.values(), *self.dormant.values()):
      session.waits = session.deadline = math.inf
      if session.name in self.open:
        self._set_deadline(session)
      else:
        self._wait(session, self._forgotten(session))

  def close(self, session: OpenSession, dormant: bool = False):
    """Removes a session from the open ones."""
    del self.open[session.name]
    session.waits = math.inf
    self._change(session)
    if dormant:
      self.dormant[session.name] = session
      self._wait(session, self._forgotten(session))

  def forget(self, session: OpenSession):
    """Removes a dormant session."""
    del self.dormant[session.name]
    self._change(session)

  def silent(self, now: float) -> list[OpenSession]:
    """The sessions that silence has ended, which the caller closes."""
    ended: list[OpenSession] = []
    while self._heap and self._heap[0][0] < now:
      time, _, session = heapq.heappop(self._heap)
      if session.waits != time:
        continue  # It was looked at, or will be, at another time.
      session.waits = math.inf
      if self.dormant.get(session.name) is session:
        self.forget(session)
      elif self.open.get(session.name) is not session:
        continue
      elif session.deadline < now:
        ended.append(session)
      else:
        self._wait(session, session.deadline)
    # An order that does not depend on what the heap was before.
    return sorted(ended, key=lambda session: (session.deadline, session.name))

  def _set_back(self, seconds: float):
    self._heap.clear()
    for session in (*self.open.values(), *self.dormant.values()):
      session.last -= seconds
      session.deadline -= seconds
      self.changed[session] = None
      is_open = session.name in self.open
      until = session.deadline if is_open else self._forgotten(session)
      self._wait(session, until)

  def _forgotten(self, session: OpenSession) -> float:
    """The time when a dormant session does not wake up any more."""
    return session.last + 2 * self._idle.longest

  def _wait(self, session: OpenSession, until: float):
    """Looks at a session when a time is over."""
    session.waits = until
    if until < math.inf:
      self._number += 1
      heapq.heappush(self._heap, (until, self._number, session))
    if len(self._heap) > 2 * (len(self.open) + len(self.dormant)) + _STALE:
      self._heap = [entry for entry in self._heap if self._is_awaited(*entry)]
      heapq.heapify(self._heap)

  def _is_awaited(self, until: float, _: int, session: OpenSession) -> bool:
    """Whether an entry of the heap is that of a session that is kept."""
    is_here = session is self.open.get(session.name)
    is_here = is_here or session is self.dormant.get(session.name)
    return is_here and session.waits == until
