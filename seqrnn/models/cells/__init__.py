"""The cells that `model.cell` names, a module for each family."""

from seqrnn.models.cell import CELLS, Cell, make
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
