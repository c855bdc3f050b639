"""Metrics of anomaly scores and flags against labels."""

from typing import NamedTuple

import numpy as np


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
    found: number of anomalous items with at least this score.
    false: number of normal items with at least this score.
  """

  scores: np.ndarray
  found: np.ndarray
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
  _, found, false = curve(counts)
  anomalous, normal = tp + fn, tn + fp
  recall, fallout = _ratio(found, anomalous), _ratio(false, normal)
  precision = _ratio(found, found + false)

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
    "oracle_f1": _ratio(2 * found, anomalous + found + false).max(),
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
