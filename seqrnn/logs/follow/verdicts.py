"""Verdicts on sessions that arrive: final ones, and those on open sessions.

The final verdict is that of a detection. An open session is judged as if it had
the lowest possible scores: the highest surprisal and the number of unknown
events can only rise, and all other scores count as the least anomalous ones.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqrnn.data.logs.secrets import redaction
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.read.columns import Texts
from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.logs.detect.decision import (
  Decision,
  decide,
  find_anomalies,
  flag_events,
)
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.detector import (
  TOP,
  UNKNOWN_NATS,
  SessionScores,
  round_scores,
)
from seqrnn.logs.detect.findings import (
  Findings,
  event_context,
  positions_around,
  surprising_positions,
)
from seqrnn.logs.follow.open_sessions import OpenSession
from seqrnn.logs.follow.stepping import Read
from seqrnn.scoring.scoring import UNRANKED

_KNOWN = 2**14  # Final verdicts on distinct sessions that are in memory.
_LENGTH = 2**9  # Events of such a session.
_SAFE = 64  # Scores of sessions that are not flagged.
_ROUNDING = 1e-4  # By which a running score is below the final one, at least.


class Verdict(NamedTuple):
  """The verdict on a session.

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
    surprising: the names of its surprising events, as `surprising_events`.
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


class Scored(NamedTuple):
  """The scores of an event, and those of its session up to it.

  Attributes:
    nats: surprisal by the mean prediction of the models.
    rank: 1 plus the number of likelier events.
    nats_K: surprisal by each model.
    highest_K: the highest surprisal by each model so far.
    unknown_K: the number of events so far that each model has not seen.
    unknown: the number of events so far that are not in the vocabulary.
  """

  nats: float
  rank: int
  nats_K: list[float]
  highest_K: list[float]
  unknown_K: list[int]
  unknown: int


class Judge:
  """Judges ended sessions, equal ones once, and open sessions."""

  def __init__(self, deployed: Deployed):
    self._deployed = deployed
    self._settings = deployed.config.detect
    self._names = deployed.detector.names
    self._masks = redaction(self._settings.redact)
    seen_KV = np.array(deployed.detector.models.seen)
    seen_KV[:, UNKNOWN] = False
    self._unseen_VK = ~seen_KV.T
    self._known: dict[tuple, Verdict] = {}
    # Highest scores, the largest ones, of open sessions that are not flagged.
    size = len(seen_KV) * (1 + (self._settings.rule == "events"))
    self._safe_NS = np.zeros((0, size))

  def warm(self):
    """Compiles the programs for sessions of at most a hundred events."""
    for size in (1, 10, 100):
      session = OpenSession("", True, len(self._unseen_VK[0]))
      for _ in range(size):
        session.append("", UNKNOWN, math.nan, 0)
      self.finals([(session, size, True)])
    self._known.clear()

  def scored(
    self, session: OpenSession, ids: Sequence[int], read: Read
  ) -> Iterator[Scored]:
    """The scores of events that the models have read; notes their extremes."""
    unseen_NK, least = self._unseen_VK[np.asarray(ids)], UNKNOWN_NATS
    nats_N = np.where(
      np.asarray(ids) == UNKNOWN, np.maximum(read.nll, least), read.nll
    )
    nats_NK = np.where(
      unseen_NK, np.maximum(read.member_nll, least), read.member_nll
    )
    columns = (
      ids,
      nats_N.tolist(),
      read.rank.tolist(),
      nats_NK.tolist(),
      unseen_NK.tolist(),
    )
    for id, nats, rank, nats_K, unseen_K in zip(*columns, strict=True):
      session.highest_K = [*map(max, session.highest_K, nats_K)]
      session.unknown_K = [
        a + b for a, b in zip(session.unknown_K, unseen_K, strict=True)
      ]
      session.unknown += id == UNKNOWN
      yield Scored(
        nats,
        int(rank),
        nats_K,
        session.highest_K,
        session.unknown_K,
        session.unknown,
      )

  def bounds(
    self, events: Sequence[Scored]
  ) -> list[tuple[Decision, int] | None]:
    """Decisions if the final scores are the lowest possible ones.

    Each is a decision and its index in it; None: the event flags no session,
    as neither did one whose scores are all as high.
    """
    by_event = self._settings.rule == "events"
    scores_DS = np.array(
      [[*x.highest_K, *(x.nats_K if by_event else ())] for x in events]
    )
    known_D = np.array([not any(x.unknown_K) for x in events])
    is_above_DNS = self._safe_NS >= scores_DS[:, None]
    safe_D = np.any(np.all(is_above_DNS, axis=2), axis=1)
    judged = np.flatnonzero(~(safe_D & known_D)).tolist()
    results: list[tuple[Decision, int] | None] = [None] * len(events)
    if judged:
      decision = self._decide([events[n] for n in judged])
      for d, n in enumerate(judged):
        results[n] = decision, d
      safe = [
        n for d, n in enumerate(judged) if known_D[n] and not decision.flags[d]
      ]
      safe_NS = np.concatenate([self._safe_NS, scores_DS[safe]])
      order = np.argsort(-safe_NS.sum(axis=1))[:_SAFE]
      self._safe_NS = safe_NS[order]
    return results

  def _decide(self, events: Sequence[Scored]) -> Decision:
    """The decision on sessions with the lowest possible scores.

    A session has the last event, an unknown one if it has any, and so many
    others that the flagged events are no quarter of them.
    """
    nats_KD, highest_KD, unknown_KD = (
      np.array([event[n] for event in events]).T for n in (2, 3, 4)
    )
    size, combination = len(events), self._deployed.normal.choice.combination
    nll_KN = np.full((len(nats_KD), 2 * size), -np.inf)
    if self._settings.rule == "events":
      nll_KN[:, ::2] = nats_KD - _ROUNDING
    ranks = np.ones(2 * size, int)
    ranks[1::2] = [UNRANKED if event.unknown else 1 for event in events]
    highest_KD = np.round(highest_KD - _ROUNDING, 4)
    lowest = {
      "max": round_scores(highest_KD),
      "top_mean": round_scores(highest_KD / TOP),
      "unknown": unknown_KD.astype(float),
    }
    nothing_KD = np.full(highest_KD.shape, -np.inf)
    scored = SessionScores(
      nll=nll_KN[0],
      rank=ranks,
      member_nll=nll_KN,
      targets=np.zeros(2 * size, int),
      bounds=np.arange(0, 2 * size + 1, 2),
      scores={name: lowest.get(name, nothing_KD) for name in combination.names},
      counts=np.ones(size, int),
      short=np.zeros(size, bool),
      lengths=np.full(size, 2**60),
      seconds=0.0,
    )
    return decide(scored, self._deployed.normal, self._settings)

  def running(
    self,
    session: OpenSession,
    size: int,
    scored: Scored,
    bounds: Decision,
    d: int,
  ) -> Verdict:
    """The verdict on the first events of an open session, by bound `d`."""
    nats = np.array(session.nats[:size])
    worst, names = int(np.argmax(nats)), self._names_of(session, size)
    around = positions_around(worst, size)
    return Verdict(
      session=session.name,
      ended=False,
      events=size,
      p=float(bounds.p[d]),
      flag=True,
      severity=int(bounds.severity[d]),
      reason=bounds.reasons[d],
      event=names[worst],
      before=names[around.start : worst],
      after=names[worst + 1 : around.stop],
      **place_of(session, worst),
      surprising=frozenset(names[n] for n in surprising_positions(nats)),
      models=int(bounds.models[d]),
      unknown_events=scored.unknown,
      flagged_events=0,
      symbols=session.symbols[:size],
      scores_K=(),
      begins=session.begins,
    )

  def _names_of(self, session: OpenSession, size: int) -> list[str]:
    """The names of the first events, as `Findings.events`."""
    text = self._masks.text if self._masks else str
    names = self._names.names(session.ids[:size])
    for n, id in enumerate(session.ids[:size]):
      if id == UNKNOWN:
        names[n] = f"? {text(session.symbols[n])}"
    return names

  def finals(
    self, ended: Sequence[tuple[OpenSession, int, bool]]
  ) -> list[Verdict]:
    """The final verdicts on sessions.

    Args:
      ended: sessions, the number of their events, and whether they have their
        end.
    """
    keys = [
      (tuple(s.symbols[:size]), s.begins, ends) for s, size, ends in ended
    ]
    verdicts = {key: self._known[key] for key in keys if key in self._known}
    missing = {
      key: one
      for key, one in zip(keys, ended, strict=True)
      if key not in verdicts
    }
    if missing:
      new = dict(zip(missing, self._judged([*missing.values()]), strict=True))
      if len(self._known) + len(new) > _KNOWN:
        self._known.clear()
      self._known |= {k: v for k, v in new.items() if len(k[0]) <= _LENGTH}
      verdicts |= new
    return [
      verdicts[key]._replace(
        session=session.name,
        symbols=session.symbols[:size],
        **place_of(session, verdicts[key].position),
      )
      for key, (session, size, _) in zip(keys, ended, strict=True)
    ]

  def _judged(
    self, ended: Sequence[tuple[OpenSession, int, bool]]
  ) -> list[Verdict]:
    """The verdicts of a detection on distinct sessions."""
    sizes = [size for _, size, _ in ended]
    symbols = [x for session, size, _ in ended for x in session.symbols[:size]]
    ids = [id for session, size, _ in ended for id in session.ids[:size]]
    sessions = Sessions(
      np.array(ids, np.int32),
      np.cumsum([0, *sizes]),
      [""] * len(sizes),
      as_read=Texts(symbols, np.arange(len(symbols))),
      begins=np.array([session.begins for session, *_ in ended]),
      ends=np.array([ends for *_, ends in ended]),
    )
    findings = find_anomalies(
      self._deployed.detector, self._deployed.normal, sessions
    )
    which = findings.distinct.which.tolist()
    return [
      _final(findings, d, j, size)
      for j, (d, size) in enumerate(zip(which, sizes, strict=True))
    ]

  def row(
    self, session: OpenSession, place: int, name: str, scored: Scored
  ) -> dict[str, Any]:
    """The scores of an event, for JSON; the end is after the last place."""
    is_end = place >= len(session.ids)
    unknown = not is_end and session.ids[place] == UNKNOWN
    nats_K1 = np.array(scored.nats_K)[:, None]
    [p] = self._deployed.normal.events.p_values(map(round_scores, nats_K1))
    rank = int(UNRANKED) if unknown else scored.rank
    return {
      "session": session.name,
      "position": place,
      "line": None if is_end else session.lines[place] or None,
      "event": name,
      "nats": round(scored.nats, 6),
      "bits": round(scored.nats / math.log(2), 6),
      "probability": float(f"{math.exp(-scored.nats):.6g}"),
      "rank": None if unknown else rank,
      "in_top_k": rank <= self._settings.top_k,
      "unknown": unknown,
      "p_value": round(float(p), 6),
      "flag": bool(flag_events(p, rank, self._settings)),
    }

  def text(self, session: OpenSession, place: int) -> str:
    """An event as text, an unknown one as read."""
    id = session.ids[place]
    return session.symbols[place] if id == UNKNOWN else self._names.text([id])


def _final(findings: Findings, d: int, j: int, size: int) -> Verdict:
  """The verdict on session j, which is the distinct session d; unnamed."""
  start, stop = findings.bounds[d : d + 2].tolist()
  event, before, after = event_context(findings, d, j)
  surprising, nll = [event], findings.nll[start:stop]
  if stop > start and not findings.short[d]:
    names = findings.events(j, d, 0, stop - start)
    surprising = [names[n] for n in surprising_positions(nll)]
  worst = int(np.argmax(nll)) if stop > start else 0
  return Verdict(
    session="",
    ended=True,
    events=size,
    p=float(findings.p[d]),
    flag=bool(findings.flags[d]),
    severity=int(findings.severity[d]),
    reason=findings.reasons[d],
    event=event,
    before=before,
    after=after,
    position=min(int(findings.offsets[d]) + worst, size - 1),
    line=None,
    time=None,
    surprising=frozenset(surprising),
    models=int(findings.models[d]),
    unknown_events=int(findings.unknown_events[d]),
    flagged_events=int(findings.flagged_events[d]),
    symbols=[],
    scores_K=tuple(findings.combined_KD[:, d].tolist()),
    begins=bool(findings.sessions.whole[0][j]),
  )


def place_of(session: OpenSession, place: int) -> dict[str, Any]:
  """The position, line and time of an event; -1: there is none."""
  if place < 0:
    return {"position": -1, "line": None, "time": None}
  time = session.times[place]
  return {
    "position": place,
    "line": session.lines[place] or None,
    "time": None if math.isnan(time) else time,
  }
