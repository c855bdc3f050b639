"""Tails: the lines of a log that grows, from a position on.

A log by name is read across its rotations. A position is a place in the content
of the log: the file of the content is found again by its inode or, where the
content was copied or packed, by the bytes before the place.
"""

import array
import fcntl
import hashlib
import os
import select
import termios
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, NamedTuple

from seqrnn.data.logs import rotation
from seqrnn.data.logs.rotation import Part
from seqrnn.data.read.reading import LINE
from seqrnn.errors import MachineError

LONGEST = 4 * LINE  # Bytes of a line that are kept; a character has up to 4.
_BYTES = 2**17  # Read at once, so about a thousand lines.
_POLL = 0.05  # Seconds between two looks at a file that does not grow.
_GRACE = 1.0  # Seconds for which writers may still write to a renamed file.
_RETRY = 1.0  # Seconds before a file that cannot be read is tried again.
_MARK = 1024  # Bytes whose digest tells contents apart.


class Position(NamedTuple):
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


class Chunk(NamedTuple):
  """Lines that were read together.

  Attributes:
    lines: without their newlines; of a longer line, more than LONGEST bytes.
    first: the number of the first line in its file, from 1.
    part: as of `Position`, of the lines.
    position: after the lines.
  """

  lines: list[bytes]
  first: int
  part: int
  position: Position


class _Lines:
  """Cuts bytes into lines; a line may arrive in pieces.

  Attributes:
    size: the number of bytes after the last newline.
  """

  def __init__(self):
    self.size, self._held = 0, b""

  def add(self, data: bytes) -> list[bytes]:
    """The lines that are complete now."""
    *lines, rest = data.split(b"\n")
    if lines:
      lines[0], self._held, self.size = self._held + lines[0], b"", 0
    self._held = (self._held + rest)[: LONGEST + 1]
    self.size += len(rest)
    return lines

  def end(self) -> list[bytes]:
    """The last line, if no newline ends it."""
    lines = [self._held] if self.size else []
    self.size, self._held = 0, b""
    return lines


class StreamTail:
  """The lines of a pipe or a terminal, as they arrive.

  Attributes:
    position: after the lines that were read; `line` counts all lines.
    ended: whether the input has ended.
  """

  def __init__(self, descriptor: int, position: Position | None = None):
    self.position, self.ended = position or Position(), False
    self._descriptor, self._lines = descriptor, _Lines()

  def read(self, timeout: float) -> Chunk | None:
    """What has arrived; None: nothing in so many seconds.

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
    lines = self._lines.add(data) if data else self._lines.end()
    first = self.position.line + 1
    self.position = self.position._replace(line=first - 1 + len(lines))
    return Chunk(lines, first, 0, self.position)

  def behind(self) -> int:
    """The number of bytes that wait, as far as the system says."""
    waiting = array.array("i", [0])
    with suppress(OSError):
      fcntl.ioctl(self._descriptor, termios.FIONREAD, waiting)
    return waiting[0]

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
    path: str | os.PathLike,
    report: Callable[[str], None],
    position: Position | None = None,
    grace: float = _GRACE,
  ):
    """Opens nothing; `read` does.

    Args:
      path: of the log, which need not exist yet.
      report: called with what a person should know.
      position: where to begin; None: at the begin of the file.
      grace: seconds for which a renamed file must be silent.
    """
    self.position = position or Position()
    self._path, self._grace = Path(path), grace
    self._report = report
    self._file: IO[bytes] | None = None
    self._packed, self._open, self._lines = False, ExitStack(), _Lines()
    self._silent = 0.0  # Since when the renamed file is silent; 0: it is not.
    self._fault = ""  # Why nothing can be read, as reported.

  def read(self, timeout: float) -> Chunk | None:
    """What has been written; None: nothing in so many seconds.

    A file that cannot be read is reported and tried again.

    Raises:
      MachineError: the first file cannot be read.
    """
    end = time.monotonic() + timeout
    while True:
      pause = _POLL
      try:
        if chunk := self._read():
          self._fault = ""
          return chunk
      except OSError as error:
        reason = error.strerror or error
        fault = f"{self._path}: cannot be read: {reason}"
        if not self.position.inode:
          raise MachineError(fault) from None
        if not isinstance(error, FileNotFoundError):  # It is being renamed.
          self._wait(f"{fault}; it is tried again")
          pause = _RETRY
      left = end - time.monotonic()
      if left <= 0:
        return None
      time.sleep(min(pause, left))

  def behind(self) -> int:
    """The number of bytes of the file that wait; of a packed one 0."""
    if self._file is None:
      try:
        status = self._path.stat()
      except OSError:
        return 0
      is_read = self.position.inode == status.st_ino
      return max(status.st_size - is_read * self.position.offset, 0)
    if self._packed:
      return 0
    return max(os.fstat(self._file.fileno()).st_size - self._file.tell(), 0)

  def close(self):
    """Closes the file."""
    self._open.close()
    self._file = None

  def _wait(self, fault: str):
    """Reports a fault once."""
    if fault != self._fault:
      self._report(fault)
    self._fault = fault

  def _read(self) -> Chunk | None:
    """What has been written.

    Raises:
      OSError: a file cannot be read.
    """
    if self._file is not None and self._replaced():
      self.close()
    if self._file is None and not self._find():
      return None
    while True:
      assert self._file is not None
      try:
        while data := self._file.read(_BYTES):
          self._silent = 0.0
          self._before = (self._before + self._last)[-_MARK:]
          self._last = data
          if lines := self._lines.add(data):
            return self._chunk(lines)
      except Exception as error:  # Each way of packing has errors of its own.
        if not self._packed:
          raise
        self._wait(f"{self._path}: the rest of a packed part: {error}")
      following = self._following()
      if following is None:
        return None
      if lines := self._lines.end():  # No newline ends the last line.
        return self._chunk(lines)
      self._enter(following, Position(self.position.part + 1))

  def _chunk(self, lines: list[bytes]) -> Chunk:
    """The chunk of lines, after which a line may be held that is incomplete."""
    assert self._file is not None
    before, rest = self.position, self._lines.size
    offset, read = self._file.tell() - rest, self._before + self._last
    self.position = before._replace(
      line=before.line + len(lines),
      offset=offset,
      changed=os.fstat(self._file.fileno()).st_mtime_ns,
      mark=_mark(read[: len(read) - rest]),
    )
    return Chunk(lines, before.line + 1, before.part, self.position)

  def _enter(self, part: Part, position: Position):
    """Opens a file at a position in it."""
    self.close()
    self._file = self._open.enter_context(rotation.opened(part))
    # To go back for it, a packed file would be unpacked from its begin on.
    self._before, self._last = _before(self._file, position.offset), b""
    self.position = position._replace(inode=part.inode)
    self._packed, self._silent = part.packed, 0.0
    self._lines.end()

  def _replaced(self) -> bool:
    """Whether the open file has other content than what was read of it."""
    assert self._file is not None
    if self._packed:
      return False
    place, size = self._file.tell(), os.fstat(self._file.fileno()).st_size
    if size <= place:
      return size < place
    content = _before(self._file, self.position.offset)
    self._file.seek(place)
    return _mark(content) != self.position.mark

  def _find(self) -> bool:
    """Opens the file of the position, or the next one if it is gone."""
    parts, place = rotation.files(self._path), self.position
    if not place.inode:
      parts = [part for part in parts if part.path == self._path]
    if not parts:
      self._wait(f"{self._path}: no such file yet; waiting for it")
    elif not place.inode:
      self._enter(parts[0], place)
    elif found := self._holder(parts):
      self._enter(found, place)
    else:
      self._report(
        f"{self._path}: the file that was read is truncated or gone, without a"
        f" copy; lines after its line {place.line:,} may be lost"
      )
      later = [part for part in parts if part.changed >= place.changed]
      self._enter((later or parts[-1:])[0], Position(place.part + 1))
    return bool(parts)

  def _holder(self, parts: list[Part]) -> Part | None:
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

  def _following(self) -> Part | None:
    """The file after the open one, once nobody writes to the open one."""
    with suppress(FileNotFoundError):
      if self._path.stat().st_ino == self.position.inode:
        return None
    parts, place = rotation.files(self._path), self.position
    own = [part for part in parts if part.inode == place.inode]
    if found := own[0] if own else self._holder(parts):
      later = parts[parts.index(found) + 1 :]
      if not later and not own:  # The newest file is a copy of the open one.
        self._enter(found, place)
    else:
      later = [part for part in parts if part.changed >= place.changed]
    if later and (later[0].path != self._path or self._is_silent(later[0])):
      return later[0]
    return None

  def _is_silent(self, newest: Part) -> bool:
    """Whether the open file is silent since the newest file has content."""
    if not newest.size:
      return False
    now = time.monotonic()
    if not self._silent:  # It is read once more.
      self._silent = now
      return False
    return now - self._silent >= self._grace


def _before(file: IO[bytes], offset: int) -> bytes:
  """The last bytes before a place, where the file is then."""
  file.seek(max(offset - _MARK, 0))
  return file.read(min(_MARK, offset))


def _mark(content: bytes) -> str:
  return hashlib.blake2b(content[-_MARK:], digest_size=8).hexdigest()
