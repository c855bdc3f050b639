"""Incidents: flagged sessions grouped by their surprising events."""

from typing import NamedTuple

import numpy as np

from seqrnn.logs.detect.findings import Findings

_BEFORE, _AFTER = 3, 2  # Events around the most surprising one.
# The kinds of events with at least this share of a session's highest surprisal
# are its surprising ones.
_SURPRISING = 0.5
_COMMON = 0.5  # Sessions are alike if they have this share of kinds in common.


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


def group(found: Findings) -> list[Incident]:
  """The incidents by falling severity, rising p and falling count.

  A session belongs to the first incident whose example has at least half of
  all their surprising events, and its own most surprising one, in common with
  it.
  """
  order = found.most_anomalous()
  order = order[np.argsort(-found.severity[order], kind="stable")]
  groups: list[tuple[str, frozenset[str], list[int]]] = []
  for d in order[found.flags[order]].tolist():
    kinds = surprising(found, d)
    for event, first, members in groups:
      if belongs(kinds, event, first):
        members.append(d)
        break
    else:
      event, _, _ = context(found, d, int(found.distinct.first[d]))
      groups.append((event, kinds, [d]))
  worst = found.worst_events()
  return sorted(
    (_incident(found, members, worst) for *_, members in groups),
    key=lambda one: (-one.severity, np.nan_to_num(one.p, nan=1), -one.count),
  )


def belongs(
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


def surprising(found: Findings, d: int) -> frozenset[str]:
  """The names of the surprising events of a session."""
  if found.short[d]:
    return frozenset(["<short>"])
  start, stop = found.bounds[d : d + 2].tolist()
  if start == stop:
    return frozenset(["<empty>"])
  names = found.events(int(found.distinct.first[d]), d, 0, stop - start)
  places = surprising_places(found.nll[start:stop])
  return frozenset(names[n] for n in places)


def surprising_places(nll: np.ndarray) -> list[int]:
  """The indices of the surprising events of a session; none without events."""
  highest = nll.max(initial=0)
  return np.flatnonzero(nll >= _SURPRISING * highest).tolist()


def around(worst: int, size: int) -> range:
  """The indices of an event and of the events that are shown around it."""
  return range(max(worst - _BEFORE, 0), min(worst + _AFTER + 1, size))


def _incident(
  found: Findings, members: list[int], worst: np.ndarray
) -> Incident:
  """The incident of sessions, of which the first is the example."""
  d = members[0]
  j = int(found.distinct.first[d])
  event, before, after = context(found, d, j)
  return Incident(
    event,
    int(found.distinct.counts[members].sum()),
    int(found.severity[d]),
    found.reasons[d],
    float(found.p[d]),
    j,
    int(worst[d]),
    before,
    after,
    members,
  )


def context(
  found: Findings, d: int, j: int
) -> tuple[str, list[str], list[str]]:
  """The most surprising event of a session, and the events around it."""
  start, stop = found.bounds[d : d + 2].tolist()
  if start == stop:
    return "<short>" if found.short[d] else "<empty>", [], []
  worst = int(np.argmax(found.nll[start:stop]))
  shown = around(worst, stop - start)
  first = shown.start
  names = found.events(j, d, first, shown.stop)
  event = "<short>" if found.short[d] else names[worst - first]
  return event, names[: worst - first], names[worst - first + 1 :]
