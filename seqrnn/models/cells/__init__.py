"""The cells that `model.cell` names, a module for each family."""

from typing import Any

from seqrnn.config.read import Config
from seqrnn.models.cell import CELLS, Cell
from seqrnn.models.cells.classic import GRU, LSTM, MGU, RNN
from seqrnn.models.cells.linear import Linear
from seqrnn.models.cells.odyssey import Odyssey

__all__ = [
  "CELLS",
  "GRU",
  "LSTM",
  "MGU",
  "RNN",
  "Cell",
  "Linear",
  "Odyssey",
  "make",
]


def make(model: Config, **shape: Any) -> Cell:
  """The cell that `config.model` names, not bound to parameters."""
  return CELLS[model.cell](forget_bias=model.forget_bias, **shape)
