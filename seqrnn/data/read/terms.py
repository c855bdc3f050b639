"""Terms: the symbols, pairs of symbols and parts of words of a text, hashed.

A linear model of a few hundred texts learns more from terms that are weighted
by TF-IDF than from counts. Terms share buckets by a CRC-32 (Joulin et al.
2017); a part of a word is an n-gram of its characters with the word's edges.
Words and pairs of words leave out punctuation, which most texts have.
"""

import itertools
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import scipy

from seqrnn.data.vocabulary import Vocabulary, joined
from seqrnn.runtime.compiled import rung

BUCKETS = 2**18  # Of symbols and pairs; as many of parts of words.
_MOST = 2**16  # Buckets that are read, those that most texts have.
LISTS = 4  # Of a vocabulary of terms.
_SPACED = 1.5  # The mean length of words that are spaced characters.


def vocabulary(
  texts: Iterable[Sequence[str]], unit: str, longest: int | None
) -> Vocabulary:
  """The seed of the hash, the buckets, and the number of texts of each.

  Args:
    texts: the symbols of each text of the training split.
    unit: as `data.unit`.
    longest: the characters of the longest part of a word; None: no parts.
  """
  counts, total = np.zeros(BUCKETS * (2 if longest else 1), int), 0
  for text in texts:
    counts[np.unique(_buckets(text, unit, longest))] += 1
    total += 1
  some = np.argsort(-counts, kind="stable")[:_MOST]
  some = np.sort(some[counts[some] > 0])
  lists = (" ".join(map(str, x.tolist())) for x in (some, counts[some]))
  lists = ("seed 0", f"texts {total}", *lists)
  return Vocabulary("term", lists, rows=rung(len(some)))


class Terms:
  """The TF-IDF of the terms of texts, float32, F of each.

  F are the buckets that the training split has. Symbols and pairs of these
  have a norm of 1 together, and so have parts of words.
  """

  def __init__(self, known: Vocabulary, unit: str, longest: int | None):
    _, total, buckets, counts = known.symbols
    self._how = unit, longest
    counts_F = np.array(counts.split(), int)
    self.size = known.rows or len(counts_F)
    self._column_N = np.full(2 * BUCKETS, -1, np.int32)
    self._column_N[np.array(buckets.split(), int)] = np.arange(len(counts_F))
    self._idf_F = 1 + np.log((1 + int(total.split()[1])) / (1 + counts_F))

  def row(self, text: Sequence[str]) -> "scipy.sparse.csr_array":
    """The TF-IDF of a text, [1, F]."""
    found = _buckets(text, *self._how)
    found = found[self._column_N[found] >= 0]
    some, counts = np.unique(found, return_counts=True)
    columns = self._column_N[some]
    tfidf = (1 + np.log(counts)) * self._idf_F[columns]
    for part in (some < BUCKETS, some >= BUCKETS):
      tfidf[part] /= max(np.linalg.norm(tfidf[part]), 1e-9)
    starts, shape = [0, len(columns)], (1, self.size)
    return scipy.sparse.csr_array(
      (tfidf.astype(np.float32), columns, starts), shape
    )


def _buckets(text: Sequence[str], unit: str, longest: int | None) -> np.ndarray:
  """The bucket of each term of a text."""
  terms = [x for x in text if unit != "word" or any(map(str.isalnum, x))]
  pairs = map("\0".join, itertools.pairwise(terms))
  found = [_bucket(term) for term in (*terms, *pairs)]
  if not longest:
    return np.array(found, int)
  words = joined(text, unit).split()
  if sum(map(len, words)) < _SPACED * len(words):
    words = ["".join(words)]  # A script whose characters are words.
  parts = [_parts(word, longest) for word in words]
  return np.concatenate([np.array(found, int), *parts])


def _bucket(term: str) -> int:
  return zlib.crc32(term.encode("utf-8", "surrogatepass")) % BUCKETS


@lru_cache(2**16)
def _parts(word: str, longest: int) -> np.ndarray:
  """The buckets of the n-grams of a word with its edges."""
  edged = f" {word} "
  return np.array(
    [
      BUCKETS + _bucket(edged[n : n + size])
      for size in range(1, longest + 1)
      for n in range(size == 1, len(edged) + 1 - size - (size == 1))
    ],
    int,
  )
