"""Files of a workdir: bounded reads, atomic writes, and locks.

Several processes may write to one folder: temporary files have random names,
and files that belong together are written under a lock.
"""

import gzip
import io
import json
import os
import secrets
import socket
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from seqrnn.errors import MachineError, UserError, visible

TEMPORARY = ".tmp"  # How the name of an unfinished file ends.
_ABANDONED = 3600.0  # Seconds after which nobody writes to a file any more.


def read(path: str | os.PathLike, limit: int) -> bytes:
  """Returns the content of an untrusted file.

  Raises:
    OSError: it cannot be read.
    UserError: the path is no regular file (a pipe would block), or the file
      has more bytes than `limit`.
  """
  with _opened(path) as file:
    content = file.read(limit + 1)
  if len(content) > limit:
    raise UserError(f"{path}: must not be larger than {limit:,} bytes")
  return content


def _opened(path: str | os.PathLike) -> IO[bytes]:
  def opener(name, how):
    return os.open(name, how | os.O_NONBLOCK)

  file = open(path, "rb", opener=opener)  # noqa: SIM115
  if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
    file.close()
    raise UserError(f"{path}: must be a file")
  return file


def read_json(path: str | os.PathLike, limit: int) -> Any:
  """Returns the JSON value in an untrusted file.

  Raises:
    OSError: it cannot be read.
    UserError: as `read`, or it is not JSON.
  """
  try:
    return json.loads(read(path, limit))
  except RecursionError:
    raise UserError(f"{path}: not JSON (nested too deeply)") from None
  except ValueError as error:  # UnicodeDecodeError is one, too.
    raise UserError(f"{path}: not JSON ({error})") from None


class _Bounded(io.RawIOBase):
  """The bytes of a file, packed or not, up to a limit."""

  def __init__(self, path: str | os.PathLike, limit: int):
    super().__init__()
    self._path, self._limit, self._left = path, limit, limit
    self._file = self._raw = _opened(path)
    if os.fspath(path).endswith(".gz"):
      self._file = gzip.GzipFile(fileobj=self._raw)

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    try:
      content = self._file.read(len(buffer))
    except (OSError, EOFError, zlib.error) as error:
      raise UserError(f"{self._path}: cannot be read: {error}") from None
    self._left -= len(content)
    if self._left < 0:
      raise UserError(
        f"{self._path}: must not hold more than {self._limit:,} bytes"
      )
    buffer[: len(content)] = content
    return len(content)

  def close(self):
    self._file.close()
    self._raw.close()
    super().close()


def open_unpacked(path: str | os.PathLike, limit: int) -> IO[bytes]:
  """A file that anyone may have made, unpacked where its name ends in .gz.

  Reading it raises UserError where it is damaged, or holds more bytes than
  `limit` once unpacked.

  Raises:
    OSError: it cannot be opened.
    UserError: it is no file.
  """
  return io.BufferedReader(_Bounded(path, limit))


def walk(folder: str | os.PathLike) -> Iterator[os.DirEntry]:
  """Yields every entry in a folder and below that is no folder."""
  queue = [os.fspath(folder)]
  while queue:
    try:
      with os.scandir(queue.pop()) as entries:
        found = list(entries)
    except FileNotFoundError:  # A training removes old checkpoints.
      continue
    for entry in found:
      if entry.is_dir(follow_symlinks=False):
        queue.append(entry.path)
      else:
        yield entry


def check_links(workdir: str | os.PathLike):
  """Refuses a workdir that could lead out of itself; anyone may have made it.

  Raises:
    UserError: it is a file, or something in it is neither file nor folder: a
      link leads anywhere, and a pipe would keep us waiting.
  """
  if os.path.exists(workdir) and not os.path.isdir(workdir):
    raise UserError(f"--workdir={workdir}: must be a folder, is a file")
  for entry in walk(workdir):
    if not entry.is_file(follow_symlinks=False):
      kind = "a link" if entry.is_symlink() else "a pipe, socket or device"
      raise UserError(
        f"{entry.path}: is {kind}; a workdir must hold files and folders only"
      )


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
  """Raises an OSError as a MachineError that names the file.

  Raises:
    MachineError: there is no room, or no right to write.
  """
  try:
    yield
  except OSError as error:
    reason = error.strerror or error
    raise MachineError(f"{path}: cannot be written: {reason}") from None


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
  """Opens a temporary file that replaces `path` once the block has ended.

  Args:
    path: its place, where an older one stays until then.
    mode: "w" for text, "wb" for bytes.

  Raises:
    MachineError: as `writing`.
  """
  token = secrets.token_hex(8)  # Another process may write the same file.
  temporary = path.with_name(f".{path.name}.{token}{TEMPORARY}")
  mode = mode.replace("w", "x")
  encoding, newline = (None, None) if "b" in mode else ("utf-8", "")
  try:
    with write_errors(path):
      remove_abandoned(path.parent)
      with open(temporary, mode, encoding=encoding, newline=newline) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
  except BaseException:
    with suppress(OSError):
      temporary.unlink()
    raise


def sync(path: Path):
  """Waits until a file, or the entries of a folder, are on the disk itself."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def remove_abandoned(folder: Path):
  """Removes temporary files that killed processes left long ago."""
  with suppress(OSError), os.scandir(folder) as entries:
    for entry in entries:
      if not entry.name.endswith(TEMPORARY):
        continue
      with suppress(OSError):
        if time.time() - entry.stat().st_mtime > _ABANDONED:
          os.unlink(entry.path)


class Lock:
  """A file that this process holds, until it is closed or the process dies.

  Attributes:
    path: of the file.
    file: the file itself, open for reading and appending.
  """

  def __init__(self, path: Path, file: IO[bytes]):
    self.path, self.file = path, file

  def in_place(self) -> bool:
    """Returns whether the locked file is still the one at its path."""
    try:
      return os.path.samestat(os.stat(self.path), os.fstat(self.file.fileno()))
    except FileNotFoundError:
      return False

  def check(self):
    """Checks that this process still owns the folder.

    Raises:
      MachineError: the lock, or the folder with it, was removed or replaced.
    """
    if not self.in_place():
      raise MachineError(
        f"{self.path}: was removed or replaced by another process; nothing more"
        " is written there"
      )

  def __enter__(self) -> "Lock":
    return self

  def __exit__(self, *_):
    self.close()

  def close(self):
    """Frees the lock; the file stays."""
    self.file.close()


def lock(
  path: Path, wait: bool = False, waits: Callable[[], Any] = lambda: None
) -> Lock | None:
  """Locks a file, which is made where there is none.

  Where a file system has no locks, that is reported on stderr, and the file
  counts as locked.

  Args:
    path: of the file.
    wait: until another process has freed it.
    waits: called where that takes time.

  Returns:
    None: another process holds it.

  Raises:
    OSError: the file cannot be opened.
  """
  import filelock  # It takes longer than all else here.

  while True:
    file = path.open("ab+", buffering=0)
    try:
      held = filelock.lock_descriptor(file.fileno(), blocking=False)
      if not held and wait:
        waits()
        held = filelock.lock_descriptor(file.fileno())
    except OSError as error:  # Some network file systems have none.
      _no_locks(path.parent, error.strerror)
      return Lock(path, file)
    except BaseException:
      file.close()
      raise
    found = Lock(path, file)
    if held and found.in_place():
      return found
    file.close()
    if not held:
      return None


@cache
def _no_locks(folder: Path, reason: str):
  """Says it once for a folder."""
  print(f"{folder}: no lock ({reason})", file=sys.stderr)


@contextmanager
def locked(path: Path, doing: str, wait: bool = False) -> Iterator[Lock]:
  """Holds a lock file, which names its holder in one line.

  Args:
    path: of the lock file.
    doing: what its holder does to the folder of the file, as "trained".
    wait: until another process has freed it.

  Raises:
    MachineError: another process holds it, or it cannot be written.
  """
  with write_errors(path):
    held = lock(path, wait)
  if held is None:
    with suppress(OSError):
      holder = visible(read(path, 100).decode(errors="replace"))
      raise MachineError(
        f"{path.parent}: is being {doing} by {holder}; wait for it, or name"
        " another --workdir"
      )
    raise MachineError(f"{path}: is held by another process; wait for it")
  with held:
    with write_errors(path):
      held.file.truncate(0)
      holder = f"process {os.getpid()} on {socket.gethostname()}\n"
      held.file.write(holder.encode())
    yield held
