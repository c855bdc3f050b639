"""Running verdicts on open sessions: what no later event can change."""

import bisect
import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.logs.detect import incidents
from seqrnn.logs.detect.calibration import COMBINED
from seqrnn.logs.detect.conformal import combine, event_rate, is_flagged
from seqrnn.logs.detect.decision import Decision, decide, flag_events
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.detector import (
  TOP,
  UNKNOWN_NATS,
  SessionScores,
  round_scores,
)
from seqrnn.logs.follow.open_sessions import OpenSession
from seqrnn.logs.follow.verdicts import Verdict, event_name, place_of
from seqrnn.scoring.scoring import UNRANKED

_ROUNDING = 1e-4  # By which a running score is below the final one, at least.


class Running:
  """Judges sessions that may go on.

  The highest surprisal and the number of unknown events can only rise. All
  other scores count as if they were the lowest possible ones.
  """

  def __init__(self, deployed: Deployed):
    self._settings = deployed.config.detect
    self._normal = deployed.normal
    self._names = deployed.detector.names
    seen = np.asarray(deployed.detector.models.seen).copy()
    seen[:, UNKNOWN] = False
    # Of the events that some model has not seen, which models these are.
    self._unseen = {
      v: (~seen[:, v]).tolist()
      for v in np.flatnonzero(~seen.all(axis=0)).tolist()
    }
    self._by_rate = self._settings.rule == "rate"
    # Lists, because NumPy is slower for a single number.
    self._events = [
      (group.scores.tolist(), group.above.tolist())
      for group in deployed.normal.events.groups
    ]
    self._n = deployed.normal.events.n
    self._bound = functools.lru_cache(maxsize=2**14)(self._compute_bound)
    self._least_K = [self._least(k) for k in range(len(seen))]

  def surprisals(self, id: int, nll_K: Sequence[float]) -> list[float]:
    """The surprisals of an event, those of unseen ones at least a minimum."""
    if id not in self._unseen:
      return [*nll_K]
    pairs = zip(nll_K, self._unseen[id], strict=True)
    least = UNKNOWN_NATS
    return [max(nats, least) if unseen else nats for nats, unseen in pairs]

  def p_value(self, nats_K: Sequence[float]) -> float:
    """The p-value of an event."""
    count = 1.0
    for (scores, above), nats in zip(self._events, nats_K, strict=True):
      # As `round_scores` does.
      count += above[bisect.bisect_left(scores, round(nats, 4))]
    return count / (self._n + 1)

  def read(self, session: OpenSession, place: int, nats_K: Sequence[float]):
    """Notes the surprisals of an event by each model."""
    session.highest_K = list(map(max, session.highest_K, nats_K))
    id = session.ids[place]
    if id in self._unseen:
      for k, unseen in enumerate(self._unseen[id]):
        session.unknown_K[k] += unseen
      session.unknown += id == UNKNOWN

  def judge(
    self, session: OpenSession, place: int, nats_K: Sequence[float]
  ) -> Verdict | None:
    """The verdict after an event that `read` has noted, if it rises."""
    if not any(session.unknown_K) and self._cannot(session, nats_K):
      return None
    highest = tuple(round(h - _ROUNDING, 4) for h in session.highest_K)
    last = tuple(
      nats - _ROUNDING if self._settings.rule == "events" else -math.inf
      for nats in nats_K
    )
    bound = self._bound(
      highest, tuple(session.unknown_K), last, session.unknown > 0
    )
    if bound.severity[0] <= session.severity:
      return None
    session.severity = int(bound.severity[0])
    return self._verdict(session, place + 1, bound)

  def _cannot(self, session: OpenSession, nats_K: Sequence[float]) -> bool:
    """Whether no bound has to be computed, for a session without unknowns."""
    if self._by_rate:
      return any(map(operator.lt, session.highest_K, self._least_K))
    if self._settings.rule == "topk":
      return True
    return not is_flagged(self.p_value(nats_K), event_rate(self._settings))

  def _lowest(self, highest_KD: np.ndarray, unknown_KD: np.ndarray):
    """The lowest final scores, by name [K, D]."""
    known = {
      "max": round_scores(highest_KD),
      "top_mean": round_scores(highest_KD / TOP),
      "unknown": unknown_KD.astype(float),
    }
    names, _ = self._normal.choice.combination
    nothing = np.full(highest_KD.shape, -np.inf)
    return {name: known.get(name, nothing) for name in names}

  def _compute_bound(
    self,
    highest_K: tuple[float, ...],
    unknown_K: tuple[int, ...],
    last_K: tuple[float, ...],
    has_unknown: bool,
  ) -> Decision:
    """The decision if the final scores are the lowest possible ones.

    The session has the last event, an unknown one if it has any, and so many
    others that the flagged events are no quarter of them.
    """
    nll_KN = np.full((len(last_K), 2), -np.inf)
    nll_KN[:, 0] = last_K
    scored = SessionScores(
      nll=nll_KN[0],
      rank=np.array([1, UNRANKED if has_unknown else 1]),
      member_nll=nll_KN,
      targets=np.zeros(2, int),
      bounds=np.array([0, 2]),
      scores=self._lowest(
        np.array(highest_K)[:, None], np.array(unknown_K)[:, None]
      ),
      counts=np.ones(1, int),
      short=np.zeros(1, bool),
      lengths=np.array([2**60]),
      seconds=0.0,
    )
    return decide(scored, self._normal, self._settings)

  def _least(self, k: int) -> float:
    """A surprisal; below it, model k alone keeps a session from being flagged.

    It holds for sessions without unknown events.
    """
    normal, rate = self._normal, self._settings.rate
    combination, group = normal.choice.combination, normal.scores[COMBINED]
    known = normal.scores["max"].groups[k].scores
    beyond = known[-1:] + np.geomspace(0.01, 1e3, 200) if len(known) else known
    candidates = np.concatenate([known, beyond])
    zeros = np.zeros((1, len(candidates)))
    lowest = self._lowest(candidates[None], zeros)
    combined = combine(
      [
        normal.scores[name].groups[k].neg_log_p(lowest[name][0])
        for name in combination.names
      ],
      combination.how,
    )
    count = group.groups[k].count_at_least(combined)
    enough = np.flatnonzero(is_flagged((1 + count) / (group.n + 1), rate))
    # The true limit may lie between two candidates.
    return float(candidates[max(enough[0] - 1, 0)]) if len(enough) else math.inf

  def _verdict(
    self, session: OpenSession, size: int, bound: Decision
  ) -> Verdict:
    nats = np.array(session.nats[:size])
    worst = int(np.argmax(nats))
    around = incidents.around(worst, size)
    name = functools.partial(event_name, self._names, session)
    return Verdict(
      session=session.name,
      ended=False,
      events=size,
      p=float(bound.p[0]),
      flag=True,
      severity=session.severity,
      reason=bound.reasons[0],
      event=name(worst),
      before=[name(n) for n in around if n < worst],
      after=[name(n) for n in around if n > worst],
      **place_of(session, worst),
      surprising=frozenset(map(name, incidents.surprising_places(nats))),
      models=int(bound.models[0]),
      unknown_events=session.unknown,
      flagged_events=0,
      symbols=session.symbols[:size],
      scores_K=(),
      begins=session.begins,
    )

  def name(self, session: OpenSession, place: int) -> str:
    """The name of an event, an unknown one as read."""
    id = session.ids[place]
    return session.symbols[place] if id == UNKNOWN else self._names.text([id])

  def row(
    self,
    session: OpenSession,
    place: int,
    name: str,
    nats_K: Sequence[float],
    nats: float,
    rank: int,
  ) -> dict[str, Any]:
    """The scores of an event, for JSON; the end is after the last place."""
    is_end = place >= len(session.ids)
    unknown = not is_end and session.ids[place] == UNKNOWN
    settings, p = self._settings, self.p_value(nats_K)
    rank = int(UNRANKED) if unknown else rank
    return {
      "session": session.name,
      "position": place,
      "line": None if is_end else session.lines[place] or None,
      "event": name,
      "nats": round(nats, 6),
      "bits": round(nats / math.log(2), 6),
      "probability": float(f"{math.exp(-nats):.6g}"),
      "rank": None if unknown else rank,
      "in_top_k": rank <= settings.top_k,
      "unknown": unknown,
      "p_value": round(p, 6),
      "flag": bool(flag_events(p, rank, settings)),
    }
