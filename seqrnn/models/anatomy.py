"""The parts of a model, their sizes, and its picture as boxes."""

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax

from seqrnn.experiment import Batch, Experiment, Params, shapes
from seqrnn.models import cells, diagram
from seqrnn.models.cell import Cell
from seqrnn.models.diagram import Box
from seqrnn.runtime import sharding
from seqrnn.settings.config import Config

_DEEP = 6  # With more layers, the picture leaves out those in the middle.


class Layer(NamedTuple):
  """A cell that is scanned over time.

  Attributes:
    depth: from 1, the layer that reads the input.
    reverse: from the last position to the first.
    inputs: D.
    units: H.
    params: the shapes of its parameters.
  """

  depth: int
  reverse: bool
  inputs: int
  units: int
  params: Params

  @property
  def products(self) -> int:
    """The number of multiplications in the products of one time step."""
    kernels = [
      leaf.size for leaf in jax.tree.leaves(self.params) if leaf.ndim > 1
    ]
    # A table is read by rows, without a product.
    table = "embedding" in self.params["input_kernel"]
    return sum(kernels) - table * _size(self.params["input_kernel"])


class Model(NamedTuple):
  """The parts of a model, found from its parameters and outputs.

  Attributes:
    params: the shapes of all parameters.
    cell: of its layers, not bound to parameters.
    layers: by depth, the forward layer first.
    towers: whether the two directions are stacks that meet below the head; else
      they meet in each layer.
    merge: how the directions are merged; None: there is one direction.
    width: how many numbers the head reads.
    symbols: V of the inputs.
    inputs: the shape of a batch, [B, T] or [B, T, V].
    outputs: the shape of its outputs, [B, N, V].
    unit: of the inputs.
    gives: what an output is, as in Experiment.
  """

  params: Params
  cell: Cell
  layers: list[Layer]
  towers: bool
  merge: str | None
  width: int
  symbols: int
  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  unit: str
  gives: str

  @property
  def pooled(self) -> bool:
    """Whether a sequence has one output."""
    return self.outputs[1] == 1 < self.inputs[1]


class Part(NamedTuple):
  """A part of a model that has parameters.

  Attributes:
    name: of the part.
    gives: the shape of its output.
    parameters: their number.
    formula: of their number; "": there is none.
    values: of the letters in the formula.
  """

  name: str
  gives: tuple[int, ...]
  parameters: int
  formula: str
  values: dict[str, int]


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


def anatomy(experiment: Experiment, config: Config, batch: Batch) -> Model:
  """The parts of an experiment's model; only shapes are computed."""
  params = shapes(experiment)
  cell = cells.make(config.model, hidden_size=1)
  layers, towers = [], False
  for place, own in _cells(params.get("body", params)):
    D, K = jax.tree.leaves(own["input_kernel"])[0].shape
    names = [name for name in place if name.startswith("layers_")]
    depth = 1  # Of a layer outside of a stack.
    if names:
      depth += int(names[0].removeprefix("layers_"))
    H = K // cell.gate_count
    layers.append(Layer(depth, "backward" in place, D, H, own))
    towers |= "tower" in place
  layers.sort(key=lambda layer: (layer.depth, layer.reverse))
  B, _, *features = batch["inputs"].shape
  assert experiment.predict is not None, "the caller has asked"
  predict, carry = experiment.predict, partial(experiment.carry, B)
  _, outputs_BNV = jax.eval_shape(
    sharding.jit(lambda params: predict(params, carry(), batch)), params
  )
  V = outputs_BNV.shape[-1]
  width = sum(x.units for x in layers if x.depth == layers[-1].depth) or V
  if "head" in params:  # Labels have no logits of reserved ids.
    width, V = params["head"]["kernel"].shape
  elif "head_bias" in params:  # Tied.
    V, width = params["embedding"]["embedding"].shape
  return Model(
    params=params,
    cell=cell,
    layers=layers,
    towers=towers,
    merge=config.model.merge if any(x.reverse for x in layers) else None,
    width=width,
    symbols=features[0]
    if features
    else len(experiment.vocabularies["symbols"]),
    inputs=batch["inputs"].shape,
    outputs=(*outputs_BNV.shape[:-1], V),
    unit=experiment.reads,
    gives=experiment.gives,
  )


def _name(layer: Layer, model: Model) -> str:
  direction = ", backward" if layer.reverse else ", forward"
  return f"layer {layer.depth}{direction if model.merge else ''}"


def parts(model: Model) -> list[Part]:
  """The parts that have parameters, from the input to the head."""
  B, T, *_ = model.inputs
  V = model.outputs[-1]
  found = []
  for name in sorted(
    model.params,
    key=lambda name: (name == "crf", "head" in name, name == "body"),
  ):
    own = model.params[name]
    if name == "embedding":
      symbols, D = own["embedding"].shape
      values = {"V": symbols, "D": D}
      found.append(Part(name, (B, T, D), symbols * D, "VD", values))
    elif name == "body":
      for layer in model.layers:
        values = {"D": layer.inputs, "H": layer.units}
        gives, size = (B, T, layer.units), _size(layer.params)
        title = _name(layer, model)
        found.append(Part(title, gives, size, model.cell.formula, values))
    elif name.endswith("head"):
      values = {"W": len(own["kernel"]), "V": V}
      title = name.replace("_", " ")
      found.append(Part(title, model.outputs, _size(own), "WV + V", values))
    elif name == "head_bias":
      title = "head, tied to the embedding"
      found.append(Part(title, model.outputs, _size(own), "V", {"V": V}))
    elif "affixes" in own:
      values = dict(zip("AD", own["affixes"].shape, strict=True))
      gives = (B, T, values["D"])
      found.append(Part("affixes", gives, _size(own), "AD", values))
    elif name == "crf":
      title = "CRF"
      found.append(Part(title, model.outputs, _size(own), "V² + 2V", {"V": V}))
    else:
      found.append(Part(name, (), _size(own), "", {}))
  return found


def picture(model: Model, config: Config) -> diagram.Rows:
  """The model as boxes, from the input up."""
  fields, unit = config.model, model.unit
  (_, T, *features), (_, N, V) = model.inputs, model.outputs
  each = f", each one of {model.symbols:,}"
  if features:
    what = "notes" if model.gives == "sigmoid" else "numbers"
    each = f" of {model.symbols} {what}"
  noise = _used(fields, "symbol_dropout", "input_noise")
  rows = [[Box(("input", f"{T} {unit}s{each}", *noise))]]
  dropped = [
    Box((line,)) for line in _used(fields, "dropout", "variational_dropout")
  ]
  if "embedding" in model.params:
    numbers = f"{fields.embedding_size} numbers for each {unit}"
    noise = _used(fields, "embedding_dropout")
    rows.append([Box(("embedding", numbers, *noise), 0.93)])
    rows += [[box] for box in dropped]
  merged = [Box((str(model.merge), f"{model.width:,} numbers"))]
  last = max((layer.depth for layer in model.layers), default=0)
  columns = 2 if model.towers else 1  # Between the layers.
  for depth, layers in itertools.groupby(model.layers, lambda x: x.depth):
    if last > _DEEP and 2 < depth < last:
      if depth == 3:
        likewise = f"layers 3 to {last - 1}", "in the same way"
        rows.append([Box(likewise, 0.82)] * columns)
      continue
    rows.append([_box(layer, model, fields) for layer in layers])
    if model.pooled and depth == last and fields.pooling == "last":
      ends = ("last", "first")[: len(rows[-1])]
      rows.append([Box(("state", f"after the {end} {unit}")) for end in ends])
    if model.merge and not model.towers:
      rows.append(merged)
    if model.pooled and depth == last and fields.pooling != "last":
      rows.append([Box((fields.pooling, f"over the {unit}s"))])
    rows += [[box] * columns for box in dropped]
  if model.towers:
    states = [f"state at t {side} 1" for side in "−+"]
    own = ["and a head of its own"] if "forward_head" in model.params else []
    to = f"for the {unit} at t"
    rows.append([Box((state, to, *own)) for state in states])
    rows.append(merged)
  kind, result = {
    "softmax": (f"softmax over {V:,}", "probabilities"),
    "sigmoid": (f"sigmoid of each of {V}", "probabilities"),
    "linear": (f"linear, {model.width:,} to {V:,}", "numbers"),
  }[model.gives]
  tied = ("weights of the embedding",) if "head_bias" in model.params else ()
  if "crf" in model.params:
    scores = f"linear, {model.width:,} to {V:,}"
    rows.append([Box(("head", scores, *tied), 0.93)])
    rows.append([Box(("CRF", f"{V:,} by {V:,} transitions"), 0.93)])
  else:
    rows.append([Box(("head", kind, *tied), 0.93)])
  where = "for the sequence" if model.pooled else f"at each of {N} places"
  result = result.removesuffix("s") if V == 1 else result
  rows.append([Box(("output", f"{V:,} {result} {where}"))])
  return rows


def _box(layer: Layer, model: Model, fields: Config) -> Box:
  """The box of a layer, with an arrow in its direction."""
  name = _name(layer, model)
  noise = "recurrent_dropout", "weight_drop", "zoneout_hidden", "zoneout_cell"
  return Box(
    (
      f"← {name}" if layer.reverse else f"{name} →",
      f"{fields.cell}, {layer.units:,} units",
      *_used(fields, *noise),
    ),
    0.82,
  )


def _used(fields: Config, *names: str) -> list[str]:
  """The regularisers that are on, each in words."""
  return [
    f"{name.replace('_', ' ')} {fields[name]:g}"
    for name in names
    if fields[name]
  ]
