"""Vectors of symbols from counts, against loops and a dense decomposition."""

import numpy as np

from seqrnn.data import splits, vectors
from seqrnn.data.documents import Document
from seqrnn.data.vocabulary import RESERVED, Vocabulary


def information(counted, power):
  """Positive pointwise mutual information, cell by cell."""
  row, column = counted.sum(1), counted.sum(0) ** power
  result = np.zeros(counted.shape)
  for i, j in np.argwhere(counted):
    ratio = counted[i, j] * column.sum() / (row[i] * column[j])
    result[i, j] = max(np.log(ratio), 0)
  return result


def products(matrix):
  """Of all pairs of vectors of length 1, from all dimensions."""
  left, values, _ = np.linalg.svd(matrix, full_matrices=False)
  rows = left * np.sqrt(values)
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  return rows @ rows.T


def test_vectors_have_the_products_of_a_dense_decomposition():
  rng = np.random.default_rng(0)
  texts = ["".join(rng.choice([*"abcdefgh"], 9)) for _ in range(12)]
  names = Vocabulary("char", tuple("abcdefg"))  # An h is unknown.
  near, within = np.zeros((7, 7)), np.zeros((7, 12))
  for n, text in enumerate(texts):
    for i, one in enumerate(text):
      for j, other in enumerate(text):
        if one != "h" and other != "h" and 0 < abs(i - j) <= 5:
          near["abcdefg".index(one), "abcdefg".index(other)] += 1 / abs(i - j)
      if one != "h":
        within["abcdefg".index(one), n] = 1
  documents = [Document(text, text, True, True) for text in texts]
  pieces = splits.from_documents(documents, "char")
  table = vectors.of_pieces(pieces, names, 14)
  assert not table[: len(RESERVED)].any()
  rows = table[len(RESERVED) :]
  for part, counted, power in (
    (rows[:, :7], near, 0.75),
    (rows[:, 7:], within, 1.0),
  ):
    scale = (part[0] ** 2).sum()  # All rows have this length.
    expected = products(information(counted, power))
    np.testing.assert_allclose(part @ part.T / scale, expected, atol=1e-4)
