"""Charts as SVG in the colours of the page, each with a description in words.

A chart is as wide as a phone, so that its letters are never smaller than the
letters of the page.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.reporting.page import Element, element

_WIDTH, _HEIGHT = 360, 220
# The edges of the plot inside the picture.
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, _WIDTH - 12, 10, _HEIGHT - 34
_DOTS = 25  # A curve of at most this number of points has a dot at each.

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


def ticks(
  low: float, high: float, log: bool = False, integer: bool = False
) -> list[float]:
  """A few round numbers in [low, high], evenly spaced or powers of a base.

  Args:
    low: start of the axis.
    high: end of the axis.
    log: whether to take powers, for a logarithmic axis.
    integer: whether to take integers only.
  """
  if log:
    base = 2 if high / low < 1e3 else 10
    first, last = (math.log(end, base) for end in (low, high))
    powers = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
    return [float(base) ** power for power in powers[:: len(powers) // 8 + 1]]
  rough = (high - low) / 4
  power = 10.0 ** math.floor(math.log10(rough))
  spacings = [power * factor for factor in (1, 2, 2.5, 5, 10)]
  spacing = min(spacings, key=lambda spacing: abs(spacing - rough))
  if integer:
    spacing = math.ceil(spacing)
  first, last = (
    math.ceil(low / spacing - 1e-9),
    math.floor(high / spacing + 1e-9),
  )
  return [round(n * spacing, 12) for n in range(first, last + 1)]


def _limits(values: list[float], log: bool = False) -> tuple[float, float]:
  """The range of an axis, which is widened where all values are equal."""
  low, high = min(values), max(values)
  if low < high:
    return low, high
  if log:
    return low / 1.1, high * 1.1
  margin = abs(low) * 0.1 or 1.0
  return low - margin, high + margin


class _Scale(NamedTuple):
  """Maps the values low and high to the places start and stop."""

  low: float
  high: float
  start: float
  stop: float
  log: bool = False

  def __call__(self, value: float) -> float:
    turn: Callable[[float], float] = math.log if self.log else float
    share = (turn(value) - turn(self.low)) / (turn(self.high) - turn(self.low))
    return self.start + share * (self.stop - self.start)

  def ticks(self, integer: bool = False) -> list[tuple[float, float]]:
    """The values of the ticks, and the place of each."""
    values = ticks(self.low, self.high, self.log, integer)
    return [(value, round(self(value), 1)) for value in values]


def _plot(label: str) -> Element:
  """An empty chart, with its description for screen readers."""
  box = f"0 0 {_WIDTH} {_HEIGHT}"
  return element("svg", viewBox=box, role="img", aria_label=label)


def _add_x_axis(plot: Element, x: _Scale, name: str, integer: bool):
  for value, at in x.ticks(integer):
    plot.append(_text(at, _BOTTOM + 16, number(value), "middle"))
  plot.append(_text((_LEFT + _RIGHT) / 2, _HEIGHT - 4, name, "middle"))


def _add_y_tick(plot: Element, at: float, name: str):
  plot.append(_line(_LEFT, at, _RIGHT, at))
  plot.append(_text(_LEFT - 6, at + 4, name, "end"))


def _describe(name: str, xs: Sequence[float], ys: Sequence[float], x: str):
  """A curve in words."""
  best, worst = int(np.argmin(ys)), int(np.argmax(ys))
  return (
    f"{name} goes from {number(ys[0])} at {x} {number(xs[0])} to"
    f" {number(ys[-1])} at {number(xs[-1])}; its lowest is {number(ys[best])}"
    f" at {number(xs[best])}, its highest {number(ys[worst])} at"
    f" {number(xs[worst])}"
  )


def _finite(series: Series) -> dict[str, tuple[list[float], list[float]]]:
  """The finite points of each curve that has finite points."""
  kept = {}
  for name, points in series.items():
    points_N2 = np.array(points, np.float64).T
    points_N2 = points_N2[np.isfinite(points_N2).all(1)]
    if len(points_N2):
      xs, ys = points_N2.T.tolist()
      kept[name] = xs, ys
  return kept


def lines(
  title: str,
  series: Series,
  x: str,
  y: str,
  *,
  zero: bool = False,
  mark: tuple[float, str] | None = None,
) -> Element:
  """Curves in one chart.

  Args:
    title: of the chart.
    series: name -> x and y of its points; points that are not finite are left
      out.
    x: name of the x axis.
    y: name of the y axis.
    zero: whether the y axis begins at 0.
    mark: a value of x to mark, and its name; the x axis is then logarithmic.
  """
  curves = _finite(series)
  caption = element("figcaption", element("strong", title))
  if not curves:
    caption.append(element("span", "No values."))
    return element("figure", caption)
  all_x = [value for xs, _ in curves.values() for value in xs]
  all_y = [value for _, ys in curves.values() for value in ys]
  log = mark is not None
  place_x = _Scale(*_limits(all_x, log), _LEFT, _RIGHT, log)
  place_y = _Scale(*_limits(all_y + [0.0] * zero), _BOTTOM, _TOP)
  words = "; ".join(_describe(name, *xy, x) for name, xy in curves.items())
  plot = _plot(f"{title}: {y} by {x}. {words}.")
  for value, at in place_y.ticks():
    _add_y_tick(plot, at, number(value))
  _add_x_axis(plot, place_x, x, all(value.is_integer() for value in all_x))
  if mark is not None and place_x.low <= mark[0] <= place_x.high:
    at = round(place_x(mark[0]), 1)
    plot.append(_line(at, _TOP, at, _BOTTOM, "mark"))
    left = at > _WIDTH / 2
    anchor = "end" if left else "start"
    plot.append(_text(at - 4 if left else at + 4, _TOP + 10, mark[1], anchor))
  for n, (xs, ys) in enumerate(curves.values()):
    path = [(place_x(a), place_y(b)) for a, b in zip(xs, ys, strict=True)]
    plot.extend(_curve(path, f"c{n % 6}"))
  caption.append(element("span", y))
  if len(curves) > 1:
    caption.extend([element("br"), *map(_key, curves, range(len(curves)))])
  return element("figure", caption, plot)


def _curve(path: list[tuple[float, float]], kind: str) -> list[Element]:
  """A line through points, with dots if the points are few."""
  points = " ".join(f"{a:.1f},{b:.1f}" for a, b in path)
  dots = path if len(path) <= _DOTS else []
  return [
    element("polyline", points=points, class_=f"curve {kind}"),
    *(
      element(
        "circle", cx=f"{a:.1f}", cy=f"{b:.1f}", r=2.4, class_=f"dot {kind}"
      )
      for a, b in dots
    ),
  ]


def _key(name: str, n: int) -> Element:
  """The name of a curve, beside a sample of its line."""
  line = _line(1, 4, 25, 4, f"curve c{n % 6}")
  sample = element("svg", line, viewBox="0 0 26 8", aria_hidden="true")
  return element("span", sample, name, class_="key")


def roll(
  title: str, notes: Sequence[tuple[int, int, int]], frames: int
) -> Element:
  """A piano roll: each note is a bar at the height of its pitch.

  Args:
    title: of the chart.
    notes: start, stop and number of each, as in midi.Note.
    frames: the length of the piece.
  """
  numbers = [number for _, _, number in notes]
  low, high = min(numbers, default=48) - 2, max(numbers, default=72) + 2
  place_x = _Scale(0, max(frames, 1), _LEFT, _RIGHT)
  place_y = _Scale(low, high, _BOTTOM, _TOP)
  names = f"from MIDI number {low + 2} to {high - 2}" if notes else "no note"
  plot = _plot(f"{title}: {len(notes)} notes in {frames} frames, {names}.")
  for c in range(low + -low % 12, high + 1, 12):
    _add_y_tick(plot, round(place_y(c), 1), f"C{c // 12 - 1}")
  _add_x_axis(plot, place_x, "frame", True)
  height = (_BOTTOM - _TOP) / (high - low)
  for start, stop, key in notes:
    left = place_x(start)
    plot.append(
      element(
        "rect",
        x=f"{left:.1f}",
        y=f"{place_y(key) - height / 2:.1f}",
        width=f"{max(place_x(stop) - left - 0.6, 0.6):.1f}",
        height=f"{height:.1f}",
        rx=1,
        class_="box",
      )
    )
  return element(
    "figure", element("figcaption", element("strong", title)), plot
  )


def _line(
  x1: float, y1: float, x2: float, y2: float, kind: str = "rule"
) -> Element:
  return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _text(x: float, y: float, content: str, anchor: str) -> Element:
  return element("text", content, x=x, y=y, text_anchor=anchor)
