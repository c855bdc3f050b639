"""The tensors of a PyTorch model, and the parameters that they are here."""

import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn.errors import UserError
from seqrnn.experiment import Params
from seqrnn.exporting.network import HEADS, STACK, TOWERS

Tensors = dict[str, np.ndarray]
_RECURRENT = re.compile(
  r"(.*?)((?:weight|bias)_(?:ih|hh|hr))_l(\d+)(_reverse)?", re.DOTALL
)
_CELLS = {4: "lstm", 3: "gru", 1: "rnn_tanh"}  # By the number of gates.
_WAYS = ("forward", "backward")


class Parts(NamedTuple):
  """The tensors by their places.

  Attributes:
    cell: lstm, gru or rnn_tanh.
    stacks: name as in `network` -> a list for each layer of its directions,
      each of which has the tensors weight_ih, weight_hh, bias_ih and bias_hh.
    embedding_VD: None: the first layer reads one-hot symbols.
    heads: name -> (weight [V, H], bias [V]).
    tied: whether the weight of the head is the embedding.
  """

  cell: str
  stacks: dict[str, list[list[Tensors]]]
  embedding_VD: np.ndarray | None
  heads: dict[str, tuple[np.ndarray, np.ndarray]]
  tied: bool

  @property
  def first(self) -> Tensors:
    """The forward direction of the first layer."""
    return next(iter(self.stacks.values()))[0][0]

  @property
  def inputs(self) -> int:
    """The number of symbols that are read."""
    if self.embedding_VD is not None:
      return len(self.embedding_VD)
    return self.first["weight_ih"].shape[1]


def read(weights: Any) -> tuple[str, Tensors]:
  """The name of the source for messages, and its tensors in float32.

  Args:
    weights: the path of a .safetensors file, or of what torch.save wrote of a
      state dict; or a state dict, name -> tensor or array.

  Raises:
    UserError: the file is missing or no such file, or a package is missing.
  """
  source, found = "weights", weights
  if isinstance(weights, str | os.PathLike):
    source = os.path.expanduser(weights)
    if not Path(source).is_file():
      raise UserError(f"{source}: no such file")
    safe = source.endswith(".safetensors")
    found = _read_safetensors(source) if safe else _read_torch(source)
  if isinstance(found, Mapping) and isinstance(
    found.get("state_dict"), Mapping
  ):
    found = found["state_dict"]
  if not isinstance(found, Mapping):
    raise UserError(f"{source}: must hold a state dict, name -> tensor")
  made = {}
  for name, tensor in found.items():
    try:
      # Its imaginary part would be left out.
      if "complex" in str(getattr(tensor, "dtype", "")):
        raise TypeError
      tensor = getattr(tensor, "detach", lambda own=tensor: own)()
      # NumPy has no bfloat16, which torch converts.
      tensor = getattr(tensor, "float", lambda own=tensor: own)()
      made[str(name)] = np.asarray(tensor, np.float32)
    except (TypeError, ValueError, RuntimeError):
      raise UserError(
        f"{source}: {name}: must be a tensor of numbers on the CPU"
      ) from None
    if not np.isfinite(made[str(name)]).all():
      raise UserError(f"{source}: {name}: has values that are not finite")
  return source, made


def _read_safetensors(path: str) -> Tensors:
  try:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
  except ImportError:
    raise UserError(
      f"{path}: needs the package safetensors; pip install 'seqrnn[export]'"
    ) from None
  try:
    return load_file(path)
  # An AttributeError is of a type that NumPy lacks.
  except (SafetensorError, AttributeError, KeyError, TypeError) as error:
    raise UserError(f"{path}: cannot be read: {error}") from None


def _read_torch(path: str) -> Any:
  try:
    torch = importlib.import_module("torch")
  except ImportError:
    raise UserError(
      f"{path}: is not named *.safetensors, and any other file of tensors"
      " needs the package torch"
    ) from None
  try:
    return torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # Of pickle, zipfile or torch.
    reason = str(error).split("\n")[0] or type(error).__name__
    raise UserError(
      f"{path}: must hold a state dict that torch.load reads with"
      f" weights_only=True: {reason}"
    ) from None


def find_parts(source: str, tensors: Tensors) -> Parts:
  """The parts of a model: an embedding, recurrent layers, and a head.

  Raises:
    UserError: there are other tensors, or some are missing.
  """
  modules: dict[str, dict[tuple[int, int], Tensors]] = {}
  rest = {}
  for name, tensor in tensors.items():
    match = _RECURRENT.fullmatch(name)
    if match is None:
      rest[name] = tensor
      continue
    module, kind, depth, reverse = match.groups()
    if kind == "weight_hr":
      raise UserError(f"{source}: {name}: an LSTM with projections is not read")
    place = int(depth), int(bool(reverse))
    modules.setdefault(module, {}).setdefault(place, {})[kind] = tensor
  names = _stack_names(source, list(modules))
  stacks = {
    names[module]: _layers(source, module, layers)
    for module, layers in modules.items()
  }
  if len(stacks) > 1:  # The forward tower comes first.
    stacks = {name: stacks[name] for name in TOWERS.values()}
  first = next(iter(stacks.values()))[0][0]
  gates = len(first["weight_hh"]) / first["weight_hh"].shape[1]
  if gates not in _CELLS:
    raise UserError(
      f"{source}: weight_hh_l0 of shape {first['weight_hh'].shape}: must have"
      " 4, 3 or 1 rows for each column, as LSTM, GRU and RNN have"
    )
  embedding, heads = _heads(source, rest)
  tied = embedding is not None and heads["head"][0] is embedding
  return Parts(_CELLS[int(gates)], stacks, embedding, heads, tied)


def _stack_names(source: str, modules: list[str]) -> dict[str, str]:
  """Module -> the name of its stack."""
  if len(modules) == 1:
    return {modules[0]: STACK}
  if sorted(modules) == sorted(f"{name}." for name in TOWERS.values()):
    return {module: module[:-1] for module in modules}
  raise UserError(
    f"{source}: has recurrent layers of {', '.join(modules) or 'no module'}:"
    " must be one LSTM, GRU or RNN of torch.nn"
  )


def _layers(
  source: str, module: str, found: dict[tuple[int, int], Tensors]
) -> list[list[Tensors]]:
  """The directions of each layer, with the biases that a module may lack."""
  depths, ways = (1 + max(place[n] for place in found) for n in (0, 1))
  made = []
  for depth in range(depths):
    made.append([])
    for way in range(ways):
      own = found.get((depth, way), {})
      name = f"{module}weight_*_l{depth}{'_reverse' * way}"
      if not {"weight_ih", "weight_hh"} <= own.keys():
        raise UserError(f"{source}: {name}: is missing")
      K, H = own["weight_hh"].shape if own["weight_hh"].ndim == 2 else (0, 1)
      zeros = np.zeros(K, np.float32)
      own = {"bias_ih": zeros, "bias_hh": zeros, **own}
      whole = all(
        tensor.ndim == (2 if name.startswith("weight") else 1)
        and len(tensor) == K
        for name, tensor in own.items()
      )
      if not whole or not H:
        raise UserError(f"{source}: {name}: shapes differ from torch.nn's")
      made[-1].append(own)
  return made


def _heads(
  source: str, rest: Tensors
) -> tuple[np.ndarray | None, dict[str, tuple[np.ndarray, np.ndarray]]]:
  """The embedding, which has no bias, and the heads, which have one."""
  biases = {
    name[:-4]
    for name, tensor in rest.items()
    if name.endswith("bias") and tensor.ndim == 1
  }
  matrices = {
    name[:-6]
    for name, tensor in rest.items()
    if name.endswith("weight") and tensor.ndim == 2
  }
  tables = matrices - biases
  heads = {}
  for module in biases:
    name = module.rstrip(".").rpartition(".")[2]
    name = name if name in HEADS and len(biases) > 1 else "head"
    weight = f"{module}weight" if module in matrices else None
    if weight is None and len(tables) == 1:  # Tied.
      weight = f"{next(iter(tables))}weight"
    if weight is None or name in heads:
      heads = {}  # A second head, or a bias of something else.
      break
    heads[name] = rest[weight], rest[f"{module}bias"]
  known = {f"{m}weight" for m in matrices} | {f"{m}bias" for m in biases}
  if len(tables) > 1 or "head" not in heads or known != rest.keys():
    raise UserError(
      f"{source}: has {', '.join(sorted(rest)) or 'nothing'} beside its"
      " recurrent layers: must be the weight of an embedding, unless symbols"
      " are one-hot, and the weight and the bias of a head"
    )
  embedding = rest[f"{next(iter(tables))}weight"] if tables else None
  weight, bias = heads["head"]
  if embedding is not None and np.array_equal(weight, embedding):
    heads["head"] = embedding, bias
  return embedding, heads


def fields(parts: Parts) -> dict[str, Any]:
  """The fields of a config that the tensors determine."""
  layers = next(iter(parts.stacks.values()))
  embedding = parts.embedding_VD
  found = {
    "model.cell": parts.cell,
    "model.hidden_size": parts.first["weight_hh"].shape[1],
    "model.layers": len(layers),
    "model.embedding_size": None if embedding is None else embedding.shape[1],
    "model.tied": parts.tied,
    "model.merge": "concat",
    "model.parameters": None,
    "model.bidirectional": len(layers[0]) > 1,
  }
  if len(parts.stacks) > 1:
    found["task"] = "gap_model"
    found["model.heads"] = "all" if len(parts.heads) > 1 else "joint"
  return found


def with_reserved(
  parts: Parts, count: int, never: float, heads: tuple[str, ...]
) -> Parts:
  """The parts with `count` reserved symbols before the others.

  The last one, the unknown symbol, has the mean embedding.

  Args:
    parts: without reserved symbols.
    count: their number.
    never: the bias of their outputs.
    heads: names of the heads that have outputs for symbols.
  """

  def table(rows_VD):
    new = np.zeros((count, rows_VD.shape[1]), np.float32)
    new[-1] = rows_VD.mean(0)
    return np.concatenate([new, rows_VD])

  def head(weight_VH, bias_V):
    new = np.zeros((count, weight_VH.shape[1]), np.float32)
    low = np.full(count, min(0.0, *bias_V) + never, np.float32)
    return np.concatenate([new, weight_VH]), np.concatenate([low, bias_V])

  made = {
    name: head(*own) if name in heads else own
    for name, own in parts.heads.items()
  }
  embedding = parts.embedding_VD
  if embedding is not None:
    embedding = table(embedding)
    if parts.tied:
      made["head"] = embedding, made["head"][1]
    return parts._replace(embedding_VD=embedding, heads=made)
  stacks = {
    name: [list(ways) for ways in own] for name, own in parts.stacks.items()
  }
  for layers in stacks.values():
    layers[0] = [
      {**way, "weight_ih": table(way["weight_ih"].T).T} for way in layers[0]
    ]
  return parts._replace(stacks=stacks, heads=made)


def params(parts: Parts) -> Params:
  """The parameters as the models of this project have them."""
  bodies = {
    name: {
      f"layers_{depth}": _layer(parts, ways, depth)
      for depth, ways in enumerate(layers)
    }
    for name, layers in parts.stacks.items()
  }
  made: dict[str, Any] = {"body": bodies.get(STACK)}
  if STACK not in bodies:
    made["body"] = {way: {"tower": bodies[TOWERS[way]]} for way in TOWERS}
  if parts.embedding_VD is not None:
    made["embedding"] = {"embedding": parts.embedding_VD}
  for name, (weight, bias) in parts.heads.items():
    if name == "head" and parts.tied:
      made["head_bias"] = bias
    else:
      made[name] = {"kernel": weight.T, "bias": bias}
  return made


def _layer(parts: Parts, ways: list[Tensors], depth: int) -> Params:
  table = depth == 0 and parts.embedding_VD is None
  cells = [{"cell": _cell(parts.cell, way, table)} for way in ways]
  if len(cells) == 1:
    return cells[0]
  return dict(zip(_WAYS, cells, strict=True))


def _cell(cell: str, way: Tensors, table: bool) -> Params:
  """The parameters of a cell; `table`: it reads ids, as one-hot symbols."""
  made: dict[str, Any] = {
    "input_kernel": {"embedding" if table else "kernel": way["weight_ih"].T},
    "recurrent_kernel": way["weight_hh"].T,
    "bias": way["bias_ih"] + way["bias_hh"],
  }
  if cell == "gru":  # The candidate's biases are on both sides of the reset.
    H = way["weight_hh"].shape[1]
    made["bias"] = np.concatenate(
      [made["bias"][: 2 * H], way["bias_ih"][2 * H :]]
    )
    made["reset_bias"] = way["bias_hh"][2 * H :]
  return made
