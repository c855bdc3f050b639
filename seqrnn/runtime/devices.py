"""The devices of this machine: their names, their choice, their memory."""

import importlib.util
import itertools
import os
import re
from pathlib import Path
from typing import Any

from seqrnn.errors import UserError
from seqrnn.runtime import signals

_ROOT = Path("/")
_PREALLOCATED = 0.75  # The share of a GPU's memory that JAX reserves.
_FRACTION = "XLA_CLIENT_MEM_FRACTION"
_OLD_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_UNUSED = (
  "warning: an NVIDIA GPU is there, but JAX computes on the CPU: pip install"
  " 'jax[cuda13]'; if it is installed, `python -c 'import jax; jax.devices()'`"
  " says why"
)
# The words of XLA's CPU, CUDA and TPU compilers and allocators.
_EXHAUSTED = re.compile("(?i)out.of.memory|resource_exhausted|alloc_failed")


def cores() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def words(mesh: Any) -> str:
  """Returns the number and the kind of the devices of a mesh."""
  device = mesh.devices.flat[0]
  text = f"{mesh.size} x {device.device_kind}"
  if device.platform == "cpu":
    text += f", {cores()} core{'s' * (cores() > 1)}"
  return text


def out_of_memory(error: BaseException) -> bool:
  """Returns whether the machine or a device had too little memory."""
  # JAX's errors are RuntimeErrors.
  said = isinstance(error, RuntimeError) and _EXHAUSTED.search(str(error))
  return isinstance(error, MemoryError) or bool(said)


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
    hidden = os.environ.get(_VISIBLE) in ("", "-1")
    asked = jax.config.values["jax_platforms"]
    return [_UNUSED] if _nvidia() and not (hidden or asked) else []
  from seqrnn.runtime import sharding  # It imports JAX.

  return [] if named else [f"devices: {words(sharding.mesh())}"]


def gpus() -> list[str]:
  """Returns the NVIDIA GPUs that JAX will find, as CUDA_VISIBLE_DEVICES does.

  It asks neither CUDA nor JAX, which would reserve the memory of the GPUs.
  """
  platforms = os.environ.get("JAX_PLATFORMS") or "cuda"
  plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
  if not {"cuda", "gpu"} & set(platforms.split(",")) or not any(
    map(importlib.util.find_spec, plugins)
  ):
    return []
  indices = [str(index) for index in range(len(_nvidia()))]
  visible_ones = os.environ.get(_VISIBLE)
  if not indices or visible_ones is None:
    return indices
  # CUDA ignores what follows an invalid name or number.
  valid = lambda name: name.strip() in indices or name[:4] in ("GPU-", "MIG-")
  return list(itertools.takewhile(valid, visible_ones.split(",")))


def take_gpu(index: int, count: int):
  """Restricts this worker to one GPU, if there are any; call it before JAX.

  Workers take the GPUs in turn. Where several workers have one GPU, each
  reserves its share of the memory that JAX would reserve for one process.

  Args:
    index: of the worker, from 0.
    count: the number of workers.
  """
  names = gpus()
  if not names:
    return
  os.environ[_VISIBLE] = names[index % len(names)]
  together = -(-count // len(names))
  if together > 1 and not {_FRACTION, _OLD_FRACTION} & os.environ.keys():
    os.environ[_FRACTION] = f"{_PREALLOCATED / together:.3f}"


def _nvidia() -> list[Path]:
  return list(_ROOT.glob("dev/nvidia[0-9]*"))
