"""Flags anomalous sessions and events by `detect.rule`."""

import numpy as np

from seqrnn.config import Config
from seqrnn.data.sessions import Sessions
from seqrnn.data.vocabulary import END
from seqrnn.detection.calibration import COMBINED, NormalScores
from seqrnn.detection.conformal import benjamini_hochberg
from seqrnn.detection.detector import Detector, SessionScores, round_scores
from seqrnn.detection.findings import Findings
from seqrnn.inference.scoring import UNRANKED


def flag(
  scored: SessionScores,
  combined: np.ndarray,
  normal: NormalScores,
  settings: Config,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns whether each session [D] and each event [N] is flagged.

  The rule is applied to the sessions that are not flagged for their length, as
  if there were no other sessions.
  """
  limit = normal.events.threshold(settings.event_rate)
  event_flags = round_scores(scored.nll) > limit
  if settings.rule == "topk":
    event_flags = scored.rank > settings.top_k
  if settings.flag_unknown:
    event_flags |= scored.rank == UNRANKED
  calibration, others = normal.scores[COMBINED], ~scored.short
  match settings.rule:
    case "rate":
      flags = combined > calibration.threshold(settings.rate)
    case "budget":
      flags = np.zeros(len(combined), bool)
      order = np.argsort(-combined, kind="stable")
      flags[order[others[order]][: settings.budget]] = True
    case "bh":
      p = calibration.p_values(combined)
      tested = np.repeat(p[others], scored.counts[others])
      rejected = tested[benjamini_hochberg(tested, settings.false_share)]
      flags = p <= rejected.max(initial=0)
    case _:  # events, topk
      session_N = np.repeat(np.arange(len(combined)), np.diff(scored.bounds))
      flags = np.bincount(session_N, event_flags, minlength=len(combined)) > 0
  return flags | scored.short, event_flags


def find_anomalies(
  detector: Detector, normal: NormalScores, sessions: Sessions
) -> Findings:
  """Scores sessions and flags the anomalous ones."""
  settings = detector.config.detect
  distinct = sessions.distinct()
  once = sessions.take(distinct.first)
  scored = detector.score(once, distinct.counts)
  combined = normal.combined(scored.scores, settings)
  combined[scored.short] = np.inf
  flags, event_flags = flag(scored, combined, normal, settings)
  p = normal.scores[COMBINED].p_values(combined)
  sizes = np.diff(scored.bounds)
  ends = np.zeros(len(flags), bool)
  ends[sizes > 0] = scored.targets[scored.bounds[1:][sizes > 0] - 1] == END
  return Findings(
    sessions=sessions,
    distinct=distinct,
    names=detector.names,
    nll=scored.nll,
    rank=scored.rank,
    targets=scored.targets,
    bounds=scored.bounds,
    # The scored events are the last events of a session.
    offsets=np.diff(once.bounds) + ends - sizes,
    event_p=normal.events.p_values(round_scores(scored.nll)),
    event_flags=event_flags,
    scores={COMBINED: combined, **scored.scores},
    p=np.where(scored.short, np.nan, p),
    flags=flags,
    short=scored.short,
    seconds=scored.seconds,
  )
