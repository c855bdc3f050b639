"""The parts of a model: its embedding, layers and heads, and their sizes."""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
from jax.tree_util import KeyPath

from seqrnn.config.read import Config
from seqrnn.experiment import Experiment, shapes
from seqrnn.models import cells

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


@dataclass(frozen=True)
class ModelPart:
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

  def __lt__(self, other: "ModelPart") -> bool:
    """Whether it comes before the other, from the input to the head."""
    return self._order < other._order

  @property
  def _order(self) -> tuple[bool, int, bool, bool, str]:
    backward, last = self.direction == "backward", ("convolution", "crf")
    return self.is_output, self.depth, backward, self.name in last, self.name

  def __str__(self) -> str:
    if self.depth:
      return f"layer {self.depth} {self.direction}"
    return self.name


def part_of(path: KeyPath) -> tuple[ModelPart, str]:
  """The part that has a parameter, and the parameter's name within it."""
  keys = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
  if keys[0] == "head_bias":  # The head is tied to the embedding.
    return ModelPart("head"), "head_bias"
  if keys[0] != "body":
    return ModelPart(keys[0]), "/".join(keys[1:])
  depth = 1  # A layer outside of a stack is the first one.
  for key in keys:
    if key.startswith(("layers_", "blocks_")):
      depth += int(key.rpartition("_")[2])
  is_block = [key.startswith("blocks_") for key in keys]
  at = is_block.index(True) if any(is_block) else keys.index("cell") + 1
  direction = "backward" if "backward" in keys[:at] else "forward"
  return ModelPart("layer", depth, direction), "/".join(keys[at:])


class PartSize(NamedTuple):
  """The number of parameters of a part.

  Attributes:
    name: of the part, for people.
    parameters: their number.
    formula: of their number; "": there is none.
    values: of the letters in the formula.
    part: the part.
  """

  name: str
  parameters: int
  formula: str
  values: Mapping[str, int]
  part: ModelPart


def part_sizes(experiment: Experiment, config: Config) -> list[PartSize]:
  """The parts of a model, from the input to the head; only shapes are read."""
  arrays: dict[ModelPart, dict[str, jax.ShapeDtypeStruct]] = {}
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
    formula += " + 2" * ("weights" in arrays[part])
    name = {"crf": "CRF", "nade": "NADE"}.get(name, name)
    name += ", tied to the embedding" * ("head_bias" in arrays[part])
    described.append(PartSize(name, size, formula, values, part))
  return described
