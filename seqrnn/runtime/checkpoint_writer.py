"""Writes the checkpoints of a run, in the background, through Orbax."""

import json
import re
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from seqrnn.errors import MachineError, UserError
from seqrnn.runtime import files, processes, sharding
from seqrnn.runtime.checkpoint import (
  MANIFEST,
  Params,
  checksums,
  first_line,
  read_position,
  steps,
)

_TEMPORARY = "unfinished-"  # The beginning of an unfinished folder's name.
_SWEEPS = 10  # Removals of what is still written to a removed folder,
_SECONDS = 0.05  # and the time between two of them.
_SMALL_FILES = 500_000  # Bytes of metadata beside the arrays, rounded up.


class Checkpoints:
  """Writes the checkpoints of a run, and keeps the latest and the best.

  A checkpoint is written under a temporary name, gets its manifest and is
  renamed; only then are older ones removed. So the last finished checkpoint
  survives, whenever the process is killed.
  """

  def __init__(
    self,
    directory: Path,
    keep: int = 1,
    check: Callable[[], None] = lambda: None,
  ):
    """Removes checkpoints that a killed process has left unfinished.

    Args:
      directory: the folder of the checkpoints.
      keep: the number of latest checkpoints to keep.
      check: raises MachineError if another process writes to the folder, or
        the folder was removed.

    Raises:
      UserError: Orbax would read the folder's name as a pattern.
    """
    self.directory = directory.absolute()
    if re.search(r"[\\*?]|\[[^/]*\]", str(self.directory)):
      raise UserError(
        f"{self.directory}: must have no backslash, *, ? or [...] in its path,"
        " which Orbax reads as a pattern; name another --workdir"
      )
    self._keep = keep
    self._check = check
    self._thread: threading.Thread | None = None
    self._failed: Exception | None = None
    if jax.process_index() == 0:
      self.directory.mkdir(parents=True, exist_ok=True)
      for folder in self.directory.glob(f"{_TEMPORARY}*"):
        print(f"{folder}: was not finished; removed", file=sys.stderr)
        shutil.rmtree(folder)

  @cached_property
  def _writer(self) -> Any:
    # Orbax takes a second to import, and the first steps do not need it.
    import orbax.checkpoint as ocp

    return ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())

  def save(
    self,
    step: int,
    params: Params,
    rest: Any,
    position: dict[str, Any],
    best: int,
  ):
    """Starts writing a checkpoint, unless it exists with this position.

    Args:
      step: the name of the checkpoint.
      params: the parameters.
      rest: the other arrays.
      position: values that JSON can hold.
      best: the step whose checkpoint is never removed.

    Raises:
      MachineError: the disk is full, the checkpoint before could not be
        written, or another process owns the folder.
    """
    self.wait()
    self._check()
    folder = self.directory / str(step)
    # A signal may have deferred an evaluation after its arrays were saved.
    # Only the first process can know: it renames the folder, which another
    # process may be too early to see.
    there = folder.exists() and read_position(folder) == position
    if sharding.broadcast(there):
      return
    self._check_room(params, rest)
    from orbax.checkpoint import args

    # A random name: no other run writes to the same temporary folder.
    token = sharding.broadcast(secrets.randbits(32))
    temporary = self.directory / f"{_TEMPORARY}{step}-{token:08x}"
    self._writer.save(
      temporary,
      args=args.Composite(
        params=args.StandardSave(params),
        rest=args.StandardSave(rest),
        position=args.JsonSave(position),
      ),
    )
    self._thread = threading.Thread(
      target=self._finish, args=(temporary, folder, best)
    )
    self._thread.start()

  def _finish(self, temporary: Path, folder: Path, best: int):
    """Waits for the files of a checkpoint and moves it to its place."""
    try:
      try:
        self._writer.wait_until_finished()
      finally:
        self._check_place(temporary)
      if jax.process_index() == 0:
        manifest = temporary / MANIFEST
        manifest.write_text(json.dumps(checksums(temporary), indent=1), "utf-8")
        files.sync(manifest)
        self._check_place(temporary)
        if folder.exists():
          shutil.rmtree(folder)
        temporary.replace(folder)
        files.sync(self.directory)
        for step in steps(self.directory)[: -self._keep]:
          if step != best:
            shutil.rmtree(self.directory / str(step))
    except Exception as error:  # tensorstore raises bare Exceptions
      self._failed = error

  def _check_place(self, temporary: Path):
    """Removes the files that Orbax wrote to a folder removed meanwhile.

    Raises:
      MachineError: the folder was removed, or another process owns it.
    """
    try:
      self._check()
    except MachineError:
      # Orbax raises at its first failed write; other writes continue, and make
      # the folders again.
      for _ in range(_SWEEPS):
        for path in self.directory.glob(f"{temporary.name}*"):
          shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # They are not there, or another run is.
          self.directory.rmdir()
          self.directory.parent.rmdir()
        time.sleep(_SECONDS)
      raise

  def _check_room(self, *trees: Any):
    """Refuses a full disk, which Orbax reports late and in many lines."""
    need = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) + _SMALL_FILES
    free = shutil.disk_usage(self.directory).free
    if free < need:
      raise MachineError(
        f"{self.directory}: no room for a checkpoint: {need / 1e6:.1f} MB are"
        f" needed, {free / 1e6:.1f} MB are free; make room and go on"
      )

  def delete_after(self, step: int):
    """Removes the checkpoints after a step; every process calls it."""
    self.wait()
    if jax.process_index() == 0:
      for later in steps(self.directory):
        if later > step:
          shutil.rmtree(self.directory / str(later))

  def wait(self):
    """Waits until the last checkpoint is on disk.

    Raises:
      MachineError: the checkpoint could not be written.
      Exception: another process of this run was lost.
    """
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    if self._failed is not None:
      error, self._failed = self._failed, None
      if isinstance(error, MachineError) or processes.lost(error):
        raise error
      raise MachineError(
        f"{self.directory}: a checkpoint cannot be written: {first_line(error)}"
      )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: type | None, *_):
    if kind is KeyboardInterrupt:  # After a second Ctrl-C, do not wait.
      return
    try:
      self.wait()
      if "_writer" in vars(self):
        self._writer.close()
    except Exception:  # Orbax raises the error of a failed save again.
      if kind is None:  # Else it would hide the error that ended the run.
        raise
