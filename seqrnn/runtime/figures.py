"""Figures of matplotlib: one place that creates, labels and writes them.

matplotlib takes a second to import, so it is imported on first use. No screen
is needed: a figure made without pyplot is rendered by its own canvas.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.sax.saxutils import escape

from seqrnn.errors import escaped
from seqrnn.runtime import files

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

_DPI = 110


def create(width: float, height: float, title: str = "") -> "Figure":
  """A new figure, whose layout keeps labels from overlapping.

  Args:
    width: in inches.
    height: in inches.
    title: above all axes; it may be any text.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout="constrained")
  if title:
    figure.suptitle(plain(title))
  return figure


def plain(text: str, limit: int | None = None) -> str:
  """Any text as a label: a dollar sign would otherwise begin a formula.

  Args:
    text: anyone may have written it; it is escaped.
    limit: characters after which it is cut; None for no limit.
  """
  return escaped(text)[:limit].replace("$", r"\$")


def grid(axes: "Axes", axis: Literal["x", "y", "both"] = "both"):
  """Draws faint grid lines behind the data."""
  axes.set_axisbelow(True)
  axes.grid(alpha=0.3, axis=axis)


def save(figure: "Figure", path: Path, dpi: int = _DPI):
  """Writes a PNG file as a whole: an interrupted write leaves no part of it.

  Raises:
    UserError: it cannot be written.
  """
  with files.atomic_write(path, "wb") as file:
    figure.savefig(file, format="png", dpi=dpi)


def save_svg(figure: "Figure", path: Path, title: str, description: str):
  """Writes an SVG file that describes itself to readers of a screen.

  Raises:
    UserError: it cannot be written.
  """
  with files.atomic_write(path) as file:
    file.write(svg(figure, title, description))


def svg(figure: "Figure", title: str, description: str) -> str:
  """A figure as SVG, with a title and a description in words."""
  import matplotlib

  buffer = io.StringIO()
  # Ids depend on the content alone, and there is no date, so that the same
  # figure gives the same file.
  with matplotlib.rc_context({"svg.hashsalt": "seqrnn"}):
    metadata = {"Title": title, "Date": None}
    figure.savefig(buffer, format="svg", metadata=metadata)
  end = "</title>"
  described = f"{end}\n <desc>{escape(description)}</desc>"
  return buffer.getvalue().replace(end, described, 1)
