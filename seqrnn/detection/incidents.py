"""Incidents: flagged sessions grouped by their most surprising event."""

from typing import NamedTuple

import numpy as np

from seqrnn.detection.findings import Findings

_BEFORE, _AFTER = 3, 2  # Events around the most surprising one.


class Incident(NamedTuple):
  """Flagged sessions whose most surprising events are equal.

  The other attributes are those of the example: the session of the group with
  the highest score.

  Attributes:
    event: the most surprising event; "<short>" if the sessions are flagged for
      their length, "<empty>" if they have no event.
    count: the number of flagged sessions, equal ones included.
    p: the p-value; NaN for short sessions.
    session: its index among the sessions.
    position: of the event in the session; -1 if there is none.
    before: the names of the events just before it.
    after: the names of the events just after it.
  """

  event: str
  count: int
  p: float
  session: int
  position: int
  before: list[str]
  after: list[str]


def group(found: Findings) -> list[Incident]:
  """The incidents by rising p; short sessions come last."""
  oddest = found.oddest().tolist()
  incidents: dict[str, Incident] = {}
  for d in found.most_anomalous().tolist():
    if not found.flags[d]:
      continue
    j, count = int(found.distinct.first[d]), int(found.distinct.counts[d])
    event, before, after = _context(found, d, j)
    first = incidents.get(event)
    if first is None:
      p = float(found.p[d])
      incidents[event] = Incident(event, count, p, j, oddest[d], before, after)
    else:
      incidents[event] = first._replace(count=first.count + count)
  return list(incidents.values())


def _context(
  found: Findings, d: int, j: int
) -> tuple[str, list[str], list[str]]:
  """The most surprising event of a session, and the events around it."""
  start, stop = found.bounds[d : d + 2].tolist()
  if start == stop:
    return "<short>" if found.short[d] else "<empty>", [], []
  worst = int(np.argmax(found.nll[start:stop]))
  first = max(worst - _BEFORE, 0)
  names = found.events(j, d, first, min(worst + _AFTER + 1, stop - start))
  event = "<short>" if found.short[d] else names[worst - first]
  return event, names[: worst - first], names[worst - first + 1 :]
