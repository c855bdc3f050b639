"""A picture of a model: boxes in rows, read from the bottom to the top."""

import io
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from seqrnn.runtime import files

# In points, of which the picture has 72 an inch.
_FONT = 10
_LINE = 14  # From a line of text to the next.
_MARGIN = 9  # Between the text and its box, the boxes and the edge.
_GAP = 14  # Between two boxes in a row.
_ARROW = 22  # Between two rows.


class Box(NamedTuple):
  """A box of the picture.

  Attributes:
    lines: of text; the first one is its name.
    shade: of its ground, from 0, black, to 1, white.
  """

  lines: tuple[str, ...]
  shade: float = 1.0


Rows = list[list[Box]]  # From the input up; one box or two in each.


def text(title: str, rows: Rows) -> str:
  """The picture in words, for those who do not see it."""
  said = [
    " and, beside it, ".join(", ".join(box.lines) for box in row)
    for row in rows
  ]
  return f"{title}. From the input to the output: {'; then '.join(said)}."


def figure(title: str, rows: Rows) -> Any:
  """The picture as a figure of matplotlib."""
  # It takes a second to import, and no screen is needed.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  from matplotlib.font_manager import FontProperties
  from matplotlib.patches import FancyBboxPatch
  from matplotlib.textpath import TextPath

  def width(line, weight):
    font = FontProperties(weight=weight)
    return TextPath((0, 0), line, _FONT, font).get_extents().width

  def needed(boxes):
    return 2 * _MARGIN + max(
      width(line, "normal" if place else "bold")
      for box in boxes
      for place, line in enumerate(box.lines)
    )

  pairs = [box for row in rows if len(row) == 2 for box in row]
  whole = needed([box for row in rows if len(row) == 1 for box in row])
  if pairs:
    whole = max(whole, 2 * needed(pairs) + _GAP)
  half = (whole - _GAP) / 2
  heights = [
    _MARGIN + _LINE * max(len(box.lines) for box in row) for row in rows
  ]
  total = sum(heights) + _ARROW * (len(rows) - 1) + _LINE
  wide = max(whole, width(title, "bold")) + 2 * _MARGIN
  high = total + 3 * _MARGIN

  drawn = Figure(figsize=(wide / 72, high / 72))
  FigureCanvasAgg(drawn)
  axes = drawn.add_axes((0, 0, 1, 1))
  axes.set(xlim=(0, wide), ylim=(0, high))
  axes.axis("off")
  write = {"fontsize": _FONT, "ha": "center", "va": "center"}
  left, y = (wide - whole) / 2, _MARGIN
  middles = {
    1: [wide / 2],
    2: [left + half / 2, left + whole - half / 2],
  }
  for place, (row, height) in enumerate(zip(rows, heights, strict=True)):
    for box, x in zip(row, middles[len(row)], strict=True):
      size = whole if len(row) == 1 else half
      axes.add_patch(
        FancyBboxPatch(
          (x - size / 2, y),
          size,
          height,
          boxstyle="round,pad=0,rounding_size=4",
          facecolor=str(box.shade),
          edgecolor="black",
          linewidth=1,
        )
      )
      first = y + height / 2 + _LINE * (len(box.lines) - 1) / 2
      for number, line in enumerate(box.lines):
        weight = "normal" if number else "bold"
        axes.text(x, first - _LINE * number, line, weight=weight, **write)
    y += height
    if place + 1 < len(rows):
      for x in middles[max(len(row), len(rows[place + 1]))]:
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
      y += _ARROW
  axes.text(wide / 2, high - _MARGIN - _LINE / 2, title, weight="bold", **write)
  return drawn


def svg(drawn: Any, title: str, description: str) -> str:
  """A figure as SVG that says in words what it shows."""
  import matplotlib

  buffer = io.StringIO()
  # Ids by the content, and no date: the same picture is the same file.
  with matplotlib.rc_context({"svg.hashsalt": "seqrnn"}):
    drawn.savefig(buffer, format="svg", metadata={"Title": title, "Date": None})
  end = "</title>"
  said = f"{end}\n <desc>{escape(description)}</desc>"
  return buffer.getvalue().replace(end, said, 1)


def draw(workdir: Path, title: str, rows: Rows):
  """Writes model.svg and model.png.

  Raises:
    UserError: they cannot be written.
  """
  drawn = figure(title, rows)
  with files.atomic_write(workdir / "model.svg") as file:
    file.write(svg(drawn, title, text(title, rows)))
  with files.atomic_write(workdir / "model.png", "wb") as file:
    drawn.savefig(file, format="png", dpi=144)
