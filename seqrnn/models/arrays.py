"""Array operations of all modules of this package, and the devices they use."""

import math
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from seqrnn.runtime import private

Tree = TypeVar("Tree")
Rounding = DTypeLike | None  # The `dtype` of `dot`.
TF32 = "tf32"  # A `dtype` of `dot`, for all platforms but the CPU.


def platform() -> str:
  """The platform that a traced function is for: "cpu", "gpu", "tpu", ...

  It is the platform of the mesh that `sharding.jit` traces for, which need not
  be one of this process. Only a module that is applied by hand, outside of
  `sharding.jit`, has no mesh: it is computed on the default backend.
  """
  return private.mesh_platform() or jax.default_backend()


def device_count() -> int:
  """The number of devices that a traced function is for; see `platform`.

  It is one for a function that each device calls with its own rows.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return jax.device_count()
  return math.prod(mesh.shape[name] for name in private.auto_axes())


def dot(a: jax.Array, b: jax.Array, dtype: Rounding = None) -> jax.Array:
  """The matrix product a @ b.

  Args:
    a: the first factor.
    b: the second factor.
    dtype: what both factors are rounded to, or TF32; None: they are not rounded
      on any platform. The sums have the wider dtype of the two factors as they
      are given.
  """
  if dtype in (None, TF32):
    return jnp.matmul(a, b, precision=precision(dtype))
  return jnp.matmul(
    a.astype(dtype),
    b.astype(dtype),
    preferred_element_type=jnp.promote_types(a.dtype, b.dtype),
  )


def precision(dtype: Rounding = None) -> lax.PrecisionLike:
  """JAX's `precision` of products of factors that are not rounded.

  JAX's default would round them to TF32 on a GPU and to bfloat16 on a TPU.

  Args:
    dtype: TF32: on a GPU factors are rounded to it. A TPU, which has no TF32,
      multiplies three bfloat16 parts, which is about as precise.
  """
  if platform() == "cpu":
    return None
  if dtype is None:
    return lax.Precision.HIGHEST
  if platform() == "tpu":
    return lax.Precision.HIGH
  # XLA's kernels made by Triton take Precision.HIGH to be float32.
  return lax.DotAlgorithmPreset.TF32_TF32_F32


def align(vector_K: jax.Array, x: jax.Array) -> jax.Array:
  """The vector as [..., 1, K], with as many axes as x."""
  return vector_K.reshape((1,) * (x.ndim - 1) + (-1,))


def merge_positions(x_TBX: jax.Array) -> jax.Array:
  """[T, B, ...] as [devices, T B / devices, ...].

  XLA would gather all rows on every device to merge T with a B that is split
  over the devices. Here the rows of a device stay on it.
  """
  T, B, *rest = x_TBX.shape
  count = math.gcd(B, device_count())
  parts = x_TBX.reshape(T, count, B // count, *rest).swapaxes(0, 1)
  return parts.reshape(count, T * B // count, *rest)


def add(*trees: Tree) -> Tree:
  """The sum of trees of arrays."""
  return jax.tree.map(lambda *leaves: sum(leaves), *trees)


def hold(take: jax.Array, new: Tree, old: Tree) -> Tree:
  """The new carry where take_B is true, the old carry elsewhere.

  T comes before B where the carries have it.
  """

  def one(new, old):
    rest = (None,) * (new.ndim - take.ndim)
    return jnp.where(take[(..., *rest)], new, old)

  return jax.tree.map(one, new, old)


def held(
  take: jax.Array, y_TBH: jax.Array, first_BH: jax.Array, *, reverse: bool
) -> tuple[jax.Array, jax.Array]:
  """The last y_BH and all y_TBH, where padding repeats the y before it.

  It is to `parallel` what `hold` is to a scan, for outputs that depend on the
  input besides the state.

  Args:
    take: as in `hold`, T before B; padding stands at the ends alone.
    y_TBH: of all positions.
    first_BH: the y before the first step.
    reverse: from the last step to the first.
  """
  last = 0 if reverse else -1
  steps_TB1 = lax.cumsum(take.astype(jnp.int32), reverse=reverse)[..., None]
  take, count_1B1 = take[..., None], steps_TB1[last][None]
  final_TBH = jnp.where(take & (steps_TB1 == count_1B1), y_TBH, 0)
  final_1BH = jnp.sum(final_TBH, axis=0, keepdims=True)
  before_TBH = jnp.where(steps_TB1 == 0, first_BH[None], final_1BH)
  y_TBH = jnp.where(take, y_TBH, before_TBH)
  return y_TBH[last], y_TBH


def before(first: Tree, after: Tree, reverse: bool) -> Tree:
  """The arrays before each step, given those before the first and after each.

  Args:
    first: a tree of arrays [B, X].
    after: a tree of the same form, [T, B, X].
    reverse: from the last step to the first.
  """

  def one(first_BX, after_TBX):
    if reverse:
      return jnp.concatenate([after_TBX[1:], first_BX[None]])
    return jnp.concatenate([first_BX[None], after_TBX[:-1]])

  return jax.tree.map(one, first, after)
