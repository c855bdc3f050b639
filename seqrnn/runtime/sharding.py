"""Shardings: batches are split over the devices, all else is replicated."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial, wraps
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from seqrnn.runtime import private
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

ArrayTree = TypeVar("ArrayTree")  # Of arrays.

# The platform of the devices that a function is traced for; see `jit`.
_platform: ContextVar[str | None] = ContextVar("platform", default=None)


class Jitted(jax.stages.Wrapped, Protocol):
  """The result of jax.jit; jax.stages.Wrapped does not declare eval_shape."""

  def eval_shape(self, *args, **named) -> Any: ...


def mesh() -> Mesh:
  """Returns a mesh of all devices of all processes, with one axis `data`.

  The devices of a process are adjacent, so its rows of a batch are, too. With
  JAX_DISABLE_JIT it has one device, as an operation cannot have several.
  """
  # The setting may be of a block of a program alone.
  if private.jax_setting("jax_disable_jit"):
    return one_device()
  return _mesh(sorted(jax.devices(), key=lambda d: (d.process_index, d.id)))


def one_device(backend: str | None = None) -> Mesh:
  """Returns a mesh of the first device of this process.

  Sampling, predictions and reports compute on it.

  Args:
    backend: of the device; None: JAX's default.
  """
  return _mesh(jax.local_devices(backend=backend)[:1])


def _mesh(devices: list) -> Mesh:
  return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding with a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits the first axis over the devices."""
  return NamedSharding(mesh, PartitionSpec("data"))


def jit(function: Callable, mesh: Mesh | None = None, **options) -> Jitted:
  """Returns jax.jit(function, **options), traced for the devices of a mesh.

  Models choose their computation by the platform and the number of devices of
  the mesh. These devices need not exist: the result can be lowered and
  compiled for them. The mesh places no array.

  Args:
    function: the function; it may call models.
    mesh: the devices; None: `one_device`.
    options: of jax.jit.
  """
  mesh = mesh or one_device()
  devices, name = mesh.abstract_mesh, private.mesh_platform(mesh)

  @wraps(function)
  def traced(*args, **named):
    with tracing_for(devices, name):
      return function(*args, **named)

  return jax.jit(traced, **options)


@contextmanager
def tracing_for(
  devices: jax.sharding.AbstractMesh, name: str | None
) -> Iterator[None]:
  """Functions that are traced in this block are for devices of a platform."""
  token = _platform.set(name)
  try:
    with jax.sharding.use_abstract_mesh(devices):
      yield
  finally:
    _platform.reset(token)


def platform() -> str:
  """The platform that a traced function is for: "cpu", "gpu", "tpu", ...

  It is the platform of the mesh that `jit` traces for, which need not be one of
  this process. Only a module that is applied by hand, outside of `jit`, has no
  mesh: it is computed on the default backend.
  """
  return _platform.get() or jax.default_backend()


def device_count() -> int:
  """The number of devices that a traced function is for; see `platform`.

  It is one for a function that each device calls with its own rows.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return jax.device_count()
  return math.prod(mesh.shape[name] for name in private.auto_axes())


def merge_positions(x_TBX: jax.Array) -> jax.Array:
  """[T, B, ...] as [devices, T B / devices, ...].

  XLA would gather all rows on every device to merge T with a B that is split
  over the devices. Here the rows of a device stay on it.
  """
  T, B, *rest = x_TBX.shape
  count = math.gcd(B, device_count())
  parts = x_TBX.reshape(T, count, B // count, *rest).swapaxes(0, 1)
  return parts.reshape(count, T * B // count, *rest)


cached_jit = lru_cache(CACHED_FUNCTIONS)(jit)


def each_device(function: Callable, mesh: Mesh) -> Callable:
  """Returns the function params, *arrays -> arrays of each device's own rows.

  Each device calls it with all of `params` and with its rows of the other
  trees. The rows of the results stand side by side.
  """
  split = PartitionSpec("data")

  def call(params, *trees):
    return jax.shard_map(
      function,
      mesh=mesh.abstract_mesh,
      in_specs=(PartitionSpec(), *[split] * len(trees)),
      out_specs=split,
      check_vma=False,  # Scans start from constants, which it refuses.
    )(params, *trees)

  return call


def padded_size(batch_size: int, mesh: Mesh) -> int:
  """Returns the batch size, rounded up to a multiple of the devices."""
  return -(-batch_size // mesh.size) * mesh.size


def local_rows(batch_size: int, mesh: Mesh) -> tuple[int, int]:
  """Returns the range (start, stop) of batch rows that this process reads."""
  share = padded_size(batch_size, mesh) // mesh.size
  indices = [
    place
    for place, device in enumerate(mesh.devices.flat)
    if device.process_index == jax.process_index()
  ]
  first, end = indices[0] * share, (indices[-1] + 1) * share
  return min(first, batch_size), min(end, batch_size)


@lru_cache(CACHED_FUNCTIONS)
def carry_init(
  carry: Callable[[int], ArrayTree], mesh: Mesh
) -> Callable[[int], ArrayTree]:
  """Returns a function batch size -> the initial carry, split by rows.

  Args:
    carry: the experiment's function batch size -> initial carry.
    mesh: the devices.
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


def put(
  batch: dict[str, np.ndarray], batch_size: int, mesh: Mesh
) -> dict[str, jax.Array]:
  """Puts a batch on all devices, given the rows of this process.

  Args:
    batch: the rows of `local_rows`.
    batch_size: B, the number of rows of all processes; they are padded to a
      multiple of the number of devices.
    mesh: the devices.
  """
  count = padded_size(batch_size, mesh) // mesh.size * mesh.local_mesh.size
  padded = jax.tree.map(lambda x: pad_rows(x, count), batch)
  if jax.process_count() == 1:  # Faster than the general call below.
    return jax.device_put(padded, by_rows(mesh))
  return jax.make_array_from_process_local_data(by_rows(mesh), padded)


def own_rows(array: jax.Array) -> np.ndarray:
  """Returns this process's rows of an array that is split by rows."""
  shards = {s.index[0].start or 0: s.data for s in array.addressable_shards}
  return np.concatenate([np.asarray(shards[n]) for n in sorted(shards)])


def gather_rows(tree: ArrayTree, mesh: Mesh) -> ArrayTree:
  """Returns NumPy arrays with the rows of all processes of a mesh, in each.

  Every process has as many rows.
  """
  if len({device.process_index for device in mesh.devices.flat}) == 1:
    return tree

  def one(x):  # As bytes: JAX would make int64 an int32.
    rows = np.ascontiguousarray(x).reshape(len(x), -1).view(np.uint8)
    every = np.asarray(private.gather_processes(rows))
    return every.view(x.dtype).reshape(-1, *x.shape[1:])

  return jax.tree.map(one, tree)


def put_all(tree: ArrayTree, mesh: Mesh) -> ArrayTree:
  """Puts a copy of NumPy arrays, equal in all processes, on every device."""
  return jax.tree.map(
    lambda x: jax.make_array_from_callback(
      x.shape, replicated(mesh), lambda index: np.array(x[index])
    ),
    tree,
  )


@partial(jax.jit, static_argnames=("count", "place"))
def resize(tree: ArrayTree, count: int, place: NamedSharding) -> ArrayTree:
  """Returns arrays with their first axis cut or zero-padded to `count`."""

  def one(x):
    x = x[:count]
    padding = [(0, count - len(x))] + [(0, 0)] * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(jnp.pad(x, padding), place)

  return jax.tree.map(one, tree)


class Agreement:
  """Makes all processes act on the request of one process, at the same step.

  Each process calls it once a step, with its request or 0. It returns the
  largest request of two calls before, so that no process waits for another.
  """

  def __init__(self, mesh: Mesh):
    self._split, self._devices = by_rows(mesh), mesh.local_mesh.size
    self._largest = jax.jit(jnp.max, out_shardings=replicated(mesh))
    self._pending: deque[jax.Array] = deque()

  def __call__(self, request: int) -> int:
    if jax.process_count() == 1:
      return request
    local = np.full(self._devices, request, np.int32)
    requests = jax.make_array_from_process_local_data(self._split, local)
    self._pending.append(self._largest(requests))
    return int(self._pending.popleft()) if len(self._pending) > 2 else 0


def is_first() -> bool:
  """Returns whether this is the first process, which prints and writes."""
  return jax.process_index() == 0


def broadcast(value: int) -> int:
  """Returns the first process's value in every process."""
  if jax.process_count() == 1:
    return value
  return int(private.of_first_process(np.asarray(value)))
