"""Charts as SVG, in the colours of the page; each says what it shows.

They are as wide as a phone, so that their letters are never smaller than those
of the page.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from seqrnn.reporting.page import Element, element

_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 34  # Around the plot itself.
_DOTS = 25  # Points of a curve, up to which each one has a dot.

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]  # name -> x, y


def number(value: float) -> str:
  """A number in few characters: 12,378 is 12.4k."""
  size = abs(value)
  for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
    if size >= unit:
      scale = unit if unit > 1e4 else 1e3
      return f"{value / scale:.3g}{name}"
  if size and size < 1e-3:
    return f"{value:.0e}".replace("e-0", "e-")
  return f"{value:.4g}"


def ticks(
  low: float, high: float, log: bool = False, whole: bool = False
) -> list[float]:
  """Round numbers from low to high: a few, evenly spaced or powers.

  Args:
    low: the first one is not below it.
    high: the last one is not above it.
    log: powers.
    whole: whole ones only.
  """
  if log:
    base = 2 if high / low < 1e3 else 10
    first, last = (math.log(end, base) for end in (low, high))
    powers = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
    return [float(base) ** power for power in powers[:: len(powers) // 8 + 1]]
  rough = (high - low) / 4
  power = 10.0 ** math.floor(math.log10(rough))
  step = min(
    (power * factor for factor in (1, 2, 2.5, 5, 10)),
    key=lambda step: abs(step - rough),
  )
  if whole:
    step = math.ceil(step)
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [round(n * step, 12) for n in range(first, last + 1)]


def _limits(values: list[float], log: bool) -> tuple[float, float]:
  """What an axis spans: all values, and something where they are one."""
  low, high = min(values), max(values)
  if low == high:
    wide = abs(low) * 0.1 or 1.0
    return (low / 1.1, high * 1.1) if log else (low - wide, high + wide)
  return low, high


def _scale(
  low: float, high: float, start: float, stop: float, log: bool
) -> Any:
  """A function from a value to its place between start and stop."""
  turn: Callable[[float], float] = math.log if log else float
  span = turn(high) - turn(low)
  return lambda value: start + (turn(value) - turn(low)) / span * (stop - start)


def _said(name: str, xs: Sequence[float], ys: Sequence[float], x: str) -> str:
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
  note: str = "",
  log_x: bool = False,
  log_y: bool = False,
  zero: bool = False,
  mark: tuple[float, str] | None = None,
) -> Element:
  """Curves over one another.

  Args:
    title: what they show.
    series: name of each -> its x and y; what is not finite is left out.
    x: what the axis has, in words.
    y: likewise.
    note: a sentence below.
    log_x: whether the axis is logarithmic.
    log_y: likewise.
    zero: whether the y axis begins at 0.
    mark: an x that has a meaning, and its name.
  """
  kept: dict[str, tuple[list[float], list[float]]] = {}
  for name, points in series.items():
    pairs = [
      (float(a), float(b))
      for a, b in zip(*points, strict=True)
      if math.isfinite(a) and math.isfinite(b) and (b > 0 or not log_y)
    ]
    if pairs:
      xs, ys = zip(*pairs, strict=True)
      kept[name] = list(xs), list(ys)
  caption = element("figcaption", element("strong", title))
  if not kept:
    caption.append(element("span", "No figures."))
    return element("figure", caption)
  every_x = [value for xs, _ in kept.values() for value in xs]
  every_y = [value for _, ys in kept.values() for value in ys]
  low_x, high_x = _limits(every_x, log_x)
  low_y, high_y = _limits(every_y + [0.0] * zero, log_y)
  place_x = _scale(low_x, high_x, _LEFT, _WIDTH - _RIGHT, log_x)
  place_y = _scale(low_y, high_y, _HEIGHT - _BOTTOM, _TOP, log_y)
  said = "; ".join(_said(name, *points, x) for name, points in kept.items())
  plot = element(
    "svg",
    viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
    role="img",
    aria_label=f"{title}: {y} by {x}. {said}.",
  )
  for value in ticks(low_y, high_y, log_y):
    at = round(place_y(value), 1)
    plot.append(_rule(_LEFT, at, _WIDTH - _RIGHT, at))
    plot.append(_label(_LEFT - 6, at + 4, number(value), "end"))
  whole = all(value == int(value) for value in every_x)
  for value in ticks(low_x, high_x, log_x, whole):
    at = round(place_x(value), 1)
    plot.append(_label(at, _HEIGHT - _BOTTOM + 16, number(value), "middle"))
  middle = (_LEFT + _WIDTH - _RIGHT) / 2
  plot.append(_label(middle, _HEIGHT - 4, x, "middle"))
  if mark is not None and low_x <= mark[0] <= high_x:
    at = round(place_x(mark[0]), 1)
    plot.append(_rule(at, _TOP, at, _HEIGHT - _BOTTOM, "mark"))
    left = at > _WIDTH / 2
    anchor = "end" if left else "start"
    plot.append(_label(at - 4 if left else at + 4, _TOP + 10, mark[1], anchor))
  for place, (xs, ys) in enumerate(kept.values()):
    path = [(place_x(a), place_y(b)) for a, b in zip(xs, ys, strict=True)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in path)
    kind = f"c{place % 6}"
    plot.append(element("polyline", points=points, class_=f"curve {kind}"))
    for a, b in path if len(path) <= _DOTS else ():
      plot.append(
        element(
          "circle", cx=f"{a:.1f}", cy=f"{b:.1f}", r=2.4, class_=f"dot {kind}"
        )
      )
  caption.append(element("span", y))
  if len(kept) > 1:
    caption.append(element("br"))
  for place, name in enumerate(kept if len(kept) > 1 else ()):
    line = element(
      "line", x1=1, y1=4, x2=25, y2=4, class_=f"curve c{place % 6}"
    )
    sign = element("svg", line, viewBox="0 0 26 8", aria_hidden="true")
    caption.append(element("span", sign, name, class_="key"))
  if note:
    caption.append(element("br"))
    caption.append(element("span", note))
  return element("figure", caption, plot)


def roll(title: str, notes: Sequence[tuple[int, int, int]], frames: int) -> Any:
  """Notes as bars: each from a frame on until another, at a height of its own.

  Args:
    title: what they are.
    notes: start, stop and number of each, as midi.Note has them.
    frames: how many there are.
  """
  numbers = [number for _, _, number in notes]
  low, high = min(numbers, default=48) - 2, max(numbers, default=72) + 2
  place_x = _scale(0, max(frames, 1), _LEFT, _WIDTH - _RIGHT, False)
  place_y = _scale(low, high, _HEIGHT - _BOTTOM, _TOP, False)
  names = f"from MIDI number {low + 2} to {high - 2}" if notes else "no note"
  plot = element(
    "svg",
    viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
    role="img",
    aria_label=f"{title}: {len(notes)} notes in {frames} frames, {names}.",
  )
  for c in range(low + -low % 12, high + 1, 12):
    at = round(place_y(c), 1)
    plot.append(_rule(_LEFT, at, _WIDTH - _RIGHT, at))
    plot.append(_label(_LEFT - 6, at + 4, f"C{c // 12 - 1}", "end"))
  for value in ticks(0, max(frames, 1), whole=True):
    at = round(place_x(value), 1)
    text = number(value)
    plot.append(_label(at, _HEIGHT - _BOTTOM + 16, text, "middle"))
  plot.append(_label(_WIDTH / 2, _HEIGHT - 4, "frame", "middle"))
  height = (_HEIGHT - _TOP - _BOTTOM) / (high - low)
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


def _rule(x1, y1, x2, y2, kind: str = "rule") -> Element:
  return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _label(x, y, content: str, anchor: str) -> Element:
  return element("text", content, x=x, y=y, text_anchor=anchor)
