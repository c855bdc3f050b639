"""Columns: whole numbers that are collected one by one, as many as there are.

A few are in memory. Many are written to a temporary file and mapped, so that
the system can take back the memory of the part that was read.
"""

import dataclasses
import itertools
import mmap
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

SMALL = 4 * 2**20  # Bytes of a file that stay in memory.
_HELD = 2**16  # Numbers that are handled together.
_SORTED = 2**20  # Numbers that are sorted together.


class Spool(tempfile.SpooledTemporaryFile):
  """An empty file, in memory until it is large."""

  def __init__(self, folder: Path | None = None):
    super().__init__(max_size=SMALL, dir=folder and str(folder))

  def __del__(self):
    self.close()  # An error may have ended what writes it.


def frozen(file: Spool, kind: str | np.dtype) -> np.ndarray:
  """The numbers in a file, which is closed."""
  with file:
    file.seek(0, 2)
    size = file.tell()
    if size > SMALL:
      file.flush()
      mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
      return np.frombuffer(mapped, kind)
    file.seek(0)
    content = bytearray(size)
    file.readinto(content)
    return np.frombuffer(content, kind)


class Column:
  """Numbers of one kind: whole ones from 0, or float64.

  Attributes:
    kind: of the numbers, as NumPy names it.
  """

  def __init__(self, kind: str = "<u4"):
    self.kind = np.dtype(kind)
    self._held = array({"u4": "I", "u8": "Q", "f8": "d"}[self.kind.str[1:]])
    self._file = Spool()
    self._count = 0

  def __len__(self) -> int:
    return self._count + len(self._held)

  def append(self, number: float):
    """Adds a number."""
    self._held.append(number)
    if len(self._held) == _HELD:
      self._write()

  def _write(self):
    self._file.write(np.array(self._held, self.kind).data)
    self._count += len(self._held)
    del self._held[:]

  def numbers(self) -> np.ndarray:
    """All numbers; none can be added any more."""
    self._write()
    return frozen(self._file, self.kind)


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

  def __getitem__(self, index) -> Any:
    found = self.ids[index]
    if found.ndim:
      return Texts(self.symbols, found)
    return self.symbols[int(found)]

  def narrow(self) -> np.ndarray:
    """The ids in the smallest type that holds them."""
    return self.ids.astype(kind_for(len(self.symbols)))


def concatenate(parts: Sequence[Texts]) -> Texts:
  """The texts of several parts; a text of two parts has two ids."""
  symbols = [symbol for part in parts for symbol in part.symbols]
  shifts = np.cumsum([0, *(len(part.symbols) for part in parts)])
  ids = [
    np.add(part.ids, shift, dtype=kind_for(len(symbols)), casting="unsafe")
    for part, shift in zip(parts, shifts, strict=False)
  ]
  return Texts(symbols, np.concatenate(ids))


class Tokens:
  """Texts that are collected one by one."""

  def __init__(self):
    self._ids = Column()
    self._index: dict[str, int] = {}

  def __len__(self) -> int:
    return len(self._ids)

  def append(self, token: str):
    """Adds a text."""
    index = self._index
    self._ids.append(index.setdefault(token, len(index)))

  def texts(self) -> Texts:
    """All texts, numbered by their first places; none can be added any more."""
    return Texts(list(self._index), self._ids.numbers())


class Stored(Sequence):
  """Texts as bytes, made when they are indexed.

  Attributes:
    content: all texts in UTF-8.
    ends: where each ends, after a 0.
  """

  def __init__(self, content: np.ndarray, ends: np.ndarray):
    self.content, self.ends = content, ends

  def __len__(self) -> int:
    return len(self.ends) - 1

  def __getitem__(self, index):
    if not 0 <= index < len(self):
      raise IndexError(index)
    start, stop = self.ends[index : index + 2].tolist()
    return self.content[start:stop].tobytes().decode("utf-8", "surrogatepass")

  def __iter__(self) -> Iterator[str]:
    # Many at once: one takes as long as ten of many.
    for first in range(0, len(self), _HELD):
      ends = self.ends[first : first + _HELD + 1].tolist()
      content = self.content[ends[0] : ends[-1]].tobytes()
      for start, stop in itertools.pairwise(ends):
        some = content[start - ends[0] : stop - ends[0]]
        yield some.decode("utf-8", "surrogatepass")


def stored(texts: Iterable[str]) -> Stored:
  """Texts as bytes; many are in a file."""
  content, ends, size = Spool(), Column("<u8"), 0
  ends.append(0)
  for text in texts:
    size += content.write(text.encode("utf-8", "surrogatepass"))
    ends.append(size)
  return Stored(frozen(content, "u1"), ends.numbers())


class Changes:
  """Texts that rarely repeat but after themselves, as times of a log do."""

  def __init__(self):
    self._ids, self._ends, self._content = Column(), Column("<u8"), Spool()
    self._ends.append(0)
    self._size, self._last = 0, None

  def append(self, text: str):
    """Adds a text."""
    if text != self._last:
      self._last = text
      self._size += self._content.write(text.encode("utf-8", "surrogatepass"))
      self._ends.append(self._size)
    self._ids.append(len(self._ends) - 2)

  def texts(self) -> Texts | None:
    """All texts, None if all are empty; none can be added any more."""
    if not self._size:
      return None
    symbols = Stored(frozen(self._content, "u1"), self._ends.numbers())
    return Texts(cast("list[str]", symbols), self._ids.numbers())


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
  file, first = Spool(), 0
  while first < count:
    end = np.searchsorted(bounds, bounds[first] + _SORTED, "right") - 1
    end = max(int(end), first + 1)
    places = np.flatnonzero((first <= ids) & (ids < end))
    file.write(places[np.argsort(ids[places], kind="stable")].data)
    first = end
  return frozen(file, np.dtype(np.int64)), bounds


def taken(numbers: np.ndarray, order: np.ndarray | slice) -> np.ndarray:
  """Numbers in another order; many are in a file, as those of a column."""
  if isinstance(order, slice):
    return numbers[order]
  file = Spool()
  for start in range(0, len(order), _HELD):
    file.write(numbers[order[start : start + _HELD]].data)
  return frozen(file, numbers.dtype)


def kind_for(count: int) -> np.dtype:
  """The smallest type that holds the numbers below `count`."""
  return np.min_scalar_type(max(count - 1, 0)).newbyteorder("<")


def in_order(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The distinct keys in the order of their first places, and each key's index.

  np.unique with its indices takes some 90 bytes a key, this 13 to 30.
  """
  order = np.argsort(keys, kind="stable")
  # Of equal keys, which stand together in `order`, the first.
  is_new = np.ones(len(keys), bool)
  for start in range(1, len(keys), _HELD):
    some = keys[order[start - 1 : start + _HELD]]
    is_new[start : start + _HELD] = some[1:] != some[:-1]
  firsts = order[is_new]
  is_first = np.zeros(len(keys), bool)
  is_first[firsts] = True
  rank = np.cumsum(is_first, dtype=np.uint32)[firsts] - 1
  which = np.empty(len(keys), kind_for(len(firsts)))
  count = 0
  for start in range(0, len(keys), _HELD):
    number = count + np.cumsum(is_new[start : start + _HELD])
    which[order[start : start + _HELD]] = rank[number - 1]
    count = number[-1]
  return keys[is_first], which
