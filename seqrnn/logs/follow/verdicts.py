"""Verdicts on sessions that arrive: final ones, and those on open sessions.

The final verdict is that of a detection. An open session is judged as if it had
the lowest possible scores: the highest surprisal and the number of unknown
events can only rise, and all other scores count as the least anomalous ones.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.logs.sessions import Key, Sessions
from seqrnn.data.read.columns import Texts
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.detector import SessionScores
from seqrnn.logs.detect.findings import (
  Decision,
  Findings,
  decide,
  find_anomalies,
)
from seqrnn.logs.detect.scores import TOP, UNSEEN, round_scores
from seqrnn.logs.follow.open_sessions import OpenSession, SessionStep
from seqrnn.scoring.scorer import UNRANKED

_KNOWN = 2**18  # Events whose verdicts or bounds are in memory.
_SCORED = 2**13  # Sessions whose scores are, some 4 KB each.
_ROUNDING = 1e-4  # A running score is lower by this than the final one may be.


class Bound(NamedTuple):
  """The certain fields of the verdict on an open session."""

  severity: int
  score: str
  p: float


class Verdict(NamedTuple):
  """The verdict on a session.

  Attributes:
    session: its name.
    ended: whether this is the final verdict.
    severity: an index of `SEVERITIES`; 0: it is not flagged.
    score: the reason as in `Decision.reasons`; empty: it is not flagged.
    reason: in words; empty: it is not flagged.
    p: its p-value; NaN if it is flagged for its length alone. Of a running
      verdict, the largest one that the final verdict can have.
    line, time: of the event that decides, if known.
    event, before, after, position, surprising: as of `Explanation`.
    events: number of its events so far.
    unknown_events, flagged_events: numbers of events.
    symbols: all its events as read.
    scores_K: the combined score by each model [K]; empty: it is running.
    begins: whether its first event is the begin of the session. If not, its
      scores are those of a session that began with this event.
    now: the event time when it was reached, in seconds; None: unknown.
    earlier: the severity of the session's verdicts before.
    left_out: number of its events that are new, and left out or replaced.
  """

  session: str
  ended: bool
  severity: int
  score: str
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
  left_out: int = 0

  @property
  def flag(self) -> bool:
    """Whether it is flagged."""
    return self.severity > 0


# On a session without events to judge; a template of others.
NOTHING = Verdict(
  *("", True, 0, "", "", 1.0, None, None, "", [], [], 0, 0, 0, 0),
  *(frozenset(), [], (), True),
)


def sessions_of(
  sessions: Sequence[Sequence[str]],
  begins: Iterable[bool],
  ends: Iterable[bool],
  names: Vocabulary,
) -> Sessions:
  """Sessions of events as read, without names.

  Args:
    sessions: the events of each.
    begins: whether each has its begin.
    ends: whether each has its end.
    names: vocabulary of the events.
  """
  symbols = [symbol for session in sessions for symbol in session]
  return Sessions.of_events(
    names,
    Texts(symbols, np.arange(len(symbols))),
    np.cumsum([0, *map(len, sessions)]),
    [""] * len(sessions),
    begins=np.array([*begins], bool),
    ends=np.array([*ends], bool),
  )


class Judge:
  """Judges sessions, equal ones once.

  Attributes:
    left_out: events as read, without which sessions are judged, and the events
      as which they count; None: as none.
    masks: of events as they were read.
  """

  def __init__(self, deployed: Deployed):
    self.left_out = dict(deployed.accepted)
    self._scored: dict[Key, SessionScores] = {}
    detector = deployed.detector._replace(scored=self._scored)
    self._deployed = deployed._replace(detector=detector)
    self._settings = deployed.config.detect
    self.masks = Redaction(self._settings.redact)
    self._shown = dataclasses.replace(detector.names, mask=self.masks.text)
    self._known: dict[tuple, Verdict] = {}
    self._events = 0  # The number of events of the known sessions.
    # The keys are the scores that decide: most events change only their own.
    self._decisive = slice(int(self._settings.rule != "events"), None)
    self._bounds: dict[bytes, Bound] = {}

  def warm(self):
    """Compiles the program for sessions of a usual length.

    It is between the least and the greatest in training; an anomalous session
    can make that large.
    """
    session, lengths = OpenSession(), self._deployed.detector.learned[0].lengths
    for _ in range(math.isqrt(math.prod(lengths.tolist()))):
      session.append("", math.nan, 0)
    self.verdicts([SessionStep(session, len(session.symbols), ends=True)])
    self._known.clear()

  def bounds(self, scores_D3X: np.ndarray) -> list[Bound]:
    """The bounds if the final scores are the lowest possible ones.

    Args:
      scores_D3X: of events, as of `Stepper.read`.
    """
    if len(self._bounds) > _KNOWN:
      self._bounds.clear()
    keys = [scores_3X.tobytes() for scores_3X in scores_D3X[:, self._decisive]]
    missing = {key: d for d, key in enumerate(keys) if key not in self._bounds}
    if missing:
      some = scores_D3X[[*missing.values()]].astype(float)
      decision = self._decide(*some.transpose(1, 0, 2))
      severity, p = decision.severity.tolist(), decision.p.tolist()
      bounds = map(Bound, severity, decision.reasons, p)
      self._bounds |= zip(missing, bounds, strict=True)
    return [self._bounds[key] for key in keys]

  def _decide(
    self, nats_DX: np.ndarray, highest_DX: np.ndarray, unknown_DX: np.ndarray
  ) -> Decision:
    """The decision on sessions with the lowest possible scores.

    Each counts as one event among so many that it is no quarter of them: the
    last one, which is unknown if any is.
    """
    size, names = len(nats_DX), self._deployed.normal.names
    highest_KD = np.round(highest_DX[:, 1:].T - _ROUNDING, 4)
    nothing_KD = np.full(highest_KD.shape, -np.inf)
    nats_KD = nothing_KD
    if self._settings.rule == "events":
      nats_KD = nats_DX[:, 1:].T - _ROUNDING
    lowest = {
      "max": round_scores(highest_KD),
      "top_mean": round_scores(highest_KD / TOP),
      # The pair that ends with an unknown event is unknown, too.
      UNSEEN: np.log1p(2 * unknown_DX[:, 1:].T),
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

  def verdicts(self, steps: Sequence[SessionStep]) -> list[Verdict]:
    """The verdicts of a detection on sessions up to a step of each."""
    if not steps:
      return []
    reduced = [self._reduced(step) for step in steps]
    judged = iter(self._verdicts([step for step in reduced if step.size]))
    return [
      (next(judged) if step.size else NOTHING)._replace(
        session=step.session.name, left_out=step.left_out
      )
      for step in reduced
    ]

  def _reduced(self, step: SessionStep) -> SessionStep:
    """A step without the events that are left out."""
    session, size = step.session, step.size
    if self.left_out.keys().isdisjoint(session.symbols[:size]):
      return step
    less, gone, silence = OpenSession(session.name, session.begins), [], 0.0
    for n in range(size):
      symbol, time = session.symbols[n], session.times[n]
      if (symbol := self.left_out.get(symbol, symbol)) is not None:
        less.append(symbol, time, session.lines[n], session.values[n])
        gone.append(silence)
      elif n and not math.isnan(gap := time - session.times[n - 1]):
        silence += gap
    count = sum(map(self.left_out.__contains__, session.symbols))
    return SessionStep(less, len(gone), step.now, step.ends, gone, count)

  def _verdicts(self, steps: Sequence[SessionStep]) -> list[Verdict]:
    if self._events > _KNOWN or len(self._scored) > _SCORED:
      self._known.clear()
      self._scored.clear()
      self._events = 0
    sessions = self._sessions(steps)
    own: list[int | None] = [None] * len(steps)
    if sessions.unusual is not None:  # Equal events may differ in values.
      for n in np.flatnonzero(sessions.unusual.any(axis=(1, 2))).tolist():
        own[n] = n
    keys = [
      (tuple(x.session.symbols[: x.size]), x.session.begins, x.ends, n)
      for x, n in zip(steps, own, strict=True)
    ]
    missing = {x: n for n, x in enumerate(keys) if x not in self._known}
    verdicts: dict[tuple, Verdict] = {}
    if which := [*missing.values()]:
      findings = find_anomalies(
        self._deployed.detector,
        self._deployed.normal,
        sessions.take(np.array(which)),
      )._replace(names=self._shown)
      judged = [_verdict(findings, j, steps[n]) for j, n in enumerate(which)]
      verdicts = dict(zip(missing, judged, strict=True))
      self._known |= {x: verdicts[x] for x in missing if x[-1] is None}
      self._events += sum(verdict.events for verdict in judged)
    results = []
    for key, (session, *_) in zip(keys, steps, strict=True):
      verdict = verdicts.get(key) or self._known[key]
      time = session.times[verdict.position]
      results.append(
        verdict._replace(
          line=session.lines[verdict.position] or None,
          time=None if math.isnan(time) else time,
        )
      )
    return results

  def _sessions(self, steps: Sequence[SessionStep]) -> Sessions:
    """The sessions up to a step of each; open ones without values and times."""
    detector = self._deployed.detector
    sessions = sessions_of(
      [step.session.symbols[: step.size] for step in steps],
      (step.session.begins for step in steps),
      (bool(step.ends) for step in steps),
      detector.names,
    )
    if not detector.measures or all(step.ends is None for step in steps):
      return sessions
    seconds = np.concatenate(
      [np.subtract(x.session.times[: x.size], x.gone or 0) for x in steps]
    )
    rows = [row for x in steps for row in x.session.values[: x.size]]
    values = np.array(rows, np.float32)
    is_open = np.array([step.ends is None for step in steps])
    is_of_open = np.repeat(is_open, np.diff(sessions.bounds))
    seconds[is_of_open] = values[is_of_open] = np.nan
    sessions = sessions._replace(seconds=seconds, values=values)
    return detector.with_unusual(sessions)


def _verdict(findings: Findings, j: int, step: SessionStep) -> Verdict:
  """The verdict on session j, without line and time."""
  decision, session = findings.decision, step.session
  d = int(findings.distinct.which[j])
  return Verdict(
    session=session.name,
    ended=step.ends is not None,
    severity=int(decision.severity[d]),
    score=decision.reasons[d],
    p=float(decision.p[d]),
    line=None,
    time=None,
    events=step.size,
    unknown_events=int(decision.unknown_events[d]),
    flagged_events=int(decision.flagged_events[d]),
    symbols=session.symbols[: step.size],
    scores_K=tuple(decision.combined_KD[:, d].tolist()),
    begins=session.begins,
    **findings.explain(j)._asdict(),
  )


def isoformat(seconds: float) -> str:
  """An event time as ISO 8601, in the time zone of the log, or in UTC."""
  time = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
  return time.isoformat(timespec="seconds" if seconds % 1 == 0 else "auto")
