"""Creates, labels and writes all matplotlib figures.

Importing matplotlib takes a second, so it is imported on first use. Figures are
made without pyplot and need no display.
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
  """Returns a new figure, with a layout in which labels do not overlap.

  Args:
    width: the width in inches.
    height: the height in inches.
    title: the title above all axes; any text is allowed.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout="constrained")
  if title:
    figure.suptitle(plain(title))
  return figure


def plain(text: str, limit: int | None = None) -> str:
  """Returns untrusted text as a label, with control characters escaped.

  Dollar signs are escaped, too, because they would start a formula.

  Args:
    text: the text.
    limit: the maximum number of characters; None: no limit.
  """
  return escaped(text)[:limit].replace("$", r"\$")


def grid(axes: "Axes", axis: Literal["x", "y", "both"] = "both"):
  """Draws faint grid lines behind the data."""
  axes.set_axisbelow(True)
  axes.grid(alpha=0.3, axis=axis)


def save(figure: "Figure", path: Path, dpi: int = _DPI):
  """Writes a PNG file atomically.

  Raises:
    UserError: the file cannot be written.
  """
  with files.atomic_write(path, "wb") as file:
    figure.savefig(file, format="png", dpi=dpi)


def svg(figure: "Figure", title: str, description: str) -> str:
  """Returns a figure as SVG, with a title and a description in words."""
  import matplotlib

  buffer = io.StringIO()
  # A fixed salt of the ids and no date: equal figures give equal files.
  with matplotlib.rc_context({"svg.hashsalt": "seqrnn"}):
    metadata = {"Title": title, "Date": None}
    figure.savefig(buffer, format="svg", metadata=metadata)
  end = "</title>"
  described = f"{end}\n <desc>{escape(description)}</desc>"
  return buffer.getvalue().replace(end, described, 1)
