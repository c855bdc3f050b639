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

_UNFINISHED = re.compile(r"unfinished-\d+-[0-9a-f]{8}(\..+)?")  # Orbax adds it.
_REMOVALS = 10  # How often files written to a removed folder are removed,
_REMOVAL_SECONDS = 0.05  # and the time between two removals.
_METADATA_BYTES = 500_000  # The size of all files but the arrays, rounded up.


class Checkpoints:
  """Writes the checkpoints of a run, and keeps the latest and the best.

  A checkpoint and its manifest are written under a temporary name, then the
  folder is renamed, and then older checkpoints are removed. So the last
  finished checkpoint survives if the process is killed.
  """

  def __init__(
    self,
    directory: Path,
    keep: int = 1,
    check: Callable[[], None] = lambda: None,
  ):
    """Removes the unfinished checkpoints of a killed process.

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
      for folder in self.directory.iterdir():
        if _UNFINISHED.fullmatch(folder.name):
          print(f"{folder}: removed, it was not finished", file=sys.stderr)
          shutil.rmtree(folder)

  @cached_property
  def _writer(self) -> Any:
    # Importing Orbax takes a second, so the import waits for the first save.
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
    """Starts writing a checkpoint, unless it exists with the same position.

    Args:
      step: the step, which names the checkpoint.
      params: the parameters.
      rest: the other arrays.
      position: a dict that JSON can represent.
      best: the step of the best checkpoint, which is kept.

    Raises:
      MachineError: the disk is full, the previous checkpoint could not be
        written, or another process owns the folder.
    """
    self.wait()
    self._check()
    folder = self.directory / str(step)
    # The checkpoint may exist without the evaluation of its step, if a signal
    # discarded that evaluation. The first process decides for all, because it
    # renames the folder, and another process may look before that.
    exists = folder.exists() and read_position(folder) == position
    if sharding.broadcast(exists):
      return
    self._check_space(params, rest)
    from orbax.checkpoint import args

    # The name is random, so that no other run writes to the same folder.
    token = sharding.broadcast(secrets.randbits(32))
    temporary = self.directory / f"unfinished-{step}-{token:08x}"
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
    """Waits for the files of a checkpoint, and renames its folder."""
    try:
      try:
        self._writer.wait_until_finished()
      finally:
        self._check_owner(temporary)
      if jax.process_index() == 0:
        manifest = temporary / MANIFEST
        manifest.write_text(json.dumps(checksums(temporary), indent=1), "utf-8")
        files.sync(manifest)
        self._check_owner(temporary)
        if folder.exists():
          shutil.rmtree(folder)
        temporary.replace(folder)
        files.sync(self.directory)
        for step in steps(self.directory)[: -self._keep]:
          if step != best:
            shutil.rmtree(self.directory / str(step))
    except Exception as error:  # tensorstore raises bare Exceptions
      self._failed = error

  def _check_owner(self, temporary: Path):
    """Checks that this process still owns the folder of the checkpoints.

    Otherwise it removes the files that Orbax has written there.

    Raises:
      MachineError: the folder was removed, or another process owns it.
    """
    try:
      self._check()
    except MachineError:
      # Orbax raises an error at its first failed write. Its other writes
      # continue and create the folders again.
      for _ in range(_REMOVALS):
        for path in self.directory.glob(f"{temporary.name}*"):
          shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # A folder is missing, or another run uses it.
          self.directory.rmdir()
          self.directory.parent.rmdir()
        time.sleep(_REMOVAL_SECONDS)
      raise

  def _check_space(self, *trees: Any):
    """Refuses a full disk, which Orbax reports late and in many lines."""
    need = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) + _METADATA_BYTES
    free = shutil.disk_usage(self.directory).free
    if free < need:
      raise MachineError(
        f"{self.directory}: no room for a checkpoint: {need / 1e6:.1f} MB are"
        f" needed, {free / 1e6:.1f} MB are free; free some space and repeat the"
        " command to resume"
      )

  def delete_after(self, step: int):
    """Removes the checkpoints after a step. Every process must call it."""
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
    if kind is KeyboardInterrupt:  # A second Ctrl-C does not wait.
      return
    try:
      self.wait()
      if "_writer" in vars(self):
        self._writer.close()
    except Exception:  # Orbax raises the error of a failed save once more.
      if kind is None:  # Otherwise it would hide the error that ended the run.
        raise
