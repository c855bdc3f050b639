"""Checkpoints: everything a run is, with checksums, through Orbax."""

import math
import shutil
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from seqrnn.config import Config
from seqrnn.errors import UserError
from seqrnn.experiment import Params

_SMALL_FILES = 500_000  # Bytes beside the arrays: metadata, block by block.


def _metric(metrics: dict[str, float]) -> float:
  return metrics["validation_loss"]


def checksums(tree: Any) -> dict[str, int]:
  """CRC-32 of every array, by its path."""
  return {
    jax.tree_util.keystr(path): zlib.crc32(
      np.asarray(jax.device_get(leaf)).tobytes()
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


class Damaged(Exception):
  """A checkpoint that cannot be read, or is not what was saved."""


class Checkpoints:
  """The latest `keep` checkpoints, and the one with the best validation loss.

  A checkpoint has three parts: `params`, all that sampling needs; `rest`, the
  other arrays of the training state; `position`, JSON: place in the data, best
  loss and the like.
  """

  def __init__(self, directory: Path, keep: int = 1, read_only: bool = False):
    policies = ocp.checkpoint_managers
    self._directory = directory
    # That it only reads is no reason for Orbax to warn.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    self._manager = ocp.CheckpointManager(
      directory.absolute(),
      options=ocp.CheckpointManagerOptions(
        create=not read_only,
        read_only=read_only,
        cleanup_tmp_directories=not read_only,
        best_fn=_metric,
        best_mode="min",
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(keep),
            policies.BestN(
              n=1,
              get_metric_fn=_metric,
              reverse=True,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
      ),
    )
    logging.set_verbosity(verbosity)

  def steps(self) -> list[int]:
    """Those there are, oldest first."""
    return sorted(self._manager.all_steps())

  def save(
    self,
    step: int,
    params: Params,
    rest: Any,
    position: dict[str, Any],
    validation_loss: float | None,
  ):
    """Writes in the background.

    A loss that is None or NaN counts as infinite: it never becomes the best.

    Raises:
      UserError: the disk has no room for it.
    """
    if step in self._manager.all_steps():
      if validation_loss is None:
        return
      # A signal had put this evaluation off: the arrays are the same.
      self._manager.delete(step)
    self._check_room(params, rest)
    loss = math.inf if validation_loss is None else validation_loss
    self._manager.save(
      step,
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(params),
        rest=ocp.args.StandardSave(rest),
        position=ocp.args.JsonSave(position),
        checksums=ocp.args.JsonSave(
          {"params": checksums(params), "rest": checksums(rest)}
        ),
      ),
      metrics={"validation_loss": math.inf if math.isnan(loss) else loss},
    )

  def _check_room(self, *trees: Any):
    """Orbax fails late and in a hundred lines where a disk is full."""
    need = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) + _SMALL_FILES
    free = shutil.disk_usage(self._directory).free
    if free < need:
      raise UserError(
        f"{self._directory}: no room for a checkpoint: {need / 1e6:.1f} MB are"
        f" needed, {free / 1e6:.1f} MB are free; make room and go on"
      )

  def restore(
    self, step: int, params: Params, rest: Any | None = None
  ) -> tuple[Params, Any, dict[str, Any]]:
    """Params, rest (None unless asked for) and position of one checkpoint.

    Args:
      step: which one.
      params: the shapes expected, with shardings.
      rest: likewise; None: not read.

    Raises:
      Damaged: something is missing, unreadable or other than was saved.
    """
    args: dict[str, Any] = {
      "params": ocp.args.StandardRestore(params),
      "position": ocp.args.JsonRestore(),
      "checksums": ocp.args.JsonRestore(),
    }
    if rest is not None:
      args["rest"] = ocp.args.StandardRestore(rest)
    try:
      found = self._manager.restore(step, args=ocp.args.Composite(**args))
    except Exception as error:  # tensorstore raises bare Exceptions
      reason = str(error).strip().split("\n")[0][:200]
      raise Damaged(f"{type(error).__name__}: {reason}") from error
    for name in ("params", "rest")[: 1 if rest is None else 2]:
      if checksums(found[name]) != found["checksums"].get(name):
        raise Damaged(f"{name} differ from their checksums")
    return (
      found["params"],
      None if rest is None else found["rest"],
      found["position"],
    )

  def delete(self, step: int):
    """Removes one."""
    self._manager.delete(step)

  def best(self) -> int | None:
    """The step with the lowest validation loss, if there is any checkpoint."""
    best = self._manager.best_step()
    return best if best is not None else self._manager.latest_step()

  def wait(self):
    """Returns when all that was saved is on disk."""
    self._manager.wait_until_finished()

  def close(self):
    """Waits, and frees what the manager holds."""
    self._manager.close()


class Restored(NamedTuple):
  """Parameters, and the step of the checkpoint that they come from."""

  params: Params
  step: int


def restore_params(workdir: Path, config: Config, shapes: Params) -> Restored:
  """The parameters of `config.checkpoint.step`, or of the best checkpoint.

  They come to one device, wherever they were saved from.

  Raises:
    UserError: there is no such checkpoint, or it is damaged.
  """
  directory = workdir / "checkpoints"
  if not directory.is_dir():
    raise UserError(f"{workdir}: no checkpoint there; train this run first")
  checkpoints = Checkpoints(directory, read_only=True)
  try:
    steps = checkpoints.steps()
    step = config.checkpoint.step
    if step is None:
      step = checkpoints.best()
    if step is None:
      raise UserError(f"{workdir}: no checkpoint there; train this run first")
    if step not in steps:
      there = ", ".join(map(str, steps))
      raise UserError(
        f"config.checkpoint.step={step}: no such checkpoint; there are {there}"
      )
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    here_shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes
    )
    params, _, _ = checkpoints.restore(step, here_shapes)
    return Restored(params, step)
  except Damaged as damage:
    raise UserError(
      f"{directory / str(step)}: damaged ({damage}); name another with"
      " --config.checkpoint.step="
    ) from None
  finally:
    checkpoints.close()
