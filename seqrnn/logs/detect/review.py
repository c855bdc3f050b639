"""Review: the most anomalous calibration sessions, for a person to judge."""

from typing import Any

import numpy as np

from seqrnn.data.logs.sessions import Distinct, Sessions
from seqrnn.logs.detect import incidents, redaction, tables
from seqrnn.logs.detect.calibration import COMBINED, NormalScores
from seqrnn.logs.detect.conformal import combine, event_rate, is_flagged
from seqrnn.logs.detect.detector import Detector, round_scores
from seqrnn.logs.detect.findings import Findings
from seqrnn.logs.detect.selection import ANOMALOUS, NORMAL, UNANSWERED


def _scores_of_rows(
  normal: NormalScores, arrays: dict[str, np.ndarray], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """-log p, extrapolated, and p of each row of calibration.npz, [R] each.

  A session is compared with those that calibrate its model: if it is one of
  them, as one of them; if not, as a new session. Further sessions, which
  calibrate, have no row.

  Args:
    normal: the calibration.
    arrays: of calibration.npz.
    name: of the score, or COMBINED.
  """
  names, how = normal.choice.combination
  rows = len(arrays["model"])
  neg_log_p, p = np.zeros((2, rows))
  for k, group in enumerate(normal.scores[name].groups):
    for own in (True, False):
      some = (arrays["model"] == k) & (normal.calibrates[:rows] == own)
      if name == COMBINED:
        groups = {n: normal.scores[n].groups[k] for n in names}
        each = [
          g.neg_log_p(arrays[f"score {n}"][some], own)
          for n, g in groups.items()
        ]
        scores = combine(each, how)
      else:
        scores = arrays[f"score {name}"][some]
      neg_log_p[some] = group.neg_log_p(scores, own)
      p[some] = (group.own_p_values if own else group.p_values)(scores)
  return neg_log_p, p


def rank(
  normal: NormalScores,
  arrays: dict[str, np.ndarray],
  sessions: Sessions,
  most: int,
) -> np.ndarray:
  """The rows of the most anomalous sessions without an answer, worst first.

  Equal sessions are one, in the row of the model for which it is most
  anomalous. Sessions are ranked by their highest surprisal: it depends on no
  choice of scores, which anomalies in the calibration can mislead.

  Args:
    normal: the calibration.
    arrays: of calibration.npz.
    sessions: of its rows.
    most: the number of sessions, at most.
  """
  neg_log_p, _ = _scores_of_rows(normal, arrays, "max")
  order = np.argsort(-neg_log_p, kind="stable")
  open_R = (normal.selection.answers == UNANSWERED) & (arrays["sizes"] > 0)
  order = order[open_R[order]]
  which = sessions.distinct().which[order]
  _, first = np.unique(which, return_index=True)
  return order[np.sort(first)[:most]]


def find(
  detector: Detector,
  normal: NormalScores,
  arrays: dict[str, np.ndarray],
  sessions: Sessions,
  rows: np.ndarray,
) -> Findings:
  """The sessions of some rows, each scored by the model of its row.

  Args:
    detector: of the run.
    normal: its calibration.
    arrays: of calibration.npz.
    sessions: of its rows.
    rows: of distinct sessions, at least one.
  """
  settings = detector.config.detect
  combined, p = _scores_of_rows(normal, arrays, COMBINED)
  which = sessions.distinct().which
  counts = np.bincount(which, arrays["counts"]).astype(np.int64)[which[rows]]
  once = sessions.take(rows)
  scored = detector.score(once, counts)
  model_N = np.repeat(arrays["model"][rows], np.diff(scored.bounds))
  nll = scored.member_nll[model_N, np.arange(len(model_N))]
  event_p = np.zeros(len(nll))
  for k, group in enumerate(normal.events.groups):
    event_p[model_N == k] = group.p_values(round_scores(nll[model_N == k]))
  every, none = np.arange(len(rows)), np.zeros(len(rows), int)
  return Findings(
    sessions=redaction.masked_sessions(once, settings.redact),
    distinct=Distinct(every, every, counts),
    names=detector.names,
    nll=nll,
    rank=scored.rank,
    targets=scored.targets,
    bounds=scored.bounds,
    offsets=scored.offsets,
    event_p=event_p,
    event_flags=is_flagged(event_p, event_rate(settings)),
    scores={COMBINED: combined[rows]},
    combined_KD=combined[None, rows],
    p=p[rows],
    flags=none > 0,  # Nothing suggests an answer.
    short=scored.short,
    flagged_events=none,
    unknown_events=none,
    models=none,
    severity=none,
    reasons=[""] * len(rows),
    seconds=scored.seconds,
  )


def questions(found: Findings) -> list[dict[str, Any]]:
  """A row of review.csv for each session, without an answer."""
  worst, places = found.worst_events().tolist(), tables.places_of(found)
  rows = []
  for d, place in enumerate(worst):
    event, before, after = incidents.context(found, d, d)
    rows.append(
      {
        "session": found.sessions.names[d],
        "equal_sessions": int(found.distinct.counts[d]),
        "p_value": float(f"{found.p[d]:.6g}"),
        **{name: value(d, place) for name, value in places.items()},
        "event": event,
        "context": " | ".join([*before, event, *after]),
        "answer": "",
      }
    )
  return rows


def changes(
  arrays: dict[str, np.ndarray],
  before: NormalScores,
  after: NormalScores,
  rate: float,
) -> list[str]:
  """Lines on what answers change in a calibration.

  Args:
    arrays: of calibration.npz.
    before: the calibration without answers.
    after: the calibration with answers.
    rate: as `detect.rate`.
  """
  new, old = after.selection, before.selection
  counts_R = arrays["counts"]
  answers_R = new.answers[: len(counts_R)]
  lines = [
    f"answers: {new.answered(NORMAL):,} sessions are normal and"
    f" {new.answered(ANOMALOUS):,} anomalous, equal sessions included",
    f"left out of the calibration: {new.answered(ANOMALOUS):,} of"
    f" {int(counts_R.sum()):,} sessions by their answers, {new.cleaned:,} by"
    f" cleaning; without answers {old.cleaned:,} by cleaning",
  ]
  flags = [
    is_flagged(_scores_of_rows(scores, arrays, COMBINED)[1], rate)
    for scores in (after, before)
  ]
  for answer, name in (
    (ANOMALOUS, "anomalous"),
    (NORMAL, "normal"),
    (UNANSWERED, "not answered"),
  ):
    counts = counts_R * (answers_R == answer)
    if not counts.any():
      continue
    now, then = (int(counts[flag].sum()) for flag in flags)
    lines.append(
      f"detect.rate={rate:g} flags {now:,} of {int(counts.sum()):,} calibration"
      f" sessions that are {name}; without answers {then:,}"
    )
  return lines
