"""The parts of a trained model that a file for other programs has.

PyTorch and ONNX have the recurrent layers LSTM, GRU and RNN, with an input
matrix, a recurrent matrix and two biases.
"""

from typing import NamedTuple

import jax
import numpy as np

from seqrnn.config.read import Config
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params
from seqrnn.models import cells
from seqrnn.models.cell import CELLS, Cell

# The names of stacks of layers: one stack, or the towers of a gap model.
STACK = "rnn"
TOWERS = {"forward": "forward_rnn", "backward": "backward_rnn"}
HEADS = ("head", "forward_head", "backward_head")
_EMBEDDING = ("embedding", "head_bias")  # A tied head has only a bias.


class Operator(NamedTuple):
  """One direction of one layer; gates are in the order of torch.nn.

  Attributes:
    layer: LSTM (gates i, f, g, o), GRU (r, z, n) or RNN.
    input_KD: the matrix of the input.
    recurrent_KH: the matrix of the state.
    input_bias_K: added to the product with the input.
    recurrent_bias_K: added to the product with the state.
    relu: whether the activation of an RNN is relu, not tanh.
  """

  layer: str
  input_KD: np.ndarray
  recurrent_KH: np.ndarray
  input_bias_K: np.ndarray
  recurrent_bias_K: np.ndarray
  relu: bool = False

  @property
  def hidden_size(self) -> int:
    """H, the number of units."""
    return self.recurrent_KH.shape[1]


_LAYERS = {cells.LSTM: "LSTM", cells.GRU: "GRU", cells.RNN: "RNN"}


def operator(cell: Cell, params: Params) -> Operator:
  """A layer from its cell, which _LAYERS has, and its arrays of NumPy."""
  [kernel] = params["input_kernel"].values()
  bias, recurrent_bias = params["bias"], np.zeros_like(params["bias"])
  if "reset_bias" in params:
    recurrent_bias[2 * cell.hidden_size :] = params["reset_bias"]
  return Operator(
    _LAYERS[type(cell)],
    kernel.T,
    params["recurrent_kernel"].T,
    bias,
    recurrent_bias,
    isinstance(cell, cells.RNN) and cell.activation is jax.nn.relu,
  )


def cell_params(way: Operator, like: Params) -> Params:
  """The parameters of a cell, as `like` has them: the inverse of `operator`.

  A cell adds both biases at once, but that of a GRU's reset.
  """
  [name] = like["input_kernel"]
  params = {
    "input_kernel": {name: way.input_KD.T},
    "recurrent_kernel": way.recurrent_KH.T,
    "bias": way.input_bias_K + way.recurrent_bias_K,
  }
  if "reset_bias" in like:
    reset = slice(2 * way.hidden_size, None)
    params["bias"][reset] = way.input_bias_K[reset]
    params["reset_bias"] = way.recurrent_bias_K[reset]
  return params


Layers = list[list[Operator]]  # From the input up, of one direction or two.
Stacks = dict[str, Layers]  # By name.


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
  stacks: Stacks
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


def foreign(model: Config, params: Params) -> str:
  """The part of a model that PyTorch and ONNX lack, for a message; "": none."""
  cell = cells.make(model, hidden_size=model.hidden_size)
  if type(cell) not in _LAYERS:
    others = {name: make(hidden_size=1) for name, make in CELLS.items()}
    names = sorted(n for n, other in others.items() if type(other) in _LAYERS)
    return f" with model.cell={model.cell!r}: must be one of {', '.join(names)}"
  if model.block != "plain":
    return f" with model.block={model.block!r}: must be 'plain'"
  if left := params.keys() - {*_EMBEDDING, "body", *HEADS}:
    return (
      f": the model has {', '.join(sorted(left))}, and an exported file has an"
      " embedding, recurrent layers and heads"
      + "; train with --config.model.wide=False"
      * (left == {"wide"})
    )
  return ""


def network_of(
  experiment: Experiment, config: Config, params: Params
) -> Network:
  """The network of a model.

  Args:
    experiment: the task.
    config: of the run.
    params: of the checkpoint.

  Raises:
    UserError: a part has no place in a file; names the field.
  """
  model = config.model
  if why := foreign(model, params):
    raise UserError(f"config.export.format={config.export.format!r}{why}")
  cell = cells.make(model, hidden_size=model.hidden_size)
  arrays = jax.tree.map(np.asarray, params)
  embedding = arrays.get("embedding", {}).get("embedding")
  heads = {
    name: (arrays[name]["kernel"].T, arrays[name]["bias"])
    for name in HEADS
    if name in arrays
  }
  tied = "head_bias" in arrays
  if tied:
    heads["head"] = embedding, arrays["head_bias"]
  stacks = {
    name: [[operator(cell, way) for way in ways] for ways in layers]
    for name, layers in cells_of(arrays["body"]).items()
  }
  last = config.task == "language_model" and config.data.mapping
  pooled = experiment.by_text or last == "many_to_one"
  return Network(
    embedding_VD=embedding,
    stacks=stacks,
    heads=heads,
    tied=tied,
    merge=model.merge,
    pooling=model.pooling if pooled else "none",
    frames=experiment.reads != "symbol",
    carries=experiment.decoder is not None and not pooled and len(stacks) == 1,
    gives=experiment.gives,
  )


def cells_of(body: Params) -> dict[str, list[list[Params]]]:
  """The parameters of the cells, as `Network.stacks` has their layers."""
  bodies = {STACK: body}
  if "forward" in body:
    bodies = {TOWERS[way]: body[way]["tower"] for way in TOWERS}
  stacks = {}
  for name, stack in bodies.items():
    layers = [stack[f"layers_{depth}"] for depth in range(len(stack))]
    # A layer of two directions has one cell for each.
    each = [[x[way] for way in TOWERS if way in x] or [x] for x in layers]
    stacks[name] = [[way["cell"] for way in ways] for ways in each]
  return stacks
