"""Recurrent layers in the form that PyTorch and ONNX share.

Both have the layers LSTM, GRU and RNN, with an input matrix, a recurrent matrix
and two biases. Some cells of this project are one of these layers under another
name, or with other signs; `operator` rewrites them exactly.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from seqrnn.models import cells
from seqrnn.models.cell import CELLS, Cell

# A bias with which a sigmoid is 1 in float32.
_OPEN = 100.0
_LINEAR = "Affine"  # ONNX's name for x -> 1 * x + 0.


class Operator(NamedTuple):
  """One direction of one layer; gates are in the order of torch.nn.

  Attributes:
    kind: LSTM (gates i, f, g, o), GRU (r, z, n) or RNN.
    input_KD: the matrix of the input.
    recurrent_KH: the matrix of the state.
    input_bias_K: added to the product with the input.
    recurrent_bias_K: added to the product with the state.
    activations: ONNX's names of the functions of gates, candidate and output.
    peepholes: of i, f and o, [3, H]; None: there are none.
    reset_after: whether a GRU resets after the product with the state.
  """

  kind: str
  input_KD: np.ndarray
  recurrent_KH: np.ndarray
  input_bias_K: np.ndarray
  recurrent_bias_K: np.ndarray
  activations: tuple[str, ...]
  peepholes: np.ndarray | None = None
  reset_after: bool = True

  @property
  def hidden_size(self) -> int:
    """H, the number of units."""
    return self.recurrent_KH.shape[1]


def in_torch(cell: Cell) -> bool:
  """Whether torch.nn has a layer of this cell."""
  if type(cell) is cells.Odyssey:
    whole = cell.names == "ifgo" and not cell.peepholes
    linear = not (cell.input_activation and cell.output_activation)
    return whole and not linear and not cell.gate_recurrence
  return type(cell) in (cells.LSTM, cells.GRU, cells.RNN)


def in_onnx(cell: Cell) -> bool:
  """Whether an operator of ONNX computes this cell."""
  if type(cell) is cells.Odyssey:
    return not cell.gate_recurrence
  return type(cell) in _FORMS


def names(has: Any) -> list[str]:
  """The names of the cells for which `in_torch` or `in_onnx` is true."""
  return [name for name in sorted(CELLS) if has(CELLS[name](hidden_size=1))]


def operator(cell: Cell, params: Any) -> Operator:
  """A layer from its cell and the cell's parameters, for which `in_onnx`."""
  own = {name: np.asarray(value) for name, value in _flat(params).items()}
  made = _FORMS[type(cell)](cell, own)
  arrays = {
    name: np.ascontiguousarray(value, np.float32)
    for name, value in made._asdict().items()
    if isinstance(value, np.ndarray)
  }
  return made._replace(**arrays)


def _flat(params: Any) -> dict[str, Any]:
  """The parameters; the input kernel without a level of its own."""
  [kernel] = jax.tree.leaves(params["input_kernel"])
  return {**params, "input_kernel": kernel}


def _plain(kind: str, own: dict[str, np.ndarray], *activations) -> Operator:
  """An operator with one bias for each gate."""
  return Operator(
    kind,
    own["input_kernel"].T,
    own["recurrent_kernel"].T,
    own["bias"],
    np.zeros_like(own["bias"]),
    activations,
  )


def _lstm(_: Cell, own: dict[str, np.ndarray]) -> Operator:
  return _plain("LSTM", own, "Sigmoid", "Tanh", "Tanh")


def _odyssey(cell: Any, own: dict[str, np.ndarray]) -> Operator:
  """The LSTM with peepholes; a gate that is 1 has only a large bias."""
  H, given = cell.hidden_size, cell.names

  def whole(array, absent, present="ifgo"):
    """All gates of an array whose last axis has those that are given."""
    parts = np.split(array, len(present), axis=-1)
    gates = dict(zip(present, parts, strict=True))
    if cell.coupled:  # f = 1 - i is the sigmoid of the negative.
      gates["f"] = -gates["i"]
    filled = np.full_like(parts[0], absent)
    return {name: gates.get(name, filled) for name in "ifgo"}

  def rows(name, absent=0.0):
    return np.concatenate(list(whole(own[name], absent, given).values()), -1)

  made = _plain(
    "LSTM",
    {
      "input_kernel": rows("input_kernel"),
      "recurrent_kernel": rows("recurrent_kernel"),
      "bias": rows("bias", _OPEN),
    },
    "Sigmoid",
    "Tanh" if cell.input_activation else _LINEAR,
    "Tanh" if cell.output_activation else _LINEAR,
  )
  if not cell.peepholes:
    return made
  present = given.replace("g", "")
  side = np.concatenate([own[f"peephole_{name}"] for name in present])
  gates = whole(side, 0.0, present)
  peepholes = np.stack([gates[name].reshape(H) for name in "ifo"])
  return made._replace(peepholes=peepholes)


def _gru(cell: Cell, own: dict[str, np.ndarray]) -> Operator:
  made = _plain("GRU", own, "Sigmoid", "Tanh")
  reset_bias = np.pad(own["reset_bias"], (2 * cell.hidden_size, 0))
  return made._replace(recurrent_bias_K=reset_bias)


def _reset_before(_: Cell, own: dict[str, np.ndarray]) -> Operator:
  return _plain("GRU", own, "Sigmoid", "Tanh")._replace(reset_after=False)


def _gates(
  own: dict[str, np.ndarray], count: int, *signs: tuple[int, int]
) -> dict[str, np.ndarray]:
  """The kernels and biases with other gates: pairs of a place and a factor."""

  def one(array):
    parts = np.split(array, count, axis=-1)
    return np.concatenate([parts[n] * sign for n, sign in signs], axis=-1)

  kernels = ("input_kernel", "recurrent_kernel", "bias")
  return {name: one(own[name]) for name in kernels}


def _mgu(_: Cell, own: dict[str, np.ndarray]) -> Operator:
  """A GRU whose reset gate is f and whose update gate is 1 - f."""
  own = _gates(own, 2, (0, 1), (0, -1), (1, 1))
  return _plain("GRU", own, "Sigmoid", "Tanh")._replace(reset_after=False)


def _min_gru(cell: Cell, own: dict[str, np.ndarray]) -> Operator:
  """A GRU whose gates and linear candidate do not read the state."""
  H = cell.hidden_size
  own = {**own, "recurrent_kernel": np.zeros((H, 2 * H), np.float32)}
  own = _gates(own, 2, (0, 0), (0, -1), (1, 1))
  return _plain("GRU", own, "Sigmoid", _LINEAR)


def _rnn(cell: Any, own: dict[str, np.ndarray]) -> Operator:
  return _plain(
    "RNN", own, "Relu" if cell.activation is jax.nn.relu else "Tanh"
  )


_FORMS: dict[type, Any] = {
  cells.LSTM: _lstm,
  cells.GRU: _gru,
  cells.RNN: _rnn,
  cells.Odyssey: _odyssey,
  cells.ResetBeforeGRU: _reset_before,
  cells.MGU: _mgu,
  cells.MinGRU: _min_gru,
}
