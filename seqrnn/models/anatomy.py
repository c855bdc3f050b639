"""The parts of a model, and the formulas of their numbers of parameters."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from seqrnn.config.read import Config
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.models import cells
from seqrnn.models.cell import Cell


class Part(NamedTuple):
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


def parts(experiment: Experiment, config: Config) -> list[Part]:
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


def _outside(name: str, params: Any) -> Part:
  """A part that is no recurrent layer."""
  title, size = name.replace("_", " "), _size(params)
  if name == "embedding":
    V, D = params["embedding"].shape
    return Part(title, size, "VD", {"V": V, "D": D})
  if name.endswith("head"):
    W, V = params["kernel"].shape
    return Part(title, size, "WV + V", {"W": W, "V": V})
  if name == "head_bias":
    return Part("head, tied to the embedding", size, "V", {"V": size})
  if name == "crf":
    V = max(leaf.shape[-1] for leaf in jax.tree.leaves(params))
    return Part("CRF", size, "V² + 2V", {"V": V})
  if isinstance(params, Mapping) and "affixes" in params:
    A, D = params["affixes"].shape
    return Part(title, size, "AD", {"A": A, "D": D})
  return Part(title, size)


def _layers(body: Params, cell: Cell) -> list[Part]:
  """The layers by depth, the forward one first."""
  found = []
  places = dict(_cells(body))
  both = any("backward" in place for place in places)
  for place, params in places.items():
    D, K = jax.tree.leaves(params["input_kernel"])[0].shape
    names = [name for name in place if name.startswith("layers_")]
    # A layer outside of a stack has no number.
    depth = 1 + int(names[0].removeprefix("layers_")) if names else 1
    reverse = "backward" in place
    direction = (", backward" if reverse else ", forward") if both else ""
    values = {"D": D, "H": K // cell.gate_count}
    name, size = f"layer {depth}{direction}", _size(params)
    found.append(Part(name, size, cell.formula, values, depth, reverse))
  return sorted(found, key=lambda part: (part.depth, part.reverse))


def _size(tree: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _cells(
  tree: Any, place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
  """The path of each cell in a tree of parameters, and its parameters."""
  if not isinstance(tree, Mapping):
    return
  if "cell" in tree:
    yield place, tree["cell"]
  else:
    for name, branch in tree.items():
      yield from _cells(branch, (*place, name))
