"""A model as a graph of ONNX, with its operators LSTM, GRU and RNN.

In names, W is the axis of directions. The recurrent operators read time first.
Padding is id 0 at the end of a row; its length is the number of other ids.
"""

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import PAD
from seqrnn.errors import needs_package
from seqrnn.experiment import Experiment, Params
from seqrnn.exporting.network import Layers, Network, Operator, network_of

FILE = "model.onnx"
_OPSET, _IR = 17, 8  # From 2022: every current runtime reads them.
# ONNX's order of gates: the place of each in torch.nn's order.
_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
_LEAST = -3.4e38
Axes = list[str | int]  # The name or the size of each axis.
_OUTPUTS = {"softmax": "log_probabilities", "sigmoid": "log_odds"}


def encoded(
  experiment: Experiment, config: Config, params: Params, about: dict[str, str]
) -> bytes:
  """The content of a file with the graph of a model.

  Args:
    experiment: the task.
    config: of the run.
    params: of the checkpoint.
    about: entries of the file's metadata.

  Raises:
    UserError: onnx is missing, or a part has no place in the file.
  """
  network = network_of(experiment, config, params)
  with needs_package("config.export.format='onnx'", "onnx", "export"):
    import onnx
    from onnx import helper
  graph = Graph(network, onnx)
  outputs = build(graph)
  rows: Axes = ["batch", "length"]
  inputs = [graph.value("ids", np.int64, rows)]
  if network.frames:
    inputs = [graph.value("frames", np.float32, [*rows, network.inputs])]
  for name, axes in _carry(network).items():
    inputs.append(graph.value(name, np.float32, axes))
  values = [graph.value(name, np.float32, outputs[name]) for name in outputs]
  model = helper.make_model(
    helper.make_graph(graph.nodes, "model", inputs, values, graph.constants),
    opset_imports=[helper.make_opsetid("", _OPSET)],
    ir_version=_IR,
    producer_name="seqrnn",
  )
  helper.set_model_props(model, about)
  return model.SerializeToString()


class Graph:
  """The nodes and the constants of a network's graph, as they are added."""

  def __init__(self, network: Network, onnx: ModuleType):
    self.network, self._onnx = network, onnx
    self.nodes, self.constants = [], []

  def value(self, name: str, dtype: DTypeLike, shape: Axes) -> Any:
    """An input or an output of the graph, a ValueInfoProto."""
    make = self._onnx.helper.make_tensor_value_info
    return make(name, self.type_of(dtype), shape)

  def type_of(self, dtype: DTypeLike) -> int:
    """ONNX's number of a type."""
    return self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

  def constant(self, value: ArrayLike, dtype: DTypeLike = np.int64) -> str:
    """A constant; returns its name."""
    name = f"constant_{len(self.constants)}"
    array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
    self.constants.append(self._onnx.numpy_helper.from_array(array, name))
    return name

  def weight(self, value: ArrayLike) -> str:
    """A constant in float32; returns its name."""
    return self.constant(value, np.float32)

  def add(self, operator: str, *inputs: str, name: str = "", **options) -> str:
    """A node of one output; returns the output's name.

    Args:
      operator: of ONNX.
      *inputs: names; "" is an input that is left out.
      name: of the output; "": any.
      **options: the attributes.
    """
    [name] = self.add_several(operator, *inputs, names=[name], **options)
    return name

  def add_several(
    self, operator: str, *inputs: str, names: list[str], **options
  ) -> list[str]:
    """A node of as many outputs as `names`; returns the outputs' names."""
    stem = f"{operator.lower()}_{len(self.nodes)}"
    names = [name or f"{stem}_{n}" for n, name in enumerate(names)]
    node = self._onnx.helper.make_node(operator, inputs, names, stem, **options)
    self.nodes.append(node)
    return names


def _carry(network: Network) -> dict[str, Axes]:
  """The shape of each input of the carry by its name."""
  if not network.carries:
    return {}
  layers = next(iter(network.stacks.values()))
  shape = [len(layers), "batch", network.first.hidden_size]
  return dict.fromkeys("hc" if network.first.layer == "LSTM" else "h", shape)


def build(graph: Graph) -> dict[str, Axes]:
  """Adds all nodes; returns the shape of each output by its name."""
  if graph.network.frames:
    x_TBD, lengths_B = graph.add("Transpose", "frames", perm=[1, 0, 2]), ""
  else:
    x_TBD, lengths_B = _read(graph)
  tops, states = {}, {}
  for name, layers in graph.network.stacks.items():
    reverse = name.startswith("backward")
    tops[name], states[name] = _stack(graph, layers, x_TBD, lengths_B, reverse)
  shape: Axes = ["batch", "length"]
  [top, *others] = tops.values()
  if others:  # They are towers: their outputs at t must not have read t.
    ahead, back = _before(graph, top, False), _before(graph, others[0], True)
    features = {
      "head": _merge(graph, [ahead, back]),
      "forward_head": ahead,
      "backward_head": back,
    }
  elif graph.network.pooling != "none":
    [state] = states.values()
    features = {"head": _pool(graph, top, state, lengths_B)}
    shape = ["batch"]
  else:
    features = {"head": top}
  outputs = {
    _head(graph, name, features[name]): [*shape, len(bias)]
    for name, (_, bias) in graph.network.heads.items()
  }
  carry = _carry(graph.network)
  return outputs | {f"next_{name}": carry[name] for name in carry}


def _read(graph: Graph) -> tuple[str, str]:
  """The features of ids, time first, and the lengths of rows."""
  ids_TB = graph.add("Transpose", "ids", perm=[1, 0])
  pad = graph.add("Equal", "ids", graph.constant(PAD))
  read = graph.add("Cast", graph.add("Not", pad), to=graph.type_of(np.int32))
  lengths_B = graph.add("ReduceSum", read, graph.constant([1]), keepdims=0)
  if graph.network.embedding_VD is not None:
    table = graph.weight(graph.network.embedding_VD)
    return graph.add("Gather", table, ids_TB), lengths_B
  depth = graph.constant(graph.network.inputs)
  return graph.add("OneHot", ids_TB, depth, graph.weight([0, 1])), lengths_B


def _stack(
  graph: Graph, layers: Layers, x_TBD: str, lengths_B: str, reverse: bool
) -> tuple[str, str]:
  """The outputs [T, B, H] of layers, and the last states [ways, B, H].

  Args:
    graph: to add to.
    layers: of a stack.
    x_TBD: what they read.
    lengths_B: of the rows; "": all are whole.
    reverse: whether the only direction is the backward one.
  """
  last = {name: [] for name in _carry(graph.network)}
  state = ""
  for depth, ways in enumerate(layers):
    starts = [
      graph.add("Gather", name, graph.constant([depth]), axis=0)
      for name in last
    ]
    y_TWBH, *states = _recurrent(
      graph, ways, [x_TBD, lengths_B, *starts], reverse
    )
    for name, after in zip(last, states, strict=False):
      last[name].append(after)
    state = states[0]
    x_TBD = _joined(graph, y_TWBH, len(ways), axis=1)
  for name, states in last.items():
    after = graph.add("Concat", *states, axis=0)
    if lengths_B:  # onnxruntime gives zeros for a row without symbols.
      some_B = graph.add("Greater", lengths_B, graph.constant(0, np.int32))
      some_1B1 = graph.add("Unsqueeze", some_B, graph.constant([0, 2]))
      graph.add("Where", some_1B1, after, name, name=f"next_{name}")
    else:
      graph.add("Identity", after, name=f"next_{name}")
  return x_TBD, state


def _recurrent(
  graph: Graph, ways: list[Operator], inputs: list[str], reverse: bool
) -> list[str]:
  """The operator of a layer: its outputs y [T, ways, B, H], h and c.

  Args:
    graph: to add to.
    ways: the directions.
    inputs: names of x, of lengths, and of the carry if there is one.
    reverse: as of `_stack`.
  """
  first = ways[0]

  def arranged(array_K):
    gates = np.split(array_K, len(_ORDER[first.layer]))
    return np.concatenate([gates[n] for n in _ORDER[first.layer]])

  arrays = [
    (
      arranged(way.input_KD),
      arranged(way.recurrent_KH),
      np.append(arranged(way.input_bias_K), arranged(way.recurrent_bias_K)),
    )
    for way in ways
  ]
  weights = [graph.weight(np.stack(w)) for w in zip(*arrays, strict=True)]
  x_TBD, lengths_B, *starts = inputs
  operands = [x_TBD, *weights, lengths_B, *starts]
  options = {}
  if first.relu:
    options["activations"] = ["Relu"] * len(ways)
  if first.layer == "GRU":  # It resets after the product, as torch.nn does.
    options["linear_before_reset"] = 1
  direction = "reverse" if reverse else "forward"
  return graph.add_several(
    first.layer,
    *operands,
    names=[""] * (3 if first.layer == "LSTM" else 2),
    hidden_size=first.hidden_size,
    direction="bidirectional" if len(ways) > 1 else direction,
    **options,
  )


def _joined(graph: Graph, y: str, ways: int, axis: int) -> str:
  """An array without its axis of directions, which are merged."""
  split = [y]
  if ways > 1:
    split = graph.add_several("Split", y, names=[""] * ways, axis=axis)
  squeezed = graph.constant([axis])
  each = [graph.add("Squeeze", name, squeezed) for name in split]
  return _merge(graph, each)


def _merge(graph: Graph, ways: list[str]) -> str:
  """The outputs of directions or towers, merged."""
  if len(ways) == 1:
    return ways[0]
  if graph.network.merge == "concat":
    return graph.add("Concat", *ways, axis=-1)
  return graph.add("Sum" if graph.network.merge == "sum" else "Mean", *ways)


def _before(graph: Graph, y_TBH: str, reverse: bool) -> str:
  """The outputs after the step before, zeros where there is none."""
  pads = [-1, 0, 0, 1, 0, 0] if reverse else [1, 0, 0, -1, 0, 0]
  return graph.add("Pad", y_TBH, graph.constant(pads))


def _pool(graph: Graph, y_TBH: str, state_WBH: str, lengths_B: str) -> str:
  """The features [B, H] of whole rows; outputs of padding are zero."""
  if graph.network.pooling == "last":
    ways = len(next(iter(graph.network.stacks.values()))[-1])
    return _joined(graph, state_WBH, ways, axis=0)
  if graph.network.pooling == "mean":
    total = graph.add("ReduceSum", y_TBH, graph.constant([0]), keepdims=0)
    count = graph.add("Max", lengths_B, graph.constant(1, np.int32))
    count = graph.add("Cast", count, to=graph.type_of(np.float32))
    count = graph.add("Unsqueeze", count, graph.constant([1]))
    return graph.add("Div", total, count)
  ids_TB = graph.add("Transpose", "ids", perm=[1, 0])
  pad = graph.add("Equal", ids_TB, graph.constant(PAD))
  pad = graph.add("Unsqueeze", pad, graph.constant([2]))
  shown = graph.add("Where", pad, graph.weight(_LEAST), y_TBH)
  return graph.add("ReduceMax", shown, axes=[0], keepdims=0)


def _head(graph: Graph, name: str, y: str) -> str:
  """The outputs of a head, batch first; returns their name."""
  weight, bias = graph.network.heads[name]
  logits = graph.add("MatMul", y, graph.weight(weight.T))
  logits = graph.add("Add", logits, graph.weight(bias))
  if graph.network.pooling == "none":
    logits = graph.add("Transpose", logits, perm=[1, 0, 2])
  output = _OUTPUTS.get(graph.network.gives, "numbers")
  if name != "head":
    output = f"{name.removesuffix('_head')}_{output}"
  last = "LogSoftmax" if graph.network.gives == "softmax" else "Identity"
  options = {"axis": -1} if graph.network.gives == "softmax" else {}
  return graph.add(last, logits, name=output, **options)
