"""Tails: the lines of a log that grows, from a position on.

A log by name is read across its rotations. A position is a place in the content
of the log: the file of the content is found again by its inode or, where the
content was copied or packed, by the bytes before the place.
"""

import functools
import hashlib
import os
import select
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, NamedTuple

from seqrnn.data.logs import rotation
from seqrnn.data.logs.rotation import LogFile
from seqrnn.data.read.reading import LINE
from seqrnn.errors import MachineError

LONGEST = 4 * LINE  # Bytes of a line that are kept; a character has up to 4.
_BYTES = 2**17  # Read at once, so about a thousand lines.
_POLL = 0.05  # Seconds between two looks at a file that does not grow.
_GRACE = 1.0  # Seconds for which writers may still write to a renamed file.
_MARK = 1024  # Bytes whose digest tells contents apart.


class LogPosition(NamedTuple):
  """A place in the content of a log, between two lines.

  Attributes:
    part: the number of files before that of the place.
    line: the number of lines before the place, in its file.
    offset: the number of bytes before the place, in its file.
    inode: of the file; 0: none has been opened.
    changed: when the file was changed, in nanoseconds since 1970.
    mark: digest of the last bytes before the place.
  """

  part: int = 0
  line: int = 0
  offset: int = 0
  inode: int = 0
  changed: int = 0
  mark: str = ""


BEGIN = LogPosition()


class Chunk(NamedTuple):
  """Lines that were read together.

  Attributes:
    lines: without their newlines; of a longer line, more than LONGEST bytes.
    first: the number of the first line in its file, from 1.
    part: as of `LogPosition`, of the lines.
    position: after the lines.
  """

  lines: list[bytes]
  first: int
  part: int
  position: LogPosition


class StreamTail:
  """The lines of a pipe or a terminal, as they arrive.

  Attributes:
    position: after the lines that were read; `line` counts all lines.
    ended: whether the input has ended.
    behind: 0, as the bytes that wait are few.
  """

  behind = 0

  def __init__(self, descriptor: int, position: LogPosition = BEGIN):
    self.position, self.ended = position, False
    self._descriptor = descriptor
    self._begin = b""  # An incomplete line.

  def read(self, timeout: float) -> Chunk | None:
    """The lines that have arrived; None: nothing in so many seconds.

    Raises:
      MachineError: it cannot be read, as a terminal that is gone.
    """
    try:
      if not select.select([self._descriptor], [], [], timeout)[0]:
        return None
      data = os.read(self._descriptor, _BYTES)
    except OSError as error:
      reason = error.strerror
      raise MachineError(f"standard input: cannot be read: {reason}") from None
    self.ended = not data
    *lines, self._begin = (self._begin + data).split(b"\n")
    if self.ended and self._begin:  # No newline ends the last line.
      lines.append(self._begin)
    self._begin = self._begin[: LONGEST + 1]
    first = self.position.line + 1
    self.position = self.position._replace(line=first - 1 + len(lines))
    return Chunk(lines, first, 0, self.position)

  def close(self):
    """Does nothing: the descriptor is not its own."""


class FileTail:
  """The lines of a log by name, across its rotations.

  Its file is renamed, or truncated after a copy was made; such files lie beside
  it and may be packed. A renamed file is read until the new file has content
  and the old one has been silent for a second: programs reopen logs later.

  Attributes:
    position: after the lines that were read.
    ended: False, as a log may always grow.
  """

  ended = False

  def __init__(
    self,
    path: Path,
    report: Callable[[str], None],
    position: LogPosition = BEGIN,
    grace: float = _GRACE,
  ):
    """Opens nothing; `read` does.

    Args:
      path: of the log, which need not exist yet.
      report: called with messages for a person.
      position: where to begin.
      grace: seconds for which a renamed file must be silent.
    """
    self.position, self._path, self._grace = position, path, grace
    self._report = functools.cache(report)  # Each message once.
    self._file: IO[bytes] | None = None
    self._packed, self._open = False, ExitStack()
    self._recent = self._begin = b""  # What was read last; an incomplete line.
    self._silent = 0.0  # Since when the renamed file is silent; 0: it is not.

  def read(self, timeout: float) -> Chunk | None:
    """The lines that were written; None: nothing in so many seconds.

    Raises:
      MachineError: a file cannot be read.
    """
    end = time.monotonic() + timeout
    while True:
      try:
        if chunk := self._read():
          return chunk
      except OSError as error:
        is_renamed = isinstance(error, FileNotFoundError)  # Just now.
        if not (is_renamed and self.position.inode):
          fault = f"{self._path}: cannot be read: {error.strerror or error}"
          raise MachineError(fault) from None
      if time.monotonic() + _POLL > end:
        return None
      time.sleep(_POLL)

  @property
  def behind(self) -> int:
    """The number of bytes of the newest file that wait."""
    with suppress(OSError):
      status, place = self._path.stat(), self.position
      read = self._file.tell() if self._file else place.offset
      is_newest = place.inode == status.st_ino
      return max(status.st_size - read * is_newest, 0)
    return 0

  def close(self):
    """Closes the file."""
    self._open.close()
    self._file, self._begin = None, b""

  def _read(self) -> Chunk | None:
    if self._is_replaced():
      self.close()
    while not (lines := self._complete_lines()):
      if (following := self._following()) is None:
        return None
      if self._begin and not following[1].inode:
        lines, self._begin = [self._begin], b""  # No newline ends the last one.
        break
      self._enter(*following)
    return self._chunk(lines)

  def _complete_lines(self) -> list[bytes]:
    """The next lines of the file; none: it has no newline up to its end."""
    try:
      while self._file is not None and (data := self._file.read(_BYTES)):
        self._silent = 0.0
        self._recent = (self._recent + data)[-_MARK - _BYTES :]
        *lines, begin = (self._begin + data).split(b"\n")
        self._begin = begin[: LONGEST + 1]
        if lines:
          return lines
    except Exception as error:  # Each way of packing has errors of its own.
      if not self._packed:
        raise
      self._report(f"{self._path}: the end of a packed part: {error}")
    return []

  def _chunk(self, lines: list[bytes]) -> Chunk:
    """The chunk of lines, after which an incomplete line may be read."""
    assert self._file is not None
    before, end = self.position, len(self._recent)
    if self._begin:
      end = self._recent.rfind(b"\n") + 1
    self.position = before._replace(
      line=before.line + len(lines),
      offset=self._file.tell() - len(self._recent) + end,
      changed=os.fstat(self._file.fileno()).st_mtime_ns,
      mark=_mark(self._recent[:end]),
    )
    return Chunk(lines, before.line + 1, before.part, self.position)

  def _enter(self, part: LogFile, position: LogPosition):
    """Opens a file at a position in it."""
    self.close()
    self._file = self._open.enter_context(rotation.opened(part))
    # A packed file is not read from its begin again for its last bytes.
    self._recent = _before(self._file, position.offset)
    self.position = position._replace(inode=part.inode, changed=part.changed)
    self._packed, self._silent, self._begin = part.packed, 0.0, b""

  def _is_replaced(self) -> bool:
    """Whether the content that was read is no longer in the open file."""
    if self._file is None or self._packed:
      return False
    place, size = self._file.tell(), os.fstat(self._file.fileno()).st_size
    if size <= place:
      return size < place
    content = _before(self._file, self.position.offset)
    self._file.seek(place)
    return _mark(content) != self.position.mark

  def _following(self) -> tuple[LogFile, LogPosition] | None:
    """The file to read now, if it is not the open one, and where."""
    place, is_open = self.position, self._file is not None
    with suppress(FileNotFoundError):
      if is_open and self._path.stat().st_ino == place.inode:
        return None
    parts = rotation.list_files(self._path)
    if not place.inode:
      if parts and parts[-1].path == self._path:
        return parts[-1], place
      self._report(f"{self._path}: no such file yet; waiting for it")
      return None
    if holder := self._holder(parts):
      if not is_open:
        return holder, place
      later = parts[parts.index(holder) + 1 :]
    else:
      later = [part for part in parts if part.changed >= place.changed]
      if not is_open:
        self._report(
          f"{self._path}: lines after its line {place.line:,} may be lost, as"
          " their file is truncated or gone, without a copy"
        )
        later = later or parts[-1:]
    if not later or (is_open and not self._is_finished(later[0])):
      return None
    return later[0], LogPosition(place.part + 1)

  def _holder(self, parts: list[LogFile]) -> LogFile | None:
    """The file that has the content of the position."""
    place = self.position
    # The newest first, but packed ones last, as they are read to the place.
    for part in sorted(
      reversed(parts), key=lambda part: (part.inode != place.inode, part.packed)
    ):
      if not place.offset:  # Nothing of it has been read.
        return part if part.inode == place.inode else None
      try:
        with rotation.opened(part) as file:
          if _mark(_before(file, place.offset)) == place.mark:
            return part
      except FileNotFoundError:  # It was renamed since it was listed.
        raise
      except Exception:  # A packed file may be damaged.
        continue
    return None

  def _is_finished(self, later: LogFile) -> bool:
    """Whether nobody writes to the open file, after which another one comes."""
    if later.path != self._path:
      return True
    if not later.size:
      return False
    if not self._silent:  # It is read once more.
      self._silent = time.monotonic()
      return False
    return time.monotonic() - self._silent >= self._grace


def _before(file: IO[bytes], offset: int) -> bytes:
  """The last bytes before a place, where the file is then."""
  file.seek(max(offset - _MARK, 0))
  return file.read(min(_MARK, offset))


def _mark(content: bytes) -> str:
  return hashlib.blake2b(content[-_MARK:], digest_size=8).hexdigest()
