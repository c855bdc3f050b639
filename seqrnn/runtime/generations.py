"""The models of a run, one after the other: each is a run in the workdir.

refresh.json names the current model and those that are kept. It is replaced in
one step; a folder that it does not name is of a refresh that was killed.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from seqrnn.errors import UserError
from seqrnn.runtime import files

_NAME, _FOLDER = "refresh.json", "refresh"
_KEPT = 3  # Models, besides the first one.
_LIMIT = 2**16  # Bytes of refresh.json.


class Generations(NamedTuple):
  """The models of a run.

  Attributes:
    current: the number of the one in use; 0: the first one, of the workdir.
    kept: the numbers of the others, rising.
  """

  current: int = 0
  kept: tuple[int, ...] = ()

  @property
  def new(self) -> int:
    """A number that no model has."""
    return max((0, *self.kept)) + 1


def read(workdir: Path) -> Generations:
  """The models of a run.

  Raises:
    UserError: refresh.json is damaged, or the current model is missing.
  """
  path = workdir / _NAME
  if not path.exists():
    return Generations()
  record = files.read_json(path, _LIMIT)
  match record:
    case {"current": int(current), "kept": [*kept]} if all(
      type(number) is int and number > 0 for number in kept
    ) and current in (0, *kept):
      there = [n for n in sorted(kept) if folder_of(workdir, n).is_dir()]
      if current in (0, *there):
        return Generations(current, tuple(there))
      raise UserError(
        f"{path}: the folder of model {current} is missing; write one of"
        f" {[0, *there]} for it"
      )
  raise UserError(
    f"{path}: must be as it was written; remove it to go back to"
    " the first model"
  )


def folder_of(workdir: Path, number: int) -> Path:
  """The folder of a model, a run; that of the first one is the workdir."""
  return workdir / _FOLDER / str(number) if number else workdir


def current(workdir: Path) -> Path:
  """The folder of the model in use."""
  return folder_of(workdir, read(workdir).current)


def workdir_of(folder: Path) -> Path:
  """The workdir of the run to which the folder of a model belongs."""
  is_later = folder.parent.name == _FOLDER and folder.name.isdecimal()
  workdir = folder.parent.parent
  is_run = is_later and (workdir / "config.json").exists()
  return workdir if is_run else folder


def use(workdir: Path, known: Generations, number: int):
  """Puts a model in the place of the current one, in one step.

  Raises:
    MachineError: refresh.json cannot be written.
  """
  kept = sorted({*known.kept, number} - {0})[-_KEPT:]
  with files.atomic_write(workdir / _NAME) as file:
    json.dump({"current": number, "kept": kept}, file)
  files.sync(workdir)
  remove_others(workdir, kept)


def remove_others(workdir: Path, kept: Iterable[int]):
  """Removes the folders of all other models but the first.

  The caller holds the lock of refreshes, so no other process writes here.
  """
  names = {*map(str, kept)}
  for path in workdir.glob(f".{_NAME}.*.tmp"):  # Of a refresh that was killed.
    path.unlink(missing_ok=True)
  for path in (workdir / _FOLDER).glob("*"):
    if path.name not in names:
      shutil.rmtree(path, ignore_errors=True)
