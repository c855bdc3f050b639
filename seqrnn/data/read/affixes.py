"""The spelling of words, as ids: their characters, or affixes and shapes."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from seqrnn.data.vocabulary import Vocabulary

_CHARACTERS = 20  # Of a word, that are read.
_SHAPE = 8  # Of a shape, likewise.


def characters(vocabulary: Vocabulary, words: Sequence[str]) -> np.ndarray:
  """The ids of the first characters of each word, int32 [words, 20].

  Positions after the last character are PAD.
  """
  table = np.zeros((len(words), _CHARACTERS), np.int32)
  for row, word in zip(table, words, strict=True):
    row[: len(word)] = vocabulary.encode(word[:_CHARACTERS])
  return table


def affixes(
  vocabulary: Vocabulary, longest: int, words: Sequence[str]
) -> np.ndarray:
  """The ids of the affixes and of the shape of each word.

  int32 [words, 2 * longest + 1]. An affix longer than the word is PAD.
  """
  table = np.zeros((len(words), 2 * longest + 1), np.int32)
  for row, word in zip(table, words, strict=True):
    features = [*_features(word, longest)]
    row[: len(features)] = vocabulary.encode(features)
  return table


def affix_vocabulary(words: Sequence[str], longest: int) -> Vocabulary:
  """The affixes and shapes that at least two words have."""
  counts = Counter(
    itertools.chain.from_iterable(_features(word, longest) for word in words)
  )
  return Vocabulary("id", tuple(sorted(f for f, n in counts.items() if n > 1)))


def _features(word: str, longest: int) -> Iterator[str]:
  """The shape, and the prefixes and suffixes without case; a digit is 0."""
  plain = "".join("0" if c.isdigit() else c for c in word.lower())
  kinds = (
    "0" if c.isdigit() else "X" if c.isupper() else "x" if c.isalpha() else c
    for c in word
  )
  runs = (kind for kind, _ in itertools.groupby(kinds))
  yield "shape " + "".join(itertools.islice(runs, _SHAPE))
  for size in range(1, min(longest, len(plain)) + 1):
    yield f"{plain[:size]}-"
    yield f"-{plain[-size:]}"
