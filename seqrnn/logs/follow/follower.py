"""A follower: the verdicts on sessions whose events arrive one by one.

It reads no input and writes no output. A session gets its final verdict when it
has ended: by its end in the input, by silence in event time, or because more
sessions are open than `detect.followed`. The final verdict is that of a
detection which examines the session. Before, a running verdict is a
bound: scores that events can only raise count as they are, all other scores
count as the least anomalous ones. A new event that is common is one alarm, and
sessions are judged without it (novel.py).
"""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from seqrnn.data.idle_times import is_edge
from seqrnn.data.logs.log_corpus import form
from seqrnn.data.logs.templates import NO_VALUES
from seqrnn.data.vocabulary import BEGIN, UNKNOWN
from seqrnn.logs.detect.deployed import Deployed, refuse_unfollowed
from seqrnn.logs.detect.scores import in_words
from seqrnn.logs.follow.novel import NEW, NewEvent, NewEvents, replaced
from seqrnn.logs.follow.open_sessions import (
  CLOSED,
  DORMANT,
  OPEN,
  ClockFields,
  EventClock,
  LineClock,
  OpenSession,
  SessionStep,
  Waiting,
)
from seqrnn.logs.follow.state import StateRow, as_type
from seqrnn.logs.follow.stepping import Stepper
from seqrnn.logs.follow.verdicts import (
  NOTHING,
  Bound,
  Judge,
  Verdict,
  isoformat,
)

_LONGEST = 2**16  # Events of a session; a longer one is judged in parts.
_STATES = 2**28  # Bytes of models' states that are kept for open sessions,
_SHARED = 2**25  # and of those that other sessions may come to.
_OBJECT = 2**9  # Bytes of what holds a state.
_ENCODED = 2**16  # Symbols whose ids are kept.
# Attributes of a session that are stored, with their types, and those of its
# events.
_STORED = {"name": str, "begins": bool, "phase": str, "number": int}
_STORED |= {"turn": int, "last": float, "severity": int}
_COLUMNS = {"symbols": list[str], "times": list[float], "lines": list[int]}
_COLUMNS |= {"values": list[list[float]]}


class Event(NamedTuple):
  """An event of a session, or its end.

  Attributes:
    session: the name of the session.
    symbol: an event, or the masked content of a line; None: the session ends.
    time: in seconds; None: unknown.
    line: of the input; None: unknown.
    values: the first numbers in the line, filled up with NaN.
  """

  session: str
  symbol: str | None
  time: float | None = None
  line: int | None = None
  values: tuple[float, ...] = NO_VALUES


class Outcome(NamedTuple):
  """What events bring about.

  Attributes:
    verdicts: in the order of the events that cause them.
    unknown: number of events that are not in the vocabulary.
    not_open: ends of sessions that are not open.
  """

  verdicts: list[Verdict]
  unknown: int
  not_open: list[Event]


@dataclass(eq=False, slots=True)
class Prefix:
  """Events with which sessions begin, as the models have read them.

  Attributes:
    state_S: of the models, after all events but the last.
    last: the id of the last event; None: there is none.
    bound: of a session with these events; None: the last is not scored.
    longer: the events with one more, by its id.
  """

  state_S: np.ndarray
  last: int | None
  bound: Bound | None = None
  longer: "dict[int, Prefix]" = field(default_factory=dict)


class Follower:
  """Follows sessions; see the module."""

  def __init__(self, deployed: Deployed):
    """Compiles the step over one event.

    Raises:
      UserError: the detector reads later events, or its rule compares sessions.
    """
    decoder = deployed.detector.experiment.decoder
    refuse_unfollowed(deployed)
    assert decoder is not None
    self.deployed = deployed
    self._stepper = Stepper(decoder, deployed.detector.models)
    self._judge = Judge(deployed)
    self._most = deployed.config.detect.followed
    # Sessions of at most so many events may end as short ones.
    flags_short = deployed.config.detect.short == "flag"
    self._short = deployed.config.data.window * flags_short
    # Sessions that are cut by times or lines do not overlap.
    self._consecutive = form(deployed.config.data).cut in ("gap", "lines")
    self._by = deployed.idle.clock
    self._clock, self._lines = EventClock(), LineClock()
    self._waiting = Waiting(deployed.idle)
    encode = deployed.detector.names.encode
    self._id = lru_cache(_ENCODED)(lambda symbol: int(encode([symbol])[0]))
    self._steps: list[SessionStep] = []  # Before anything is computed.
    # How many events of the sessions of the last ones were read, and to where.
    self._read: dict[OpenSession, tuple[Prefix, int]] = {}
    self._forget()
    self._near = 60 * deployed.config.detect.quiet
    self._new, self._anomalous = NewEvents(), frozenset[str]()
    size = self._stepper.begin_S.nbytes + _OBJECT
    self._most_read, self._most_shared = _STATES // size, _SHARED // size

  def warm(self):
    """Compiles all that most events need, so that none has to wait for it."""
    self._stepper.warm()
    self._judge.warm()

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

  def end_all(self) -> list[Verdict]:
    """The final verdicts on all open sessions, of a log that is silent."""
    for session in list(self._waiting.open.values()):
      self._end(session, ends=True, phase=DORMANT)
    return self._judged()

  def tick(self, time: float) -> list[Verdict]:
    """Moves event time on without an event; returns final verdicts."""
    self._move_clock(time)
    return self._judged()

  def feed_many(self, events: Iterable[Event]) -> Outcome:
    """Reads events; the outcome is the same however they are cut into calls.

    Args:
      events: in their order. The end of a session without a name only moves
        event time.
    """
    verdicts, unknown, not_open = [], 0, []
    for event in events:
      if self._lines.read(event.line):
        if event.time is not None and math.isfinite(event.time):
          self._move_clock(event.time)
        if self._by == "lines":
          self._end_silent(self._lines.now)
      if event.symbol is not None:
        symbol = sys.intern(event.symbol)
        is_new = self._id(symbol) == UNKNOWN
        unknown += is_new
        if common := self._append(event, symbol, is_new):
          verdicts += self._judged()
          verdicts += [self._alarm(new, len(common), event) for new in common]
          self.leave_out()  # Sessions are judged otherwise from here on.
      elif session := self._waiting.open.get(event.session):
        self._end(session, ends=True)
      elif event.session:
        not_open.append(event)
    return Outcome([*verdicts, *self._judged()], unknown, not_open)

  def leave_out(self, anomalous: frozenset[str] | None = None):
    """Judges sessions without events that are accepted, or new and common.

    Args:
      anomalous: new events, as read, that a person calls anomalous; None: those
        of the last call.
    """
    if anomalous is not None:
      self._anomalous = anomalous
    left_out = dict(self.deployed.accepted) | {
      event.symbol: event.replaces
      for event in self._new.events.values()
      if event.is_common and event.symbol not in self._anomalous
    }
    if left_out != self._judge.left_out:
      self._judge.left_out = left_out
      self._read.clear()

  def _alarm(self, new: NewEvent, number: int, event: Event) -> Verdict:
    """The alarm for a new event that is common.

    Args:
      new: the event.
      number: of those that have become common with it, itself included.
      event: with which they have.
    """
    # The open sessions lack the event that it replaces.
    sessions = [s for s in self._waiting.sessions if new.symbol in s.symbols]
    there = {self._id(x) for session in sessions for x in session.symbols}
    known = self.deployed.detector.names.symbols
    gone = (x for x in known if self._id(x) not in there)
    new.replaces = replaced(new.symbol, gone)
    shown = f"? {self._judge.masks.text(new.symbol)}"
    several = number > 1 and not new.joins
    words = f"{number} new events" if several else "new"
    words += "" if new.since is None else f" since {isoformat(new.since)}"
    share = f"{'up to ' * several}{self._new.share(new):.0%}"
    return NOTHING._replace(
      session=event.session,
      ended=False,
      severity=2,
      score=NEW,
      reason=f"{words}, in {share} of the sessions",
      p=math.nan,
      line=event.line,
      time=event.time,
      event=shown,
      unknown_events=1,
      surprising=frozenset([shown]),
      symbols=[new.symbol, *filter(None, [new.replaces])],
      now=self.now,
      left_out=int(new.joins),
    )

  def _move_clock(self, time: float):
    before = self._clock.now
    self._clock.read(time)
    if self._by == "seconds":
      self._waiting.move(before, self._clock.now)
      self._end_silent(self._clock.now)

  def _end_silent(self, now: float):
    for session in self._waiting.silent(now):
      self._end(session, ends=True, phase=DORMANT)

  def _end(self, session: OpenSession, ends: bool, phase: str = CLOSED):
    self._waiting.close(session, phase)
    self._steps.append(
      SessionStep(session, len(session.symbols), self.now, ends)
    )

  def _append(self, event: Event, symbol: str, is_new: bool) -> list[NewEvent]:
    """Adds an event to its session; returns new ones that are common by it."""
    waiting, name = self._waiting, event.session
    session = waiting.open.get(name) or waiting.dormant.get(name)
    if session is None:
      if self._consecutive:
        for before in list(waiting.open.values()):
          self._end(before, ends=True)
      session = OpenSession(name, self._is_begin(symbol, event.time))
      self._new.begun += 1
    common = []
    if is_new:
      common = self._new.take(session, symbol, event.time, self._near)
    time = math.nan if event.time is None else event.time
    session.append(symbol, time, event.line or 0, event.values)
    clock = self._clock if self._by == "seconds" else self._lines
    waiting.touch(session, clock.now)
    self._steps.append(SessionStep(session, len(session.symbols), self.now))
    if len(session.symbols) >= _LONGEST:
      self._end(session, ends=False)
    while len(waiting.open) > self._most:
      self._end(next(iter(waiting.open.values())), ends=False)
    while len(waiting.dormant) > self._most:
      waiting.close(next(iter(waiting.dormant.values())))
    return common

  def _is_begin(self, symbol: str, time: float | None) -> bool:
    """Whether an event may be the first of its session."""
    if self._by != "seconds" or time is None:
      return True
    after = max(time - self._clock.begin, 0.0)  # It may be out of order.
    return bool(is_edge(after, self.deployed.idle.before(symbol)))

  def _judged(self) -> list[Verdict]:
    """Computes all that the models compute, and the verdicts."""
    steps, self._steps = self._steps, []
    new = [step for step in steps if step.ends is None]
    bounds = self._bounds(dict.fromkeys(step.session for step in new))
    judged: list[tuple[SessionStep, Bound | None]] = []
    severity: dict[OpenSession, int] = {}  # The highest bounds so far.
    for step in steps:
      bound, session = None, step.session
      if step.ends is None:
        bound = bounds.get((session, step.size))
        before = severity.get(session, session.severity)
        is_short = step.size <= self._short
        if bound is None or bound.severity <= before or is_short:
          continue
        severity[session] = bound.severity
      judged.append((step, bound))
    verdicts = []
    results = self._judge.verdicts([step for step, _ in judged])
    for (step, bound), verdict in zip(judged, results, strict=True):
      session = step.session
      if bound:
        if bound.severity <= session.severity:  # A verdict before was higher.
          continue
        fields = bound._asdict() | {"reason": in_words(bound.score)}
        verdict = verdict._replace(flagged_events=0, scores_K=(), **fields)
      verdicts.append(verdict._replace(now=step.now, earlier=session.severity))
      session.severity = max(session.severity, verdict.severity)
      if session.phase != OPEN:
        self._read.pop(session, None)
    while len(self._read) > self._most_read:
      del self._read[next(iter(self._read))]
    return verdicts

  def _bounds(
    self, sessions: Iterable[OpenSession]
  ) -> dict[tuple[OpenSession, int], Bound]:
    """The bounds after all events that the models have not read.

    Their keys are the session, and its number of events up to each. An event is
    read once after equal ones.
    """
    bounds: dict[tuple[OpenSession, int], Bound] = {}
    left_out, waiting = self._judge.left_out, list(sessions)
    while waiting:
      unread: dict[tuple[Prefix, int], None] = {}
      some, waiting = waiting, []
      for session in some:
        begin = self._begins[session.begins], 0
        prefix, count = self._read.pop(session, begin)
        while count < len(session.symbols):
          symbol = session.symbols[count]
          if (symbol := left_out.get(symbol, symbol)) is not None:
            event = self._id(symbol)
            # The first event of a session without its begin is not scored.
            if prefix.last is None:
              prefix.longer.setdefault(event, Prefix(prefix.state_S, event))
            if event not in prefix.longer:
              unread[prefix, event] = None
              waiting.append(session)
              break
            prefix = prefix.longer[event]
            if prefix.bound:
              bounds[session, count + 1] = prefix.bound
          count += 1
        self._read[session] = prefix, count
      if self._shared > self._most_shared:
        self._forget()
      self._lengthen([*unread])
    return bounds

  def _lengthen(self, unread: Sequence[tuple[Prefix, int]]):
    """Has the models read an event after each of some prefixes."""
    rows = [(x.state_S, x.last or 0, event) for x, event in unread]
    if results := self._stepper.read(rows):
      bounds = self._judge.bounds(np.stack([scores for _, scores in results]))
      columns = zip(unread, results, bounds, strict=True)
      for (prefix, event), (state_S, _), bound in columns:
        prefix.longer[event] = Prefix(state_S, event, bound)
    self._shared += len(unread)

  def _forget(self):
    """Has only open sessions keep what the models have read of them."""
    begin_S, self._shared = self._stepper.begin_S, 0
    self._begins = Prefix(begin_S, None), Prefix(begin_S, BEGIN)
    for prefix, _ in self._read.values():
      prefix.longer.clear()

  def facts(self) -> ClockFields:
    """All that `restore` needs besides sessions, as JSON."""
    events = {symbol: vars(x) for symbol, x in self._new.events.items()}
    new = {"begun": self._new.begun, "events": events}
    return {"clock": vars(self._clock), "lines": vars(self._lines), "new": new}

  def changes(self) -> Iterator[StateRow]:
    """Changes of sessions; a part has the events from its number on."""
    for session in self._waiting.changed:
      number, first = session.number, session.saved
      if session.phase != CLOSED:
        header = [getattr(session, name) for name in _STORED]
        events = [[*getattr(session, name)[first:]] for name in _COLUMNS]
        yield StateRow("sessions", number, first, [header, events])
        session.saved = len(session.symbols)
      elif first:
        yield StateRow("sessions", number, 0, None)
    self._waiting.changed.clear()

  def restore(self, facts: ClockFields, rows: Iterable[StateRow]):
    """Replaces all sessions by stored ones, also those of other models.

    The models' states are computed again.

    Args:
      facts: as `facts` gave them.
      rows: number, part and value of each session, ordered.

    Raises:
      LookupError, ValueError: a fact or a row is of another type.
    """
    self._clock = as_type(EventClock, facts["clock"])
    self._lines = as_type(LineClock, facts["lines"])
    self._new = as_type(NewEvents, facts.get("new", {}))
    # Other models may know some.
    new = self._new.events.items()
    self._new.events = {k: x for k, x in new if self._id(k) == UNKNOWN}
    sessions: list[OpenSession] = []
    for *_, part, value in rows:
      header, columns = as_type(list[list], value)
      if part == 0:
        sessions.append(OpenSession())
      for (name, kind), value in zip(_STORED.items(), header, strict=True):
        setattr(sessions[-1], name, as_type(kind, value))
      for (name, kind), values in zip(_COLUMNS.items(), columns, strict=True):
        getattr(sessions[-1], name).extend(as_type(kind, values))
    for session in sessions:
      if len({len(getattr(session, name)) for name in _COLUMNS}) > 1:
        raise ValueError(f"session {session.name!r}: has too few fields")
      session.symbols = [*map(sys.intern, session.symbols)]
      session.saved = len(session.symbols)
    self._waiting = Waiting(self.deployed.idle, sessions)
    self._read.clear()
    self.leave_out()
