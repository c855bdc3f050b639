"""Metrics of a detection against labels."""

from typing import Any

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs import anomalies
from seqrnn.data.logs import sessions as data
from seqrnn.logs.detect import conformal
from seqrnn.logs.detect.calibration import NormalScores
from seqrnn.logs.detect.findings import SEVERITIES, Findings
from seqrnn.logs.detect.scores import COMBINED
from seqrnn.logs.detect.selection import ANOMALOUS, NORMAL


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


def evaluate(
  findings: Findings,
  normal: NormalScores,
  kinds: np.ndarray | None,
  settings: Config,
) -> dict[str, Any]:
  """The metrics in report.json.

  Args:
    findings: by the detection.
    normal: scores of normal sessions.
    kinds: kind of anomaly injected into each session; None if none is.
    settings: of `config.detect`.
  """
  by_kind = None if kinds is None else precision_by_kind(findings, kinds)
  return {
    "figures": metrics_by_score(findings, normal, settings),
    "average_precision_by_kind": by_kind,
  }


def calibration_record(
  normal: NormalScores, settings: Config
) -> dict[str, Any]:
  """The sessions left out, the scores, and the rates in report.json."""
  selection = normal.selection
  return {
    "calibration": {
      "left_out": selection.left_out,
      "answered_normal": selection.answered(NORMAL),
      "answered_anomalous": selection.answered(ANOMALOUS),
      "scores": normal.names,
    },
    "thresholds": {
      "sessions": {
        "rate": settings.rate,
        "calibration": normal.scores[COMBINED].n,
      },
      "events": {
        "rate": conformal.event_rate(settings),
        "calibration": normal.events.n,
      },
    },
  }


def summary(findings: Findings) -> dict[str, Any]:
  """Numbers of the examined sessions and events."""
  distinct, scored = findings.distinct, findings.scored
  severity_S = findings.decision.severity[distinct.which]
  return {
    "sessions": len(distinct.which),
    "distinct_sessions": len(distinct.first),
    "events_scored": int(np.diff(scored.bounds) @ distinct.counts),
    "distinct_events_scored": len(scored.nll),
    "flagged_for_their_length": int(scored.short[distinct.which].sum()),
    "flagged": {
      name: int((severity_S == n).sum())
      for n, name in enumerate(SEVERITIES)
      if name
    },
  }


def metrics_by_score(
  findings: Findings, normal: NormalScores, settings: Config
) -> dict[str, dict[str, Any]]:
  """Metrics of each score at `detect.rate`, and of another `detect.rule`.

  They are computed from the labelled sessions, and only if both labels occur.
  """
  decision, which = findings.decision, findings.distinct.which
  labels, which_L = _labelled(findings)

  def row(scores: np.ndarray, flags: np.ndarray) -> dict[str, Any]:
    flagged = {"flagged": int(flags[which].sum())}
    if not 0 < labels.sum() < len(labels):
      return flagged
    return flagged | metrics(scores[which_L], flags[which_L], labels)

  table = {}
  if settings.rule != "rate":
    name = f"rule {settings.rule}"
    table[name] = row(decision.scores[COMBINED], decision.flags)
  for name, scores in decision.scores.items():
    # The score is -log p, beyond the resolution of the p-values if it is the
    # highest; of sessions that are flagged for their length it is infinity.
    p = np.maximum(np.exp(-scores), normal.scores[name].resolution)
    flags = conformal.is_flagged(p, settings.rate) | np.isposinf(scores)
    table[name] = row(scores, flags)
  return table


def _labelled(findings: Findings) -> tuple[np.ndarray, np.ndarray]:
  """The labels that are known, and the distinct session of each."""
  kinds, which = findings.sessions.kinds, findings.distinct.which
  if kinds is None:
    return np.zeros(0, bool), which[:0]
  known = kinds != data.UNLABELLED
  return kinds[known] == 1, which[known]


def precision_by_kind(
  findings: Findings, kinds: np.ndarray
) -> dict[str, dict[str, float]]:
  """Average precision of each score for each kind of injected anomaly.

  The sessions of one kind are compared with the normal sessions alone.
  """
  table = {}
  for name, scores in findings.decision.scores.items():
    table[name] = {}
    # With few sessions, some kinds may not occur.
    for kind in (kind for kind in anomalies.CHANGES if kind in kinds):
      some = (kinds == kind) | (kinds == "")
      anomalous = kinds[some] != ""
      scores_L = scores[findings.distinct.which][some]
      row = metrics(scores_L, np.zeros(len(scores_L), bool), anomalous)
      table[name][kind] = row["average_precision"]
  return table
