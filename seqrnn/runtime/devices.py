"""The devices of this machine: their names, their choice, their memory."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from seqrnn.errors import UserError
from seqrnn.runtime import private, signals

if TYPE_CHECKING:
  from jax.sharding import Mesh

_ROOT = Path("/")
_UNUSED = (
  "warning: an NVIDIA GPU is there, but JAX computes on the CPU: pip install"
  " 'jax[cuda13]'; if it is installed, `python -c 'import jax; jax.devices()'`"
  " says why"
)


def cores() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def words(mesh: "Mesh") -> str:
  """Returns the number and the kind of the devices of a mesh."""
  device = mesh.devices.flat[0]
  text = f"{mesh.size} x {device.device_kind}"
  if device.platform == "cpu":
    text += f", {cores()} core{'s' * (cores() > 1)}"
  return text


def out_of_memory(error: BaseException) -> bool:
  """Returns whether the machine or a device had too little memory."""
  # JAX's errors are RuntimeErrors.
  said = isinstance(error, RuntimeError) and private.says_out_of_memory(
    str(error)
  )
  return isinstance(error, MemoryError) or said


def start(named: bool = False) -> list[str]:
  """Starts JAX's backend; returns lines on the devices for the user.

  They name the devices, or warn of a GPU that is not in use. A CPU is not named
  if there is nothing else.

  Args:
    named: whether the mode names the devices itself.

  Raises:
    UserError: the platform that the environment names is not available, or a
      plugin cannot use its device.
  """
  import jax

  names = os.environ.get("JAX_PLATFORMS")
  try:
    jax.devices()
  except (AssertionError, RuntimeError) as error:
    if names:
      raise UserError(
        f"JAX_PLATFORMS={names}: no such device is available; without the"
        f" variable, JAX chooses a device; JAX says: {error}"
      ) from None
    if isinstance(error, AssertionError):
      raise
    raise UserError(f"JAX cannot start: {error}") from None
  signals.reinstall()
  if jax.default_backend() == "cpu":
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    asked = private.jax_setting("jax_platforms")
    unused = not (hidden or asked) and any(_ROOT.glob("dev/nvidia[0-9]*"))
    return [_UNUSED] if unused else []
  from seqrnn.runtime import sharding  # It imports JAX.

  return [] if named else [f"devices: {words(sharding.mesh())}"]
