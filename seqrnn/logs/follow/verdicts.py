"""Final verdicts on sessions that arrive: those of a detection."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seqrnn.data.logs.sessions import Key, Sessions
from seqrnn.data.vocabulary import END, RESERVED, UNKNOWN
from seqrnn.logs.detect import incidents
from seqrnn.logs.detect.decision import find_anomalies
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.findings import Findings
from seqrnn.logs.follow.open_sessions import OpenSession

_KEPT = 2**15  # Final verdicts on distinct sessions that are kept.
_KEPT_LENGTH = 2**9  # Events of a session whose verdict is kept.


class Verdict(NamedTuple):
  """What is known of a session.

  Attributes:
    session: its name.
    ended: whether this is the final verdict.
    events: number of its events so far.
    p: its p-value; NaN if it is flagged for its length alone. Of a running
      verdict, the largest one that the final verdict can have.
    flag: whether it is flagged.
    severity: an index of `decision.NAMES`; 0: it is not flagged.
    reason: a key of `decision.WORDS`; empty: it is not flagged.
    event: its most surprising event.
    before, after: the events around it.
    position: of this event in the session; -1: it has no event.
    line, time: of this event, if known.
    surprising: the names of its surprising events, as `incidents.surprising`.
    models: number of models whose score is above all their normal sessions.
    unknown_events, flagged_events: numbers of events.
    symbols: all its events as read.
    scores_K: the combined score by each model [K]; empty: it is running.
    begins: whether its first event is the begin of the session. If not, its
      scores are those of a session that began with this event.
    now: the event time when it was reached, in seconds; None: unknown.
    raised: whether its severity is above that of the session's verdicts before.
    again: whether a verdict before has flagged the session.
  """

  session: str
  ended: bool
  events: int
  p: float
  flag: bool
  severity: int
  reason: str
  event: str
  before: list[str]
  after: list[str]
  position: int
  line: int | None
  time: float | None
  surprising: frozenset[str]
  models: int
  unknown_events: int
  flagged_events: int
  symbols: list[str]
  scores_K: tuple[float, ...]
  begins: bool
  now: float | None = None
  raised: bool = True
  again: bool = False


class _Core(NamedTuple):
  """The verdict on all sessions of the same events.

  Attributes:
    worst: index of the most surprising event among the scored ones; -1: none.
    surprising: indices of the surprising ones.
    first: position of the first scored event.
    scored: number of scored events.
    short: whether it is flagged for its length alone.
  """

  p: float
  flag: bool
  severity: int
  reason: str
  models: int
  unknown_events: int
  flagged_events: int
  worst: int
  surprising: tuple[int, ...]
  first: int
  scored: int
  short: bool
  scores_K: tuple[float, ...]


class Final:
  """Judges ended sessions as a detection does; equal ones once."""

  def __init__(self, deployed: Deployed):
    self._deployed = deployed
    self._names = deployed.detector.names
    self._kept: OrderedDict[Key, _Core] = OrderedDict()

  def warm(self):
    """Compiles what sessions of at most a hundred events need."""
    for length in (30, 60, 100):
      self._score([(np.full(length, UNKNOWN, np.int32).tobytes(), True, True)])

  def judge(
    self, ended: Sequence[tuple[OpenSession, int, bool]]
  ) -> list[Verdict]:
    """The final verdicts.

    Args:
      ended: sessions, of each the number of its events, and whether its end is
        known, so that it is scored, too.
    """
    keys: list[Key] = [
      (session.ids[:size].tobytes(), session.begins, ends)
      for session, size, ends in ended
    ]
    cores: dict[Key, _Core] = {}
    missing: list[Key] = []
    for key in dict.fromkeys(keys):
      if (core := self._kept.get(key)) is None:
        missing.append(key)
      else:
        self._kept.move_to_end(key)
        cores[key] = core
    if missing:
      cores |= zip(missing, self._score(missing), strict=True)
      for key in missing:
        if len(key[0]) <= _KEPT_LENGTH * 4:
          self._kept[key] = cores[key]
      while len(self._kept) > _KEPT:
        self._kept.popitem(last=False)
    return [
      self._verdict(cores[key], session, size)
      for key, (session, size, _) in zip(keys, ended, strict=True)
    ]

  def _score(self, keys: Sequence[Key]) -> list[_Core]:
    """What a detection finds about distinct sessions."""
    ids = [np.frombuffer(content, np.int32) for content, _, _ in keys]
    detector, normal = self._deployed.detector, self._deployed.normal
    sessions = Sessions(
      np.concatenate(ids),
      np.cumsum([0, *map(len, ids)]),
      [""] * len(keys),
      begins=np.array([begins for _, begins, _ in keys]),
      ends=np.array([ends for _, _, ends in keys]),
    )
    found = find_anomalies(detector, normal, sessions)
    return [_core(found, d) for d in range(len(keys))]

  def _verdict(self, core: _Core, session: OpenSession, size: int) -> Verdict:
    def name(n: int) -> str:
      place = core.first + n
      if place >= size:
        return RESERVED[END]
      return event_name(self._names, session, place)

    event, before, after = "<short>" if core.short else "<empty>", [], []
    if core.worst >= 0:
      around = incidents.around(core.worst, core.scored)
      before = [name(n) for n in around if n < core.worst]
      after = [name(n) for n in around if n > core.worst]
      event = event if core.short else name(core.worst)
    return Verdict(
      session=session.name,
      ended=True,
      events=size,
      p=core.p,
      flag=core.flag,
      severity=core.severity,
      reason=core.reason,
      event=event,
      before=before,
      after=after,
      **place_of(session, min(core.first + max(core.worst, 0), size - 1)),
      surprising=frozenset(map(name, core.surprising)) or frozenset([event]),
      models=core.models,
      unknown_events=core.unknown_events,
      flagged_events=core.flagged_events,
      symbols=session.symbols[:size],
      scores_K=core.scores_K,
      begins=session.begins,
    )


def _core(found: Findings, d: int) -> _Core:
  """The verdict on a distinct session of findings."""
  start, stop = found.bounds[d : d + 2].tolist()
  nll = found.nll[start:stop]
  return _Core(
    float(found.p[d]),
    bool(found.flags[d]),
    int(found.severity[d]),
    found.reasons[d],
    int(found.models[d]),
    int(found.unknown_events[d]),
    int(found.flagged_events[d]),
    int(np.argmax(nll)) if stop > start else -1,
    () if found.short[d] else tuple(incidents.surprising_places(nll)),
    int(found.offsets[d]),
    stop - start,
    bool(found.short[d]),
    tuple(found.combined_KD[:, d].tolist()),
  )


def event_name(names, session: OpenSession, place: int) -> str:
  """The name of an event for display, as `Findings.events`."""
  if session.ids[place] == UNKNOWN:
    return f"? {session.symbols[place]}"
  return names.names([session.ids[place]])[0]


def place_of(session: OpenSession, place: int) -> dict[str, Any]:
  """Where an event is; -1: nowhere."""
  if place < 0:
    return {"position": -1, "line": None, "time": None}
  time = session.times[place]
  return {
    "position": place,
    "line": session.lines[place] or None,
    "time": None if math.isnan(time) else time,
  }
