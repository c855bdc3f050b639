"""Marks: digests of bytes by which the content of a file is found again."""

import hashlib
from typing import IO

_SIZE = 512  # Bytes whose digest tells contents apart.


class Ends:
  """The first and the last bytes that were read of a file, for its marks.

  To go back for them, a packed file would be unpacked from its begin on.
  """

  def __init__(self, file: IO[bytes], offset: int):
    """Places a file at an offset."""
    self._first, self._before = _ends(file, offset)
    self._last = b""

  def add(self, data: bytes):
    """Takes what was read."""
    self._before = (self._before + self._last)[-_SIZE:]
    self._first = (self._first + data[:_SIZE])[:_SIZE]
    self._last = data

  def marks(self, offset: int, rest: int) -> tuple[str, str]:
    """As `marks`, of a place so many bytes before the end of what was read."""
    read = self._before + self._last
    end = len(read) - rest
    return _digest(self._first[:offset]), _digest(
      read[max(end - _SIZE, 0) : end]
    )


def marks(file: IO[bytes], offset: int) -> tuple[str, str]:
  """Digests of the first and of the last bytes before a place."""
  first, last = _ends(file, offset)
  return _digest(first), _digest(last)


def _ends(file: IO[bytes], offset: int) -> tuple[bytes, bytes]:
  """The first and the last bytes before a place, where the file is then."""
  size = min(_SIZE, offset)
  file.seek(0)
  first = file.read(size)
  file.seek(offset - size)
  return first, file.read(size)


def _digest(data: bytes) -> str:
  return hashlib.blake2b(data, digest_size=8).hexdigest()
