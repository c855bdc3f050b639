"""Reads programs as jax.export makes them for a platform that is not here."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from jax import export
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from seqrnn.runtime import private, sharding

_PRODUCT = re.compile(r"stablehlo\.dot_general[^\n]*")
_PRECISION = re.compile(r"precision = \[(\w+), (\w+)\]")
_FACTORS = re.compile(r": \(tensor<[\dx]*(\w+)>, tensor<[\dx]*(\w+)>\)")
_SCATTER = re.compile(r'"stablehlo\.scatter".*?\}\) :', re.DOTALL)
_SUM = re.compile(r"stablehlo\.(?:add|subtract|multiply)[^\n]*<(?:f|bf)\d+>")


def mesh_of(platform: str, size: int = 1) -> AbstractMesh:
  """Returns a mesh of devices that this process does not have."""
  platform = "gpu" if platform == "cuda" else platform  # As JAX names devices.
  device = AbstractDevice(platform, num_cores=None, platform=platform)
  return AbstractMesh(
    (size,), ("data",), axis_types=(AxisType.Auto,), abstract_device=device
  )


def absent(platform: str, size: int = 1) -> AbstractContextManager[None]:
  """Returns a block: functions are traced for devices of `mesh_of`."""
  mesh: Any = mesh_of(platform, size)
  return sharding.tracing_for(mesh, private.mesh_platform(mesh))


def program(platform: str, jitted: Callable[..., Any], *args: Any) -> str:
  """Returns the program of a jitted function, traced for a platform."""
  with absent(platform):
    exported = export.export(jitted, platforms=[platform])(*args)
  return str(exported.mlir_module())


def products(text: str) -> list[str]:
  """Returns what each matrix product has of its factors.

  It is a precision, an algorithm, or the types of the factors.
  """
  found = []
  for line in _PRODUCT.findall(text):
    if "algorithm" in line:
      found.append("tf32" if line.count("type = tf32") == 2 else line)
    elif precision := _PRECISION.search(line):
      found.append(" ".join(sorted(set(precision.groups()))))
    elif factors := _FACTORS.search(line):
      found.append(" ".join(sorted(set(factors.groups()))))
  return found


def unordered_sums(text: str) -> list[str]:
  """Returns the scatters that add floats; a GPU adds them in any order."""
  return [
    scatter
    for scatter in _SCATTER.findall(text)
    if _SUM.search(scatter) and "unique_indices = true" not in scatter
  ]
