"""Files of a workdir: bounded reads, atomic writes, checksums, and locks.

Several processes may write to one folder. Therefore temporary files have random
names, and files that belong together are written under a lock.
"""

import csv
import glob
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from seqrnn.errors import MachineError, UserError, report, visible

SUMS = "sha256"  # Lists sizes, SHA-256 and names of files.
_SUMS_LIMIT = 2**23  # Bytes of a list of checksums.
_FIELD_LIMIT = 2**24  # Characters of a field of CSV.


def read_bytes(path: str | os.PathLike, limit: int) -> bytes:
  """Returns the content of an untrusted file.

  Raises:
    OSError: the file cannot be read.
    UserError: the path is not a regular file (a pipe would block), or the file
      has more than `limit` bytes.
  """
  opener = lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
  with open(path, "rb", opener=opener) as file:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
      raise UserError(f"{path}: must be a file")
    content = file.read(limit + 1)
  if len(content) > limit:
    raise UserError(f"{path}: must not be larger than {limit:,} bytes")
  return content


def read_json(path: str | os.PathLike, limit: int) -> Any:
  """Returns the JSON value in an untrusted file.

  Raises:
    OSError: the file cannot be read.
    UserError: as `read_bytes`, or the content is not JSON.
  """
  try:
    return json.loads(read_bytes(path, limit))
  except (RecursionError, ValueError) as error:  # UnicodeDecodeError, too.
    raise UserError(f"{path}: not JSON ({error})") from None


def walk(folder: str | os.PathLike) -> Iterator[os.DirEntry]:
  """Yields every entry of a folder and its subfolders that is not a folder."""
  queue = [os.fspath(folder)]
  while queue:
    try:
      with os.scandir(queue.pop()) as entries:
        listed = list(entries)
    except FileNotFoundError:  # A training has removed an old checkpoint.
      continue
    for entry in listed:
      if entry.is_dir(follow_symlinks=False):
        queue.append(entry.path)
      else:
        yield entry


def plain(path: str | os.PathLike) -> str:
  """Returns a path that a user typed without ~ and `..`, which Orbax refuses.

  A path in the current folder stays relative, because messages show it.
  """
  path = os.path.expanduser(os.fspath(path))
  parts = Path(path).parts
  is_plain = "\0" in path or (parts and ".." not in parts)
  return path if is_plain else os.path.realpath(path)


def matching_runs(path: str) -> list[str]:
  """Returns the workdirs of runs that a pattern such as `runs/*` matches.

  A path that is no pattern is returned as it is.

  Raises:
    UserError: the pattern matches no run.
  """
  if not glob.has_magic(path) or os.path.exists(path):
    return [path]
  folders = [
    folder
    for folder in sorted(glob.glob(path))
    if os.path.exists(os.path.join(folder, "config.json"))
  ]
  if not folders:
    raise UserError(f"{path}: matches no folder with a run")
  return folders


def check_links(workdir: str | os.PathLike):
  """Refuses an untrusted workdir with entries that are not files or folders.

  A link could point outside of the workdir, and reading a pipe could block.

  Raises:
    UserError: the path is not UTF-8, the workdir is a file, or an entry is
      neither file nor folder.
  """
  try:
    os.fspath(workdir).encode()
  except UnicodeEncodeError:
    raise UserError(f"--workdir={workdir}: must be UTF-8") from None
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
  """Converts an OSError of its block to a MachineError that names the file.

  Raises:
    MachineError: the file cannot be written.
  """
  try:
    yield
  except OSError as error:
    reason = error.strerror or error
    raise MachineError(f"{path}: cannot be written: {reason}") from None


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
  """Opens a temporary file, which replaces `path` when the block ends.

  Args:
    path: the file to write; an older file stays until the block ends.
    mode: "w" for text, "wb" for bytes.

  Raises:
    MachineError: as `write_errors`.
  """
  # The name is random, because another process may write the same file.
  temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
  mode = mode.replace("w", "x")
  encoding, newline = (None, None) if "b" in mode else ("utf-8", "")
  try:
    with write_errors(path):
      with open(temporary, mode, encoding=encoding, newline=newline) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
  except BaseException:
    with suppress(OSError):
      temporary.unlink()
    raise


def write(path: Path, content: str | bytes):
  """Writes a file completely or not at all.

  Raises:
    MachineError: as `write_errors`.
  """
  mode = "w" if isinstance(content, str) else "wb"
  with atomic_write(path, mode) as file:
    file.write(content)


def write_csv(path: Path, rows: Iterable[Iterable]):
  """Writes rows, the first of which has the names of the columns.

  A cell of None is empty. Bytes of names that are not UTF-8 are written again.

  Raises:
    MachineError: as `write_errors`.
  """
  with atomic_write(path, "wb") as file:
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    text.detach()


class CsvError(ValueError):
  """A row is not CSV.

  Attributes:
    line: its last line, from 1.
  """

  def __init__(self, line: int, rule: str):
    super().__init__(rule)
    self.line = line


def read_csv(
  lines: Iterable[str], delimiter: str = ","
) -> Iterator[tuple[int, list[str]]]:
  """Yields the rows of CSV, each with the number of its last line, from 1.

  Raises:
    CsvError: a row is not CSV, or a field is too long.
  """
  csv.field_size_limit(_FIELD_LIMIT)
  reader = csv.reader(lines, delimiter=delimiter, strict=True)
  try:
    for row in reader:
      yield reader.line_num, row
  except csv.Error as error:
    raise CsvError(reader.line_num, str(error)) from None


def sync(path: Path):
  """Flushes a file, or the entries of a folder, to the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def checksum_of(path: Path) -> str:
  """Returns the size and the SHA-256 of a file."""
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{os.fstat(file.fileno()).st_size} {digest}"


def read_sums(folder: Path) -> dict[str, set[str]]:
  """Returns the checksums that the content of each file may have.

  Raises:
    OSError: the folder has no list of checksums.
    UserError: the list is invalid.
  """
  text = read_bytes(folder / SUMS, _SUMS_LIMIT).decode("utf-8", "replace")
  lines = text.split("\n")
  sums: dict[str, set[str]] = {}
  for line in lines[:-1]:
    checksum, _, name = line.partition("  ")
    sums.setdefault(name, set()).add(checksum)
  if lines[-1] or "" in sums:
    raise UserError(f"{folder / SUMS}: must have a checksum and a name a line")
  return sums


def write_sums(folder: Path, sums: Iterable[tuple[str, str]]):
  """Writes a list of checksums and file names."""
  with atomic_write(folder / SUMS) as file:
    file.writelines(f"{checksum}  {name}\n" for checksum, name in sums)


def has_checksum(path: Path, sums: set[str]) -> bool:
  """Compares a file with checksums; first its size, as it may be huge."""
  sizes = {checksum.split(" ")[0] for checksum in sums}
  return str(path.stat().st_size) in sizes and checksum_of(path) in sums


def write_checked(folder: Path, contents: dict[str, bytes]):
  """Writes files atomically, with their checksums, where they have changed.

  While a file is replaced, its old and its new checksum are listed, so that a
  killed process leaves files that `verify_file` accepts.

  Raises:
    MachineError: a file cannot be written.
  """
  paths = [path for name in contents if (path := folder / name).exists()]
  old = [(checksum_of(path), path.name) for path in paths]
  new = [
    (f"{len(content)} {hashlib.sha256(content).hexdigest()}", name)
    for name, content in contents.items()
  ]
  if sorted(old) == sorted(new) and (folder / SUMS).exists():
    return
  write_sums(folder, old + new)
  for name, content in contents.items():
    write(folder / name, content)
  write_sums(folder, new)


def verify_file(path: Path):
  """Compares a file with the checksums in its folder, if it is listed there.

  Raises:
    UserError: the list is invalid.
    MachineError: the file differs from its checksum.
  """
  try:
    sums = read_sums(path.parent).get(path.name)
  except FileNotFoundError:
    return
  if sums is not None and not has_checksum(path, sums):
    raise MachineError(
      f"{path}: differs from its checksum in {SUMS}; restore the file, or"
      f" delete {SUMS} if you have changed the file on purpose"
    )


@contextmanager
def results(
  folder: Path, mode: str, owned: Callable[[str], bool]
) -> Iterator[Path]:
  """Yields a folder for new files, which then replace those in `folder`.

  If the block fails or the process is killed in it, the old files stay. All old
  files are removed before the new ones are moved, so that files of two runs of
  a mode are never mixed. The caller must hold a lock.

  Args:
    folder: the folder of the files.
    mode: the mode that writes the files.
    owned: whether a file name of `folder` belongs to an older set; such a file
      is removed, too.

  Raises:
    MachineError: a file cannot be written.
  """
  staged = folder / f".{mode}.new"
  with write_errors(folder):
    shutil.rmtree(staged, ignore_errors=True)  # A killed process may leave one.
    staged.mkdir(parents=True)
  try:
    yield staged
    names = sorted(path.name for path in staged.iterdir())
    with write_errors(folder):
      for path in folder.iterdir():
        if path.name in names or owned(path.name):
          path.unlink()
      for name in names:
        (staged / name).rename(folder / name)
  finally:
    shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def locked_results(
  folder: Path, mode: str, owned: Callable[[str], bool] = lambda _: False
) -> Iterator[Path]:
  """Like `results`, under a lock of the mode, for which it waits."""
  with (
    locked(folder / f".{mode}.lock", "written", wait=True),
    results(folder, mode, owned) as new,
  ):
    yield new


@dataclass(frozen=True)
class Lock(AbstractContextManager["Lock"]):
  """A locked file. Its context or the end of the process releases the lock.

  Attributes:
    path: the path of the file.
    file: the file, open for reading and appending.
  """

  path: Path
  file: IO[bytes]

  def in_place(self) -> bool:
    """Returns whether the path still leads to the locked file."""
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
        f"{self.path}: was removed or replaced by another process; this process"
        " stops writing to the folder"
      )

  def __exit__(self, *_):
    self.file.close()


def lock(path: Path, wait: bool = False) -> Lock | None:
  """Locks a file, and creates it if it is missing.

  If the file system has no locks, a warning is printed on stderr, and the file
  counts as locked.

  Args:
    path: the path of the file.
    wait: whether to wait for another process that holds the lock.

  Returns:
    the lock; None if another process holds it.

  Raises:
    OSError: the file cannot be opened.
  """
  import filelock  # The import is slow, and most processes lock no file.

  while True:
    file = path.open("ab+", buffering=0)
    try:
      held = filelock.lock_descriptor(file.fileno(), blocking=wait)
    except OSError as error:  # Some network file systems have no locks.
      _warn_of_no_locks(path.parent, error.strerror)
      return Lock(path, file)
    except BaseException:
      file.close()
      raise
    locked_file = Lock(path, file)
    if held and locked_file.in_place():
      return locked_file
    file.close()
    if not held:
      return None


@cache
def _warn_of_no_locks(folder: Path, reason: str):
  """Warns once for each folder."""
  report(f"{folder}: the file system has no locks ({reason})")


@contextmanager
def locked(path: Path, doing: str, wait: bool = False) -> Iterator[Lock]:
  """Holds a lock file, in which one line names the process that holds it.

  Args:
    path: the path of the lock file.
    doing: the participle for the message "FOLDER: is being ... by process 1".
    wait: whether to wait for another process that holds the lock; a line on
      stderr names it.

  Raises:
    MachineError: another process holds the lock, or the file cannot be written.
  """
  with write_errors(path):
    held = lock(path)
    if held is None:
      holder = "another process"
      with suppress(OSError):
        holder = visible(read_bytes(path, 200).decode(errors="replace"))
      line = f"{path.parent}: is being {doing} by {holder}"
      if not wait:
        raise MachineError(f"{line}; wait for it, or name another --workdir")
      report(f"{line}; waiting for it")
      held = lock(path, wait)
  assert held is not None
  with held:
    with write_errors(path):
      held.file.seek(0)
      inode = b"%d" % os.fstat(held.file.fileno()).st_ino
      first = (held.file.read(200).split() or [inode])[-1]
      held.file.truncate(0)
      holder = f"process {os.getpid()} on {socket.gethostname()}, lock "
      held.file.write(holder.encode() + first + b"\n")
    yield held


def is_copy(path: Path) -> bool:
  """Whether a lock file was not created where it is: it names its inode."""
  with suppress(OSError, UserError):
    return read_bytes(path, 200).split()[-1:] != [b"%d" % path.stat().st_ino]
  return True
