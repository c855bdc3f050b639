"""Metrics of a detection against labels: the content of report.json."""

import zlib
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs import anomalies
from seqrnn.data.logs import sessions as data
from seqrnn.logs.detect.calibration import COMBINED, NormalScores
from seqrnn.logs.detect.conformal import is_flagged
from seqrnn.logs.detect.findings import Findings


class Tally(NamedTuple):
  """Counts of labelled items for each distinct pair of a score and a flag.

  The pairs are sorted by falling score.

  Attributes:
    scores: of each pair.
    flags: whether the items are flagged.
    anomalous: float64, number of items labelled anomalous.
    normal: float64, number of items labelled normal.
  """

  scores: np.ndarray
  flags: np.ndarray
  anomalous: np.ndarray
  normal: np.ndarray


def tally(scores: np.ndarray, flags: np.ndarray, labels: np.ndarray) -> Tally:
  """Counts items, each with a score, a flag and a label (True: anomalous)."""
  distinct, place = np.unique(-scores, return_inverse=True)
  pair = 2 * place + flags
  anomalous = np.bincount(pair, labels, minlength=2 * len(distinct))
  normal = np.bincount(pair, ~labels, minlength=2 * len(distinct))
  pairs = np.flatnonzero(anomalous + normal)
  return Tally(
    -distinct[pairs // 2], pairs % 2 == 1, anomalous[pairs], normal[pairs]
  )


class Curve(NamedTuple):
  """Counts of flagged items for each possible threshold.

  Attributes:
    scores: the distinct scores, in falling order.
    true: number of anomalous items with at least this score.
    false: number of normal items with at least this score.
  """

  scores: np.ndarray
  true: np.ndarray
  false: np.ndarray


def curve(counts: Tally) -> Curve:
  """The cumulative counts for ROC and precision-recall curves."""
  last = np.append(counts.scores[1:] != counts.scores[:-1], True)
  return Curve(
    counts.scores[last],
    np.cumsum(counts.anomalous)[last],
    np.cumsum(counts.normal)[last],
  )


def metrics(counts: Tally) -> dict[str, float]:
  """Metrics of the flags, and of the scores over all thresholds.

  `oracle_f1` is the best F1 of any threshold; only labels can choose it.
  scikit-learn has most of these metrics but is not a base dependency. Counts
  instead of single items make the bootstrap fast.
  """
  flags = counts.flags
  tp, fp = counts.anomalous[flags].sum(), counts.normal[flags].sum()
  fn, tn = counts.anomalous[~flags].sum(), counts.normal[~flags].sum()
  root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
  _, true, false = curve(counts)
  anomalous, normal = tp + fn, tn + fp
  recall, fallout = _ratio(true, anomalous), _ratio(false, normal)
  precision = _ratio(true, true + false)

  def recall_at(rate: float) -> float:
    return float(recall[fallout <= rate].max(initial=0.0))

  values = {
    "precision": _ratio(tp, tp + fp),
    "recall": _ratio(tp, anomalous),
    "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    "mcc": _ratio(tp * tn - fp * fn, root),
    "false_alarm_rate": _ratio(fp, normal),
    "auroc": np.trapezoid(np.append(0, recall), np.append(0, fallout)),
    "average_precision": np.sum(np.diff(recall, prepend=0) * precision),
    "recall_at_0.01": recall_at(0.01),
    "recall_at_0.05": recall_at(0.05),
    "oracle_f1": _ratio(2 * true, anomalous + true + false).max(),
  }
  return {name: float(value) for name, value in values.items()}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """The quotient; 0 where the denominator is 0."""
  return np.divide(
    numerator,
    denominator,
    out=np.zeros(np.shape(numerator + denominator)),
    where=denominator != 0,
  )


def intervals(
  counts: Tally, draws: int, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
  """95% bootstrap intervals of the metrics (Efron 1979).

  Args:
    counts: of all items.
    draws: number of resampled data sets.
    rng: source of randomness.
  """
  both = np.concatenate([counts.anomalous, counts.normal])
  total = int(both.sum())
  resampled = []
  for _ in range(draws):
    drawn = rng.multinomial(total, both / total).astype(np.float64)
    anomalous, normal = np.split(drawn, 2)
    resampled.append(
      metrics(counts._replace(anomalous=anomalous, normal=normal))
    )
  return {
    name: tuple(
      np.quantile([m[name] for m in resampled], [0.025, 0.975]).tolist()
    )
    for name in (resampled[0] if resampled else ())
  }


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
  labels = findings.sessions.line_labels
  return {
    "figures": metrics_by_score(findings, normal, settings),
    "average_precision_by_kind": by_kind,
    "events": None if labels is None else event_metrics(findings, labels),
  }


def summary(findings: Findings) -> dict[str, int]:
  """Numbers of the examined sessions and events, and their checksum."""
  sessions, distinct = findings.sessions, findings.distinct
  return {
    "sessions": len(distinct.which),
    "distinct_sessions": len(findings.p),
    "events_scored": int(np.diff(findings.bounds) @ distinct.counts),
    "distinct_events_scored": len(findings.nll),
    "flagged_for_their_length": int(findings.short[distinct.which].sum()),
    "crc32": zlib.crc32(
      sessions.bounds.tobytes(), zlib.crc32(sessions.ids.tobytes())
    ),
  }


def metrics_by_score(
  findings: Findings, normal: NormalScores, settings: Config
) -> dict[str, dict[str, Any]]:
  """Metrics of each score at `detect.rate`, and of another `detect.rule`.

  They are computed from the labelled sessions, and only if both labels occur.
  """
  which, labels = findings.distinct.which, findings.sessions.labels
  labelled = findings.sessions.with_label()

  def row(scores: np.ndarray, flags: np.ndarray) -> dict[str, Any]:
    metrics = {}
    if labels is not None and 0 < labels[labelled].sum() < len(labelled):
      metrics = _session_metrics(
        scores, flags, labels[labelled], which[labelled], settings
      )
    return {"flagged": int(flags[which].sum()), **metrics}

  table = {}
  if settings.rule != "rate":
    table[f"rule {settings.rule}"] = row(
      findings.scores[COMBINED], findings.flags
    )
  for name, scores in findings.scores.items():
    # The score is -log p, beyond the resolution of the p-values if it is the
    # highest; of sessions that are flagged for their length it is infinity.
    p = np.maximum(np.exp(-scores), normal.scores[name].resolution)
    flags = is_flagged(p, settings.rate) | np.isposinf(scores)
    table[name] = row(scores, flags)
  return table


def _session_metrics(
  scores: np.ndarray,
  flags: np.ndarray,
  labels: np.ndarray,
  which: np.ndarray,
  settings: Config,
) -> dict[str, Any]:
  """Metrics over all sessions, and over distinct sessions.

  Args:
    scores: of the distinct sessions [D].
    flags: of the distinct sessions [D].
    labels: of the sessions.
    which: index of the distinct session that each session equals.
    settings: of `config.detect`.
  """
  counts = tally(scores[which], flags[which], labels)
  _, first = np.unique(2 * which + labels, return_index=True)
  once = which[first]
  rng = np.random.default_rng(0)
  return {
    **metrics(counts),
    "intervals": intervals(counts, settings.bootstrap, rng),
    "distinct": metrics(tally(scores[once], flags[once], labels[first])),
  }


def precision_by_kind(
  findings: Findings, kinds: np.ndarray
) -> dict[str, dict[str, float]]:
  """Average precision of each score for each kind of injected anomaly.

  The sessions of one kind are compared with the normal sessions alone.
  """
  which = findings.distinct.which
  table = {}
  for name, scores in findings.scores.items():
    table[name] = {}
    # With few sessions, some kinds may not occur.
    for kind in (kind for kind in anomalies.KINDS if kind in kinds):
      some = (kinds == kind) | (kinds == "")
      anomalous = kinds[some] != ""
      flags = np.zeros(len(anomalous), bool)
      counts = tally(scores[which][some], flags, anomalous)
      table[name][kind] = metrics(counts)["average_precision"]
  return table


def event_metrics(
  findings: Findings, labels: np.ndarray
) -> dict[str, float] | None:
  """Metrics of surprisal for events; None unless both labels occur.

  Args:
    findings: by the detection.
    labels: of all events [events of the sessions].
  """
  which, sessions = findings.distinct.which, findings.sessions
  starts, stops = findings.bounds[which], findings.bounds[which + 1]
  index, _ = data.ranges(starts, stops)
  first = sessions.bounds[:-1] + findings.offsets[which]
  place, _ = data.ranges(first, first + stops - starts)
  # The end symbol is not an event of a file, so it has no label.
  known = place < np.repeat(sessions.bounds[1:], stops - starts)
  if sessions.lines_labelled is not None:
    known[known] = sessions.lines_labelled[place[known]]
  index, labels = index[known], labels[place[known]]
  if labels.all() or not labels.any():
    return None
  counts = tally(findings.nll[index], findings.event_flags[index], labels)
  return metrics(counts)
