"""Words as numbers: their characters, affixes and shapes, and vectors of files.

GloVe, word2vec and fastText write vectors as text. A line has a word and its
numbers, separated by spaces. The first line may have two numbers instead: how
many words there are, and how many numbers each has.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.read import reading
from seqrnn.data.vocabulary import RESERVED, Vocabulary
from seqrnn.errors import UserError

_CHARACTERS = 20  # Of a word, that are read.
_SHAPE = 8  # Of a shape, likewise.


def characters(vocabulary: Vocabulary, words: Sequence[str]) -> np.ndarray:
  """The ids of the first characters of each word, int32 [words, 20].

  Positions after the last character are PAD.
  """
  return _padded(vocabulary, [x[:_CHARACTERS] for x in words], _CHARACTERS)


def affixes(
  vocabulary: Vocabulary, longest: int, words: Sequence[str]
) -> np.ndarray:
  """The ids of the affixes and of the shape of each word.

  int32 [words, 2 * longest + 1]. An affix longer than the word is PAD.
  """
  rows = [[*_features(word, longest)] for word in words]
  return _padded(vocabulary, rows, 2 * longest + 1)


def _padded(
  vocabulary: Vocabulary, rows: Sequence[str | list[str]], width: int
) -> np.ndarray:
  table = np.zeros((len(rows), width), np.int32)
  for ids, symbols in zip(table, rows, strict=True):
    ids[: len(symbols)] = vocabulary.encode(symbols)
  return table


def affix_vocabulary(words: Vocabulary, longest: int) -> Vocabulary:
  """The affixes and shapes that at least two words have."""
  each = (_features(word, longest) for word in words.symbols)
  counts = Counter(itertools.chain.from_iterable(each))
  known = Vocabulary("id", tuple(sorted(f for f, n in counts.items() if n > 1)))
  return known.padded() if words.rows else known


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


def read_vectors(path: str, names: Vocabulary, size: int) -> np.ndarray:
  """The vectors of the symbols of a vocabulary, read line by line.

  Returns:
    float32 [V, size]; rows of symbols that the file lacks are NaN.

  Raises:
    UserError: the file cannot be read, its first line has not `size` numbers, a
      symbol has other numbers or two vectors, or none has one.
  """
  ids = {s: i for i, s in enumerate(names.symbols, len(RESERVED))}
  vectors = np.full((len(names), size), np.nan, np.float32)
  source = reading.Source(path, Path(path))
  # A few words of published files are not UTF-8.
  for number, line in enumerate(reading.lines(source, "replace"), 1):
    parts = line.rstrip().split(" ")
    if number == 1:
      is_header = len(parts) == 2 and all(map(str.isdecimal, parts))
      count = int(parts[1]) if is_header else len(parts) - 1
      if count != size:
        raise UserError(
          f"{path}:1: has {count} numbers; config.model.embedding_size={size}"
          " must be that of the vectors"
        )
      if is_header:
        continue
    row = ids.get(" ".join(parts[:-size]))  # A few words of GloVe have spaces.
    if row is None:
      continue
    try:
      # Python would read 1_03 as 103.
      numbers = [part.replace("_", "?") for part in parts[-size:]]
      vector = np.array(numbers, np.float64)
    except ValueError:
      vector = np.array(np.nan)
    is_new = np.isnan(vectors[row, 0])
    if not (is_new and (np.abs(vector) <= np.finfo(np.float32).max).all()):
      raise UserError(
        f"{path}:{number}: {names.symbols[row - len(RESERVED)]!r} must have"
        f" {size} finite numbers, in one line"
      )
    vectors[row] = vector
  if not np.isfinite(vectors).any():
    raise UserError(
      f"config.model.embedding_path={path!r}: has none of the"
      f" {len(ids):,} symbols of the vocabulary"
    )
  return vectors


def complete(vectors: np.ndarray, seed: int) -> np.ndarray:
  """An embedding [V, D] of vectors of which rows are missing, NaN.

  Those rows get normal random numbers with the mean and the standard deviation
  of the other rows, in each dimension.
  """
  has_V = np.isfinite(vectors[:, :1])
  known = vectors[has_V[:, 0]].astype(np.float64)
  rng = np.random.default_rng(seed)
  drawn = rng.normal(known.mean(0), known.std(0), vectors.shape)
  return np.where(has_V, vectors, drawn).astype(np.float32)


def initial_embedding(
  config: Config, names: Vocabulary, reports: bool
) -> np.ndarray:
  """The embedding that a new run starts from.

  Args:
    config: of the run.
    names: its symbols.
    reports: whether to print how many symbols have a vector.
  """
  path = config.model.embedding_path
  vectors = read_vectors(path, names, config.model.embedding_size)
  if reports:
    has_V, symbols = np.isfinite(vectors[:, 0]), len(names.symbols)
    print(
      f"vectors: {has_V.sum():,} of {symbols:,} symbols are in {path}"
      f" ({has_V.sum() / symbols:.1%})"
    )
  return complete(vectors, config.seed)
