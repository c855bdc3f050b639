"""Sets of files that a mode writes: all are there, or none is.

They are written into a folder beside their places. Once they are complete, it
gets another name, and this is what decides: a process that is killed before
leaves the older set, and after it the next one to come finishes the move.
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

_STAGED = ".new"  # How the name of a folder with a set of files ends,
_WHOLE = ".whole"  # and that of one whose files are complete.
_SET = "set.json"  # In such a folder: what the set is.
_LIMIT = 2**20  # Bytes of it.
_MOMENT = 0.05  # Seconds between two looks at what another process does.


@contextmanager
def atomic_files(
  folder: Path, name: str, owned: Callable[[str], bool] = lambda _: False
) -> Iterator[Path]:
  """Yields a folder for new files, which replace those in `folder` together.

  Where the block fails, or the process is killed, the older files stay. Where
  it is killed after the block, `settle` puts the rest of the set in its place.
  The caller holds a lock.

  Args:
    folder: where the files go.
    name: of the set.
    owned: whether a file of this name, in `folder`, is of an older set: it is
      removed unless the new set has it.

  Raises:
    MachineError: as `writing`.
  """
  finish_move(folder, name)
  staged = folder / f".{name}{_STAGED}"
  with files.write_errors(folder):
    shutil.rmtree(staged, ignore_errors=True)  # Of a process that was killed.
    staged.mkdir(parents=True)
  try:
    yield staged
    new = sorted(path.name for path in staged.iterdir())
    old = [path.name for path in folder.iterdir() if owned(path.name)]
    gone = sorted(set(old) - set(new))
    with files.atomic_write(staged / _SET) as file:
      json.dump({"new": new, "gone": gone}, file)
    for file in new:  # The move must not fail halfway.
      if (folder / file).is_dir():
        reason = os.strerror(errno.EISDIR)
        raise MachineError(f"{folder / file}: cannot be written: {reason}")
    with files.write_errors(folder):
      staged.replace(folder / f".{name}{_WHOLE}")
  except BaseException:
    shutil.rmtree(staged, ignore_errors=True)
    raise
  finish_move(folder, name)


@contextmanager
def results(workdir: Path, mode: str, doing: str) -> Iterator[Path]:
  """As `together`, for what a mode writes in a moment.

  Another process that does the same is waited for.

  Args:
    workdir: where the files go.
    mode: that writes them.
    doing: as `files.locked` has it.

  Raises:
    MachineError: as `files.writing`.
  """
  lock = workdir / f".{mode}.lock"
  with (
    files.locked(lock, doing, wait=True),
    atomic_files(workdir, mode) as folder,
  ):
    yield folder


def finish_move(folder: Path, name: str):
  """Puts a complete set that `together` wrote in its place.

  The caller holds the lock of the set.

  Raises:
    UserError: what stands there is no such set.
    MachineError: as `writing`.
  """
  whole = folder / f".{name}{_WHOLE}"
  if not whole.is_dir():
    return
  with files.write_errors(folder):
    if (whole / _SET).exists():
      new, gone = _read_set(whole)
      for file in gone:
        (folder / file).unlink(missing_ok=True)
      for file in new:
        if (whole / file).exists():  # Or a process before this one moved it.
          os.replace(whole / file, folder / file)
      (whole / _SET).unlink()
    whole.rmdir()


def _read_set(whole: Path) -> tuple[list[str], list[str]]:
  """The names of the files of a set, and of those that it takes the place of.

  Raises:
    UserError: they are not as `together` writes them.
  """
  found = files.read_json(whole / _SET, _LIMIT)
  try:
    new, gone = [list(found[part]) for part in ("new", "gone")]
    holds = all(
      Path(name).name == name not in (_SET, "..") for name in new + gone
    )
  except (TypeError, KeyError):
    holds = False
  if not holds:
    raise UserError(f"{whole}: is no complete set of files; remove it")
  return new, gone


def wait_for_move(folder: Path, name: str, path: Path):
  """As `settle`, for a process that reads; `path` is the lock of the set."""
  while (folder / f".{name}{_WHOLE}").is_dir():
    if held := files.lock(path):
      with held:
        finish_move(folder, name)
    else:  # Its holder is about to do it.
      time.sleep(_MOMENT)
