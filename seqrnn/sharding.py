"""Where arrays live: batches split over the devices, everything else on all."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from seqrnn.experiment import Batch


def mesh() -> Mesh:
  """All devices, in a row named `data`."""
  return jax.make_mesh(
    (jax.device_count(),), ("data",), axis_types=(AxisType.Auto,)
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """A copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
  """The first axis spread over the devices."""
  return NamedSharding(mesh, PartitionSpec("data"))


def rows(batch_size: int, mesh: Mesh) -> int:
  """The batch size, rounded up to a multiple of the devices."""
  return -(-batch_size // mesh.size) * mesh.size


def pad(batch: Batch, mesh: Mesh) -> Batch:
  """The batch with rows of zeros where the devices do not divide it.

  Zeros are padding symbols of weight 0: they change nothing.
  """

  def one(x):
    missing = rows(len(x), mesh) - len(x)
    if not missing:
      return x
    return np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))

  return jax.tree.map(one, batch)


def put(batch: Batch, mesh: Mesh) -> Batch:
  """The padded batch, spread over the devices."""
  return jax.device_put(pad(batch, mesh), split(mesh))
