"""The cells that `model.cell` names, a module for each family."""

from typing import Any

from seqrnn.config.read import Config
from seqrnn.errors import UserError
from seqrnn.models.cell import CELLS, Cell
from seqrnn.models.cells.classic import GRU, LSTM, MGU, RNN
from seqrnn.models.cells.linear import Linear
from seqrnn.models.cells.matrix import Matrix
from seqrnn.models.cells.odyssey import Odyssey

__all__ = [
  "CELLS",
  "GRU",
  "LSTM",
  "MGU",
  "RNN",
  "Cell",
  "Linear",
  "Matrix",
  "Odyssey",
  "make",
]


def make(model: Config, **shape: Any) -> Cell:
  """The cell that `config.model` names, not bound to parameters.

  Raises:
    UserError: the units cannot be divided into the heads.
  """
  cell = CELLS[model.cell](forget_bias=model.forget_bias, **shape)
  if not cell.may_have_heads:
    return cell
  if cell.hidden_size % model.cell_heads:
    raise UserError(
      f"model.cell_heads={model.cell_heads} with model.hidden_size="
      f"{cell.hidden_size}: the units must be a multiple of the heads"
    )
  return cell.clone(heads=model.cell_heads)
