"""describe: the parts of a model, its size and cost, its reach, its picture."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from seqrnn.config import Config
from seqrnn.experiment import Batch, Experiment, Params, shapes
from seqrnn.models import budget, diagram
from seqrnn.models.cells import Cell
from seqrnn.models.diagram import Box
from seqrnn.models.network import CELLS
from seqrnn.runtime import fileset, sharding
from seqrnn.training import optimizers
from seqrnn.training.step import Optimizer, make_state, make_step

_STEPS = 3  # That are timed.
_DEEP = 6  # Of more layers, the picture leaves out those in the middle.


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
    """Factors in the kernels that a step is multiplied with."""
    kernels = [
      leaf.size for leaf in jax.tree.leaves(self.params) if leaf.ndim > 1
    ]
    # Rows of a table are read.
    table = "embedding" in self.params["input_kernel"]
    return sum(kernels) - table * _size(self.params["input_kernel"])


class Model(NamedTuple):
  """What a model is made of, as its parameters and its outputs show it.

  Attributes:
    params: the shapes of all.
    cell: of its layers, not bound to any.
    layers: by depth, and the forward one first.
    towers: whether two stacks meet below the head; else the two directions,
      where there are two, meet in each layer.
    merge: of the directions; None: there is one.
    width: how many numbers the head reads.
    symbols: V of the inputs.
    inputs: the shape of a batch, [B, T] or [B, T, V].
    outputs: the shape of its outputs, [B, N, V].
    unit: of the inputs.
    gives: what an output is: `softmax` over symbols or labels, `sigmoid` of
      each note, or `linear`, a number.
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
    parameters: how many it has.
    formula: of their number; "" where it has none.
    values: of the letters in the formula.
  """

  name: str
  gives: tuple[int, ...]
  parameters: int
  formula: str
  values: dict[str, int]


class Cost(NamedTuple):
  """What a training step takes.

  Attributes:
    state: bytes of all that is kept from step to step, on each device.
    passing: bytes that come and go within a step, on each device.
    seconds: a step.
  """

  state: int
  passing: int
  seconds: float


def _size(tree: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _cells(
  tree: Any, place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
  """Where each cell stands in a tree of parameters, with its own ones."""
  if not isinstance(tree, Mapping):
    return
  if "cell" in tree:
    yield place, tree["cell"]
  else:
    for name, branch in tree.items():
      yield from _cells(branch, (*place, name))


def anatomy(experiment: Experiment, config: Config, batch: Batch) -> Model:
  """The model of an experiment, for batches like this one; none is made."""
  params = shapes(experiment)
  cell = CELLS[config.model.cell](config.model, hidden_size=1)
  layers, towers = [], False
  for place, own in _cells(params.get("body", params)):
    D, K = jax.tree.leaves(own["input_kernel"])[0].shape
    names = [name for name in place if name.startswith("layers_")]
    depth = 1  # Of a model that is no stack.
    if names:
      depth += int(names[0].removeprefix("layers_"))
    H = K // cell.gate_count
    layers.append(Layer(depth, "backward" in place, D, H, own))
    towers |= "tower" in place
  layers.sort(key=lambda layer: (layer.depth, layer.reverse))
  B, _, *features = batch["inputs"].shape
  _, outputs_BNV = jax.eval_shape(
    lambda params: experiment.predict(params, experiment.carry(B), batch),
    params,
  )
  V = outputs_BNV.shape[-1]
  width = sum(x.units for x in layers if x.depth == layers[-1].depth) or V
  if "head" in params:  # Labels have no logits of reserved ids.
    width, V = params["head"]["kernel"].shape
  elif "head_bias" in params:  # Tied.
    V, width = params["embedding"]["embedding"].shape
  gives = "linear" if experiment.names is None else "softmax"
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
    gives="sigmoid" if experiment.unit == "frame" else gives,
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
    model.params, key=lambda name: ("head" in name, name == "body")
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
    else:
      found.append(Part(name, (), _size(own), "", {}))
  return found


def advice(parameters: int, symbols: int, unit: str) -> str:
  """What the number of parameters means beside the size of the data."""
  share = parameters / symbols
  facts = (
    f"{parameters:,} parameters, {symbols:,} {unit}s to train on:"
    f" {share:.2g} parameters a {unit}."
  )
  if share < 0.1:
    return (
      f"{facts} The data are larger by an order of magnitude or more: the model"
      " may be too small for what is in them. Raise model.hidden_size, or give"
      " model.parameters, as far as time allows."
    )
  if share > 10:
    return (
      f"{facts} The model is larger by an order of magnitude or more: it may"
      " learn the data by heart. Watch the validation loss; get more data,"
      " raise model.dropout, or lower model.hidden_size."
    )
  return f"{facts} Both are of about the same order of magnitude: go on."


def reach(model: Model, config: Config) -> str:
  """How far from a prediction the model can learn what it rests on."""
  T, unit = config.data.window, model.unit
  if model.towers:
    return (
      f"Gradients reach all of the window on both sides of a {unit},"
      f" {T - 1} {unit}s (data.window). Neither they nor the states go over its"
      " edges."
    )
  if model.merge:
    return (
      f"Gradients reach all of the window, {T} {unit}s (data.window), which is"
      " read from both ends."
    )
  back = f"Gradients reach back to the beginning of the window, at most {T}"
  if config.data.stateful:
    return (
      f"{back} {unit}s (data.window). The state comes from the window before"
      " (data.stateful): it may hold what is older, which no gradient teaches"
      " it to keep for longer than a window."
    )
  return (
    f"{back} {unit}s (data.window), and so do states in training: each window"
    " begins without one (data.stateful=False)."
  )


def _start(
  experiment: Experiment, config: Config, batch: Batch, mesh: Mesh
) -> tuple[Optimizer, Callable[[], Any]]:
  """The optimizer, and what makes the state before the first step."""

  def optimizer(rate):  # As fast as with any schedule.
    return optimizers.optimizer(config, optax.constant_schedule(rate))

  none = config.train.ema is None and config.train.asgd is None
  average = None if none else 0.0
  args = experiment, optimizer, config.seed, batch, mesh, average
  return optimizer, partial(make_state, *args)


def estimate(
  model: Model, experiment: Experiment, config: Config, batch: Batch, mesh: Mesh
) -> Cost:
  """What a step should take, by counting arrays and products.

  The backward pass has two products for each one of the forward pass; all else
  takes no time here. A product of the first layer's size is timed.
  """
  B, T, *_ = model.inputs
  _, N, V = model.outputs
  carry = jax.tree.leaves(jax.eval_shape(lambda: model.cell.initial_carry(1)))
  # Of a gate: its input, its value and its gradient. Of a logit: itself, its
  # probability and its gradient.
  arrays = 3 * model.cell.gate_count + len(carry)
  units = sum(layer.units for layer in model.layers)
  heads = [
    own["kernel"].size
    for name, own in model.params.items()
    if name.endswith("head")
  ] or [model.width * V]  # Tied, or of another name.
  kept = B * T * arrays * units + 3 * B * N * V * len(heads)
  products = sum(layer.products for layer in model.layers)
  operations = 6 * B * (T * products + N * sum(heads))
  _, start = _start(experiment, config, batch, mesh)
  H = model.layers[0].units if model.layers else model.width
  speed = mesh.size * _speed(sharding.padded_size(B, mesh) // mesh.size, H)
  return Cost(
    state=_bytes(jax.eval_shape(start)),
    passing=_bytes(model.params) + 4 * kept // mesh.size,
    seconds=operations / speed,
  )


def _speed(rows: int, H: int) -> float:
  """Operations a second of products [rows, H] @ [H, H] on one device."""
  once = 2 * rows * H * H
  count = 1 + 2**28 // once
  h_BH, R_HH = jnp.zeros((rows, H)), jnp.zeros((H, H))
  repeat = jax.jit(
    lambda h, R: jax.lax.fori_loop(0, count, lambda _, h: h @ R, h)
  )
  repeat(h_BH, R_HH).block_until_ready()
  begin = time.perf_counter()
  repeat(h_BH, R_HH).block_until_ready()
  return count * once / (time.perf_counter() - begin)


def measure(
  experiment: Experiment, config: Config, batch: Batch, mesh: Mesh
) -> tuple[Cost, float]:
  """What a step takes, and how many seconds compiling it.

  The bytes within a step are those that XLA sets aside for it.
  """
  optimizer, start = _start(experiment, config, batch, mesh)
  step: Any = make_step(experiment, optimizer, mesh, config.train.ema or 1.0)
  state = start()
  size = _bytes(state)
  rows = sharding.put(batch, len(batch["inputs"]), mesh)
  times = [time.perf_counter()]
  rate = config.optimizer.learning_rate
  compiled = step.lower(state, rows, rate).compile()
  for _ in range(1 + _STEPS):  # The first one warms up.
    times.append(time.perf_counter())
    state, loss = compiled(state, rows, rate)
    loss.block_until_ready()
  times.append(time.perf_counter())
  compiling, _, *seconds = (b - a for a, b in itertools.pairwise(times))
  passing = compiled.memory_analysis().temp_size_in_bytes
  return Cost(size, passing, statistics.median(seconds)), compiling


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
  rows.append([Box(("head", kind, *tied), 0.93)])
  where = "for the sequence" if model.pooled else f"at each of {N} places"
  result = result.removesuffix("s") if V == 1 else result
  rows.append([Box(("output", f"{V:,} {result} {where}"))])
  return rows


def _box(layer: Layer, model: Model, fields: Config) -> Box:
  """A layer, with an arrow where it is going."""
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
  """Those of the regularisers that are on, each in words."""
  return [
    f"{name.replace('_', ' ')} {fields[name]:g}"
    for name in names
    if fields[name]
  ]


def _shape(sizes: tuple[int, ...]) -> str:
  return " x ".join(f"{size:,}" for size in sizes)


def _megabytes(count: int) -> str:
  return f"{count / 1e6:,.1f} MB"


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> list[Part]:
  """Prints what a model is; writes model.svg and model.png.

  It may have been trained or not.

  Raises:
    UserError: there is no such model or no such data.
  """
  config, experiment = budget.settle(build, config, workdir)
  batches = experiment.batches("train", 0)
  model = anatomy(experiment, config, batches[0])
  size = _size(model.params)
  found = parts(model)
  console = Console(highlight=False)

  table = Table("part", "output", "parameters", "how many", "where")
  table.add_row("input", _shape(model.inputs))
  for part in found:
    values = ", ".join(f"{name}={n:,}" for name, n in part.values.items())
    table.add_row(
      part.name,
      _shape(part.gives),
      f"{part.parameters:,}",
      part.formula,
      values,
    )
  table.add_row("all", "", f"{size:,}")
  console.print(table)
  console.print(advice(size, experiment.facts("train")["symbols"], model.unit))
  console.print(reach(model, config))

  workdir.mkdir(parents=True, exist_ok=True)
  title = f"{config.task}: {size:,} parameters"
  with fileset.results(workdir, "describe", "described") as folder:
    diagram.draw(folder, title, picture(model, config))
  print(f"{workdir / 'model.svg'}, {workdir / 'model.png'}: the picture")

  mesh = sharding.mesh()
  costs = Table("a step", "kept between steps", "within a step", "time")
  costs.caption = f"devices: {mesh.size}, the memory of each"

  def add(name, cost):
    memory = _megabytes(cost.state), _megabytes(cost.passing)
    costs.add_row(name, *memory, f"{1000 * cost.seconds:,.1f} ms")

  cost = estimate(model, experiment, config, batches[0], mesh)
  add("estimated, products alone", cost)
  if config.describe.measure:
    cost, compiling = measure(experiment, config, batches[0], mesh)
    add(f"measured, {_STEPS} steps", cost)
    console.print(f"Compiled in {compiling:.1f} s.")
  console.print(costs)
  epoch = len(batches) * cost.seconds
  duration = f"{epoch:,.0f} s" if epoch < 100 else f"{epoch / 60:,.0f} minutes"
  console.print(
    f"An epoch has {len(batches):,} steps: {duration}, if all are as large."
  )
  return found
