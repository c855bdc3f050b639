"""The cells that `model.cell` names, a module for each family."""
# ruff: noqa: F401

from seqrnn.models.cell import CELLS, Cell, make
from seqrnn.models.cells.classic import GRU, LSTM, MGU, RNN
from seqrnn.models.cells.linear import Linear
from seqrnn.models.cells.matrix import Matrix
from seqrnn.models.cells.odyssey import Odyssey
