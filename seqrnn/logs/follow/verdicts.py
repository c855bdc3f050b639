"""Verdicts on sessions that arrive: final ones, and those on open sessions.

The final verdict is that of a detection. An open session is judged as if it had
the lowest possible scores: the highest surprisal and the number of unknown
events can only rise, and all other scores count as the least anomalous ones.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.vocabulary import END, UNKNOWN
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.detector import SessionScores
from seqrnn.logs.detect.findings import (
  Decision,
  decide,
  positions_around,
  surprising_positions,
)
from seqrnn.logs.detect.scores import TOP, round_scores
from seqrnn.logs.follow.open_sessions import OpenSession, Step
from seqrnn.logs.follow.stepping import Scored
from seqrnn.scoring.scoring import UNRANKED

_KNOWN = 2**18  # Events of distinct sessions whose verdicts are in memory.
_SAFE = 64  # Scores of sessions that are not flagged.
_ROUNDING = 1e-4  # By which a running score is below the final one, at least.

# A decision on several sessions, and the index of a session in it.
Bound = tuple[Decision, int]


class Verdict(NamedTuple):
  """The verdict on a session.

  Attributes:
    session: its name.
    ended: whether this is the final verdict.
    severity: an index of `SEVERITIES`; 0: it is not flagged.
    reason: a key of `scores.WORDS`; empty: it is not flagged.
    p: its p-value; NaN if it is flagged for its length alone. Of a running
      verdict, the largest one that the final verdict can have.
    line, time: of its most surprising event, if known.
    event: this event.
    before, after: the events around it.
    events: number of its events so far.
    unknown_events, flagged_events: numbers of events.
    position: of the most surprising event in the session.
    surprising: the names of its surprising events, as `surprising_events`.
    symbols: all its events as read.
    scores_K: the combined score by each model [K]; empty: it is running.
    begins: whether its first event is the begin of the session. If not, its
      scores are those of a session that began with this event.
    now: the event time when it was reached, in seconds; None: unknown.
    earlier: the severity of the session's verdicts before.
  """

  session: str
  ended: bool
  severity: int
  reason: str
  p: float
  line: int | None
  time: float | None
  event: str
  before: list[str]
  after: list[str]
  events: int
  unknown_events: int
  flagged_events: int
  position: int
  surprising: frozenset[str]
  symbols: list[str]
  scores_K: tuple[float, ...]
  begins: bool
  now: float | None = None
  earlier: int = 0

  @property
  def flag(self) -> bool:
    """Whether it is flagged."""
    return self.severity > 0


class Judge:
  """Judges ended sessions, equal ones once, and open sessions."""

  def __init__(self, deployed: Deployed):
    self._deployed = deployed
    self._settings = deployed.config.detect
    self.masks = Redaction(self._settings.redact)
    names = deployed.detector.names
    self._names = [*map(self.masks.text, names.names(range(len(names))))]
    self._known: dict[tuple, Verdict] = {}
    self._events = 0  # Of these sessions.
    # Highest scores, the largest ones, of open sessions that are not flagged.
    self._by_event = self._settings.rule == "events"
    models = len(deployed.detector.steps)
    self._safe_NS = np.zeros((0, models * (1 + self._by_event)))

  def warm(self):
    """Compiles the programs for sessions of at most a hundred events."""
    for size in (1, 10, 100):
      session = OpenSession()
      for _ in range(size):
        session.append("", UNKNOWN, math.nan, 0)
      self.finals([Step(session, size, ends=True)])
    self._known.clear()

  def bounds(self, events: Sequence[Scored]) -> list[Bound | None]:
    """Decisions if the final scores are the lowest possible ones.

    None: the event flags no session, as neither did one whose scores are all as
    high.
    """
    nats_DX, highest_DX, unknown_DX = np.array(
      [scored[1:] for scored in events]
    ).transpose(1, 0, 2)
    scores_DS = highest_DX[:, 1:]
    if self._by_event:
      scores_DS = np.hstack([scores_DS, nats_DX[:, 1:]])
    known_D = unknown_DX.sum(axis=1) == 0
    is_above_DNS = self._safe_NS >= scores_DS[:, None]
    safe_D = np.any(np.all(is_above_DNS, axis=2), axis=1)
    results: list[Bound | None] = [None] * len(events)
    judged = np.flatnonzero(~(safe_D & known_D))
    if len(judged):
      of_judged = nats_DX[judged], highest_DX[judged], unknown_DX[judged]
      decision = self._decide(*of_judged)
      for d, n in enumerate(judged.tolist()):
        results[n] = decision, d
      safe = judged[known_D[judged] & ~decision.flags]
      safe_NS = np.concatenate([self._safe_NS, scores_DS[safe]])
      self._safe_NS = safe_NS[np.argsort(-safe_NS.sum(axis=1))[:_SAFE]]
    return results

  def _decide(
    self, nats_DX: np.ndarray, highest_DX: np.ndarray, unknown_DX: np.ndarray
  ) -> Decision:
    """The decision on sessions with the lowest possible scores.

    Each counts as one event among so many that it is no quarter of them: the
    last one, which is unknown if any is.
    """
    size, names = len(nats_DX), self._deployed.normal.choice.combination.names
    highest_KD = np.round(highest_DX[:, 1:].T - _ROUNDING, 4)
    nothing_KD = np.full(highest_KD.shape, -np.inf)
    nats_KD = nats_DX[:, 1:].T - _ROUNDING if self._by_event else nothing_KD
    lowest = {
      "max": round_scores(highest_KD),
      "top_mean": round_scores(highest_KD / TOP),
      "unknown": unknown_DX[:, 1:].T,
    }
    scored = SessionScores(
      nll=nats_KD[0],
      rank=np.where(unknown_DX[:, 0] > 0, UNRANKED, 1),
      member_nll=nats_KD,
      targets=np.zeros(size, int),
      bounds=np.arange(size + 1),
      scores={name: lowest.get(name, nothing_KD) for name in names},
      counts=np.ones(size, int),
      short=np.zeros(size, bool),
      lengths=np.full(size, 2**60),
    )
    return decide(scored, self._deployed.normal, self._settings)

  def running(
    self, step: Step, scored: Scored, nats: np.ndarray, bound: Bound
  ) -> Verdict:
    """The verdict on an open session up to an event.

    Args:
      step: the event.
      scored: its scores.
      nats: the surprisals of all events up to it.
      bound: as of `bounds`.
    """
    verdict = self._verdict(step, *bound, nats, self._names_of(step))
    unknown = int(scored.unknown[0])
    changes = {"unknown_events": unknown, "flagged_events": 0}
    return verdict._replace(ended=False, scores_K=(), **changes)

  def _names_of(self, step: Step) -> list[str]:
    """The names of events for display, as `Findings.events`."""
    ids, symbols = step.session.ids[: step.size], step.session.symbols
    names = [self._names[id] for id in ids]
    for n, id in enumerate(ids):
      if id == UNKNOWN:
        names[n] = f"? {self.masks.text(symbols[n])}"
    return [*names, self._names[END]] if step.ends else names

  def finals(self, ended: Sequence[Step]) -> list[Verdict]:
    """The final verdicts on sessions."""
    if self._events > _KNOWN:
      self._known.clear()
      self._events = 0
    keys = [
      (tuple(step.session.symbols[: step.size]), step.session.begins, step.ends)
      for step in ended
    ]
    pairs = zip(keys, ended, strict=True)
    missing = {key: step for key, step in pairs if key not in self._known}
    if missing:
      verdicts = self._judged([*missing.values()])
      self._known |= zip(missing, verdicts, strict=True)
      self._events += sum(verdict.events for verdict in verdicts)
    finals = []
    for key, (session, *_) in zip(keys, ended, strict=True):
      place = _place(session, self._known[key].position)
      finals.append(self._known[key]._replace(session=session.name, **place))
    return finals

  def _judged(self, ended: Sequence[Step]) -> list[Verdict]:
    """The verdicts of a detection on distinct sessions."""
    ids = [id for step in ended for id in step.session.ids[: step.size]]
    sessions = Sessions(
      np.array(ids, np.int32),
      np.cumsum([0, *(step.size for step in ended)]),
      [""] * len(ended),
      begins=np.array([step.session.begins for step in ended]),
      ends=np.array([step.ends for step in ended]),
    )
    detector, normal = self._deployed.detector, self._deployed.normal
    scored = detector.score(sessions, np.ones(len(ended), int))
    decision, verdicts = decide(scored, normal, self._settings), []
    for d, step in enumerate(ended):
      nll = scored.nll[scored.events(d)]
      names = self._names_of(step)[-len(nll) :]
      one = self._verdict(step, decision, d, nll, names)
      if scored.short[d]:
        short = frozenset(["<short>"])
        one = one._replace(event="<short>", surprising=short)
      verdicts.append(one)
    return verdicts

  def _verdict(
    self,
    step: Step,
    decision: Decision,
    d: int,
    nll: np.ndarray,
    names: list[str],
  ) -> Verdict:
    """The verdict `d` of a decision.

    Args:
      step: the end of the session, or its last event.
      decision: on several sessions.
      d: the index of the session.
      nll: the surprisals of its scored events, which are its last ones.
      names: of these events.
    """
    session, size, _, ends = step
    worst = int(np.argmax(nll)) if len(nll) else 0
    around = positions_around(worst, len(nll))
    position = min(size + bool(ends) - len(nll) + worst, size - 1)
    surprising = [names[n] for n in surprising_positions(nll)] or ["<empty>"]
    return Verdict(
      session=session.name,
      ended=True,
      severity=int(decision.severity[d]),
      reason=decision.reasons[d],
      p=float(decision.p[d]),
      **_place(session, position),
      event=names[worst] if len(nll) else "<empty>",
      before=names[around.start : worst],
      after=names[worst + 1 : around.stop],
      events=size,
      unknown_events=int(decision.unknown_events[d]),
      flagged_events=int(decision.flagged_events[d]),
      position=position,
      surprising=frozenset(surprising),
      symbols=session.symbols[:size],
      scores_K=tuple(decision.combined_KD[:, d].tolist()),
      begins=session.begins,
    )


def _place(session: OpenSession, position: int) -> dict[str, Any]:
  """The line and the time of an event."""
  time = session.times[position]
  return {
    "line": session.lines[position] or None,
    "time": None if math.isnan(time) else time,
  }
