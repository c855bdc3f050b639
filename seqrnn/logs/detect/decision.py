"""Flags anomalous sessions and events by `detect.rule`."""

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.sessions import Sessions
from seqrnn.logs.detect import redaction, severity
from seqrnn.logs.detect.calibration import COMBINED, NormalScores
from seqrnn.logs.detect.conformal import benjamini_hochberg, is_flagged
from seqrnn.logs.detect.detector import Detector, SessionScores, round_scores
from seqrnn.logs.detect.findings import Findings, Verdicts
from seqrnn.scoring.scoring import UNRANKED


def decide(
  scored: SessionScores, normal: NormalScores, settings: Config
) -> Verdicts:
  """Compares sessions and events with normal ones, and flags some of them.

  The rule is applied to the sessions that are not flagged for their length, as
  if there were no other sessions.
  """
  short = scored.short
  raw = {COMBINED: normal.combined(scored.scores), **scored.scores}
  scores = {name: normal.scores[name].neg_log_p(s) for name, s in raw.items()}
  scores[COMBINED][short] = np.inf
  p = normal.scores[COMBINED].p_values(raw[COMBINED])
  event_p = normal.events.p_values(map(round_scores, scored.member_nll))
  event_flags = is_flagged(event_p, settings.event_rate)
  if settings.rule == "topk":
    event_flags = scored.rank > settings.top_k
  if settings.flag_unknown:
    event_flags |= scored.rank == UNRANKED
  match settings.rule:
    case "rate":
      flags = is_flagged(p, settings.rate)
    case "budget":
      flags = np.zeros(len(p), bool)
      order = np.argsort(-scores[COMBINED], kind="stable")
      flags[order[~short[order]][: settings.budget]] = True
    case "bh":
      tested = np.repeat(p[~short], scored.counts[~short])
      rejected = tested[benjamini_hochberg(tested, settings.false_share)]
      flags = p <= rejected.max(initial=0)
    case _:  # events, topk
      session_N = np.repeat(np.arange(len(p)), np.diff(scored.bounds))
      flags = np.bincount(session_N, event_flags, minlength=len(p)) > 0
  return Verdicts(
    scores,
    np.where(short, np.nan, p),
    event_p,
    flags | short,
    event_flags,
    raw[COMBINED],
  )


def find_anomalies(
  detector: Detector, normal: NormalScores, sessions: Sessions
) -> Findings:
  """Scores sessions and flags the anomalous ones."""
  settings, distinct = detector.config.detect, sessions.distinct()
  once = sessions.take(distinct.first)
  scored = detector.score(once, distinct.counts)
  verdicts = decide(scored, normal, settings)
  return Findings(
    sessions=redaction.masked_sessions(sessions, settings.redact),
    distinct=distinct,
    names=detector.names,
    nll=scored.nll,
    rank=scored.rank,
    targets=scored.targets,
    bounds=scored.bounds,
    offsets=scored.offsets(once),
    short=scored.short,
    seconds=scored.seconds,
    alarms=severity.explain(
      scored, verdicts, np.diff(once.bounds), normal, settings
    ),
    **verdicts._asdict(),
  )
