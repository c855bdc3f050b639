"""Columns: numbers and texts that are collected one by one.

A few are in memory. Many are in a temporary file that is mapped, so that a
corpus may be larger than memory.
"""

import dataclasses
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast, overload

import numpy as np

from seqrnn.runtime import files

_SMALL = 4 * 2**20  # Bytes of a column that stay in memory.
_BLOCK = 2**16  # Numbers that are handled together.
_SORTED = 2**20  # Numbers that are sorted together.

Arrays = dict[str, np.ndarray]
Number = float | bytes | tuple  # A tuple is of a structure.


class Column:
  """Numbers of one type: a given one, or the smallest that holds all.

  Attributes:
    kind: their type.
  """

  def __init__(self, kind: str | np.dtype | None = None):
    self._widens = kind is None  # Whole numbers from 0.
    self._block: list[Number] = []
    self._start_file(np.dtype(kind or np.uint8))

  def _start_file(self, kind: np.dtype):
    self.kind, self._count = kind, 0
    self._file = tempfile.SpooledTemporaryFile(_SMALL)  # noqa: SIM115

  def __del__(self):
    self._file.close()  # An error may have ended the collecting.

  def __len__(self) -> int:
    return self._count + len(self._block)

  def collect(self, numbers: Iterable[Number]):
    """Adds numbers, or the tuples of a structure."""
    self._block.extend(numbers)
    if len(self._block) >= _BLOCK:
      self._flush()

  def extend(self, numbers: np.ndarray):
    """Adds numbers.

    Raises:
      MachineError: the folder of temporary files is full.
    """
    self._flush()
    if self._widens and numbers.max(initial=0) > np.iinfo(self.kind).max:
      narrow = self.numbers()
      self._start_file(np.min_scalar_type(numbers.max()))
      for start in range(0, len(narrow), _BLOCK):
        self.extend(narrow[start : start + _BLOCK])
    with files.write_errors(Path(tempfile.gettempdir())):
      self._file.write(numbers.astype(self.kind, copy=False).data)
    self._count += len(numbers)

  def _flush(self):
    block, self._block = self._block, []
    if block:
      self.extend(np.array(block, None if self._widens else self.kind))

  def numbers(self) -> np.ndarray:
    """All numbers; none can be added any more."""
    self._flush()
    with self._file as file:
      size = self._count * self.kind.itemsize
      if size > _SMALL:
        with files.write_errors(Path(tempfile.gettempdir())):
          file.flush()
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, self.kind)
      file.seek(0)
      return np.frombuffer(bytearray(file.read()), self.kind)


@dataclasses.dataclass(frozen=True, eq=False)
class Texts(Sequence):
  """Texts that repeat; an array of indices or a slice gives some of them.

  Attributes:
    symbols: the distinct texts, or `Stored` texts of which neighbours differ.
    ids: unsigned [texts]: indices into `symbols`.
  """

  symbols: list[str]
  ids: np.ndarray

  def __len__(self) -> int:
    return len(self.ids)

  @overload
  def __getitem__(self, index: int) -> str: ...

  @overload
  def __getitem__(self, index: slice | np.ndarray) -> "Texts": ...

  def __getitem__(self, index):
    ids = self.ids[index]
    return Texts(self.symbols, ids) if ids.ndim else self.symbols[int(ids)]


def concatenate(parts: Sequence[Texts]) -> Texts:
  """The texts of several parts; a text of two parts has two ids."""
  symbols = [symbol for part in parts for symbol in part.symbols]
  shifts = np.cumsum([0, *(len(part.symbols) for part in parts)])
  kind = np.min_scalar_type(len(symbols))
  ids = [
    np.add(part.ids, shift, dtype=kind, casting="unsafe")
    for part, shift in zip(parts, shifts, strict=False)
  ]
  return Texts(symbols, np.concatenate(ids))


class Tokens:
  """Texts that are collected."""

  def __init__(self):
    self._ids = Column()
    self._index: dict[str, int] = {}

  def __len__(self) -> int:
    return len(self._ids)

  def collect(self, tokens: Iterable[str]):
    """Adds texts."""
    index = self._index
    self._ids.collect([index.setdefault(x, len(index)) for x in tokens])

  def texts(self) -> Texts:
    """All texts, numbered by their first places; none can be added any more."""
    return Texts(list(self._index), self._ids.numbers())


@dataclasses.dataclass(frozen=True, eq=False)
class Stored(Sequence):
  """Short texts as bytes, decoded when they are indexed.

  Attributes:
    content: in UTF-8, at most 48 bytes of each text.
  """

  content: np.ndarray

  def __len__(self) -> int:
    return len(self.content)

  def __getitem__(self, index):
    return bytes(self.content[index]).decode("utf-8", "replace")


class Changes:
  """Texts that rarely repeat but after themselves, as times of a log do."""

  def __init__(self):
    self._ids, self._texts, self._last = Column(), Column("S48"), ""

  def collect(self, texts: Iterable[str]):
    """Adds texts."""
    ids = []
    for text in texts:
      if text != self._last or not len(self._texts):
        self._last = text
        self._texts.collect([text.encode("utf-8", "replace")])
      ids.append(len(self._texts) - 1)
    self._ids.collect(ids)

  def texts(self) -> Texts | None:
    """All texts, None if all are empty; none can be added any more."""
    if len(self._texts) < 2 and not self._last:
      return None
    symbols = cast("list[str]", Stored(self._texts.numbers()))
    return Texts(symbols, self._ids.numbers())


def parts_of(bounds: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
  """Yields parts of some groups: their first, and the one after their last.

  Args:
    bounds: of the groups, as those of documents.
    most: rows of a part, unless a group has more.
  """
  first, count = 0, len(bounds) - 1
  while first < count:
    end = np.searchsorted(bounds, bounds[first] + most, "right") - 1
    end = max(int(end), first + 1)
    yield first, end
    first = end


def grouped(
  ids: np.ndarray, count: int
) -> tuple[np.ndarray | slice, np.ndarray]:
  """The order that brings equal ids together, stably, and where each begins.

  np.argsort and np.bincount would hold 8 bytes for each of all ids.

  Args:
    ids: from 0.
    count: of distinct ids.

  Returns:
    int64 or a slice of all; and int64 [count + 1].
  """
  bounds = np.zeros(count + 1, np.int64)
  for start in range(0, len(ids), _SORTED):
    some = ids[start : start + _SORTED]
    bounds[1:] += np.bincount(some, minlength=count)
  np.cumsum(bounds, out=bounds)
  if not np.any(ids[1:] < ids[:-1]):
    return slice(None), bounds
  order = Column("<i8")
  for first, end in parts_of(bounds, _SORTED):
    places = np.flatnonzero((first <= ids) & (ids < end))
    order.extend(places[np.argsort(ids[places], kind="stable")])
  return order.numbers(), bounds


def taken(numbers: np.ndarray, order: np.ndarray | slice) -> np.ndarray:
  """Numbers in another order; many are in a file, as those of a column."""
  if isinstance(order, slice):
    return numbers[order]
  column = Column(numbers.dtype)
  for start in range(0, len(order), _BLOCK):
    column.extend(numbers[order[start : start + _BLOCK]])
  return column.numbers()
