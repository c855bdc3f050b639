"""Word vectors in text, as GloVe, word2vec and fastText write them.

A line has a word and its numbers, separated by spaces. The first line may have
two numbers instead, how many words there are and how many numbers each has.
"""

import codecs
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import RESERVED, Vocabulary
from seqrnn.errors import UserError
from seqrnn.runtime import files

RECORD = "vectors.json"
_LIMIT = 2**40  # Bytes of a file, unpacked.


class Found(NamedTuple):
  """The vectors of some symbols of a vocabulary.

  Attributes:
    path: of the file.
    vectors: float32 [V, D]; rows of symbols that the file lacks are NaN.
    crc32: of the file's content.
  """

  path: str
  vectors: np.ndarray
  crc32: int

  @property
  def has_V(self) -> np.ndarray:
    """Whether each symbol has a vector."""
    return np.isfinite(self.vectors[:, 0])

  def record(self) -> dict[str, Any]:
    """The content of vectors.json."""
    found, symbols = int(self.has_V.sum()), len(self.vectors) - len(RESERVED)
    return {
      "path": self.path,
      "crc32": self.crc32,
      "found": found,
      "symbols": symbols,
      "share": found / symbols,
    }

  def table(self, seed: int) -> np.ndarray:
    """The embedding [V, D].

    Symbols without a vector get normal random numbers with the mean and the
    standard deviation of the vectors that were found, in each dimension.
    """
    known = self.vectors[self.has_V].astype(np.float64)
    rng = np.random.default_rng(seed)
    drawn = rng.normal(known.mean(0), known.std(0), self.vectors.shape)
    rows = np.where(self.has_V[:, None], self.vectors, drawn)
    return rows.astype(np.float32)


def read(path: str, names: Vocabulary, size: int) -> Found:
  """Reads the vectors of the symbols of a vocabulary, line by line.

  Raises:
    UserError: the file cannot be read, has none of the symbols or one of them
      twice, or a line is not a word and `size` numbers.
  """
  ids = {
    symbol.encode("utf-8", "surrogateescape"): i
    for i, symbol in enumerate(names.symbols, len(RESERVED))
  }
  vectors = np.full((len(names), size), np.nan, np.float32)
  lines: dict[int, int] = {}  # Id -> the number of its line.
  crc32 = 0
  for number, line in enumerate(_lines(path), 1):
    crc32 = zlib.crc32(line, crc32)
    if number == 1:
      line = line.removeprefix(codecs.BOM_UTF8)
    parts = line.rstrip().split(b" ")
    if number == 1 and (wide := _header(parts)) is not None:
      if wide != size:
        raise _wrong_size(path, number, wide, size)
      continue
    if len(parts) <= size:
      raise _wrong_size(path, number, len(parts) - 1, size)
    # A few words of GloVe have spaces.
    word, numbers = b" ".join(parts[:-size]), parts[-size:]
    more = parts[1:-size]
    if more and _numbers(more) is not None:
      raise _wrong_size(path, number, len(parts) - 1, size)
    i = ids.get(word)
    if i is None:
      continue
    values = _numbers(numbers)
    if values is None:
      raise UserError(
        f"{path}:{number}: is not a word and {size} finite numbers"
      )
    if i in lines:
      raise UserError(
        f"{path}:{number}: {_shown(word)} has a vector in line {lines[i]}, too"
      )
    lines[i], vectors[i] = number, values
  if not lines:
    raise UserError(
      f"config.model.embedding_path={path!r}: has none of the"
      f" {len(ids):,} symbols of the vocabulary"
    )
  return Found(path, vectors, crc32)


def _lines(path: str) -> Iterator[bytes]:
  """Yields the lines of a file, unpacked.

  Raises:
    UserError: the file cannot be read.
  """
  try:
    with files.open_unpacked(path, _LIMIT) as file:
      yield from file
  except OSError as error:
    raise UserError(
      f"config.model.embedding_path={path!r}: cannot be read: {error.strerror}"
    ) from None


def _header(parts: list[bytes]) -> int | None:
  """The number of dimensions in a header; None if the line is none."""
  if len(parts) == 2 and all(part.isdigit() for part in parts):
    return int(parts[1])
  return None


def _numbers(parts: list[bytes]) -> np.ndarray | None:
  """Finite numbers of float32; None if a part is none."""
  try:
    values = np.array([float(part) for part in parts])
  except ValueError:
    return None
  fits = np.abs(values) <= np.finfo(np.float32).max  # False for nan, too.
  return values if fits.all() else None


def _shown(word: bytes) -> str:
  return repr(word.decode("utf-8", "replace"))


def _wrong_size(path: str, number: int, found: int, size: int) -> UserError:
  return UserError(
    f"{path}:{number}: has {found} numbers; config.model.embedding_size={size}"
    " must be that of the vectors"
  )


def of_run(config: Config, names: Vocabulary, workdir: Path | None) -> Found:
  """The vectors that a new run starts from; says how many there are.

  Args:
    config: of the run.
    names: its symbols.
    workdir: where to write vectors.json; None: another process does.
  """
  model = config.model
  found = read(model.embedding_path, names, model.embedding_size)
  record = found.record()
  if workdir is not None:
    with files.atomic_write(workdir / RECORD) as file:
      file.write(json.dumps(record, indent=2) + "\n")
    print(
      f"vectors: {record['found']:,} of {record['symbols']:,} symbols are in"
      f" {found.path} ({record['share']:.1%})"
    )
  return found
