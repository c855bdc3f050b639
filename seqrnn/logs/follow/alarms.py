"""Alarms of a follower: kinds of flagged sessions, counted and not repeated."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from seqrnn.logs.detect import decision
from seqrnn.logs.detect.findings import belongs_to_incident
from seqrnn.logs.detect.selection import NORMAL, UNANSWERED
from seqrnn.logs.follow.state import Change
from seqrnn.logs.follow.verdicts import Verdict

_KINDS = 1000  # Kinds that are known; then the longest unseen is forgotten.
_SYMBOLS = 1000  # Events of an example that are kept.
_SESSIONS = 1000  # Sessions of a kind whose alarms may still be raised.


@dataclasses.dataclass
class Kind:
  """A kind of alarms: sessions with like surprising events.

  Attributes:
    number: from 1, in the order of first alarms.
    event: the most surprising event of the example, its first session.
    surprising: the names of the surprising events of the example.
    turn: orders kinds by their last alarm.
    count: number of sessions with an alarm.
    numbers: of the alarms of its last sessions.
    severity: of the last row that was written.
    written: the event time of this row; None: unknown.
    answer: NORMAL, ANOMALOUS or UNANSWERED.
    example: the row of the example.
    session: the name of the example.
    symbols: the events of the example as read.
    whole: whether these are all, because the example has ended.
  """

  number: int
  event: str
  surprising: frozenset[str]
  session: str
  symbols: list[str]
  whole: bool
  turn: int = 0
  count: int = 0
  numbers: dict[str, int] = dataclasses.field(default_factory=dict)
  severity: int = 0
  written: float | None = None
  answer: int = UNANSWERED
  example: dict[str, Any] = dataclasses.field(default_factory=dict)


class Alarms:
  """Turns verdicts into rows to write.

  A row is written for the first alarm of a kind, for one of higher severity,
  and for the next one after `quiet` seconds of event time; without event time
  for each. A session has one alarm of a kind: if its severity rises, another
  row has the same number.

  Attributes:
    kinds: by number; the one with the oldest alarm first.
    count: number of alarms.
    sessions: number of sessions that have ended.
  """

  def __init__(self, quiet: float):
    self.kinds: dict[int, Kind] = {}
    self.count = self.sessions = 0
    self._quiet, self._turn = quiet, 0
    self._changed: dict[int, None] = {}  # Kinds whose fields are not stored.
    self._numbers = 0  # Of kinds.
    self._incomplete: dict[str, int] = {}  # Examples that have not ended.

  def take(self, verdict: Verdict) -> dict[str, Any] | None:
    """The row of an alarm; None: the verdict is none, or is not repeated."""
    if verdict.ended:
      self.sessions += 1
      number = self._incomplete.pop(verdict.session, 0)
      if kind := self.kinds.get(number):
        kind.symbols, kind.whole = _events(verdict)
        self._changed[number] = None
    if not verdict.flag or not verdict.raised or _is_cut(verdict):
      return None
    kind = self._find(verdict)
    self._turn += 1
    kind.turn = self._turn
    # With an alarm before, the session was counted.
    kind.count += not (verdict.again and kind.count)
    self.kinds.pop(kind.number, None)
    self.kinds[kind.number] = kind
    self._changed[kind.number] = None
    if len(self.kinds) > _KINDS:
      self._forget()
    if kind.answer == NORMAL or not self._is_due(kind, verdict):
      return None
    number = kind.numbers.get(verdict.session, 0) if verdict.again else 0
    self.count += not number
    row = {
      "type": "alarm",
      "number": number or self.count,
      **_row(verdict),
      "kind": kind.number,
      "of_kind": kind.count,
    }
    kind.example = kind.example or row
    kind.severity, kind.written = verdict.severity, verdict.now
    kind.numbers[verdict.session] = row["number"]
    if len(kind.numbers) > _SESSIONS:
      del kind.numbers[next(iter(kind.numbers))]
    return row

  def answer(self, number: int, answer: int):
    """Notes a person's answer on a kind: NORMAL makes it quiet."""
    if kind := self.kinds.get(number):
      kind.answer = answer
      self._changed[number] = None

  def _find(self, verdict: Verdict) -> Kind:
    """The first kind to which a session belongs, or a new one."""
    for number in sorted(self.kinds):
      kind = self.kinds[number]
      if belongs_to_incident(verdict.surprising, kind.event, kind.surprising):
        return kind
    self._numbers += 1
    if not verdict.ended:
      self._incomplete[verdict.session] = self._numbers
    symbols, whole = _events(verdict)
    return Kind(
      number=self._numbers,
      event=verdict.event,
      surprising=verdict.surprising,
      session=verdict.session,
      symbols=symbols,
      whole=whole,
    )

  def _forget(self):
    """Forgets the kind that is unseen for longest, if any without an answer."""
    open_kinds = (n for n, kind in self.kinds.items() if not kind.answer)
    number = next(open_kinds, next(iter(self.kinds)))
    kind = self.kinds.pop(number)
    self._changed[number] = None
    if self._incomplete.get(kind.session) == number:
      del self._incomplete[kind.session]

  def _is_due(self, kind: Kind, verdict: Verdict) -> bool:
    now = verdict.now
    if verdict.severity > kind.severity or now is None or kind.written is None:
      return True
    return not 0 <= now - kind.written < self._quiet

  def facts(self) -> dict[str, Any]:
    """All that `restore` needs besides kinds, as JSON."""
    return {
      "count": self.count,
      "sessions": self.sessions,
      "numbers": self._numbers,
      "incomplete": self._incomplete,
    }

  def changes(self) -> Iterator[Change]:
    """Changes of kinds since `saved`."""
    for number in self._changed:
      kind = self.kinds.get(number)
      fields = kind and {**vars(kind), "surprising": sorted(kind.surprising)}
      yield "kinds", number, 0, fields

  def saved(self):
    """Notes that the changes are stored."""
    self._changed.clear()

  def restore(
    self, facts: dict[str, Any], rows: Iterable[tuple[int, int, Any]]
  ):
    """Sets kinds and counts as they were."""
    self.count, self._numbers = facts["count"], facts["numbers"]
    self.sessions = facts["sessions"]
    self._incomplete = dict(facts["incomplete"])
    kinds = [Kind(**fields) for _, _, fields in rows]
    for kind in sorted(kinds, key=lambda kind: kind.turn):
      kind.surprising = frozenset(kind.surprising)
      self.kinds[kind.number] = kind
      self._turn = kind.turn


def _events(verdict: Verdict) -> tuple[list[str], bool]:
  """The events of an example, and whether these are all."""
  symbols = verdict.symbols
  return symbols[:_SYMBOLS], verdict.ended and len(symbols) <= _SYMBOLS


def _is_cut(verdict: Verdict) -> bool:
  """Whether a session may seem anomalous because its begin was not read."""
  return not verdict.begins and not verdict.unknown_events


def _row(verdict: Verdict) -> dict[str, Any]:
  """The fields of a verdict in a row of JSON, if they are known."""
  p = verdict.p
  row = {
    "session": verdict.session,
    "ended": verdict.ended,
    "severity": decision.NAMES[verdict.severity] or None,
    "reason": decision.WORDS.get(verdict.reason),
    "p_value": None if math.isnan(p) else float(f"{p:.6g}"),
    "line": verdict.line,
    "time": None if verdict.time is None else isoformat(verdict.time),
    "event": verdict.event,
    "before": verdict.before,
    "after": verdict.after,
    "events": verdict.events,
    "unknown_events": verdict.unknown_events,
    "flagged_events": verdict.flagged_events,
  }
  return {name: value for name, value in row.items() if value is not None}


def session_row(verdict: Verdict) -> dict[str, Any]:
  """The row of a final verdict, for `detect.follow=sessions`."""
  return {"type": "session", "flag": verdict.flag, **_row(verdict)}


def isoformat(seconds: float) -> str:
  """An event time as ISO 8601, in the time zone of the log, or in UTC."""
  time = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
  return time.isoformat(timespec="seconds" if seconds % 1 == 0 else "auto")
