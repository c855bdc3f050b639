"""A follower: the verdicts on sessions whose events arrive one by one.

It reads no input and writes no output. A session gets its final verdict when it
has ended: by its end in the input, by silence in event time, or because more
sessions are open than `detect.followed`. The final verdict is that of a
detection which examines the session. Before, a running verdict is a
bound: scores that events can only raise count as they are, all other scores
count as the least anomalous ones.
"""

import copy
import math
from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from seqrnn.data.logs.logs import form
from seqrnn.data.vocabulary import END, RESERVED, UNKNOWN
from seqrnn.logs.detect.deployed import Deployed, refuse_unfollowed
from seqrnn.logs.follow.open_sessions import (
  EventClock,
  LineClock,
  OpenSession,
  Waiting,
)
from seqrnn.logs.follow.state import Change
from seqrnn.logs.follow.stepping import Stepper
from seqrnn.logs.follow.verdicts import Judge, Scored, Verdict

_LONGEST = 2**16  # Events of a session; a longer one is judged in parts.
_STATES = 2**28  # Bytes of models' states that are kept.
_ENCODED = 2**16  # Symbols whose ids are kept.
# Attributes of a session that are stored, besides its events.
_STORED = ("name", "begins", "last", "severity", "turn")


class Event(NamedTuple):
  """An event of a session, or its end.

  Attributes:
    session: the name of the session.
    symbol: an event, or the masked content of a line; None: the session ends.
    time: in seconds; None: unknown.
    line: of the input; None: unknown.
  """

  session: str
  symbol: str | None
  time: float | None = None
  line: int | None = None


class Outcome(NamedTuple):
  """What events bring about.

  Attributes:
    verdicts: in the order of the events that cause them.
    rows: of each event its scores, if they were asked for.
    unknown: number of events that are not in the vocabulary.
  """

  verdicts: list[Verdict]
  rows: list[dict[str, Any]]
  unknown: int


class Follower:
  """Follows sessions; see the module."""

  def __init__(self, deployed: Deployed):
    """Compiles the step over one event.

    Raises:
      UserError: the detector reads later events, or its rule compares sessions.
    """
    settings = deployed.config.detect
    decoder = deployed.detector.experiment.decoder
    refuse_unfollowed(deployed)
    assert decoder is not None
    self.deployed = deployed
    self._names = deployed.detector.names
    self._models = len(deployed.detector.steps)
    self._stepper = Stepper(decoder, deployed.detector.models)
    self._judge = Judge(deployed)
    data = deployed.config.data
    # Sessions that are cut by times or lines do not overlap.
    self._consecutive = form(data).consecutive
    self._most = settings.followed
    self._by_time = deployed.idle.clock == "seconds"
    self._by_line = deployed.idle.clock == "lines"
    self._clock, self._lines = EventClock(), LineClock()
    self._waiting = Waiting(deployed.idle)
    self._encode = lru_cache(_ENCODED)(self._new_symbol)
    self._with_state: dict[OpenSession, None] = {}  # The oldest first.
    self._most_states = _STATES // self._stepper.begin_S.nbytes

  def warm(self):
    """Compiles all that most events need, so that none has to wait for it."""
    self._stepper.warm()
    self._judge.warm()

  def __contains__(self, session: str) -> bool:
    return session in self._waiting.open

  @property
  def open_sessions(self) -> int:
    """The number of open sessions."""
    return len(self._waiting.open)

  @property
  def now(self) -> float | None:
    """The event time; None: no event had a time."""
    return self._clock.now if math.isfinite(self._clock.now) else None

  def feed(
    self,
    session: str,
    event: str,
    time: float | None = None,
    line: int | None = None,
  ) -> list[Verdict]:
    """Reads an event; returns the verdicts that it brings about."""
    return self.feed_many([Event(session, event, time, line)]).verdicts

  def end(self, session: str) -> list[Verdict]:
    """The final verdict on an open session, whose end is known."""
    return self.feed_many([Event(session, None)]).verdicts

  def tick(self, time: float) -> list[Verdict]:
    """Moves event time on without an event; returns final verdicts."""
    call = _Call()
    self._move_clock(time, call)
    return self._finish(call, False).verdicts

  def feed_many(self, events: Iterable[Event], rows: bool = False) -> Outcome:
    """Reads events; the outcome is the same however they are cut into calls.

    Args:
      events: in their order.
      rows: whether the scores of each event are returned.
    """
    call = _Call()
    for event in events:
      if self._lines.read(event.line):
        if event.time is not None and math.isfinite(event.time):
          self._move_clock(event.time, call)
        if self._by_line:
          self._end_silent(self._lines.now, call)
      if event.symbol is None:
        if session := self._waiting.open.get(event.session):
          self._end(session, call, ends=True)
      else:
        self._append(event, call)
    return self._finish(call, rows)

  def _move_clock(self, time: float, call: "_Call"):
    before = self._clock.now
    self._clock.read(time)
    if self._by_time:
      self._waiting.move(before, self._clock.now)
      self._end_silent(self._clock.now, call)

  def _end_silent(self, now: float, call: "_Call"):
    for session in self._waiting.silent(now):
      self._end(session, call, ends=True, dormant=True)

  def _append(self, event: Event, call: "_Call"):
    """Adds an event to its session, which may be new."""
    assert event.symbol is not None
    waiting = self._waiting
    symbol, id = self._encode(event.symbol)
    session = waiting.open.get(event.session)
    session = session or waiting.dormant.get(event.session)
    if session is None:
      if self._consecutive:
        for before in list(waiting.open.values()):
          self._end(before, call, ends=True)
      begins = self._is_begin(symbol, event.time)
      session = OpenSession(event.session, begins, self._models)
    time = math.nan if event.time is None else event.time
    session.append(symbol, id, time, event.line or 0)
    waiting.touch(
      session, self._clock.now if self._by_time else self._lines.now
    )
    index = len(session.ids) - 1
    call.events.append((session, index, self.now))
    call.touched.setdefault(session, index)
    if len(session.ids) >= _LONGEST:
      self._end(session, call, ends=False)
    while len(waiting.open) > self._most:
      self._end(next(iter(waiting.open.values())), call, ends=False)
    while len(waiting.dormant) > self._most:
      waiting.forget(next(iter(waiting.dormant.values())))

  def _new_symbol(self, symbol: str) -> tuple[str, int]:
    """A symbol, one object for equal ones, and its id."""
    return symbol, int(self._names.encode([symbol])[0])

  def _is_begin(self, symbol: str, time: float | None) -> bool:
    """Whether an event may be the first of its session."""
    if not self._by_time or time is None:
      return True
    after = max(time - self._clock.begin, 0.0)  # It may be out of order.
    return after >= self.deployed.idle.before(symbol)

  def _end(
    self,
    session: OpenSession,
    call: "_Call",
    ends: bool,
    dormant: bool = False,
  ):
    """Closes a session, whose verdict `_finish` computes."""
    self._waiting.close(session, dormant)
    call.events.append((session, -1, self.now))
    call.ended.append((session, len(session.ids), ends))

  def _finish(self, call: "_Call", rows: bool) -> Outcome:
    """The outcome of a call: all that the models compute is computed here."""
    if rows:  # The scores of an end need the state of the models.
      for session, size, _ in call.ended:
        call.touched.setdefault(session, size)
    scores = self._read(call.touched)
    finals = iter(zip(call.ended, self._judge.finals(call.ended), strict=True))
    events = [scores.get((s, index)) for s, index, _ in call.events]
    scored = [event for event in events if event]
    bounds = iter(self._judge.bounds(scored) if scored else ())
    verdicts, shown, unknown = [], [], 0
    for (session, index, now), event in zip(call.events, events, strict=True):
      again = session.severity > 0
      if index < 0:
        (_, size, ends), verdict = next(finals)
        raised = verdict.severity > session.severity
        session.severity = max(session.severity, verdict.severity)
        verdicts.append(verdict._replace(now=now, raised=raised, again=again))
        if rows and ends and size == len(session.ids):
          shown.append(self._end_row(session))
        continue
      unknown += session.ids[index] == UNKNOWN
      if event is None:  # The first event of a session without its begin.
        continue
      if rows:
        name = self._judge.text(session, index)
        shown.append(self._judge.row(session, index, name, event))
      bound = next(bounds)
      if bound and bound[0].severity[bound[1]] > session.severity:
        verdict = self._judge.running(session, index + 1, event, *bound)
        session.severity = verdict.severity
        verdicts.append(verdict._replace(now=now, again=again))
    for session, _, _ in call.ended:
      if self._waiting.open.get(session.name) is not session:
        self._with_state.pop(session, None)
        session.forget(self._models)
    while len(self._with_state) > self._most_states:
      oldest = next(iter(self._with_state))
      del self._with_state[oldest]
      oldest.forget(self._models)
    return Outcome(verdicts, shown, unknown)

  def _read(
    self, touched: dict[OpenSession, int]
  ) -> dict[tuple[OpenSession, int], Scored]:
    """The models read the events that they have not read.

    Args:
      touched: sessions, with the position of the first new event of each.

    Returns:
      the scores of new events, by their sessions and positions.
    """
    unread = []
    for session in touched:
      if session.state_S is None:
        session.state_S = self._stepper.begin_S
        if not session.begins:
          session.state_S = self._stepper.cut_S(session.ids[0])
          session.read, session.nats = 1, array("f", [0.0])
      if len(session.ids) > session.read:
        unread.append(session)
    pairs = [(s.state_S, s.ids[s.read :]) for s in unread]
    results = zip(unread, self._stepper.read(pairs), strict=True)
    scores = {}
    for session, (session.state_S, read) in results:
      ids, first = session.ids[session.read :], session.read
      for index, one in enumerate(
        self._judge.scored(session, ids, read), first
      ):
        session.nats.append(one.nats)
        if index >= touched[session]:
          scores[session, index] = one
      session.read = len(session.ids)
      self._with_state.pop(session, None)
      self._with_state[session] = None
    return scores

  def _end_row(self, session: OpenSession) -> dict[str, Any]:
    """The scores of the end of a session."""
    assert session.state_S is not None
    [(_, read)] = self._stepper.read([(session.state_S, [END])])
    # The session may go on, without its end.
    [scored] = self._judge.scored(copy.copy(session), [END], read)
    return self._judge.row(session, len(session.ids), RESERVED[END], scored)

  def facts(self) -> dict[str, Any]:
    """All that `restore` needs besides sessions, as JSON."""
    return {"clock": self._clock.state(), "lines": self._lines.state()}

  def changes(self) -> Iterator[Change]:
    """Changes of sessions since `saved`; a part has the events from it on.

    The models' states are not stored: `restore` computes them from the events.
    """
    for session in self._waiting.changed:
      is_open = self._waiting.open.get(session.name) is session
      if not (is_open or self._waiting.dormant.get(session.name) is session):
        if session.saved:
          yield "sessions", session.number, 0, None
        continue
      header = [getattr(session, name) for name in _STORED]
      columns = session.symbols, session.times, session.lines
      new = [[*column[session.saved :]] for column in columns]
      yield "sessions", session.number, session.saved, [is_open, header, new]

  def saved(self):
    """Notes that the changes are stored."""
    for session in self._waiting.changed:
      session.saved = len(session.ids)
    self._waiting.changed.clear()

  def restore(
    self, facts: dict[str, Any], rows: Iterable[tuple[int, int, Any]]
  ):
    """Replaces all sessions by stored ones, also those of other models.

    Args:
      facts: as `facts` gave them.
      rows: number, part and value of each session, ordered.
    """
    self._clock.restore(facts["clock"])
    self._lines.restore(facts["lines"])
    sessions: list[tuple[OpenSession, bool]] = []
    for number, part, (is_open, header, columns) in rows:
      if part == 0:
        sessions.append((OpenSession("", True, self._models), is_open))
      session, (symbols, times, lines) = sessions[-1][0], columns
      session.number, sessions[-1] = number, (session, is_open)
      for name, field in zip(_STORED, header, strict=True):
        setattr(session, name, field)
      session.symbols += symbols
      session.times.extend(times)
      session.lines.extend(lines)
      session.saved = len(session.symbols)
    waiting = Waiting(self.deployed.idle)
    waiting.put_back(sessions)
    self._adopt(waiting)

  def take_over(self, before: "Follower"):
    """Takes the sessions of a follower, perhaps of other models."""
    self._clock, self._lines = before._clock, before._lines
    self._adopt(before._waiting)

  def _adopt(self, waiting: Waiting):
    self._with_state.clear()
    self._waiting = waiting
    for session in (*waiting.open.values(), *waiting.dormant.values()):
      encoded = [self._encode(symbol) for symbol in session.symbols]
      session.symbols = [symbol for symbol, _ in encoded]
      session.ids = array("i", (id for _, id in encoded))
      session.forget(self._models)
    waiting.set_idle(self.deployed.idle)


class _Call:
  """What happens in a call, before anything is computed.

  Attributes:
    events: sessions, the positions of their new events, -1 for an end, and the
      event time.
    touched: sessions, with the position of the first new event of each.
    ended: of each end, as `Final.judge`.
  """

  def __init__(self):
    self.events: list[tuple[OpenSession, int, float | None]] = []
    self.touched: dict[OpenSession, int] = {}
    self.ended: list[tuple[OpenSession, int, bool]] = []
