"""Charts as SVG in the colours of the page, each with a description in words.

A chart is as wide as a phone, so that its letters are never smaller than the
letters of the page.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from seqrnn.reporting.page import text
from seqrnn.runtime import figures

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

_DOTS = 25  # A curve of at most this number of points has a dot at each.
_COLOURS = ["#25688a", "#c2611f", "#5b7f2b", "#82529f", "#a8842c", "#3a7d77"]
_LINE = "#e6e2d9"
# Colour of a figure -> variable of the style sheet, which has a dark value.
_VARIABLES = {
  **{colour: f"var(--c{n})" for n, colour in enumerate(_COLOURS)},
  _LINE: "var(--line)",
}
# The page has no use for groups, their ids, and the fonts of texts.
_SURPLUS = re.compile(
  r"<metadata>.*?</metadata>|<style.*?</style>"
  r'|<g id="[^"]*"/?>|</?g>|<defs>\s*</defs>| transform="rotate\(-0 [^"]*"'
  r"|font-?[a-z]*: [^;\"]*(; )?",
  re.DOTALL,
)

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]  # name -> x, y


def number(value: float) -> str:
  """A number in few characters: 12,378 becomes 12.4k."""
  size = abs(value)
  for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
    if size >= unit:
      scale = unit if unit > 1e4 else 1e3
      return f"{value / scale:.3g}{name}"
  if size and size < 1e-3:
    return f"{value:.0e}".replace("e-0", "e-")
  return f"{value:.4g}"


def svg(figure: "Figure", words: str) -> Markup:
  """A figure as SVG for a page; `words` describe it to screen readers.

  Equal figures with equal words give equal texts.
  """
  import matplotlib

  buffer = io.StringIO()
  with matplotlib.rc_context({"svg.hashsalt": words, "svg.fonttype": "none"}):
    metadata = {"Date": None, "Creator": None}
    figure.savefig(buffer, format="svg", metadata=metadata)
  content = buffer.getvalue()
  [box] = re.findall(r'viewBox="[^"]*"', content)
  content = _SURPLUS.sub(
    "", content[content.index(">", content.index("<svg")) :]
  )
  for colour, variable in _VARIABLES.items():
    content = content.replace(colour, variable)
  # Two digits of a coordinate are enough; texts begin after a ">".
  content = re.sub(r"(?<=[ \"-])(\d+\.\d\d)\d+(?=[ \"\n])", r"\1", content)
  content = re.sub(r"\n\s*", "\n", content)
  head = Markup('<svg {} role="img" aria-label="{}"').format(
    Markup(box), text(words)
  )
  return head + Markup(content)


def _chart() -> tuple["Figure", "Axes"]:
  """A new figure and its axes."""
  figure = figures.create(5, 3.1)
  axes = figure.subplots()
  for part in (figure.patch, axes.patch, axes.spines[:]):
    part.set_visible(False)
  axes.set_axisbelow(True)
  axes.grid(axis="y", color=_LINE, linewidth=1, clip_on=False)
  axes.tick_params(which="both", length=0, labelsize=11)
  return figure, axes


def _describe(name: str, xs: Sequence[float], ys: Sequence[float], x: str):
  """A curve in words."""
  best, worst = int(np.argmin(ys)), int(np.argmax(ys))
  return (
    f"{name} goes from {number(ys[0])} at {x} {number(xs[0])} to"
    f" {number(ys[-1])} at {number(xs[-1])}; its lowest is {number(ys[best])}"
    f" at {number(xs[best])}, its highest {number(ys[worst])} at"
    f" {number(xs[worst])}"
  )


def lines(
  title: str,
  series: Series,
  x: str,
  y: str,
  *,
  zero: bool = False,
) -> dict[str, Any]:
  """Curves in one chart: its title, unit, names of curves and SVG.

  Args:
    title: of the chart.
    series: name -> x and y of its points; points that are not finite are left
      out.
    x: name of the x axis.
    y: name of the y axis.
    zero: whether the y axis begins at 0.
  """
  from matplotlib.ticker import MaxNLocator

  points = {name: np.array(xy, np.float64).T for name, xy in series.items()}
  points = {name: p[np.isfinite(p).all(1)].T for name, p in points.items()}
  curves = {name: xy for name, xy in points.items() if xy.size}
  chart = {"title": title, "unit": y, "names": list(curves), "svg": ""}
  if not curves:
    return chart
  figure, axes = _chart()
  axes.set_xlabel(x, fontsize=11)
  for n, (xs, ys) in enumerate(curves.values()):
    axes.plot(
      *(xs, ys, ("-", "--", ":")[n % 3]),
      color=_COLOURS[n % len(_COLOURS)],
      marker="." if len(xs) <= _DOTS else "",
      linewidth=2,
      clip_on=False,
    )
  every_x = np.concatenate([xs for xs, _ in curves.values()])
  whole = bool((every_x % 1 == 0).all())
  steps = (1, 2, 2.5, 5, 10)
  axes.yaxis.set_major_locator(MaxNLocator(6, steps=steps))
  axes.xaxis.set_major_locator(MaxNLocator(6, steps=steps, integer=whole))
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(lambda value, _: number(value))
  if zero:
    axes.set_ylim(bottom=0)
  words = "; ".join(
    _describe(name, xs, ys, x) for name, (xs, ys) in curves.items()
  )
  return {**chart, "svg": svg(figure, f"{title}: {y} by {x}. {words}.")}


def roll(
  title: str, notes: Sequence[tuple[int, int, int]], frames: int
) -> dict[str, Any]:
  """A piano roll: each note is a bar at the height of its pitch.

  Args:
    title: of the chart.
    notes: start, stop and number of each, as in midi.Note.
    frames: the length of the piece.
  """
  numbers = [key for _, _, key in notes]
  low, high = min(numbers, default=48) - 2, max(numbers, default=72) + 2
  figure, axes = _chart()
  axes.set(xlim=(0, max(frames, 1)), ylim=(low, high))
  axes.set_xlabel("frame", fontsize=11)
  octaves = range(low + -low % 12, high + 1, 12)
  axes.set_yticks(octaves, [f"C{c // 12 - 1}" for c in octaves])
  # One line with gaps takes far less space than a bar for each note.
  gap = float("nan")
  xs = [x for start, stop, _ in notes for x in (start, stop - 0.1, gap)]
  ys = [y for _, _, key in notes for y in (key, key, gap)]
  width = 170 / (high - low)
  [line] = axes.plot(xs, ys, color=_COLOURS[0], linewidth=width, clip_on=False)
  line.set_solid_capstyle("butt")
  names = f"from MIDI number {low + 2} to {high - 2}" if notes else "no note"
  words = f"{title}: {len(notes)} notes in {frames} frames, {names}."
  return {"title": title, "unit": "", "names": [], "svg": svg(figure, words)}
