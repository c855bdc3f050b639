"""Findings: scores and flags of the examined sessions, and their incidents."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seqrnn.data.logs.secrets import Redaction, redaction
from seqrnn.data.logs.sessions import Distinct, Sessions
from seqrnn.data.read.columns import Texts
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary

_BEFORE, _AFTER = 3, 2  # Events around the most surprising one.
# The kinds of events with at least this share of a session's highest surprisal
# are its surprising ones.
_SURPRISING = 0.5
_COMMON = 0.5  # Sessions are alike if they have this share of kinds in common.


def masked_vocabulary(names: Vocabulary, pattern: str) -> Vocabulary:
  """The vocabulary, whose templates of a log are shown with masks."""
  masks = redaction(pattern)
  if masks is None or names.unit != "log":
    return names
  return dataclasses.replace(names, mask=masks.text)


def masked_sessions(sessions: Sessions, pattern: str) -> Sessions:
  """Sessions to show: names and events as they were read have masks."""
  masks = redaction(pattern)
  if masks is None:
    return sessions
  as_read = sessions.as_read
  if as_read is not None:
    symbols: Any = _Masked(as_read.symbols, masks)
    as_read = Texts(symbols, as_read.ids)
  names = [masks.name(name) for name in sessions.names]
  return sessions._replace(names=names, as_read=as_read)


class _Masked(Sequence):
  """Texts that are masked when they are read, as few of many are."""

  def __init__(self, texts: Sequence[str], masks: Redaction):
    self._texts, self._masks = texts, masks

  def __len__(self) -> int:
    return len(self._texts)

  def __getitem__(self, index: Any) -> Any:
    text: Any = self._texts[index]
    return self._masks.text(text)


LOCK = ".detect.lock"  # In the workdir, held while a detection runs.


class Findings(NamedTuple):
  """Scores and flags of sessions; equal sessions are scored once.

  There are D distinct sessions with N scored events, including end symbols.

  Attributes:
    sessions: all examined sessions.
    distinct: the distinct sessions among them.
    names: vocabulary of the events.
    nll: surprisal in nats [N].
    rank: 1 plus the number of likelier events [N]; UNRANKED for unknown events.
    targets: ids of the events [N].
    bounds: int64 [D + 1]; session d has the events bounds[d] : bounds[d + 1].
    offsets: position in a session of its first scored event [D].
    short: whether a session is flagged for its length alone [D].
    seconds: run time of the network.

  The other attributes are those of `decision.Decision`.
  """

  sessions: Sessions
  distinct: Distinct
  names: Vocabulary
  nll: np.ndarray
  rank: np.ndarray
  targets: np.ndarray
  bounds: np.ndarray
  offsets: np.ndarray
  short: np.ndarray
  seconds: float
  scores: dict[str, np.ndarray]
  combined_KD: np.ndarray
  p: np.ndarray
  flags: np.ndarray
  event_p: np.ndarray
  event_flags: np.ndarray
  flagged_events: np.ndarray
  unknown_events: np.ndarray
  models: np.ndarray
  severity: np.ndarray
  reasons: list[str]

  def most_anomalous(self) -> np.ndarray:
    """The distinct sessions by falling score; short sessions come last."""
    return np.lexsort((-self.scores["combined"], self.short))

  def first_alarms(self) -> np.ndarray:
    """The position of the first flagged event of each session [D]; -1: none."""
    session_N = np.repeat(np.arange(len(self.p)), np.diff(self.bounds))
    flagged = np.flatnonzero(self.event_flags)
    d, first = np.unique(session_N[flagged], return_index=True)
    alarms = np.full(len(self.p), -1)
    alarms[d] = self.offsets[d] + flagged[first] - self.bounds[d]
    return alarms

  def worst_events(self) -> np.ndarray:
    """The position of the most surprising event of each session [D].

    It is the last event where the end of the session is the most surprising,
    the first where no event is scored, and -1 in a session without events.
    """
    sizes = np.diff(self.bounds)
    session_N = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((-self.nll, session_N))  # Equal ones: the first.
    places = np.zeros(len(sizes), int)
    d = np.flatnonzero(sizes)
    places[d] = self.offsets[d] + order[self.bounds[d]] - self.bounds[d]
    lengths = np.diff(self.sessions.bounds)[self.distinct.first]
    return np.minimum(places, lengths - 1)

  def events(self, j: int, d: int, first: int, stop: int) -> list[str]:
    """Names of scored events of session j for display.

    An unknown event is displayed as "? " and the symbol of the file, if the
    symbol is known.

    Args:
      j: index of the session.
      d: index of the distinct session that equals session j.
      first: index of the first event among the scored events.
      stop: index after the last event.
    """
    start = int(self.bounds[d])
    targets = self.targets[start + first : start + stop].tolist()
    names = self.names.names(targets)
    for n, target in enumerate(targets):
      symbol = self.as_read(j, int(self.offsets[d]) + first + n)
      if target == UNKNOWN and symbol is not None:
        names[n] = f"? {symbol}"
    return names

  def _index(self, j: int, place: int) -> int | None:
    """The index of an event in `sessions`; None for an end symbol."""
    start, stop = self.sessions.bounds[j : j + 2].tolist()
    return start + place if 0 <= place < stop - start else None

  def line(self, j: int, place: int) -> int | None:
    """The line of the event at a position of session j, if known."""
    index, lines = self._index(j, place), self.sessions.lines
    return None if index is None or lines is None else int(lines[index])

  def file(self, j: int, place: int) -> str | None:
    """The file of the event at a position of session j, if several are read."""
    index, files = self._index(j, place), self.sessions.files
    return None if index is None or files is None else files[index]

  def as_read(self, j: int, place: int) -> str | None:
    """The event at a position of session j, as in the file, if known."""
    index, events = self._index(j, place), self.sessions.as_read
    return None if index is None or events is None else events[index]

  def timestamp(self, j: int, place: int) -> str | None:
    """The time of the event at a position of session j, if known."""
    index, times = self._index(j, place), self.sessions.timestamps
    return None if index is None or times is None else times[index]


class Incident(NamedTuple):
  """Flagged sessions with like surprising events.

  The other attributes are those of the example: of the sessions of the highest
  severity, the one with the highest score.

  Attributes:
    event: the most surprising event; "<short>" if the sessions are flagged for
      their length, "<empty>" if they have no event.
    count: the number of flagged sessions, equal ones included.
    severity: an index of `decision.NAMES`.
    reason: a key of `decision.WORDS`.
    p: the p-value; NaN for short sessions.
    session: its index among the sessions.
    position: of the event in the session; -1 if there is none.
    before: the names of the events just before it.
    after: the names of the events just after it.
    members: the distinct sessions, the example first.
  """

  event: str
  count: int
  severity: int
  reason: str
  p: float
  session: int
  position: int
  before: list[str]
  after: list[str]
  members: list[int]


def group_incidents(findings: Findings) -> list[Incident]:
  """The incidents by falling severity, rising p and falling count.

  A session belongs to the first incident whose example has at least half of
  all their surprising events, and its own most surprising one, in common with
  it.
  """
  order = findings.most_anomalous()
  order = order[np.argsort(-findings.severity[order], kind="stable")]
  groups: list[tuple[str, frozenset[str], list[int]]] = []
  for d in order[findings.flags[order]].tolist():
    kinds = surprising_events(findings, d)
    for event, first, members in groups:
      if belongs_to_incident(kinds, event, first):
        members.append(d)
        break
    else:
      event, _, _ = event_context(findings, d, int(findings.distinct.first[d]))
      groups.append((event, kinds, [d]))
  worst = findings.worst_events()
  return sorted(
    (_incident(findings, members, worst) for *_, members in groups),
    key=lambda one: (-one.severity, np.nan_to_num(one.p, nan=1), -one.count),
  )


def belongs_to_incident(
  surprising: frozenset[str], event: str, first: frozenset[str]
) -> bool:
  """Whether a session belongs to an incident.

  Args:
    surprising: the names of the session's surprising events.
    event: the most surprising event of the incident's example.
    first: the names of the surprising events of the example.
  """
  common = len(surprising & first) >= _COMMON * len(surprising | first)
  return common and event in surprising


def surprising_events(findings: Findings, d: int) -> frozenset[str]:
  """The names of the surprising events of a session."""
  if findings.short[d]:
    return frozenset(["<short>"])
  start, stop = findings.bounds[d : d + 2].tolist()
  if start == stop:
    return frozenset(["<empty>"])
  names = findings.events(int(findings.distinct.first[d]), d, 0, stop - start)
  positions = surprising_positions(findings.nll[start:stop])
  return frozenset(names[n] for n in positions)


def surprising_positions(nll: np.ndarray) -> list[int]:
  """The indices of the surprising events of a session; none without events."""
  highest = nll.max(initial=0)
  return np.flatnonzero(nll >= _SURPRISING * highest).tolist()


def positions_around(worst: int, size: int) -> range:
  """The indices of an event and of the events around it that are displayed."""
  return range(max(worst - _BEFORE, 0), min(worst + _AFTER + 1, size))


def _incident(
  findings: Findings, members: list[int], worst: np.ndarray
) -> Incident:
  """The incident of sessions, of which the first is the example."""
  d = members[0]
  j = int(findings.distinct.first[d])
  event, before, after = event_context(findings, d, j)
  return Incident(
    event,
    int(findings.distinct.counts[members].sum()),
    int(findings.severity[d]),
    findings.reasons[d],
    float(findings.p[d]),
    j,
    int(worst[d]),
    before,
    after,
    members,
  )


def event_context(
  findings: Findings, d: int, j: int
) -> tuple[str, list[str], list[str]]:
  """The most surprising event of a session, and the events around it."""
  start, stop = findings.bounds[d : d + 2].tolist()
  if start == stop:
    return "<short>" if findings.short[d] else "<empty>", [], []
  worst = int(np.argmax(findings.nll[start:stop]))
  shown = positions_around(worst, stop - start)
  first = shown.start
  names = findings.events(j, d, first, shown.stop)
  event = "<short>" if findings.short[d] else names[worst - first]
  return event, names[: worst - first], names[worst - first + 1 :]
