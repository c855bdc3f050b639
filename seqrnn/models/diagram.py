"""The parts of a model, their numbers of parameters, and their picture."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict

from seqrnn.config.read import Config
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.models import cells
from seqrnn.models.cell import Cell
from seqrnn.runtime import figures, files

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Box = tuple[str, ...]  # Lines of text.
Rows = list[list[Box]]  # From the input up; one or two boxes each.
_CENTRES = {1: [0.5], 2: [0.25, 0.75]}  # Of the boxes of a row.


class ModelPart(NamedTuple):
  """A part of a model that has parameters.

  Attributes:
    name: of the part.
    parameters: their number.
    formula: of their number; "": there is none.
    values: of the letters in the formula.
    depth: of a layer, from 1, the layer that reads the input; 0: no layer.
    reverse: whether a layer reads from the last position to the first.
  """

  name: str
  parameters: int
  formula: str = ""
  values: Mapping[str, int] = {}
  depth: int = 0
  reverse: bool = False


def parts(experiment: Experiment, config: Config) -> list[ModelPart]:
  """The parts of a model, from the input to the head; only shapes are read."""
  params = shapes(experiment)
  cell = cells.make(config.model, hidden_size=1)
  order = lambda name: (name == "crf", "head" in name, name == "body")
  return [
    part
    for name in sorted(params, key=order)
    for part in (
      _layers(params[name], cell)
      if name == "body"
      else [_outside(name, params[name])]
    )
  ]


def _outside(name: str, params: Any) -> ModelPart:
  """A part that is no recurrent layer."""
  title, size = name.replace("_", " "), _size(params)
  if name == "embedding":
    V, D = params["embedding"].shape
    return ModelPart(title, size, "VD", {"V": V, "D": D})
  if name.endswith("head"):
    W, V = params["kernel"].shape
    return ModelPart(title, size, "WV + V", {"W": W, "V": V})
  if name == "head_bias":
    return ModelPart("head, tied to the embedding", size, "V", {"V": size})
  if name == "crf":
    V = max(leaf.shape[-1] for leaf in jax.tree.leaves(params))
    return ModelPart("CRF", size, "V² + 2V", {"V": V})
  if isinstance(params, Mapping) and "affixes" in params:
    A, D = params["affixes"].shape
    return ModelPart(title, size, "AD", {"A": A, "D": D})
  return ModelPart(title, size)


def _layers(body: Params, cell: Cell) -> list[ModelPart]:
  """The layers by depth, the forward one first."""
  layers = []
  kernels: dict[tuple[str, ...], Any] = {}
  sizes: Counter[tuple[str, ...]] = Counter()
  leaves: Any = flatten_dict(body)
  for path, leaf in leaves.items():
    place = path[: path.index("cell")]
    sizes[place] += leaf.size
    if "input_kernel" in path:
      kernels[place] = leaf
  both = any("backward" in place for place in kernels)
  for place, kernel_DK in kernels.items():
    D, K = kernel_DK.shape
    names = [name for name in place if name.startswith("layers_")]
    # A layer outside of a stack has no number.
    depth = 1 + int(names[0].removeprefix("layers_")) if names else 1
    reverse = "backward" in place
    direction = (", backward" if reverse else ", forward") if both else ""
    values = {"D": D, "H": K // cell.gate_count}
    name = f"layer {depth}{direction}"
    shape = cell.formula, values, depth, reverse
    layers.append(ModelPart(name, sizes[place], *shape))
  return sorted(layers, key=lambda part: (part.depth, part.reverse))


def _size(tree: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def rows(
  experiment: Experiment,
  config: Config,
  parts: Sequence[ModelPart],
  pooled: bool,
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
  outputs = "numbers" if experiment.gives == "linear" else "probabilities"
  if heads:
    V = heads[-1].values["V"]
    outputs = f"{V:,} {outputs if V > 1 else outputs.removesuffix('s')}"
  boxes.append([("output", f"{outputs} {where}")])
  return boxes


def description(title: str, boxes: Rows) -> str:
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


def save_pictures(folder: Path, title: str, boxes: Rows):
  """Writes model.svg and model.png.

  Raises:
    UserError: they cannot be written.
  """
  drawn = figure(title, boxes)
  with files.atomic_write(folder / "model.svg") as file:
    file.write(figures.svg(drawn, title, description(title, boxes)))
  figures.save(drawn, folder / "model.png", dpi=144)
