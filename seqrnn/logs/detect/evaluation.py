"""Metrics of a detection against labels."""

from typing import Any

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.anomalies import CHANGES
from seqrnn.data.logs.sessions import UNLABELLED
from seqrnn.logs.detect import conformal
from seqrnn.logs.detect.findings import SEVERITIES, Findings
from seqrnn.logs.detect.normal import ANOMALOUS, NORMAL, NormalScores
from seqrnn.logs.detect.scores import COMBINED


def metrics(
  scores: np.ndarray, flags: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
  """Metrics of the flags, and of the scores over all thresholds.

  `oracle_f1` is the best F1 of any threshold; only labels can choose it.
  scikit-learn has most of these metrics but is not a base dependency.

  Args:
    scores: of items.
    flags: whether each is flagged.
    labels: whether each is anomalous.
  """
  tp, fp = (flags & labels).sum(), (flags & ~labels).sum()
  anomalous, normal = labels.sum(), (~labels).sum()
  fn = anomalous - tp
  # At each distinct score, of the highest first: the items of at least it.
  _, place = np.unique(-scores, return_inverse=True)
  true, false = (np.cumsum(np.bincount(place, x)) for x in (labels, ~labels))
  recall, fallout = _ratio(true, anomalous), _ratio(false, normal)
  precision = _ratio(true, true + false)

  values = {
    "precision": _ratio(tp, tp + fp),
    "recall": _ratio(tp, anomalous),
    "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    "false_alarm_rate": _ratio(fp, normal),
    "auroc": np.trapezoid(np.append(0, recall), np.append(0, fallout)),
    "average_precision": np.sum(np.diff(recall, prepend=0) * precision),
    "oracle_f1": _ratio(2 * true, anomalous + true + false).max(),
  }
  return {name: float(value) for name, value in values.items()}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """The quotient; 0 where both are 0."""
  with np.errstate(invalid="ignore"):
    return np.nan_to_num(np.asarray(numerator) / denominator)


def report(
  findings: Findings,
  normal: NormalScores,
  injected: np.ndarray | None,
  settings: Config,
) -> dict[str, Any]:
  """The part of report.json on the calibration and on the findings.

  Args:
    findings: by the detection.
    normal: scores of normal sessions.
    injected: the anomaly injected into each session; None if none is.
    settings: of `config.detect`.
  """
  selection, by_anomaly = normal.selection, None
  if injected is not None:
    by_anomaly = precision_by_anomaly(findings, injected)
  return {
    "calibration": {
      "left_out": selection.left_out,
      "answered_normal": selection.answered(NORMAL),
      "answered_anomalous": selection.answered(ANOMALOUS),
      "scores": normal.names,
    },
    "thresholds": {
      name: {"rate": rate, "calibration": calibration.n}
      for name, rate, calibration in (
        ("sessions", settings.rate, normal.scores[COMBINED]),
        ("events", conformal.event_rate(settings), normal.events),
      )
    },
    "figures": metrics_by_score(findings, normal, settings),
    "average_precision_by_kind": by_anomaly,
  }


def summary(findings: Findings) -> dict[str, int | dict[str, int]]:
  """Numbers of the examined sessions and events."""
  distinct, scored = findings.distinct, findings.scored
  return {
    "sessions": len(distinct.which),
    "distinct_sessions": len(distinct.first),
    "events_scored": int(np.diff(scored.bounds) @ distinct.counts),
    "distinct_events_scored": len(scored.nll),
    "flagged_for_their_length": int(scored.short[distinct.which].sum()),
    "flagged": dict(
      zip(SEVERITIES[1:], findings.severity_counts[1:], strict=True)
    ),
  }


def metrics_by_score(
  findings: Findings, normal: NormalScores, settings: Config
) -> dict[str, dict[str, float]]:
  """Metrics of each score at `detect.rate`, and of another `detect.rule`.

  They are computed from the labelled sessions, and only if both labels occur.
  """
  decision, which = findings.decision, findings.distinct.which
  labels, which_L = _labelled(findings)

  def row(scores: np.ndarray, flags: np.ndarray) -> dict[str, float]:
    flagged: dict[str, float] = {"flagged": int(flags[which].sum())}
    if not 0 < labels.sum() < len(labels):
      return flagged
    return flagged | metrics(scores[which_L], flags[which_L], labels)

  table = {}
  if settings.rule != "rate":
    name = f"rule {settings.rule}"
    table[name] = row(decision.scores[COMBINED], decision.flags)
  for name, scores in decision.scores.items():
    # The score of a session that is flagged for its length is infinity.
    flags = normal.scores[name].flags(scores, settings.rate)
    table[name] = row(scores, flags | np.isposinf(scores))
  return table


def _labelled(findings: Findings) -> tuple[np.ndarray, np.ndarray]:
  """The labels that are known, and the distinct session of each."""
  labels, which = findings.sessions.labels, findings.distinct.which
  if labels is None:
    return np.zeros(0, bool), which[:0]
  known = labels != UNLABELLED
  return labels[known] == 1, which[known]


def precision_by_anomaly(
  findings: Findings, injected: np.ndarray
) -> dict[str, dict[str, float]]:
  """Average precision of each score for each injected anomaly.

  The sessions with one anomaly are compared with the normal sessions alone.
  """
  table: dict[str, dict[str, float]] = {}
  # With few sessions, some anomalies may not occur.
  names = [name for name in CHANGES if name in injected]
  for score, values in findings.decision.scores.items():
    table[score] = {}
    for name in names:
      some = (injected == name) | (injected == "")
      values_L = values[findings.distinct.which][some]
      none = np.zeros(len(values_L), bool)
      row = metrics(values_L, none, injected[some] != "")
      table[score][name] = row["average_precision"]
  return table
