"""Files of a workdir: read whatever they are, written whole or not at all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from seqrnn.errors import UserError


def read(path: str | os.PathLike, limit: int) -> bytes:
  """The content of a file that anyone may have made.

  Raises:
    OSError: it cannot be read.
    UserError: it is no file, as a pipe that would keep us waiting, or it has
      more bytes than `limit`.
  """

  def opener(name, how):
    return os.open(name, how | os.O_NONBLOCK)

  with open(path, "rb", opener=opener) as file:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
      raise UserError(f"{path}: must be a file")
    content = file.read(limit + 1)
  if len(content) > limit:
    raise UserError(f"{path}: must not be larger than {limit:,} bytes")
  return content


def below(folder: str | os.PathLike) -> Iterator[os.DirEntry]:
  """All that lies in a folder and in those below, but the folders."""
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


def inspect(workdir: str | os.PathLike):
  """Refuses a workdir that could lead out of itself; anyone may have made it.

  Raises:
    UserError: it is a file, or something in it is neither file nor folder: a
      link leads anywhere, and a pipe would keep us waiting.
  """
  if os.path.exists(workdir) and not os.path.isdir(workdir):
    raise UserError(f"--workdir={workdir}: must be a folder, is a file")
  for entry in below(workdir):
    if not entry.is_file(follow_symlinks=False):
      kind = "a link" if entry.is_symlink() else "a pipe, socket or device"
      raise UserError(
        f"{entry.path}: is {kind}; a workdir must hold files and folders only"
      )


@contextmanager
def writing(path: Path) -> Iterator[None]:
  """Names the file where writing it fails, since the system does not.

  Raises:
    UserError: there is no room, or no right to write.
  """
  try:
    yield
  except OSError as error:
    raise UserError(f"{path}: cannot be written: {error.strerror}") from None


@contextmanager
def written(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
  """A file that takes its place once the block has ended, and not before.

  Args:
    path: its place, where an older one stays until then.
    mode: "w" for text, "wb" for bytes.

  Raises:
    UserError: as `writing`.
  """
  temporary = path.with_name(f"{path.name}.tmp")
  encoding, newline = (None, None) if "b" in mode else ("utf-8", "")
  try:
    with writing(path):
      with open(temporary, mode, encoding=encoding, newline=newline) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
  except UserError:
    with suppress(OSError):
      temporary.unlink()
    raise
