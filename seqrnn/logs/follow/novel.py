"""New events: templates that training lacks, counted by their sessions.

A new version of a program writes new lines, in many sessions. Those that begin
together are one alarm, after which all sessions are judged without them:
p-values compare all else with the calibration, which has no such events. They
are not accepted by this: a person accepts each (review.csv), or the next model
does.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from seqrnn.logs.follow.open_sessions import OpenSession

NEW = "new"  # The score of the alarm.
MANY = 30  # Names of sessions that have a common event.
_WITH = 3  # An event that begins with a common one needs a third of them.
_COMMON = 0.75  # Share of the words of a known event that another replaces.
_KNOWN = 500  # New events that are counted; then the rarest is forgotten.


@dataclass
class NewEvent:
  """A new event.

  Attributes:
    symbol: as it was read.
    since: the time of the first one; None: unknown.
    before: number of sessions that had begun before it.
    sessions: number of sessions that have it.
    names: checksums of their names, of which equal ones count once: one host
      alone makes no event common.
    is_common: whether there were enough.
    replaces: the known event that it replaces; None: it is left out.
    joins: whether the alarm of another one has it, too.
  """

  symbol: str
  since: float | None
  before: int
  sessions: int = 0
  names: list[int] = field(default_factory=list)
  is_common: bool = False
  replaces: str | None = None
  joins: bool = False


def replaced(symbol: str, gone: Iterable[str]) -> str | None:
  """The event that a new one replaces: it has most of its words, if any does.

  Args:
    symbol: the new event.
    gone: known events that the sessions with the new one do not have.
  """
  words = {*symbol.split()}
  alike = [
    (len(words & known) / len(words | known), text)
    for text in gone
    if len(words & (known := {*text.split()})) >= _COMMON * len(known) > 0
  ]
  return max(alike)[1] if alike else None


@dataclass
class NewEvents:
  """Counts new events.

  Attributes:
    begun: number of sessions that have begun.
    events: by symbol, the least recent first.
  """

  begun: int = 0
  events: dict[str, NewEvent] = field(default_factory=dict)

  def take(
    self, session: OpenSession, symbol: str, time: float | None, near: float
  ) -> list[NewEvent]:
    """Counts a new event, before its session has it; returns common ones.

    These are the event and those that begin together with it, within `near`
    seconds. Each is returned once.
    """
    event = self.events.pop(symbol, None) or NewEvent(symbol, time, self.begun)
    if len(self.events) >= _KNOWN:
      rank = lambda one: (one.is_common, len(one.names))
      del self.events[min(self.events.values(), key=rank).symbol]
    self.events[symbol] = event
    if event.is_common or (event.names and symbol in session.symbols):
      return []
    event.sessions += 1
    name = zlib.crc32(session.name.encode("utf-8", "surrogatepass"))
    event.names += [name] * (name not in event.names)
    if _WITH * len(event.names) < MANY:
      return []
    group = [x for x in self.events.values() if _is_near(x, event, near)]
    joins = any(one.is_common for one in group)
    if len(event.names) < MANY and not joins:
      return []
    many = [x for x in group if _WITH * len(x.names) >= MANY and x is not event]
    for one in (event, *many):
      one.names, one.is_common = [], True
      one.joins = joins or one is not event
    return [event, *many]

  def share(self, event: NewEvent) -> float:
    """The share of the sessions since an event that have it."""
    return min(event.sessions / max(self.begun - event.before, 1), 1.0)


def _is_near(one: NewEvent, other: NewEvent, near: float) -> bool:
  if one.since is None or other.since is None:
    return False
  return abs(one.since - other.since) <= near
