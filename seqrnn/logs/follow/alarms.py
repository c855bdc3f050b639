"""Alarms of a follower: kinds of flagged sessions, counted and not repeated."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict, cast

from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.logs.values import MEASURES
from seqrnn.logs.detect.answers import ByKind
from seqrnn.logs.detect.findings import SEVERITIES, belongs_to_incident
from seqrnn.logs.follow.novel import MANY, NEW
from seqrnn.logs.follow.state import StateRow, as_type
from seqrnn.logs.follow.verdicts import Verdict, isoformat

_KINDS = 1000  # Kinds that are known; then the longest unseen is forgotten.
_SYMBOLS = 1000  # Events of an example that are kept.
_SESSIONS = 1000  # Sessions of a kind whose alarms may still be raised.
# Attributes that are stored, besides kinds.
_STORED = ("count", "sessions", "turn", "numbers")


class AlarmRow(TypedDict):
  """A verdict as an object of JSON; a field that is unknown is missing.

  The number of the alarm, its kind, and the alarms of this kind so far are
  those of an alarm; whether it is flagged, of a session.
  """

  type: NotRequired[str]
  number: NotRequired[int]
  flag: NotRequired[bool]
  session: str
  ended: bool
  severity: NotRequired[str]
  reason: NotRequired[str]
  score: NotRequired[str]
  p_value: NotRequired[float]
  line: NotRequired[int]
  time: NotRequired[str]
  event: str
  before: list[str]
  after: list[str]
  events: int
  unknown_events: int
  flagged_events: int
  kind: NotRequired[int]
  of_kind: NotRequired[int]


@dataclass
class AlarmKind:
  """A kind of alarms: sessions with like surprising events and one reason.

  Attributes:
    number: from 1, in the order of first alarms.
    session: the name of the example, its first session.
    surprising: the names of the surprising events of the example.
    example: the row of the example.
    symbols: the events of the example as read.
    whole: whether these are all, because the example has ended.
    is_open: whether the example has not ended.
    turn: orders kinds by their last alarm.
    count: number of sessions with an alarm.
    numbers: of the alarms of its last sessions; 0: it was not written.
    severity: of the last row that was written.
    written: the event time of this row; None: unknown.
    answer: `normal`, `anomalous`, or empty.
    share: of all sessions of the follower, those of this kind, in a review.
  """

  number: int
  session: str
  surprising: list[str]
  example: AlarmRow
  symbols: list[str] = field(default_factory=list)
  whole: bool = False
  is_open: bool = False
  turn: int = 0
  count: int = 0
  numbers: dict[str, int] = field(default_factory=dict)
  severity: int = 0
  written: float | None = None
  answer: str = ""
  share: float = 0.0

  @property
  def key(self) -> tuple[int, str]:
    """Number and session, which identify the row of review.csv."""
    return self.number, self.example["session"]

  def set_example(self, verdict: Verdict):
    """Sets the events of the example."""
    self.symbols = verdict.symbols[:_SYMBOLS]
    self.is_open = not verdict.ended and verdict.score != NEW
    self.whole = verdict.ended and len(verdict.symbols) <= _SYMBOLS


class Alarms:
  """Turns verdicts into rows to write.

  A row is written for the first alarm of a kind, for one of higher severity,
  and for the next one after `quiet` seconds of event time; without event time
  for each. A session has one alarm of a kind: if its severity rises, another
  row has the same number.

  Attributes:
    kinds: by number.
    count: number of alarms.
    sessions: number of sessions that have ended.
    turn: of the last alarm.
    numbers: number of kinds so far.
  """

  def __init__(self, quiet: float, masks: Redaction):
    self.kinds: dict[int, AlarmKind] = {}
    self.count = self.sessions = self.turn = self.numbers = 0
    self._quiet, self._masks = quiet, masks
    self._changed: set[int] = set()  # Kinds whose fields are not stored.
    # Kinds whose example has not ended, by its session.
    self._open: dict[str, list[AlarmKind]] = {}

  def take(self, verdict: Verdict) -> AlarmRow | None:
    """The row of an alarm; None: the verdict is none, or is not repeated."""
    if verdict.ended:
      self.sessions += 1
      for kind in self._open.pop(verdict.session, ()):
        kind.set_example(verdict)
        self._changed.add(kind.number)
    # A session may seem anomalous because its begin was not read.
    is_cut = not verdict.begins and not verdict.unknown_events
    name = verdict.session * (verdict.score != NEW)  # Which is of no session.
    # A value or a silence shows at the end, when an alarm of another kind may
    # have been held back.
    is_late = verdict.flag and verdict.ended and verdict.score in MEASURES
    is_late = is_late and {0} == {
      x.numbers[name] for x in self.kinds.values() if name in x.numbers
    }
    if (verdict.severity <= verdict.earlier and not is_late) or is_cut:
      return None
    for kind in self.kinds.values():
      if not verdict.earlier and name in kind.numbers:
        del kind.numbers[name]  # Of a session that has had this name before.
        self._changed.add(kind.number)
    kind = self._find(verdict)
    self.turn += 1
    kind.turn = self.turn
    # With an alarm before, the session was counted.
    kind.count += is_late or not (verdict.earlier and kind.count)
    self._changed.add(kind.number)
    is_due = kind.answer != "normal" and self._is_due(kind, verdict)
    number = kind.numbers.get(name, 0)
    if is_due:
      self.count += not number
      number = number or self.count
      kind.severity, kind.written = verdict.severity, verdict.now
    if is_due or not verdict.earlier:
      kind.numbers[name] = number
      if len(kind.numbers) > _SESSIONS:
        del kind.numbers[next(iter(kind.numbers))]
    if not is_due:
      return None
    counts = {"number": number, "kind": kind.number, "of_kind": kind.count}
    return self._row(verdict, type="alarm", **counts)

  def answer(self, answers: ByKind) -> list[AlarmKind]:
    """Notes a person's answers; the kinds that become quiet by them."""
    quiet = []
    for kind in self.kinds.values():
      # A follower that has begun anew has other kinds of these numbers.
      word = answers.get(kind.key, kind.answer)
      if word != kind.answer:
        quiet += [kind] * (word == "normal")
        kind.answer = word
        self._changed.add(kind.number)
    return quiet

  def _find(self, verdict: Verdict) -> AlarmKind:
    """The first kind to which a session belongs, or a new one.

    A session whose severity rises may stay in its kind for another reason.
    """
    for kind in self.kinds.values():
      event, first = kind.example["event"], frozenset(kind.surprising)
      is_alike = kind.example.get("score", "") == verdict.score
      is_alike |= kind.numbers.get(verdict.session, 0) > 0
      is_alike &= verdict.score != NEW  # It may be masked as another one is.
      if is_alike and belongs_to_incident(verdict.surprising, event, first):
        return kind
    if len(self.kinds) >= _KINDS:
      # The one that is unseen for longest, if any without an answer.
      order = lambda kind: (kind.answer != "", kind.turn)
      oldest = min(self.kinds.values(), key=order).number
      del self.kinds[oldest]
      self._changed.add(oldest)
    self.numbers += 1
    first = sorted(verdict.surprising)
    kind = AlarmKind(self.numbers, verdict.session, first, self._row(verdict))
    kind.set_example(verdict)
    self._add(kind)
    return kind

  def _add(self, kind: AlarmKind):
    self.kinds[kind.number] = kind
    if kind.is_open:
      self._open.setdefault(kind.session, []).append(kind)

  def _is_due(self, kind: AlarmKind, verdict: Verdict) -> bool:
    now = verdict.now
    if verdict.score == NEW and verdict.left_out:  # The alarm of another.
      return False
    if verdict.severity > kind.severity or now is None or kind.written is None:
      return True
    # The new version again, whose sessions lack an event, for example.
    if verdict.left_out and kind.count > MANY:
      return False
    return not 0 <= now - kind.written < self._quiet

  def _row(self, verdict: Verdict, **more: str | int) -> AlarmRow:
    """The fields of a verdict that are known, and more fields."""
    values = {
      **verdict._asdict(),
      **more,
      "session": self._masks.name(verdict.session),
      "severity": SEVERITIES[verdict.severity] or None,
      "reason": verdict.reason or None,
      "score": verdict.score or None,
      "p_value": None if math.isnan(verdict.p) else float(f"{verdict.p:.6g}"),
      "time": None if verdict.time is None else isoformat(verdict.time),
    }
    row = {name: values.get(name) for name in AlarmRow.__annotations__}
    return cast(AlarmRow, {k: v for k, v in row.items() if v is not None})

  def session_row(self, verdict: Verdict) -> AlarmRow:
    """The row of a final verdict, for `detect.follow=sessions`."""
    return self._row(verdict, type="session", flag=verdict.flag)

  def facts(self) -> dict[str, int]:
    """All that `restore` needs besides kinds, as JSON."""
    return {name: getattr(self, name) for name in _STORED}

  def changes(self) -> Iterator[StateRow]:
    """Changes of kinds since the last call."""
    for number in self._changed:
      kind = self.kinds.get(number)
      value = kind and vars(kind).copy()
      yield StateRow("kinds", number, 0, value)
    self._changed.clear()

  def restore(self, facts: Mapping[str, int], rows: Iterable[StateRow]):
    """Sets kinds and counts as they were.

    Raises:
      LookupError, ValueError: a row is of another type.
    """
    for name in _STORED:
      setattr(self, name, facts[name])
    for *_, value in rows:
      self._add(as_type(AlarmKind, value))
