"""Writes the checkpoints of a run, and removes those that are not kept.

Orbax's CheckpointManager writes them in the background, and removes all but the
latest and the best.
"""

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from seqrnn.errors import MachineError, UserError
from seqrnn.experiment import Params
from seqrnn.runtime import files, private, processes, sharding
from seqrnn.training import checkpoint
from seqrnn.training.checkpoint import Others

if TYPE_CHECKING:
  from orbax.checkpoint import CheckpointManager
  from orbax.checkpoint.checkpoint_managers import PolicyCheckpointInfo

_REPLACED = ".replaced"  # The suffix of a checkpoint that is written again.


@contextmanager
def open_checkpoints(workdir: Path, keep: int = 1) -> Iterator["Checkpoints"]:
  """Locks a workdir, and yields its checkpoints for writing.

  Raises:
    MachineError: another training has the workdir.
  """
  lock = nullcontext()
  if sharding.is_first():
    lock = files.locked(workdir / "lock", "trained")
  with lock as held, Checkpoints(workdir / "checkpoints", keep) as checkpoints:
    if held is not None:
      checkpoints.check = held.check
    yield checkpoints


class Checkpoints:
  """Writes the checkpoints of a run, and keeps the latest and the best.

  Orbax writes a checkpoint under a temporary name, renames its folder, and then
  removes older checkpoints. So the last finished checkpoint survives if the
  process is killed.

  Attributes:
    check: raises MachineError if another process writes to the folder, or the
      folder was removed.
  """

  def __init__(self, directory: Path, keep: int = 1):
    """Restores a checkpoint that a killed process was replacing.

    Args:
      directory: the folder of the checkpoints.
      keep: the number of latest checkpoints to keep.

    Raises:
      UserError: Orbax would read the folder's name as a pattern.
    """
    self.directory = directory.absolute()
    if re.search(r"[\\*?]|\[[^/]*\]", str(self.directory)):
      raise UserError(
        f"{self.directory}: must have no backslash, *, ? or [...] in its path,"
        " which Orbax reads as a pattern; name another --workdir"
      )
    self._keep, self.check = keep, lambda: None
    # The step of the checkpoint that is being written, and its best step.
    self._step = self._best = 0
    if jax.process_index() == 0:
      self.directory.mkdir(parents=True, exist_ok=True)
      self._finish_replacing()

  def _finish_replacing(self):
    for old in self.directory.glob(f"*{_REPLACED}"):
      if old.with_suffix("").exists():
        shutil.rmtree(old)
      else:
        old.rename(old.with_suffix(""))

  @cached_property
  def _manager(self) -> "CheckpointManager":
    # Importing Orbax takes a second, so the import waits for the first save.
    import orbax.checkpoint as ocp

    return ocp.CheckpointManager(
      self.directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self,
        save_root_metadata=False,
        cleanup_tmp_directories=True,
        lightweight_initialize=True,
        async_options=ocp.AsyncOptions(post_finalization_callback=self._commit),
      ),
    )

  def should_preserve(
    self, checkpoints: Sequence["PolicyCheckpointInfo"], **_
  ) -> list[bool]:
    """Returns which checkpoints to keep, as Orbax's PreservationPolicy."""
    latest = [info.step for info in checkpoints][-self._keep :]
    return [info.step in (*latest, self._best) for info in checkpoints]

  def save(self, params: Params, state: Others, position: checkpoint.Position):
    """Starts writing a checkpoint, unless it exists with the same position.

    Args:
      params: the parameters.
      state: the other arrays of the training state.
      position: its step names the checkpoint; its best step is kept, too.

    Raises:
      MachineError: the disk is full, the previous checkpoint could not be
        written, or another process owns the folder.
    """
    self.wait()
    self.check()
    folder = self.directory / str(position.step)
    # The checkpoint may exist without the evaluation of its step, if a signal
    # discarded that evaluation. The first process decides for all.
    first = jax.process_index() == 0
    exists = sharding.broadcast(first and folder.exists())
    if exists and sharding.broadcast(
      first and checkpoint.read_position(folder) == position
    ):
      return
    if exists:
      if first:
        folder.rename(folder.with_name(f"{folder.name}{_REPLACED}"))
      sharding.broadcast(0)  # Waits for the first process.
      self._manager.reload()
    from orbax.checkpoint import args

    self._step, self._best = position.step, position.best_step
    with self._write_errors():
      self._manager.save(
        position.step,
        args=args.Composite(
          params=args.StandardSave(params),
          state=args.StandardSave(state),
          position=args.JsonSave(asdict(position)),
        ),
        force=True,
      )

  def _commit(self):
    """Writes the checksums; Orbax renames the folder after it."""
    if jax.process_index() == 0:
      self.check()
      [folder] = private.unfinished_checkpoints(self.directory, self._step)
      checkpoint.write_sums(folder)

  def delete_after(self, step: int):
    """Removes the checkpoints after a step, before any is written."""
    if jax.process_index() == 0:
      for later in checkpoint.steps(self.directory):
        if later > step:
          shutil.rmtree(self.directory / str(later))

  def wait(self):
    """Waits until the last checkpoint is on disk.

    Raises:
      MachineError: the checkpoint could not be written.
      Exception: another process of this run was lost.
    """
    if not self._step:
      return
    with self._write_errors():
      self._manager.wait_until_finished()
    if jax.process_index() == 0:
      self._finish_replacing()
    self._step = 0

  @contextmanager
  def _write_errors(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # tensorstore raises bare Exceptions
      self._remove_unfinished()
      self._step = 0
      if isinstance(error, MachineError) or processes.lost(error):
        raise
      raise MachineError(
        f"{self.directory}: a checkpoint cannot be written:"
        f" {checkpoint.first_line(error)}"
      ) from None

  def _remove_unfinished(self):
    """Removes what Orbax writes to a removed workdir after a failed write."""
    workdir = self.directory.parent
    if not (workdir / "lock").exists():  # A new run there has its own.
      time.sleep(0.5)  # Until Orbax's other writes have failed, too.
      for folder in private.unfinished_checkpoints(self.directory, self._step):
        shutil.rmtree(folder, ignore_errors=True)
      with suppress(OSError):  # A folder is missing, or has other files.
        self.directory.rmdir()
        workdir.rmdir()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: type | None, *_):
    if kind is KeyboardInterrupt:  # A second Ctrl-C does not wait.
      return
    try:
      self.wait()
      if "_manager" in vars(self):
        self._manager.close()
    except Exception:  # Orbax raises the error of a failed save once more.
      if kind is None:  # Otherwise it would hide the error that ended the run.
        raise
