"""Charts of a report: SVG of matplotlib, each with a description in words."""

import base64
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.runtime import pictures

_DOTS = 25  # A curve of at most this number of points has a dot at each.
_STYLES = "-", "--", ":"  # The curves of a chart take them in turn.

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]  # name -> x, y


class Chart(NamedTuple):
  """A chart for a page.

  Attributes:
    title: above the chart.
    svg: the drawing, in base64.
    words: describes it to screen readers.
  """

  title: str
  svg: str
  words: str


def chart(figure: "pictures.Figure", title: str, words: str) -> Chart:
  """The figure for a page; `words` describe it to screen readers."""
  import matplotlib

  # Letters stay text, for fonts of the reader: this one may lack them.
  settings = matplotlib.rc_context({"svg.fonttype": "none"})
  with settings, warnings.catch_warnings(action="ignore"):
    content = pictures.svg(figure, title, words).encode()
  return Chart(title, base64.b64encode(content).decode(), words)


def lines(
  title: str, series: Series, x: str, y: str, *, zero: bool = False
) -> Chart:
  """Curves in one chart.

  Args:
    title: of the chart.
    series: name -> x and y of its points; points that are not finite are left
      out.
    x: name of the x axis.
    y: name of the y axis.
    zero: whether the y axis begins at 0.
  """
  figure = pictures.create(5, 3.1)
  axes = figure.subplots()
  axes.set(xlabel=x, ylabel=pictures.plain(y))
  pictures.grid(axes, "y")
  descriptions = []
  for n, (name, points) in enumerate(series.items()):
    points_2N = np.asarray(points, np.float64)
    xs, ys = points_2N[:, np.isfinite(points_2N).all(0)]
    if not xs.size:
      continue
    marker = "." if len(xs) <= _DOTS else ""
    label = pictures.plain(name)
    style = marker + _STYLES[n % 3]  # "-." would be a line without markers.
    axes.plot(xs, ys, style, label=label, clip_on=False)
    descriptions.append(
      f"{name} goes from {ys[0]:.4g} at {x} {xs[0]:.8g} to {ys[-1]:.4g} at"
      f" {xs[-1]:.8g}"
    )
  if len(descriptions) > 1:
    axes.legend(frameon=False)
  if zero:
    axes.set_ylim(bottom=0)
  words = "; ".join(descriptions) or "no values"
  return chart(figure, title, f"{title}: {y} by {x}. {words}.")
