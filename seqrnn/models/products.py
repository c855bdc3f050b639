"""Matrix products and rows of a table, with gradients of their own.

The values are those of x @ kernel and of table[ids]. The gradients are computed
in the ways that are fastest where T comes before B and B is split over devices.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seqrnn.models import cpu
from seqrnn.models.cpu import Rounding
from seqrnn.runtime.sharding import merge_positions, platform

TF32 = "tf32"  # A `dtype` of `dot`, for all platforms but the CPU.
# Up to this number of rows, the gradient of a table is a product with one-hot
# vectors on a GPU or a TPU.
_ONE_HOT = 512


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


def kernel_gradient(
  x: jax.Array, d: jax.Array, dtype: Rounding = None
) -> jax.Array:
  """The sum of x.T @ d over all positions, [D, K]: one product a device.

  Args:
    x: x_TBD or x_ND.
    d: d_TBK or d_NK.
    dtype: as in `dot`.
  """
  if x.ndim == 3:
    x, d = merge_positions(x), merge_positions(d)
    if len(x) > 1:
      return jnp.sum(dot(x.swapaxes(1, 2), d, dtype), axis=0)
    x, d = x[0], d[0]  # XLA would transpose x_1ND in a slow copy.
  return dot(cpu.transpose(x, dtype), d, dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: jax.Array, kernel_DK: jax.Array, dtype: Rounding = None) -> Any:
  """dot(x, kernel, dtype): [T, B, K] for x_TBD, [N, K] for x_ND."""
  if x.ndim == 3 and x.shape[0] == 1:  # A step of a loop of the caller.
    u_BK: Any = step_dot(x[0], kernel_DK, dtype)
    return u_BK[None]
  return dot(x, kernel_DK, dtype)


def _product_backward(dtype, saved, d):
  x, kernel_DK = saved
  dx = dot(d, cpu.transpose(kernel_DK, dtype), dtype)
  return dx, kernel_gradient(x, d, dtype)


product.defvjp(
  lambda x, kernel_DK, dtype: (product(x, kernel_DK, dtype), (x, kernel_DK)),
  _product_backward,
)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def step_dot(a_BD: jax.Array, b_DK: jax.Array, dtype: Rounding = None) -> Any:
  """`dot` for the body of a loop in which b does not change."""
  u_BK = cpu.step_dot(a_BD, b_DK, dtype)
  return dot(a_BD, b_DK, dtype) if u_BK is None else u_BK


# JAX's own gradient would transpose the gradient of b at every step.
step_dot.defvjp(
  lambda a_BD, b_DK, dtype: (step_dot(a_BD, b_DK, dtype), (a_BD, b_DK)),
  _product_backward,
)


@jax.custom_vjp
def add_bias(x: jax.Array, bias_K: jax.Array) -> jax.Array:
  """x_NK or x_TBK plus the bias."""
  return x + align(bias_K, x)


add_bias.defvjp(
  lambda x, bias_K: (add_bias(x, bias_K), None),
  lambda _, d: (d, cpu.sum_positions(d)),
)


@jax.custom_vjp
def rows(table_VD: jax.Array, ids_TB: jax.Array) -> jax.Array:
  """The rows table[ids], [T, B, D]; ids are never out of range.

  The gradient is computed where the rows are if B is split over devices.
  """
  # A check of the range would take one more pass.
  return jnp.take(table_VD, ids_TB, axis=0, mode="clip")


def _rows_forward(table_VD, ids_TB):
  return rows(table_VD, ids_TB), (ids_TB, table_VD.shape[0])


def _rows_backward(saved, d_TBD):
  ids_TB, V = saved
  if platform() == "cpu" or (platform() == "tpu" and V > _ONE_HOT):
    zeros_VD = jnp.zeros((V, d_TBD.shape[-1]), d_TBD.dtype)
    return zeros_VD.at[ids_TB].add(d_TBD), None
  # A GPU would add by atomic operations, in another order each time.
  if V <= _ONE_HOT:
    one_hot_TBV = jax.nn.one_hot(ids_TB, V, dtype=d_TBD.dtype)
    return kernel_gradient(one_hot_TBV, d_TBD), None
  sums = jax.vmap(partial(_sorted_sums, V))
  return jnp.sum(sums(*map(merge_positions, (ids_TB, d_TBD))), axis=0), None


rows.defvjp(_rows_forward, _rows_backward)


def _sorted_sums(V: int, ids_N: jax.Array, d_ND: jax.Array) -> jax.Array:
  """The sum of the rows of d that have each id, [V, D], without additions to V.

  The rows are sorted by their ids. Round k then adds to each row the row 2^k
  places before it, if it has the same id, so that the last row of an id becomes
  the sum of all its rows.
  """
  N = len(ids_N)
  order_N = jnp.argsort(ids_N)
  ids_N, d_ND = ids_N[order_N], d_ND[order_N]
  for k in range((N - 1).bit_length()):
    same = ids_N[2**k :] == ids_N[: -(2**k)]
    before = jnp.where(same[:, None], d_ND[: -(2**k)], 0)
    d_ND += jnp.pad(before, ((2**k, 0), (0, 0)))
  last_N = jnp.append(ids_N[1:] != ids_N[:-1], True)
  # All rows but the last of an id go to distinct places beyond the table.
  place_N = jnp.where(last_N, ids_N, V + jnp.arange(N))
  zeros_VD = jnp.zeros((V, d_ND.shape[1]), d_ND.dtype)
  return zeros_VD.at[place_N].set(d_ND, mode="drop", unique_indices=True)


class Products(NamedTuple):
  """How a model computes its products and sums with parameters.

  Attributes:
    factors: their rounding, as `model.products` names it.
    plain: by JAX's own operations and gradients, which also round gradients of
      factors to that dtype; else by the functions of this module.
  """

  factors: str = "float32"
  plain: bool = False

  @property
  def dtype(self) -> Rounding:
    """The `dtype` of `dot` on the platform that a function is traced for."""
    tf32 = None if platform() == "cpu" else TF32
    return {"float32": None, "tf32": tf32, "bfloat16": jnp.bfloat16}[
      self.factors
    ]

  def product(self, x: jax.Array, kernel_DK: jax.Array) -> jax.Array:
    """The product of all positions, x_TBD or x_ND, with a kernel."""
    return (dot if self.plain else product)(x, kernel_DK, self.dtype)

  def step(self, h_BD: jax.Array, kernel_DK: jax.Array) -> jax.Array:
    """The product of one time step with a kernel that all steps share."""
    return (dot if self.plain else step_dot)(h_BD, kernel_DK, self.dtype)

  def affine(
    self, x_NK: jax.Array, kernel_KV: jax.Array, bias_V: jax.Array
  ) -> jax.Array:
    """The product with a kernel, plus a bias, which is not rounded."""
    if not self.plain:
      factors = cpu.add_bias_row(x_NK, kernel_KV, bias_V, self.dtype)
      if factors is not None:
        return product(*factors)
    return self.add_bias(self.product(x_NK, kernel_KV), bias_V)

  def add_bias(self, x: jax.Array, bias_K: jax.Array) -> jax.Array:
    """x_NK or x_TBK plus the bias."""
    return x + align(bias_K, x) if self.plain else add_bias(x, bias_K)

  def transpose(self, table_VD: jax.Array) -> jax.Array:
    """table.T, as a kernel."""
    if self.plain:
      return table_VD.T
    return cpu.transpose_weights(table_VD, self.dtype)

  def rows(self, table_VD: jax.Array, ids: jax.Array) -> jax.Array:
    """The rows table[ids]."""
    if self.plain:
      return jnp.take(table_VD, ids, axis=0, mode="clip")
    return rows(table_VD, ids)


class Lookup(NamedTuple):
  """The features table[ids], not yet looked up.

  A layer that begins with a product multiplies the table once, instead of the
  features of every position.

  Attributes:
    table_VD: the features of each id.
    ids: of the positions, [B, T] or [T, B].
  """

  table_VD: jax.Array
  ids: jax.Array

  def swap(self) -> "Lookup":
    """The same with the first two axes of `ids` swapped."""
    return self._replace(ids=self.ids.T)
