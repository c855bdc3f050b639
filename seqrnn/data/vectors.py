"""Vectors of symbols from how often they are near each other, without training.

A symbol has two vectors: one of the symbols near it, one of the texts that it
is in. Each is a truncated singular value decomposition of positive pointwise
mutual information (Levy & Goldberg 2014), of length 1.
"""

from typing import Any

import numpy as np
import scipy

from seqrnn.config import derived
from seqrnn.config.read import Config
from seqrnn.data import splits
from seqrnn.data.sources.corpora import read_files
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import RESERVED, UNKNOWN, Vocabulary

_CONTEXTS = 20_000  # The most frequent symbols, that others are near to.
_SCALE = 0.5  # The standard deviation of an embedding of these vectors.
_WINDOW = 5  # On either side; a symbol at distance k counts 1/k.


def with_unlabelled(pieces: Pieces, data: Config) -> Pieces:
  """The pieces of a split, and the texts of `data.unlabelled_path`, if any."""
  path = data.unlabelled_path
  if path is None:
    return pieces
  lines = derived.plain_text(data)
  more = splits.whole(read_files("data.unlabelled_path", path, lines, {}))
  documents = [*pieces.documents(), *more.documents()]
  return splits.from_documents(documents, data.unit)


def of_pieces(pieces: Pieces, names: Vocabulary, size: int) -> np.ndarray:
  """The vectors of the symbols of a vocabulary, by the texts of a split.

  Returns:
    float32 [V, size]; reserved symbols have zeros.
  """
  ids = names.encode(pieces.corpus.symbols)
  ids = np.where(ids == UNKNOWN, -1, ids - len(RESERVED))
  spans = zip(pieces.starts.tolist(), pieces.stops.tolist(), strict=True)
  texts = [ids[pieces.corpus.ids[start:stop]] for start, stop in spans]
  table = np.zeros((len(names), size), np.float32)
  near, within = counts(texts, len(names.symbols))
  vectors = of_counts(near, within, -(-size // 2))
  width = min(size, vectors.shape[1])  # Few texts have fewer dimensions.
  symbols = slice(len(RESERVED), len(RESERVED) + len(vectors))
  table[symbols, :width] = _SCALE * vectors[:, :width]
  return table


def counts(
  texts: list[np.ndarray], size: int
) -> tuple["scipy.sparse.csr_array", ...]:
  """How often a symbol is near another one, and whether it is in a text.

  Args:
    texts: the ids of the symbols of each text; -1: one without a vector.
    size: the number of symbols, the most frequent ones first.

  Returns:
    [size, contexts] and [size, texts].
  """
  gap = np.full(_WINDOW, -1)  # So that none is near one of another text.
  ids = np.concatenate([part for text in texts for part in (text, gap)])
  place = np.repeat(np.arange(len(texts)), [len(t) + _WINDOW for t in texts])
  columns = min(size, _CONTEXTS)
  near = scipy.sparse.csr_array((size, columns))
  for distance in range(1, _WINDOW + 1):
    left, right = ids[:-distance], ids[distance:]
    for symbol, context in (left, right), (right, left):
      used = (symbol >= 0) & (context >= 0) & (context < columns)
      pairs = symbol[used], context[used]
      weights = np.full(used.sum(), 1 / distance)
      near += scipy.sparse.csr_array((weights, pairs), shape=(size, columns))
  used = ids >= 0
  shape = size, len(texts)
  pairs = ids[used], place[used]
  within = scipy.sparse.csr_array((np.ones(used.sum()), pairs), shape=shape)
  within.data[:] = 1
  return near, within


def of_counts(
  near: "scipy.sparse.csr_array", within: "scipy.sparse.csr_array", size: int
) -> np.ndarray:
  """The two vectors of each symbol, side by side, [symbols, 2 size]."""
  parts = [_information(near, 0.75), _information(within, 1.0)]
  vectors = np.hstack([_unit(_factors(part, size)) for part in parts])
  return vectors / (vectors.std() or 1)  # Of one symbol, all are zeros.


def _information(counted: Any, power: float) -> Any:
  """Positive pointwise mutual information, contexts to a power."""
  cells = counted.tocoo()
  row, column = counted.sum(1), counted.sum(0) ** power
  value = np.log(cells.data * column.sum() / row[cells.row])
  value -= np.log(column[cells.col])
  pairs = cells.row[value > 0], cells.col[value > 0]
  return scipy.sparse.csr_array((value[value > 0], pairs), shape=counted.shape)


def _factors(matrix: Any, size: int) -> np.ndarray:
  """Rows of the first factor, scaled by the roots of the singular values.

  The range is found by random projection (Halko et al. 2011).
  """
  rng = np.random.default_rng(0)
  _, columns = matrix.shape
  basis = rng.standard_normal((columns, size + 10))
  for _ in range(5):
    basis, _ = np.linalg.qr(matrix @ basis)
    basis, _ = np.linalg.qr(matrix.T @ basis)
  left, values, _ = np.linalg.svd(matrix @ basis, full_matrices=False)
  return (left * np.sqrt(values))[:, :size]


def _unit(vectors: np.ndarray) -> np.ndarray:
  """Vectors of length 1; zeros stay zeros."""
  length = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.where(length > 0, length, 1)
