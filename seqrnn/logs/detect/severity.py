"""Severity and reason of alarms, from what is known without labels.

A session has up to three signs, with these columns in sessions.csv:

- `p_value` is at most half of `detect.rate`, and at least half of the models
  give the session a higher score than all their normal sessions (`models`); the
  other models may have anomalous sessions among these;
- it has an unknown event (`unknown_events`);
- at least a quarter of its `events` are flagged (`flagged_events`).

An alarm without a sign is low, with one sign medium, with more high. An alarm
for a session's length alone (`detect.short`) is low.
"""

import numpy as np

from seqrnn.config.read import Config
from seqrnn.logs.detect.calibration import COMBINED, NormalScores
from seqrnn.logs.detect.conformal import is_flagged
from seqrnn.logs.detect.detector import SessionScores
from seqrnn.logs.detect.findings import Alarms, Verdicts
from seqrnn.scoring.scoring import UNRANKED

NAMES = ("", "low", "medium", "high")  # By severity; 0: no alarm.
SHORT, EVENT = "short", "event"  # Reasons that are no scores.
_HALF, _QUARTER = 2, 4

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


def explain(
  scored: SessionScores,
  verdicts: Verdicts,
  lengths: np.ndarray,
  normal: NormalScores,
  settings: Config,
) -> Alarms:
  """The reasons and the severity of the alarms.

  Args:
    scored: the sessions' scores.
    verdicts: their p-values and flags.
    lengths: their numbers of events, without end symbols [D].
    normal: scores of normal sessions.
    settings: of `config.detect`.
  """
  sizes = np.diff(scored.bounds)
  session_N = np.repeat(np.arange(len(sizes)), sizes)
  count = lambda values_N: np.bincount(
    session_N, values_N, minlength=len(sizes)
  ).astype(int)
  flagged = count(verdicts.event_flags)
  unknown = count(scored.rank == UNRANKED)
  combined = normal.scores[COMBINED]
  models = combined.beyond(normal.combined(scored.scores))
  far = is_flagged(_HALF * verdicts.p, settings.rate)
  agree = _HALF * models >= sum(group.n > 0 for group in combined.groups)
  much = (flagged > 0) & (_QUARTER * flagged >= lengths)
  signs = (far & agree).astype(int) + (unknown > 0) + much
  signs[scored.short] = 0
  return Alarms(
    flagged,
    unknown,
    np.where(scored.short, 0, models),
    _reasons(scored.short, verdicts, normal, settings),
    np.where(verdicts.flags, np.minimum(1 + signs, 3), 0),
  )


def _reasons(
  short: np.ndarray, verdicts: Verdicts, normal: NormalScores, settings: Config
) -> list[str]:
  """The score of the combination with the smallest p-value, if it decides."""
  names, _ = normal.choice.combination
  least = np.argmax([verdicts.scores[name] for name in names], axis=0)
  by_event = settings.rule in ("events", "topk")
  return [
    "" if not flag else SHORT if alone else EVENT if by_event else names[n]
    for flag, alone, n in zip(
      verdicts.flags.tolist(), short.tolist(), least.tolist(), strict=True
    )
  ]
