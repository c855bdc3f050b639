"""Writes a set of files atomically: all files of the set, or none.

A mode writes the files into a hidden folder, `.NAME.new`. When all are written,
the folder is renamed to `.NAME.whole`, and its files are moved to their places.
A process that is killed before the renaming leaves the old files; if it is
killed after the renaming, the next process finishes the move.
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from seqrnn.errors import MachineError, UserError
from seqrnn.runtime import files

_STAGED = ".new"  # The suffix of a folder whose set is being written,
_COMPLETE = ".whole"  # and of a folder whose set is complete.
_SET = "set.json"  # Lists the files of the set, and the old files to remove.
_LIMIT = 2**20  # Bytes of set.json.
_POLL_SECONDS = 0.05  # Between two checks of another process's move.


@contextmanager
def atomic_files(
  folder: Path, name: str, owned: Callable[[str], bool] = lambda _: False
) -> Iterator[Path]:
  """Yields a folder for new files, which replace those in `folder` together.

  If the block fails or the process is killed in it, the old files stay. If the
  process is killed after the block, the next `finish_move` moves the files. The
  caller must hold a lock.

  Args:
    folder: the folder of the files.
    name: the name of the set.
    owned: whether a file name of `folder` belongs to an older set; such a file
      is removed unless the new set replaces it.

  Raises:
    MachineError: as `files.write_errors`.
  """
  finish_move(folder, name)
  staged = folder / f".{name}{_STAGED}"
  with files.write_errors(folder):
    shutil.rmtree(staged, ignore_errors=True)  # A killed process may leave one.
    staged.mkdir(parents=True)
  try:
    yield staged
    new = sorted(path.name for path in staged.iterdir())
    old = [path.name for path in folder.iterdir() if owned(path.name)]
    gone = sorted(set(old) - set(new))
    with files.atomic_write(staged / _SET) as file:
      json.dump({"new": new, "gone": gone}, file)
    for file in new:  # Check now, because the move must not fail halfway.
      if (folder / file).is_dir():
        reason = os.strerror(errno.EISDIR)
        raise MachineError(f"{folder / file}: cannot be written: {reason}")
    with files.write_errors(folder):
      staged.replace(folder / f".{name}{_COMPLETE}")
  except BaseException:
    shutil.rmtree(staged, ignore_errors=True)
    raise
  finish_move(folder, name)


@contextmanager
def results(workdir: Path, mode: str, doing: str) -> Iterator[Path]:
  """Like `atomic_files`, under a lock of the mode, for which it waits.

  Args:
    workdir: the folder of the files.
    mode: the mode that writes the files.
    doing: as in `files.locked`.

  Raises:
    MachineError: as `files.write_errors`.
  """
  lock = workdir / f".{mode}.lock"
  with (
    files.locked(lock, doing, wait=True),
    atomic_files(workdir, mode) as folder,
  ):
    yield folder


def finish_move(folder: Path, name: str):
  """Moves the files of a complete set to their places, if there is such a set.

  The caller must hold the lock of the set.

  Raises:
    UserError: the folder does not hold a set of `atomic_files`.
    MachineError: as `files.write_errors`.
  """
  complete = folder / f".{name}{_COMPLETE}"
  if not complete.is_dir():
    return
  with files.write_errors(folder):
    if (complete / _SET).exists():
      new, gone = _read_set(complete)
      for file in gone:
        (folder / file).unlink(missing_ok=True)
      for file in new:
        if (complete / file).exists():  # A killed process may have moved it.
          os.replace(complete / file, folder / file)
      (complete / _SET).unlink()
    complete.rmdir()


def _read_set(complete: Path) -> tuple[list[str], list[str]]:
  """Returns the names of the new files, and of the old files to remove.

  Raises:
    UserError: set.json is invalid.
  """
  found = files.read_json(complete / _SET, _LIMIT)
  try:
    new, gone = [list(found[part]) for part in ("new", "gone")]
    valid = all(
      Path(name).name == name not in (_SET, "..") for name in new + gone
    )
  except (TypeError, KeyError):
    valid = False
  if not valid:
    raise UserError(f"{complete}: is no complete set of files; remove it")
  return new, gone


def wait_for_move(folder: Path, name: str, path: Path):
  """Like `finish_move`, for a reader; `path` is the lock of the set."""
  while (folder / f".{name}{_COMPLETE}").is_dir():
    if held := files.lock(path):
      with held:
        finish_move(folder, name)
    else:  # The process that holds the lock is about to move the files.
      time.sleep(_POLL_SECONDS)
