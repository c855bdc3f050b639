"""The parts of a trained model that a file for other programs has.

PyTorch and ONNX have the recurrent layers LSTM, GRU and RNN, with an input
matrix, a recurrent matrix and two biases.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from seqrnn.config.read import Config
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.models import cells
from seqrnn.models.cell import CELLS, Cell
from seqrnn.runtime import sharding

# The names of stacks of layers: one stack, or the towers of a gap model.
STACK = "rnn"
TOWERS = {"forward": "forward_rnn", "backward": "backward_rnn"}
HEADS = ("head", "forward_head", "backward_head")
_EMBEDDING = ("embedding", "head_bias")  # The latter with tied weights.


class Operator(NamedTuple):
  """One direction of one layer; gates are in the order of torch.nn.

  Attributes:
    kind: LSTM (gates i, f, g, o), GRU (r, z, n) or RNN.
    input_KD: the matrix of the input.
    recurrent_KH: the matrix of the state.
    input_bias_K: added to the product with the input.
    recurrent_bias_K: added to the product with the state.
    relu: whether the activation of an RNN is relu, not tanh.
  """

  kind: str
  input_KD: np.ndarray
  recurrent_KH: np.ndarray
  input_bias_K: np.ndarray
  recurrent_bias_K: np.ndarray
  relu: bool = False

  @property
  def hidden_size(self) -> int:
    """H, the number of units."""
    return self.recurrent_KH.shape[1]


_KINDS = {cells.LSTM: "LSTM", cells.GRU: "GRU", cells.RNN: "RNN"}


def operator(cell: Cell, params: Any) -> Operator:
  """A layer from its cell, which _KINDS has, and the cell's parameters."""
  [kernel] = jax.tree.leaves(params["input_kernel"])
  bias = np.asarray(params["bias"])
  recurrent_bias = np.zeros_like(bias)
  if "reset_bias" in params:
    recurrent_bias[2 * cell.hidden_size :] = params["reset_bias"]
  return Operator(
    _KINDS[type(cell)],
    np.asarray(kernel).T,
    np.asarray(params["recurrent_kernel"]).T,
    bias,
    recurrent_bias,
    isinstance(cell, cells.RNN) and cell.activation is jax.nn.relu,
  )


class Network(NamedTuple):
  """The arrays of a model, and how they belong together.

  Attributes:
    embedding_VD: a row for each id; None: the layers read one-hot ids, or
      frames.
    stacks: name -> layers from the input up, each of one direction or of two,
      forward first.
    heads: name -> (weight [V, H], bias [V]).
    tied: whether the weight of the head is the embedding.
    merge: how two directions are merged: concat, sum or mean.
    pooling: last, mean, max, or none: each position has an output.
    frames: whether inputs are frames of numbers, not ids.
    carries: whether the state goes from one call to the next.
    gives: as in Experiment.
  """

  embedding_VD: np.ndarray | None
  stacks: dict[str, list[list[Operator]]]
  heads: dict[str, tuple[np.ndarray, np.ndarray]]
  tied: bool
  merge: str
  pooling: str
  frames: bool
  carries: bool
  gives: str

  @property
  def first(self) -> Operator:
    """The forward direction of the first layer."""
    return next(iter(self.stacks.values()))[0][0]

  @property
  def inputs(self) -> int:
    """V of the inputs."""
    if self.embedding_VD is not None:
      return len(self.embedding_VD)
    return self.first.input_KD.shape[1]

  @property
  def two_ways(self) -> bool:
    """Whether both directions are read."""
    return len(self.stacks) > 1 or len(self.stacks[STACK][0]) > 1


def is_native(model: Config, params: Params) -> bool:
  """Whether PyTorch has all layers of a model."""
  cell = cells.make(model, hidden_size=model.hidden_size)
  is_plain = type(cell) in _KINDS and model.block == "plain"
  return is_plain and params.keys() <= {*_EMBEDDING, "body", *HEADS}


def parts(experiment: Experiment, config: Config, params: Params) -> Network:
  """The parts of a model.

  Args:
    experiment: the task.
    config: of the run.
    params: of the checkpoint.

  Raises:
    UserError: a part has no place in a file; names the field.
  """
  model, name = config.model, config.export.format
  cell = cells.make(model, hidden_size=model.hidden_size)
  rule = None
  if type(cell) not in _KINDS:
    others = {name: kind(hidden_size=1) for name, kind in sorted(CELLS.items())}
    names = [name for name, other in others.items() if type(other) in _KINDS]
    rule = f"model.cell={model.cell!r}: must be one of {', '.join(names)}"
  elif model.block != "plain":
    rule = f"model.block={model.block!r}: must be 'plain'"
  if rule is not None:
    raise UserError(f"config.export.format={name!r} with {rule}")
  left = dict(params)
  embedding = left.pop("embedding", {}).get("embedding")
  bias = left.pop("head_bias", None)
  heads = {
    name: (np.asarray(head["kernel"]).T, np.asarray(head["bias"]))
    for name in HEADS
    if (head := left.pop(name, None))
  }
  if bias is not None:
    heads = {"head": (np.asarray(embedding), np.asarray(bias))}
  body = left.pop("body", {})
  if left or not heads:
    raise UserError(
      f"config.export.format={name!r}: the model has"
      f" {', '.join(sorted(left)) or 'no head'}, and an exported file has an"
      " embedding, recurrent layers and heads"
    )
  bodies = {STACK: body}
  if "forward" in body:
    bodies = {TOWERS[way]: body[way]["tower"] for way in TOWERS}
  stacks = {
    name: [
      [operator(cell, way["cell"]) for way in _ways(stack[f"layers_{depth}"])]
      for depth in range(model.layers)
    ]
    for name, stack in bodies.items()
  }
  frames = experiment.reads != "symbol"
  size = (stacks[STACK][0][0].input_KD.shape[1],) if frames else ()
  inputs = np.ones((1, 4, *size), np.int32)
  batch = {"inputs": inputs, "reset": np.ones(1, bool)}
  predict: Any = experiment.predict
  outputs = sharding.jit(lambda params: predict(params, (), batch)[1])
  pooled = jax.eval_shape(outputs, shapes(experiment)).shape[1] != 4
  return Network(
    embedding_VD=None if embedding is None else np.asarray(embedding),
    stacks=stacks,
    heads=heads,
    tied=bias is not None,
    merge=model.merge,
    pooling=model.pooling if pooled else "none",
    frames=frames,
    carries=experiment.decoder is not None and not pooled and len(stacks) == 1,
    gives=experiment.gives,
  )


def _ways(layer: Params) -> list[Params]:
  """The directions of a layer."""
  return [layer[way] for way in TOWERS] if "forward" in layer else [layer]
