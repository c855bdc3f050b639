"""Pictures of a detection: timeline, scores, ROC and PR curves."""

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullFormatter

from seqrnn.data.logs.sessions import ranges
from seqrnn.logs.detect import evaluation
from seqrnn.logs.detect.conformal import Calibration
from seqrnn.logs.detect.findings import Findings
from seqrnn.runtime import figures

_EVENTS = 2000  # Of a timeline.
_WORST = 5  # Most anomalous sessions, which each timeline has.
_FAR = 4  # The axis of scores ends at so many times the highest normal score.
_APART = 60  # Sessions of a timeline, at most, that are separated by lines.
_LABELS = {False: ("normal", "C0"), True: ("labelled anomalous", "C3")}


def draw(
  findings: Findings,
  calibration: Calibration,
  threshold: float,
  curves: dict[str, np.ndarray],
  folder: Path,
):
  """Draws the pictures; the curves only where both labels are known.

  Args:
    findings: of all sessions, at least one of which has events.
    calibration: the combined score of normal sessions.
    threshold: of that score.
    curves: name -> score [D], for the ROC and PR curves.
    folder: of the pictures.
  """
  pictures = {
    "timeline": _timeline(findings),
    "scores": _scores(findings, calibration, threshold),
  }
  labels, some = findings.sessions.labels, findings.sessions.with_label()
  if labels is not None and 0 < labels[some].sum() < len(some):
    pictures["curves"] = _curves(
      findings.distinct.which[some], labels[some], curves
    )
  for name, figure in pictures.items():
    figures.save(figure, folder / f"{name}.png")


def _timeline(findings: Findings) -> Figure:
  """Surprisal of event after event, on a linear and a logarithmic axis.

  Of many sessions it has an even selection, and the most anomalous ones.
  """
  which = findings.distinct.which
  ends = np.cumsum(np.diff(findings.bounds)[which])
  count = min(len(which), _EVENTS * len(which) // ends[-1] + 1)
  chosen = np.linspace(0, len(which) - 1, count).astype(int)
  worst = findings.distinct.first[findings.most_anomalous()[:_WORST]]
  chosen = np.union1d(chosen, worst)
  shown = which[chosen]
  places, bounds = ranges(findings.bounds[shown], findings.bounds[shown + 1])
  bits = findings.nll[places] / math.log(2)
  flagged = np.repeat(findings.flags[shown], np.diff(bounds))
  events = findings.event_flags[places]
  figure = figures.create(12, 6)
  for place, scale in enumerate(("linear", "log"), 1):
    axes = figure.add_subplot(2, 1, place)
    labels = findings.sessions.labels
    if labels is not None:
      for j in np.flatnonzero(labels[chosen]).tolist():
        axes.axvspan(*bounds[j : j + 2], color="C3", alpha=0.15, linewidth=0)
    for some, marker, colour, name in (
      (~flagged & ~events, ".", "C0", "event"),
      (flagged & ~events, ".", "C1", "event of a flagged session"),
      (events, "x", "C3", "flagged event"),
    ):
      if some.any():
        axes.plot(
          np.flatnonzero(some),
          bits[some],
          marker,
          color=colour,
          ms=4,
          label=name,
        )
    if len(chosen) <= _APART:
      for edge in bounds[1:-1]:
        axes.axvline(edge - 0.5, color="0.7", lw=0.6, zorder=0)
    axes.set_yscale(scale)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter())  # Ticks within a decade.
    axes.set_ylabel("surprisal, bits")
    axes.margins(x=0.005)
    figures.grid(axes, "y")
  # Above the axes, where it covers no event.
  figure.axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
  red = "; red: labelled" if findings.sessions.labels is not None else ""
  figure.axes[-1].set_xlabel(f"event, of {len(chosen):,} sessions{red}")
  return figure


def _scores(
  findings: Findings, calibration: Calibration, threshold: float
) -> Figure:
  """A histogram of the combined score, and the share of higher scores."""
  scores = findings.scores["combined"][findings.distinct.which]
  groups = _score_groups(findings, scores)
  # Without a limit, an unknown event could stretch the axis over all others.
  near = np.append(calibration.scores, threshold)
  most = _FAR * near[np.isfinite(near)].max(initial=1e-9)
  edges = np.linspace(0, min(scores.max(initial=most / _FAR), most), 61)
  inside = lambda x: np.minimum(x, edges[-1])
  figure = figures.create(12, 4)
  histogram, higher = figure.subplots(1, 2)
  counts = -np.diff(calibration.above)
  style = {"color": "black", "label": "calibration"}
  histogram.hist(
    inside(calibration.scores),
    edges,
    weights=counts / counts.sum(),
    histtype="step",
    **style,
  )
  shares = np.append(calibration.above[0], calibration.above[1:])
  xs, shares = np.append(0, calibration.scores), shares / calibration.n
  higher.step(xs, shares, where="post", **style)
  for name, (values, colour) in groups.items():
    n, style = len(values), {"color": colour, "label": name}
    weights = np.full(n, 1 / n)
    histogram.hist(inside(values), edges, weights=weights, alpha=0.5, **style)
    xs = np.append(0, np.sort(inside(values)))
    higher.step(xs, 1 - np.arange(n + 1) / n, where="post", **style)
  histogram.set_ylabel("share of sessions")
  higher.set_ylabel("share of sessions with a higher score")
  beyond = ", or more at the right end" if scores.max() > edges[-1] else ""
  sizes = [calibration.n, *(len(values) for values, _ in groups.values())]
  for axes in (histogram, higher):
    if math.isfinite(threshold):
      axes.axvline(threshold, color="C2", label="threshold")
    # The axis begins a little below the share of one session.
    axes.set(xlim=(0, edges[-1] * 1.01), ylim=(0.5 / max(sizes), 1.5))
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"combined score{beyond}")
    figures.grid(axes)
    axes.legend()
  return figure


def _score_groups(
  findings: Findings, scores: np.ndarray
) -> dict[str, tuple[np.ndarray, str]]:
  """Name -> scores and colour: of each label, or of all without labels."""
  if findings.sessions.labels is None:
    return {"sessions": (scores, "C0")}
  some = findings.sessions.with_label()
  scores, labels = scores[some], findings.sessions.labels[some]
  return {
    name: (scores[labels == label], colour)
    for label, (name, colour) in _LABELS.items()
    if (labels == label).any()
  }


def _curves(
  which: np.ndarray, labels: np.ndarray, curves: dict[str, np.ndarray]
) -> Figure:
  """The ROC curve, on a logarithmic axis, and precision by recall.

  Args:
    which: for each session with a label, its distinct session.
    labels: of these sessions.
    curves: as in `draw`.
  """
  figure = figures.create(12, 5)
  roc, precision = figure.subplots(1, 2)
  lowest = 1 / (2 * (~labels).sum())
  for number, (name, scores) in enumerate(curves.items()):
    scores = scores[which]
    flags = np.zeros(len(scores), bool)
    _, true, false = evaluation.curve(evaluation.tally(scores, flags, labels))
    right = true / (true + false)
    style = {
      "label": name,
      "lw": 2.2 if not number else 1.0,
      "zorder": -number,
      "color": matplotlib.colormaps["tab10"](number % 10),
    }
    recall = np.append(0, true / true[-1])
    alarms = np.append(lowest, np.maximum(false / false[-1], lowest))
    roc.step(alarms, recall, where="post", **style)
    # As average precision counts it.
    precision.step(recall, np.append(right[0], right), where="pre", **style)
  roc.set_xscale("log")
  roc.set(xlabel="false-alarm rate", ylabel="recall", xlim=(lowest, 1))
  precision.set(xlabel="recall", ylabel="precision")
  for axes in (roc, precision):
    axes.set_ylim(-0.02, 1.02)
    figures.grid(axes)
  precision.set_xlim(-0.02, 1.02)
  figure.legend(*roc.get_legend_handles_labels(), loc="outside right upper")
  return figure
