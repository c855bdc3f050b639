"""Shardings: batches split over the devices, all else replicated."""

from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from seqrnn.runtime.compiled import CACHED_FUNCTIONS


def mesh() -> Mesh:
  """Returns a mesh of all devices of all processes, with one axis `data`.

  The devices of a process are adjacent, so its rows of a batch are, too.
  """
  devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
  return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """A copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
  """The first axis spread over the devices."""
  return NamedSharding(mesh, PartitionSpec("data"))


def traced_for(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
  """The function, to be traced by jax.jit for the devices of a mesh.

  Models choose what is computed by the platform and the number of the mesh's
  devices, which need not be those of this process.
  """

  @wraps(function)
  def traced(*args, **named):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args, **named)

  return traced


def padded_size(batch_size: int, mesh: Mesh) -> int:
  """The batch size, rounded up to a multiple of the devices."""
  return -(-batch_size // mesh.size) * mesh.size


def local_rows(batch_size: int, mesh: Mesh) -> tuple[int, int]:
  """Returns the range (start, stop) of batch rows that this process reads."""
  share = padded_size(batch_size, mesh) // mesh.size
  own = [
    place
    for place, device in enumerate(mesh.devices.flat)
    if device.process_index == jax.process_index()
  ]
  first, end = own[0] * share, (own[-1] + 1) * share
  return min(first, batch_size), min(end, batch_size)


@lru_cache(CACHED_FUNCTIONS)
def carry_init(carry: Callable[[int], Any], mesh: Mesh) -> Callable[[int], Any]:
  """A function batch size -> the initial carry, its rows over the devices.

  Args:
    carry: of the experiment.
    mesh: of the devices.
  """
  if not jax.tree.leaves(jax.eval_shape(lambda: carry(1))):
    return carry  # XLA would compile a program even for no arrays.
  return jax.jit(carry, static_argnums=0, out_shardings=by_rows(mesh))


def pad_rows(array: np.ndarray, count: int) -> np.ndarray:
  """Returns the array, padded with rows of zeros to `count` rows.

  A row of zeros is padding symbols of weight 0: it does not change the loss.
  """
  missing = count - len(array)
  if not missing:
    return array
  return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))


def put(batch: Any, batch_size: int, mesh: Mesh) -> Any:
  """Puts a batch on all devices, given the rows of this process.

  Args:
    batch: the rows of `local_rows`.
    batch_size: B of the whole batch, which is padded to a multiple of the
      number of devices.
    mesh: of the devices.
  """
  count = padded_size(batch_size, mesh) // mesh.size * mesh.local_mesh.size
  padded = jax.tree.map(lambda x: pad_rows(x, count), batch)
  if jax.process_count() == 1:  # The same, in less time.
    return jax.device_put(padded, by_rows(mesh))
  return jax.make_array_from_process_local_data(by_rows(mesh), padded)


@partial(jax.jit, static_argnames=("count", "place"))
def resize(tree: Any, count: int, place: NamedSharding) -> Any:
  """Arrays with their first axis cut, or padded with zeros, to `count`."""

  def one(x):
    x = x[:count]
    padding = [(0, count - len(x))] + [(0, 0)] * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(jnp.pad(x, padding), place)

  return jax.tree.map(one, tree)


class Agreement:
  """Makes all processes act on the request of one, at the same step.

  Called once a step by each, with the number it wishes for or 0, it gives the
  largest wish of two calls ago: no process waits for the others' answers.
  """

  def __init__(self, mesh: Mesh):
    self._split = by_rows(mesh)
    self._devices = mesh.local_mesh.size
    self._largest = jax.jit(jnp.max, out_shardings=replicated(mesh))
    self._asked: deque[jax.Array] = deque()

  def __call__(self, wish: int) -> int:
    if jax.process_count() == 1:
      return wish
    wishes = np.full(self._devices, wish, np.int32)
    wishes_D = jax.make_array_from_process_local_data(self._split, wishes)
    self._asked.append(self._largest(wishes_D))
    return int(self._asked.popleft()) if len(self._asked) > 2 else 0


def is_first() -> bool:
  """Returns whether this process prints and writes."""
  return jax.process_index() == 0


def broadcast(value: int) -> int:
  """Returns the first process's value in every process."""
  if jax.process_count() == 1:
    return value
  return int(multihost_utils.broadcast_one_to_all(np.int64(value)))
