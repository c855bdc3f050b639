"""The places of arrays in a model, from the input to the heads.

An array of a model's parameters belongs to a part: the embedding, the layers
over the letters of a word, a layer of one direction, a head, or another part
that a task has.
"""

import dataclasses
from typing import Any

import jax

from seqrnn.experiment import Params

_INPUTS = ("embedding", "letters")


@dataclasses.dataclass(frozen=True)
class Place:
  """The place of an array.

  Attributes:
    part: `layer`, or the name of another part, such as `embedding` or `head`.
    depth: of a layer, from 1, the layer that reads the input; 0 of other parts.
    direction: of a layer, `forward` or `backward`; "" of other parts.
    array: the name of the array within its part.
  """

  part: str
  depth: int = 0
  direction: str = ""
  array: str = ""

  @property
  def whole(self) -> "Place":
    """The part of the array."""
    return dataclasses.replace(self, array="")

  @property
  def is_input(self) -> bool:
    """Whether layers read it."""
    return self.part in _INPUTS

  @property
  def names(self) -> tuple[str, ...]:
    """The names that its part has in `train.freeze`."""
    if self.depth:
      return "layers", f"layer{self.depth}"
    return (self.part if self.is_input else "head",)

  def level(self, layers: int) -> int:
    """The number of levels above it: heads, then layers, the last one first.

    `layers` is the number of layers.
    """
    if self.depth:
      return layers + 1 - self.depth
    return layers + 1 if self.is_input else 0

  def __str__(self) -> str:
    if self.depth:
      return f"layer {self.depth} {self.direction}"
    return self.part


def _place(path: tuple[Any, ...]) -> Place:
  keys = [str(key.key) for key in path]
  if keys[0] == "head_bias":  # Of a head that is tied to the embedding.
    return Place("head", array="head_bias")
  if keys[0] != "body" or "cell" not in keys:
    return Place(keys[0], array="/".join(keys[1:]))
  at = keys.index("cell")
  depth = 1  # Of a layer outside of a stack.
  for key in keys[:at]:
    if key.startswith("layers_"):
      depth += int(key.removeprefix("layers_"))
  direction = "backward" if "backward" in keys[:at] else "forward"
  return Place("layer", depth, direction, "/".join(keys[at + 1 :]))


def places(params: Params) -> Any:
  """Returns a tree like `params` of the places of its arrays."""
  return jax.tree_util.tree_map_with_path(lambda path, _: _place(path), params)
