"""A picture of a model: a box for each part."""

import itertools

from seqrnn.config.read import Config
from seqrnn.experiment import Experiment, shapes
from seqrnn.models.parts import PartSize
from seqrnn.runtime import pictures

Box = tuple[str, ...]  # Lines of text.
Diagram = list[list[Box]]  # Rows from the input up; one or two boxes each.
_CENTRES = {1: [0.5], 2: [0.25, 0.75]}  # Number of boxes in a row -> their x.


def boxes(
  experiment: Experiment, config: Config, sizes: list[PartSize], pooled: bool
) -> Diagram:
  """The boxes of a model.

  Args:
    experiment: with the model.
    config: of the run.
    sizes: of the parts of the model.
    pooled: whether a sequence has one output.
  """
  model, unit = config.model, experiment.reads
  each = lambda part: f"{part.parameters:,} parameters"
  diagram: Diagram = [[("input", f"{config.data.window} {unit}s")]]
  merge = [(f"{model.merge} of both directions",)]
  towers = "forward" in shapes(experiment).get("body", {})
  layers = [one for one in sizes if one.part.depth]
  outputs = [one for one in sizes if one.part.is_output]
  diagram += [[(one.name, each(one))] for one in sizes if one.part.is_input]
  for _, group in itertools.groupby(layers, lambda one: one.part.depth):
    row = []
    for one in group:
      backward = one.part.direction == "backward"
      name = f"← {one.name}" if backward else f"{one.name} →"
      row.append((name, f"{model.cell}, {one.values['H']:,} units", each(one)))
    diagram.append(row)
    if len(row) > 1 and not towers:
      diagram.append(merge)
  if towers:
    diagram += [[(f"state at t {side} 1",) for side in "−+"], merge]
  if pooled:
    diagram.append([(f"pooling: {model.pooling}",)])
  diagram += [[(one.name, each(one))] for one in outputs]
  where = "of the sequence" if pooled else f"of each {unit}"
  kind = "numbers" if experiment.gives == "linear" else "probabilities"
  diagram.append([("output", f"{outputs[-1].values['V']:,} {kind} {where}")])
  return diagram


def draw(title: str, diagram: Diagram) -> "pictures.Figure":
  """Draws the boxes of a model."""
  drawn = pictures.create(5.5, 0.9 * len(diagram) + 0.3)
  drawn.set_layout_engine("none")
  axes = drawn.add_axes((0, 0, 1, 1))
  axes.set(xlim=(0, 1), ylim=(-0.5, len(diagram) - 0.2))
  axes.axis("off")
  style = {"ha": "center", "va": "center", "fontsize": 10}
  frame = {"boxstyle": "round", "facecolor": "white"}
  labels = [
    [
      axes.text(x, y, "\n".join(box), bbox=frame, **style)
      for x, box in zip(_CENTRES[len(row)], row, strict=True)
    ]
    for y, row in enumerate(diagram)
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
  axes.text(0.5, len(diagram) - 0.4, title, weight="bold", **style)
  return drawn
