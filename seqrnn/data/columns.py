"""Columns: whole numbers that are collected one by one, as many as there are.

A few are in memory. Many are written to a temporary file and mapped, so that
what is read of them takes memory that the system can have back.
"""

import mmap
import tempfile
from array import array

import numpy as np

SMALL = 32 * 2**20  # Bytes of a file that stay in memory.
_HELD = 2**16  # Numbers that are written together.


class Spool(tempfile.SpooledTemporaryFile):
  """An empty file, in memory until it is large."""

  def __init__(self):
    super().__init__(max_size=SMALL)

  def __del__(self):
    self.close()  # An error may have ended what writes it.


def frozen(file: Spool, kind: str | np.dtype) -> np.ndarray:
  """The numbers that a file holds; nothing more can be written."""
  with file:
    file.seek(0, 2)
    size = file.tell()
    if size > SMALL:
      file.flush()
      mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
      return np.frombuffer(mapped, kind)
    file.seek(0)
    return np.frombuffer(bytearray(file.read()), kind)


class Column:
  """Numbers of one kind, from 0.

  Attributes:
    kind: of the numbers, as NumPy names it.
  """

  def __init__(self, kind: str = "<u4"):
    self.kind = np.dtype(kind)
    self._held = array({4: "I", 8: "Q"}[self.kind.itemsize])
    self._file = Spool()
    self._count = 0

  def __len__(self) -> int:
    return self._count + len(self._held)

  def append(self, number: int):
    """Takes one more."""
    self._held.append(number)
    if len(self._held) == _HELD:
      self._write()

  def _write(self):
    self._file.write(np.array(self._held, self.kind).data)
    self._count += len(self._held)
    del self._held[:]

  def numbers(self) -> np.ndarray:
    """All of them; none can follow."""
    if self._held:
      self._write()
    return frozen(self._file, self.kind)


class Tokens:
  """Texts as numbers, in the order that distinct ones come."""

  def __init__(self):
    self.ids = Column()
    self._index: dict[str, int] = {}

  def append(self, token: str):
    """Takes one more."""
    index = self._index
    self.ids.append(index.setdefault(token, len(index)))

  @property
  def distinct(self) -> list[str]:
    """The distinct ones."""
    return list(self._index)


def in_order(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The distinct keys, in the order that they come, and which each one is."""
  _, first, which = np.unique(keys, return_index=True, return_inverse=True)
  places = np.sort(first)
  rank = np.empty(len(first), np.int64)
  rank[np.argsort(first)] = np.arange(len(first))
  return keys[places], rank[which]
