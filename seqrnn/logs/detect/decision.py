"""Decides which sessions and events are anomalous, how severe, and why.

`decide` is a function of arrays. A detection calls it with all sessions, a
worker of Spark with its part of them, a follower with one open session.

A flagged session has up to three signs, with these columns in sessions.csv:

- `p_value` is at most half of `detect.rate`, and at least half of the models
  give the session a higher score than all their normal sessions (`models`); the
  other models may have anomalous sessions among these;
- it has an unknown event (`unknown_events`);
- at least a quarter of its `events` are flagged (`flagged_events`).

An alarm without a sign is low, with one sign medium, with more high. An alarm
for a session's length alone (`detect.short`) is low.
"""

from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.sessions import Sessions
from seqrnn.logs.detect import findings
from seqrnn.logs.detect.calibration import COMBINED, NormalScores
from seqrnn.logs.detect.conformal import (
  benjamini_hochberg,
  event_rate,
  is_flagged,
)
from seqrnn.logs.detect.detector import Detector, SessionScores, round_scores
from seqrnn.logs.detect.findings import Findings
from seqrnn.scoring.scoring import UNRANKED

NAMES = ("", "low", "medium", "high")  # By severity; 0: no alarm.
SHORT, EVENT = "short", "event"  # Reasons that are no scores.

# Reasons in words.
WORDS = {
  "max": "one improbable event",
  "mean": "improbable events overall",
  "top_mean": "several improbable events",
  "misses": "many improbable events",
  "unknown": "unknown events",
  **{f"markov_{order}": "unusual order of events" for order in range(1, 6)},
  "naive_bayes": "unusual events",
  "stide": "new sequences of events",
  "unseen": "unknown events",
  "length": "unusual length",
  "count_vector": "unusual counts of events",
  "union": "unknown events, unusual length or counts",
  SHORT: "few events",
  EVENT: "a flagged event",
}


class Decision(NamedTuple):
  """Flags of D distinct sessions and their N events, and what explains them.

  Attributes:
    scores: name -> -log p of the sessions [D], as `neg_log_p`.
    combined_KD: the combined score of the sessions by each model [K, D].
    p: p-values of the sessions [D]; NaN for short sessions.
    flags: whether a session is flagged [D].
    event_p: p-values of the events [N].
    event_flags: whether an event is flagged [N].
    flagged_events: number of flagged events [D].
    unknown_events: number of unknown events [D].
    models: number of models that give a session a higher combined score than
      all their normal sessions [D].
    severity: an index of `NAMES` for each session [D].
    reasons: a key of `WORDS` for each session: of the combined scores, the one
      with the smallest p-value; "": it is not flagged.
  """

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


def decide(
  scored: SessionScores, normal: NormalScores, settings: Config
) -> Decision:
  """Compares sessions and events with normal ones, and flags some of them.

  The rule is applied to the sessions that are not flagged for their length, as
  if there were no other sessions.

  Args:
    scored: the sessions' scores by each model; of its events those by each
      model, their ranks and their bounds.
    normal: scores of normal sessions.
    settings: of `config.detect`.
  """
  short, raw = scored.short, normal.combined(scored.scores)
  scores = {COMBINED: raw, **scored.scores}
  scores = {
    name: normal.scores[name].neg_log_p(x) for name, x in scores.items()
  }
  scores[COMBINED][short] = np.inf
  p = normal.scores[COMBINED].p_values(raw)
  event_p = normal.events.p_values(map(round_scores, scored.member_nll))
  event_flags = flag_events(event_p, scored.rank, settings)
  sizes = np.diff(scored.bounds)
  session_N = np.repeat(np.arange(len(sizes)), sizes)
  count = lambda values_N: np.bincount(
    session_N, values_N, minlength=len(sizes)
  ).astype(int)
  flagged, unknown = count(event_flags), count(scored.rank == UNRANKED)
  match settings.rule:
    case "rate":
      flags = is_flagged(p, settings.rate)
    case "budget":
      flags = np.zeros(len(p), bool)
      order = np.argsort(-scores[COMBINED], kind="stable")
      flags[order[~short[order]][: settings.budget]] = True
    case "bh":
      tested = np.repeat(p[~short], scored.counts[~short])
      rejected = tested[benjamini_hochberg(tested, settings.rate)]
      flags = p <= rejected.max(initial=0)
    case _:  # events, topk
      flags = flagged > 0
  flags = flags | short
  models = np.where(short, 0, normal.scores[COMBINED].beyond(raw))
  p = np.where(short, np.nan, p)
  groups = sum(group.n > 0 for group in normal.scores[COMBINED].groups)
  signs = (
    (is_flagged(2 * p, settings.rate) & (2 * models >= groups)).astype(int)
    + (unknown > 0)
    + ((flagged > 0) & (4 * flagged >= scored.lengths))
  )
  signs[short] = 0
  names, _ = normal.choice.combination
  reasons = np.array(names)[np.argmax([scores[n] for n in names], axis=0)]
  if settings.rule in ("events", "topk"):
    reasons = np.full(len(p), EVENT)
  reasons = np.where(short, SHORT, reasons)
  return Decision(
    scores,
    raw,
    p,
    flags,
    event_p,
    event_flags,
    flagged,
    unknown,
    models,
    np.where(flags, np.minimum(1 + signs, 3), 0),
    np.where(flags, reasons, "").tolist(),
  )


def flag_events(p: Any, rank: Any, settings: Config) -> Any:
  """Whether events, or one event, are flagged.

  Args:
    p: p-values [N].
    rank: 1 plus the number of likelier events; UNRANKED for unknown events [N].
    settings: of `config.detect`.
  """
  flags = is_flagged(p, event_rate(settings))
  if settings.rule == "topk":
    flags = rank > settings.top_k
  return flags | (rank == UNRANKED)


def find_anomalies(
  detector: Detector, normal: NormalScores, sessions: Sessions
) -> Findings:
  """Scores sessions and flags the anomalous ones."""
  settings, distinct = detector.config.detect, sessions.distinct()
  scored = detector.score(sessions.take(distinct.first), distinct.counts)
  return Findings(
    sessions=findings.masked_sessions(sessions, settings.redact),
    distinct=distinct,
    names=detector.names,
    nll=scored.nll,
    rank=scored.rank,
    targets=scored.targets,
    bounds=scored.bounds,
    offsets=scored.offsets,
    short=scored.short,
    seconds=scored.seconds,
    **decide(scored, normal, settings)._asdict(),
  )
