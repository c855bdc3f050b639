"""The parts of a trained model that a file for other programs has."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from seqrnn.config.read import Config
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params
from seqrnn.exporting import operators
from seqrnn.exporting.operators import Operator
from seqrnn.models import cells
from seqrnn.models.cell import Cell
from seqrnn.runtime import sharding

# The names of stacks of layers: one stack, or the towers of a gap model.
STACK = "rnn"
TOWERS = {"forward": "forward_rnn", "backward": "backward_rnn"}
HEADS = ("head", "forward_head", "backward_head")


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


def parts(
  experiment: Experiment,
  config: Config,
  params: Params,
  has: Callable[[Cell], bool],
) -> Network:
  """The parts of a model.

  Args:
    experiment: the task.
    config: of the run.
    params: of the checkpoint.
    has: whether the format has a cell: `operators.in_torch` or `in_onnx`.

  Raises:
    UserError: the format has no place for a part; names the field.
  """
  model = config.model
  _refuse(config, has)
  left = dict(params)
  embedding = left.pop("embedding", {}).get("embedding")
  bias = left.pop("head_bias", None)
  heads = {
    name: (np.asarray(own["kernel"]).T, np.asarray(own["bias"]))
    for name in HEADS
    if (own := left.pop(name, None))
  }
  tied = bias is not None
  if tied:
    heads = {"head": (np.asarray(embedding), np.asarray(bias))}
  body = left.pop("body", {})
  if left or not heads:
    names = ", ".join(sorted(left)) or "no head"
    raise UserError(
      f"config.task={config.task!r}: its model has {names}, and an exported"
      " file has an embedding, recurrent layers and heads"
    )
  if "forward" in body:
    bodies = {TOWERS[way]: body[way]["tower"] for way in TOWERS}
  else:
    bodies = {STACK: body}
  cell = cells.make(model, hidden_size=model.hidden_size)
  stacks = {name: _layers(cell, own, model) for name, own in bodies.items()}
  first = next(iter(stacks.values()))[0][0]
  frames = experiment.reads != "symbol"
  features = [first.input_KD.shape[1]] if frames else []
  pooled = _pooled(experiment, params, features)
  return Network(
    embedding_VD=None if embedding is None else np.asarray(embedding),
    stacks=stacks,
    heads=heads,
    tied=tied,
    merge=model.merge,
    pooling=model.pooling if pooled else "none",
    frames=frames,
    carries=experiment.decoder is not None and not pooled and len(stacks) == 1,
    gives=experiment.gives,
  )


def _refuse(config: Config, has: Callable[[Cell], bool]):
  """Refuses fields whose part no format has."""
  model, name = config.model, config.export.format
  where = f"config.export.format={name!r} with"
  if not has(cells.make(model, hidden_size=1)):
    raise UserError(
      f"{where} model.cell={model.cell!r}: must be one of"
      f" {', '.join(operators.names(has))}"
    )
  if model.crf:
    raise UserError(
      f"{where} model.crf=True: cannot be exported, because no format has an"
      " operator for a chain of tags; a run with model.crf=False can"
    )
  for field in ("letters", "affixes"):
    if model[field] is not None:
      raise UserError(
        f"{where} model.{field}={model[field]}: must be empty; an exported file"
        " does not read the characters of words"
      )


def _layers(cell: Cell, stack: Params, model: Config) -> list[list[Operator]]:
  """The directions of each layer of a stack."""
  made = []
  for depth in range(model.layers):
    layer = stack[f"layers_{depth}"]
    ways = (
      [layer["forward"], layer["backward"]] if "forward" in layer else [layer]
    )
    made.append([operators.operator(cell, way["cell"]) for way in ways])
  return made


def _pooled(
  experiment: Experiment, params: Params, features: list[int]
) -> bool:
  """Whether a sequence has one output, by the shape that `predict` gives."""
  length = 4
  inputs = np.ones((1, length, *features), np.int32)
  batch = {"inputs": inputs, "reset": np.ones(1, bool)}
  predict = experiment.predict
  assert predict is not None, "every task that has a head predicts"
  outputs = sharding.jit(lambda params: predict(params, (), batch)[1])
  return jax.eval_shape(outputs, params).shape[1] != length
