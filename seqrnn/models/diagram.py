"""The parts of a model, their numbers of parameters, and their picture."""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from seqrnn.config.read import Config
from seqrnn.experiment import Experiment, shapes
from seqrnn.models import cells
from seqrnn.runtime import pictures

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Box = tuple[str, ...]  # Lines of text.
Rows = list[list[Box]]  # From the input up; one or two boxes each.
# Parameters of parts that are no layers -> their axes, and the formula of the
# number of all parameters of the part.
_FORMULAS = {
  "embedding": ("VD", "VD"),
  "affixes": ("AD", "AD"),
  "kernel": ("WV", "WV + V"),
  "head_bias": ("V", "V"),
  "note_kernel": ("VN", "2VN"),
  "table": ("NV", "NV"),
  "vector": ("H", "H + T"),
  "place": ("T", "H + T"),
  "transitions": ("VV", "V² + 2V"),
}
_CENTRES = {1: [0.5], 2: [0.25, 0.75]}  # Of the boxes of a row.


@dataclass(frozen=True)
class Part:
  """A part of a model.

  Attributes:
    name: `layer`, or the name of another part, such as `embedding` or `head`.
    depth: of a layer, from 1, the layer that reads the input; 0 of other parts.
    direction: of a layer, `forward` or `backward`; "" of other parts.
  """

  name: str
  depth: int = 0
  direction: str = ""

  @property
  def is_input(self) -> bool:
    """Whether layers read it."""
    return self.name in ("embedding", "letters", "convolution")

  @property
  def is_output(self) -> bool:
    """Whether it reads layers."""
    return not self.depth and not self.is_input

  def __lt__(self, other: "Part") -> bool:
    """Whether it comes before the other, from the input to the head."""
    return self._order < other._order

  @property
  def _order(self) -> tuple[Any, ...]:
    backward, last = self.direction == "backward", ("convolution", "crf")
    return self.is_output, self.depth, backward, self.name in last, self.name

  def __str__(self) -> str:
    if self.depth:
      return f"layer {self.depth} {self.direction}"
    return self.name


def part_of(path: tuple[Any, ...]) -> tuple[Part, str]:
  """The part that has a parameter, and the parameter's name within it."""
  keys = [str(key.key) for key in path]
  if keys[0] == "head_bias":  # Of a head that is tied to the embedding.
    return Part("head"), "head_bias"
  if keys[0] != "body":
    return Part(keys[0]), "/".join(keys[1:])
  depth = 1  # Of a layer outside of a stack.
  for key in keys:
    if key.startswith(("layers_", "blocks_")):
      depth += int(key.rpartition("_")[2])
  is_block = [key.startswith("blocks_") for key in keys]
  at = is_block.index(True) if any(is_block) else keys.index("cell") + 1
  direction = "backward" if "backward" in keys[:at] else "forward"
  return Part("layer", depth, direction), "/".join(keys[at:])


class ModelPart(NamedTuple):
  """A part of a model that has parameters.

  Attributes:
    name: of the part.
    parameters: their number.
    formula: of their number; "": there is none.
    values: of the letters in the formula.
    part: the part.
  """

  name: str
  parameters: int
  formula: str
  values: Mapping[str, int]
  part: Part


def parts(experiment: Experiment, config: Config) -> list[ModelPart]:
  """The parts of a model, from the input to the head; only shapes are read."""
  arrays: dict[Part, dict[str, Any]] = {}
  for path, leaf in jax.tree.leaves_with_path(shapes(experiment)):
    part, name = part_of(path)
    arrays.setdefault(part, {})[name] = leaf
  both = len({part.direction for part in arrays if part.depth}) > 1
  cell = cells.make(config.model, hidden_size=config.model.hidden_size)
  described = []
  for part in sorted(arrays):
    size = sum(leaf.size for leaf in arrays[part].values())
    name, formula, values = part.name.replace("_", " "), "", {}
    if part.depth:
      name = f"layer {part.depth}" + f", {part.direction}" * both
      leaves = arrays[part].items()
      [(D, K)] = [x.shape for path, x in leaves if "input_kernel" in path]
      width = lambda size: cell.clone(hidden_size=size).width
      H = bisect.bisect_left(range(K), K, key=width)
      formula, values = cell.formula, {"D": D, "H": H}
      block = f"blocks_{part.depth - 1}/kernel"
      if block in arrays[part]:
        formula += " + 2(W² + W)"
        values["W"] = len(arrays[part][block])
    for array in _FORMULAS.keys() & arrays[part].keys():
      axes, formula = _FORMULAS[array]
      values |= zip(axes, arrays[part][array].shape, strict=True)
    name = {"crf": "CRF", "nade": "NADE"}.get(name, name)
    name += ", tied to the embedding" * ("head_bias" in arrays[part])
    described.append(ModelPart(name, size, formula, values, part))
  return described


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
  layers = [one for one in parts if one.part.depth]
  outputs = [one for one in parts if one.part.is_output]
  boxes += [[(one.name, each(one))] for one in parts if one.part.is_input]
  for _, group in itertools.groupby(layers, lambda one: one.part.depth):
    row = []
    for one in group:
      backward = one.part.direction == "backward"
      name = f"← {one.name}" if backward else f"{one.name} →"
      row.append((name, f"{model.cell}, {one.values['H']:,} units", each(one)))
    boxes.append(row)
    if len(row) > 1 and not towers:
      boxes.append(merge)
  if towers:
    boxes += [[(f"state at t {side} 1",) for side in "−+"], merge]
  if pooled:
    boxes.append([(f"pooling: {model.pooling}",)])
  boxes += [[(one.name, each(one))] for one in outputs]
  where = "of the sequence" if pooled else f"of each {unit}"
  kind = "numbers" if experiment.gives == "linear" else "probabilities"
  boxes.append([("output", f"{outputs[-1].values['V']:,} {kind} {where}")])
  return boxes


def figure(title: str, boxes: Rows) -> "Figure":
  """Draws the boxes as a figure of matplotlib."""
  drawn = pictures.create(5.5, 0.9 * len(boxes) + 0.3)
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
