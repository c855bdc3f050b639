"""Metrics of a detection against labels, and its pictures."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs import anomalies
from seqrnn.data.logs import sessions as data
from seqrnn.logs.detect import conformal
from seqrnn.logs.detect.calibration import NormalScores
from seqrnn.logs.detect.conformal import CrossCalibration
from seqrnn.logs.detect.findings import Findings
from seqrnn.logs.detect.scores import COMBINED
from seqrnn.logs.detect.selection import ANOMALOUS, NORMAL
from seqrnn.runtime import figures

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_EVENTS = 2000  # Of a timeline.
_WORST = 5  # Most anomalous sessions, which each timeline has.
_FAR = 4  # The axis of scores ends at so many times the highest normal score.


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


def curve(counts: Tally) -> tuple[np.ndarray, np.ndarray]:
  """For each score, the anomalous and the normal items of at least this score.

  The distinct scores fall; their counts give ROC and precision-recall curves.
  """
  last = np.append(counts.scores[1:] != counts.scores[:-1], True)
  return np.cumsum(counts.anomalous)[last], np.cumsum(counts.normal)[last]


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
  true, false = curve(counts)
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
  """The quotient; 0 where both are 0."""
  with np.errstate(invalid="ignore"):
    return np.nan_to_num(numerator / denominator)


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
  drawn = (rng.multinomial(total, both / total) for _ in range(draws))
  resampled = [
    metrics(counts._replace(anomalous=anomalous, normal=normal))
    for anomalous, normal in (np.split(both.astype(float), 2) for both in drawn)
  ]
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


def calibration_record(
  normal: NormalScores, settings: Config
) -> dict[str, Any]:
  """The sessions left out, the chosen scores, and the rates in report.json."""
  selection, choice = normal.selection, normal.choice
  sessions, events = normal.scores[COMBINED], normal.events

  def threshold(scores: CrossCalibration, rate: float) -> dict[str, Any]:
    n, resolution = scores.n, scores.resolution
    return {"rate": rate, "calibration": n, "resolution": resolution}

  interval = conformal.beta_interval(settings.rate, sessions.n)
  return {
    "calibration": {
      "left_out": selection.left_out,
      "answered_normal": selection.answered(NORMAL),
      "answered_anomalous": selection.answered(ANOMALOUS),
      "log_p_of_one_mode": selection.log_p,
      "scores": {
        "names": choice.combination.names,
        "combine": choice.combination.how,
        "average_precision_on_injected": choice.precision,
        "standard": choice.standard,
      },
    },
    "thresholds": {
      "sessions": threshold(sessions, settings.rate) | {"rate_95": interval},
      "events": threshold(events, conformal.event_rate(settings)),
    },
  }


def summary(findings: Findings) -> dict[str, int]:
  """Numbers of the examined sessions and events."""
  distinct, scored = findings.distinct, findings.scored
  return {
    "sessions": len(distinct.which),
    "distinct_sessions": len(distinct.first),
    "events_scored": int(np.diff(scored.bounds) @ distinct.counts),
    "distinct_events_scored": len(scored.nll),
    "flagged_for_their_length": int(scored.short[distinct.which].sum()),
  }


def metrics_by_score(
  findings: Findings, normal: NormalScores, settings: Config
) -> dict[str, dict[str, Any]]:
  """Metrics of each score at `detect.rate`, and of another `detect.rule`.

  They are computed from the labelled sessions, and only if both labels occur;
  over all sessions, and over `distinct` ones.
  """
  decision, which = findings.decision, findings.distinct.which
  labels, which_L = _labelled(findings)
  _, first = np.unique(2 * which_L + labels, return_index=True)

  def row(scores: np.ndarray, flags: np.ndarray) -> dict[str, Any]:
    flagged = {"flagged": int(flags[which].sum())}
    if not 0 < labels.sum() < len(labels):
      return flagged
    scores, flags = scores[which_L], flags[which_L]
    counts, rng = tally(scores, flags, labels), np.random.default_rng(0)
    return {
      **flagged,
      **metrics(counts),
      "intervals": intervals(counts, settings.bootstrap, rng),
      "distinct": metrics(tally(scores[first], flags[first], labels[first])),
    }

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
  some = findings.sessions.with_label()
  labels = findings.sessions.labels
  known = np.zeros(0, bool) if labels is None else labels[some]
  return known, findings.distinct.which[some]


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
    for kind in (kind for kind in anomalies.KINDS if kind in kinds):
      some = (kinds == kind) | (kinds == "")
      anomalous = kinds[some] != ""
      scores_L = scores[findings.distinct.which][some]
      counts = tally(scores_L, np.zeros(len(scores_L), bool), anomalous)
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
  scored = findings.scored
  starts, stops = scored.bounds[which], scored.bounds[which + 1]
  index, _ = data.ranges(starts, stops)
  offsets = np.array([scored.offset(d) for d in range(len(scored.short))])
  first = sessions.bounds[:-1] + offsets[which]
  place, _ = data.ranges(first, first + stops - starts)
  # The end symbol is not an event of a file, so it has no label.
  known = place < np.repeat(sessions.bounds[1:], stops - starts)
  if sessions.lines_labelled is not None:
    known[known] = sessions.lines_labelled[place[known]]
  index, labels = index[known], labels[place[known]]
  if labels.all() or not labels.any():
    return None
  flags = findings.decision.event_flags
  return metrics(tally(scored.nll[index], flags[index], labels))


def draw(findings: Findings, normal: NormalScores, rate: float, folder: Path):
  """Draws the findings; curves, of the combined scores, only with both labels.

  Args:
    findings: of the detection.
    normal: scores of normal sessions.
    rate: as `detect.rate`.
    folder: of the pictures.
  """
  if not len(findings.scored.nll):
    return
  pictures = {
    "timeline": _timeline(findings),
    "scores": _scores(findings, normal.leave_one_out, -math.log(rate)),
  }
  labels, which = _labelled(findings)
  if 0 < labels.sum() < len(labels):
    names = (COMBINED, *normal.choice.combination.names)
    curves = {name: findings.decision.scores[name][which] for name in names}
    pictures["curves"] = _curves(labels, curves)
  for name, figure in pictures.items():
    figures.save(figure, folder / f"{name}.png")


def _timeline(findings: Findings) -> "Figure":
  """Surprisal of event after event, on a logarithmic axis.

  Of many sessions it has an even selection, and the most anomalous ones.
  """
  which, scored = findings.distinct.which, findings.scored
  ends = np.cumsum(np.diff(scored.bounds)[which])
  count = min(len(which), _EVENTS * len(which) // ends[-1] + 1)
  chosen = np.linspace(0, len(which) - 1, count).astype(int)
  worst = findings.distinct.first[findings.most_anomalous()[:_WORST]]
  chosen = np.union1d(chosen, worst)
  shown = which[chosen]
  places, bounds = data.ranges(scored.bounds[shown], scored.bounds[shown + 1])
  bits = scored.nll[places] / math.log(2)
  flagged = np.repeat(findings.decision.flags[shown], np.diff(bounds))
  events = findings.decision.event_flags[places]
  figure = figures.create(12, 4)
  axes, labels = figure.add_subplot(), findings.sessions.labels
  if labels is not None:
    for j in np.flatnonzero(labels[chosen]).tolist():
      axes.axvspan(*bounds[j : j + 2], color="C3", alpha=0.15, linewidth=0)
  for some, marker, colour, name in (
    (~flagged & ~events, ".", "C0", "event"),
    (flagged & ~events, ".", "C1", "event of a flagged session"),
    (events, "x", "C3", "flagged event"),
  ):
    style = {"marker": marker, "ls": "", "color": colour, "ms": 4}
    if some.any():
      axes.plot(np.flatnonzero(some), bits[some], label=name, **style)
  axes.set_yscale("log")
  axes.yaxis.set_major_formatter("{x:g}")
  axes.margins(x=0.005)
  figures.grid(axes, "y")
  # Above the axes, where it covers no event.
  axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
  red = "; red: labelled" if labels is not None else ""
  axes.set_xlabel(f"event, of {len(chosen):,} sessions{red}")
  axes.set_ylabel("surprisal, bits")
  return figure


def _scores(
  findings: Findings, calibration: conformal.Calibration, threshold: float
) -> "Figure":
  """The share of sessions with a higher combined score, over the score."""
  combined = findings.decision.scores[COMBINED]
  groups = {"sessions": ("C0", combined[findings.distinct.which])}
  if findings.sessions.labels is not None:
    labels, which = _labelled(findings)
    groups = {
      "normal": ("C0", combined[which[~labels]]),
      "labelled anomalous": ("C3", combined[which[labels]]),
    }
  figure = figures.create(12, 4)
  axes = figure.add_subplot()
  # Without a limit, an unknown event could stretch the axis over all others.
  near = np.append(calibration.scores, threshold)
  end = _FAR * near[np.isfinite(near)].max(initial=1e-9)
  curves = [("calibration", "black", calibration)]
  curves += [
    (name, colour, conformal.Calibration(scores))
    for name, (colour, scores) in groups.items()
    if len(scores)
  ]
  for name, colour, group in curves:
    xs = np.append(0, np.minimum(group.scores, end))
    shares = np.append(1, group.above[1:] / group.n)
    axes.step(xs, shares, where="post", color=colour, label=name)
  axes.axvline(threshold, color="C2", label="threshold")
  # The axis begins a little below the share of one session.
  least = 0.5 / max(group.n for *_, group in curves)
  axes.set(xlim=(0, end * 1.01), ylim=(least, 1.5), yscale="log")
  axes.set(
    xlabel="combined score, or more at the right end",
    ylabel="share of sessions with a higher score",
  )
  figures.grid(axes)
  axes.legend()
  return figure


def _curves(labels: np.ndarray, curves: dict[str, np.ndarray]) -> "Figure":
  """The ROC curve, on a logarithmic axis, and precision by recall.

  Args:
    labels: of sessions.
    curves: name -> score of these sessions.
  """
  figure = figures.create(12, 5)
  roc, precision = figure.subplots(1, 2)
  lowest = 1 / (2 * (~labels).sum())
  for number, (name, scores) in enumerate(curves.items()):
    true, false = curve(tally(scores, np.zeros(len(scores), bool), labels))
    right = true / (true + false)
    width = 1.0 if number else 2.2
    style = {"label": name, "lw": width, "color": f"C{number}"}
    recall = np.append(0, true / true[-1])
    alarms = np.append(lowest, np.maximum(false / false[-1], lowest))
    roc.step(alarms, recall, where="post", zorder=-number, **style)
    # As average precision counts it.
    precisions = np.append(right[0], right)
    precision.step(recall, precisions, where="pre", zorder=-number, **style)
  roc.set(xlabel="false-alarm rate", xlim=(lowest, 1), xscale="log")
  roc.set_ylabel("recall")
  precision.set(xlabel="recall", xlim=(-0.02, 1.02), ylabel="precision")
  for axes in (roc, precision):
    axes.set_ylim(-0.02, 1.02)
    figures.grid(axes)
  figure.legend(*roc.get_legend_handles_labels(), loc="outside right upper")
  return figure
