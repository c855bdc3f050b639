"""A diagram of a model: boxes in rows, read from the bottom to the top."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from seqrnn.runtime import figures

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# In points, 72 to an inch.
_FONT = 10
_LINE = 14  # From a line of text to the next.
_MARGIN = 9  # Between a text and its box, between the boxes and the edge.
_GAP = 14  # Between two boxes in a row.
_ARROW = 22  # Between two rows.
_TEXT = {"fontsize": _FONT, "ha": "center", "va": "center"}


class Box(NamedTuple):
  """A box of the diagram.

  Attributes:
    lines: of text; the first one is its name.
    shade: gray level of its background, from 0 (black) to 1 (white).
  """

  lines: tuple[str, ...]
  shade: float = 1.0


Rows = list[list[Box]]  # From the input up; one or two boxes each.


def text(title: str, rows: Rows) -> str:
  """Describes the diagram in words, for readers who do not see it."""
  described = [
    " and, beside it, ".join(", ".join(box.lines) for box in row)
    for row in rows
  ]
  return f"{title}. From the input to the output: {'; then '.join(described)}."


def figure(title: str, rows: Rows) -> "Figure":
  """Draws the diagram as a figure of matplotlib."""
  total, half = _widths(rows)
  heights = [
    _MARGIN + _LINE * max(len(box.lines) for box in row) for row in rows
  ]
  width = max(total, _text_width(title, "bold")) + 2 * _MARGIN
  height = sum(heights) + _ARROW * (len(rows) - 1) + _LINE + 3 * _MARGIN

  drawn = figures.create(width / 72, height / 72)
  drawn.set_layout_engine("none")  # Every place is computed here.
  axes = drawn.add_axes((0, 0, 1, 1))
  axes.set(xlim=(0, width), ylim=(0, height))
  axes.axis("off")
  left, y = (width - total) / 2, _MARGIN
  centres = {
    1: [width / 2],
    2: [left + half / 2, left + total - half / 2],
  }
  for row, above, row_height in zip(
    rows, [*rows[1:], None], heights, strict=True
  ):
    for box, x in zip(row, centres[len(row)], strict=True):
      _draw_box(axes, box, x, y, (total if len(row) == 1 else half, row_height))
    y += row_height
    if above is not None:
      for x in centres[max(len(row), len(above))]:
        _draw_arrow(axes, x, y)
      y += _ARROW
  y = height - _MARGIN - _LINE / 2
  axes.text(width / 2, y, title, weight="bold", **_TEXT)
  return drawn


def _text_width(line: str, weight: str) -> float:
  from matplotlib.font_manager import FontProperties
  from matplotlib.textpath import TextPath

  path = TextPath((0, 0), line, _FONT, FontProperties(weight=weight))
  return path.get_extents().width


def _widths(rows: Rows) -> tuple[float, float]:
  """The width of a box alone in its row, and of one of two in a row."""
  needed = {1: 0.0, 2: 0.0}
  for row in rows:
    for box in row:
      for n, line in enumerate(box.lines):
        width = _text_width(line, "normal" if n else "bold") + 2 * _MARGIN
        needed[len(row)] = max(needed[len(row)], width)
  total = max(needed[1], 2 * needed[2] + _GAP if needed[2] else 0)
  return total, (total - _GAP) / 2


def _draw_box(
  axes: "Axes", box: Box, x: float, y: float, size: tuple[float, float]
):
  """Draws a box, whose lower edge is centred on (x, y), and its lines."""
  from matplotlib.patches import FancyBboxPatch

  width, height = size
  axes.add_patch(
    FancyBboxPatch(
      (x - width / 2, y),
      width,
      height,
      boxstyle="round,pad=0,rounding_size=4",
      facecolor=str(box.shade),
      edgecolor="black",
      linewidth=1,
    )
  )
  first = y + height / 2 + _LINE * (len(box.lines) - 1) / 2
  for n, line in enumerate(box.lines):
    weight = "normal" if n else "bold"
    axes.text(x, first - _LINE * n, line, weight=weight, **_TEXT)


def _draw_arrow(axes: "Axes", x: float, y: float):
  """Draws an arrow from (x, y) to the row above."""
  axes.annotate(
    "",
    (x, y + _ARROW),
    (x, y),
    arrowprops={
      "arrowstyle": "-|>,head_width=0.25,head_length=0.5",
      "facecolor": "black",
      "linewidth": 1.2,
      "shrinkA": 0,
      "shrinkB": 0,
    },
  )


def write(folder: Path, title: str, rows: Rows):
  """Writes model.svg and model.png.

  Raises:
    UserError: they cannot be written.
  """
  drawn = figure(title, rows)
  figures.save_svg(drawn, folder / "model.svg", title, text(title, rows))
  figures.save(drawn, folder / "model.png", dpi=144)
