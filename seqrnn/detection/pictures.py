"""Pictures of a detection: surprisals in their order, scores, one session."""

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullFormatter

from seqrnn.data.sessions import ranges
from seqrnn.detection import ranking
from seqrnn.detection.conformal import Calibration
from seqrnn.detection.findings import Findings
from seqrnn.runtime import figures

_EVENTS = 2000  # Of a timeline.
_ODDEST = 5  # Sessions that it has in any case.
_FAR = 4  # Times the highest normal score, where the axis of scores ends.
_STRIP = 40  # Events of a row of a strip.
_ROWS = 12
_NARROW, _WIDE = 16, 110  # Characters of an event of it, and of a line.
_CHARACTER = 0.075  # Inches of one.
_APART = 60  # Up to so many sessions of a timeline have lines between them.
_LABELS = {False: ("normal", "C0"), True: ("labelled odd", "C3")}


def draw(
  found: Findings,
  calibration: Calibration,
  session: float,
  event: float,
  curves: dict[str, np.ndarray],
  folder: Path,
):
  """Draws all that there is enough for.

  Args:
    found: of all sessions; some must have events.
    calibration: the combined score of normal sessions.
    session: the threshold of that score.
    event: that of an event's surprisal in nats.
    curves: name -> score [D], what ROC and PR are drawn of.
    folder: where.
  """
  pictures = {
    "timeline": _timeline(found, event),
    "scores": _scores(found, calibration, session),
    "session": _strip(found, event),
  }
  labels, some = found.sessions.labels, found.sessions.with_label()
  if labels is not None and 0 < labels[some].sum() < len(some):
    pictures["curves"] = _curves(
      found.distinct.which[some], labels[some], curves
    )
  for name, figure in pictures.items():
    figures.save(figure, folder / f"{name}.png")


def _oddest(found: Findings) -> int:
  """The oddest of the distinct sessions that have an event."""
  order = found.most_anomalous()
  return int(order[np.diff(found.bounds)[order] > 0][0])


def _timeline(found: Findings, threshold: float) -> Figure:
  """Surprisal of event after event, on a normal axis and a logarithmic one.

  Of more sessions than there is room for, some from all over, and the oddest.
  """
  which = found.distinct.which
  ends = np.cumsum(np.diff(found.bounds)[which])
  count = min(len(which), _EVENTS * len(which) // ends[-1] + 1)
  chosen = np.linspace(0, len(which) - 1, count).astype(int)
  oddest = found.distinct.first[found.most_anomalous()[:_ODDEST]]
  chosen = np.union1d(chosen, oddest)
  shown = which[chosen]
  places, bounds = ranges(found.bounds[shown], found.bounds[shown + 1])
  bits = found.nll[places] / math.log(2)
  flagged = np.repeat(found.flags[shown], np.diff(bounds))
  figure = figures.create(12, 6)
  for place, scale in enumerate(("linear", "log"), 1):
    axes = figure.add_subplot(2, 1, place)
    labels = found.sessions.labels
    if labels is not None:
      for j in np.flatnonzero(labels[chosen]).tolist():
        axes.axvspan(*bounds[j : j + 2], color="C3", alpha=0.15, linewidth=0)
    for some, colour, name in (
      (~flagged, "C0", "event"),
      (flagged, "C1", "event of a flagged session"),
    ):
      if some.any():
        axes.plot(
          np.flatnonzero(some), bits[some], ".", color=colour, ms=4, label=name
        )
    if len(chosen) <= _APART:
      for edge in bounds[1:-1]:
        axes.axvline(edge - 0.5, color="0.7", lw=0.6, zorder=0)
    if math.isfinite(threshold):
      axes.axhline(
        threshold / math.log(2), color="black", lw=0.8, label="threshold"
      )
    axes.set_yscale(scale)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter())  # Within a decade.
    axes.set_ylabel("surprisal, bits")
    axes.margins(x=0.005)
    figures.grid(axes, "y")
  # Above the axes, where no event is.
  figure.axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
  red = "; red: labelled" if found.sessions.labels is not None else ""
  figure.axes[-1].set_xlabel(f"event, of {len(chosen):,} sessions{red}")
  return figure


def _scores(
  found: Findings, calibration: Calibration, threshold: float
) -> Figure:
  """How the combined score is spread, and the share of each that is higher."""
  which, labels = found.distinct.which, found.sessions.labels
  scores = found.scores["combined"][which]
  groups = {"looked at": (scores, "C0")}
  if labels is not None:
    some = found.sessions.with_label()
    of_label = scores[some], labels[some]
    groups = {
      name: (of_label[0][of_label[1] == label], colour)
      for label, (name, colour) in _LABELS.items()
      if (of_label[1] == label).any()
    }
  counts = -np.diff(calibration.above)
  # An unknown event may be so far out that nothing else would be seen.
  near = np.append(calibration.scores, threshold)
  most = _FAR * near[np.isfinite(near)].max(initial=1e-9)
  edges = np.linspace(0, min(scores.max(initial=most / _FAR), most), 61)
  # The share of one session, and a little room below it.
  sizes = [calibration.n, *(len(values) for values, _ in groups.values())]
  lowest = 0.5 / max(sizes)
  figure = figures.create(12, 4)
  histogram, ecdf = figure.subplots(1, 2)
  inside = lambda x: np.minimum(x, edges[-1])
  histogram.hist(
    inside(calibration.scores),
    edges,
    weights=counts / counts.sum(),
    histtype="step",
    color="black",
    label="calibration",
  )
  for name, (values, colour) in groups.items():
    share = np.full(len(values), 1 / len(values))
    histogram.hist(
      inside(values), edges, weights=share, alpha=0.5, color=colour, label=name
    )
  histogram.set_yscale("log")
  histogram.set_ylabel("share of sessions")
  ecdf.step(
    np.append(0, calibration.scores),
    np.append(calibration.above[0], calibration.above[1:]) / calibration.n,
    where="post",
    color="black",
    label="calibration",
  )
  for name, (values, colour) in groups.items():
    higher = 1 - np.arange(len(values) + 1) / len(values)
    values = np.append(0, np.sort(inside(values)))
    ecdf.step(values, higher, where="post", color=colour, label=name)
  ecdf.set_yscale("log")
  ecdf.set_ylabel("share of sessions with a higher score")
  beyond = ", or more at the right end" if scores.max() > edges[-1] else ""
  for axes in (histogram, ecdf):
    if math.isfinite(threshold):
      axes.axvline(threshold, color="C2", label="threshold")
    axes.set(xlim=(0, edges[-1] * 1.01), ylim=(lowest, 1.5))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"combined score{beyond}")
    figures.grid(axes)
    axes.legend()
  return figure


def _curves(
  which: np.ndarray, labels: np.ndarray, curves: dict[str, np.ndarray]
) -> Figure:
  """ROC, its false alarms on a logarithmic axis, and precision by recall.

  Args:
    which: the distinct session that each one with a label is.
    labels: of these.
    curves: as in `pictures`.
  """
  figure = figures.create(12, 5)
  roc, precision = figure.subplots(1, 2)
  lowest = 1 / (2 * (~labels).sum())
  for number, (name, scores) in enumerate(curves.items()):
    scores = scores[which]
    flags = np.zeros(len(scores), bool)
    _, true, false = ranking.curve(ranking.tally(scores, flags, labels))
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


def _strip(found: Findings, threshold: float) -> Figure:
  """The oddest session, event by event, coloured by its surprisal.

  Lines of a log stand below each other, so that they can be read.
  """
  d = _oddest(found)
  j = int(found.distinct.first[d])
  start, stop = found.bounds[d : d + 2].tolist()
  listed = found.names.unit == "log"
  most, columns = (_STRIP, 1) if listed else (_STRIP * _ROWS, _STRIP)
  place = int(found.nll[start:stop].argmax())
  first = max(min(place - most // 2, stop - start - most), 0)
  last = min(stop - start, first + most)
  bits = found.nll[start + first : start + last] / math.log(2)
  columns = min(len(bits), columns)
  rows = math.ceil(len(bits) / columns)
  grid = np.full(rows * columns, np.nan)
  grid[: len(bits)] = bits
  names = [
    figures.plain(name, _WIDE if listed else _NARROW)
    for name in found.events(j, d, first, last)
  ]
  width = 11 if listed else max(5, 0.34 * columns + 1.5)
  room = (width - 1.5) / columns  # Inches of an event.
  turned = not listed and max(map(len, names)) * _CHARACTER > room
  height = 0.27 if listed else 1.15 if turned else 0.4
  figure = figures.create(width, height * rows + 1)
  axes: Axes = figure.add_subplot()
  image = axes.imshow(
    grid.reshape(rows, columns), cmap="magma_r", vmin=0, aspect="auto"
  )
  figure.colorbar(image, label="bits", shrink=0.8)
  for n, name in enumerate(names):
    y, x = divmod(n, columns)
    axes.text(
      x - 0.49 * listed,
      y,
      name,
      rotation=90 if turned else 0,
      ha="left" if listed else "center",
      va="center",
      fontsize=8 if listed else 7,
      color="white" if bits[n] > 0.5 * bits.max() else "black",
      weight="bold" if found.event_flags[start + first + n] else "normal",
    )
  axes.set_xticks([])
  places = [int(found.offsets[d]) + first + r * columns for r in range(rows)]
  lines = [found.line(j, place) for place in places]
  if not listed or lines[0] is None:
    axes.set_yticks(range(rows), map(str, places))
    axes.set_ylabel("position")
  else:
    # An end has no line.
    axes.set_yticks(
      range(rows), ["" if line is None else str(line) for line in lines]
    )
    axes.set_ylabel("line")
  limit = f"; bold: above {threshold / math.log(2):.1f} bits"
  axes.set_title(
    figures.plain(found.sessions.names[j], 80)
    + (limit if math.isfinite(threshold) else "")
  )
  return figure
