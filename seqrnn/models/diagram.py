"""A picture of a model: boxes in rows, read from the bottom to the top."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seqrnn.config.read import Config
from seqrnn.experiment import Experiment, shapes
from seqrnn.models.anatomy import Part
from seqrnn.runtime import figures

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Box = tuple[str, ...]  # Lines of text.
Rows = list[list[Box]]  # From the input up; one or two boxes each.
_CENTRES = {1: [0.5], 2: [0.25, 0.75]}  # Of the boxes of a row.
_OUTPUTS = {
  "softmax": "probabilities",
  "sigmoid": "probabilities",
  "linear": "numbers",
}


def rows(
  experiment: Experiment, config: Config, parts: Sequence[Part], pooled: bool
) -> Rows:
  """The boxes of a model.

  Args:
    experiment: with the model.
    config: of the run.
    parts: of the model.
    pooled: whether a sequence has one output.
  """
  model, unit = config.model, experiment.reads
  each = lambda part: f"{part.parameters:,} parameters"
  boxes: Rows = [[("input", f"{config.data.window} {unit}s")]]
  merge = [(f"{model.merge} of both directions",)]
  towers = "forward" in shapes(experiment).get("body", {})
  layers = [part for part in parts if part.depth]
  heads = [part for part in parts if "head" in part.name]
  others = [part for part in parts if part not in [*layers, *heads]]
  after = [part for part in others if part.name == "CRF"]
  boxes += [[(part.name, each(part))] for part in others if part not in after]
  for _, group in itertools.groupby(layers, lambda part: part.depth):
    row = [
      (
        f"← {part.name}" if part.reverse else f"{part.name} →",
        f"{model.cell}, {part.values['H']:,} units",
        each(part),
      )
      for part in group
    ]
    boxes.append(row)
    if len(row) > 1 and not towers:
      boxes.append(merge)
  if towers:
    boxes += [[(f"state at t {side} 1",) for side in "−+"], merge]
  if pooled:
    boxes.append([(f"pooling: {model.pooling}",)])
  boxes += [[(part.name, each(part))] for part in [*heads, *after]]
  where = "of the sequence" if pooled else f"of each {unit}"
  outputs = _OUTPUTS[experiment.gives]
  if heads:
    V = heads[-1].values["V"]
    outputs = f"{V:,} {outputs if V > 1 else outputs.removesuffix('s')}"
  boxes.append([("output", f"{outputs} {where}")])
  return boxes


def text(title: str, boxes: Rows) -> str:
  """Describes the picture in words, for readers who do not see it."""
  described = [
    " and, beside it, ".join(", ".join(box) for box in row) for row in boxes
  ]
  return f"{title}. From the input to the output: {'; then '.join(described)}."


def figure(title: str, boxes: Rows) -> "Figure":
  """Draws the boxes as a figure of matplotlib."""
  drawn = figures.create(5.5, 0.9 * len(boxes) + 0.3)
  drawn.set_layout_engine("none")
  axes = drawn.add_axes((0, 0, 1, 1))
  axes.set(xlim=(0, 1), ylim=(-0.5, len(boxes) - 0.2))
  axes.axis("off")
  style = {"ha": "center", "va": "center", "fontsize": 10}
  frame = {"boxstyle": "round", "facecolor": "white"}
  labels = [
    [
      axes.text(x, y, "\n".join(box), bbox=frame, **style)
      for x, box in zip(_CENTRES[len(row)], row, strict=True)
    ]
    for y, row in enumerate(boxes)
  ]
  for row, above in itertools.pairwise(labels):
    join = itertools.product if len(row) != len(above) else zip
    for a, b in join(row, above):
      arrow = {
        "arrowstyle": "-|>",
        "facecolor": "black",
        "patchA": a.get_bbox_patch(),
        "patchB": b.get_bbox_patch(),
      }
      axes.annotate("", b.get_position(), a.get_position(), arrowprops=arrow)
  axes.text(0.5, len(boxes) - 0.4, title, weight="bold", **style)
  return drawn


def write(folder: Path, title: str, boxes: Rows):
  """Writes model.svg and model.png.

  Raises:
    UserError: they cannot be written.
  """
  drawn = figure(title, boxes)
  figures.save_svg(drawn, folder / "model.svg", title, text(title, boxes))
  figures.save(drawn, folder / "model.png", dpi=144)
