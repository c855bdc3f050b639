"""Products of all positions with a kernel, and rows of a table by id.

The values are those of x @ kernel and of table[ids]; the gradients are made
in the ways that are fastest where T comes before B and B is split over devices.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

# Up to so many rows, a product with one-hot vectors makes the gradient of a
# table sooner than adding to it row by row.
_FEW = 512
# From so many rows on, `affine` has the bias in the product.
_MANY = 512


def merge(x_TBX: jax.Array) -> jax.Array:
  """[T, B, ...] as [devices, T B / devices, ...].

  XLA would gather all rows on every device to merge T with a B that is split;
  here those of a device stay together.
  """
  T, B, *rest = x_TBX.shape
  count = math.gcd(B, jax.device_count())
  parts = x_TBX.reshape(T, count, B // count, *rest).swapaxes(0, 1)
  return parts.reshape(count, T * B // count, *rest)


def dot(a: jax.Array, b: jax.Array, dtype: Any = None) -> jax.Array:
  """The product a @ b; its factors rounded to `dtype`, where one is given.

  The sums are in the wider type of the two, in any case.
  """
  if dtype is None:
    return a @ b
  return jnp.matmul(
    a.astype(dtype),
    b.astype(dtype),
    preferred_element_type=jnp.promote_types(a.dtype, b.dtype),
  )


def kernel_gradient(x: jax.Array, d: jax.Array, dtype: Any = None) -> jax.Array:
  """Sum of x.T @ d over all positions, [D, K]: one product a device.

  Args:
    x: x_TBD, or x_ND.
    d: d_TBK, or d_NK.
    dtype: as in `dot`.
  """
  if x.ndim == 3:
    x, d = merge(x), merge(d)
    if len(x) > 1:
      return jnp.sum(dot(x.swapaxes(1, 2), d, dtype), axis=0)
    x, d = x[0], d[0]  # XLA would turn x_1ND by a copy of its own: slowly.
  return dot(turned(x, dtype), d, dtype)


def turned(x_RC: jax.Array, dtype: Any = None) -> jax.Array:
  """The transpose [C, R], as a factor of `dot` with that type.

  A CPU's products of rounded factors are many times as fast, but XLA takes them
  only where both lie in memory row by row; else it widens the factors again.
  """
  # The constraint would gather on every device what is split over several.
  if dtype is None or jax.default_backend() != "cpu" or jax.device_count() > 1:
    return x_RC.T
  rows = Layout(major_to_minor=(0, 1))
  # Rounded first: together with what makes it, it is turned far more slowly.
  x_RC = with_layout_constraint(x_RC.astype(dtype), rows)
  return with_layout_constraint(x_RC.T, rows)


def product(x: jax.Array, kernel_DK: jax.Array, dtype: Any = None) -> jax.Array:
  """What `dot` makes of x and kernel: of x_TBD [T, B, K], of x_ND [N, K]."""
  made: Any = _product(x, kernel_DK, dtype)
  return made


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x, kernel_DK, dtype):
  if x.ndim == 3 and x.shape[0] == 1:  # A step of a loop around it.
    return step_dot(x[0], kernel_DK, dtype)[None]
  return dot(x, kernel_DK, dtype)


def _product_forward(x, kernel_DK, dtype):
  return _product(x, kernel_DK, dtype), (x, kernel_DK)


def _product_backward(dtype, saved, d):
  x, kernel_DK = saved
  return dot(d, turned(kernel_DK, dtype), dtype), kernel_gradient(x, d, dtype)


_product.defvjp(_product_forward, _product_backward)


def affine(
  x_NK: jax.Array, kernel_KV: jax.Array, bias_V: jax.Array, dtype: Any = None
) -> jax.Array:
  """`product` of x and the kernel, plus the bias, which is not rounded.

  Of many rows, a CPU takes it as one more row of the kernel, where x is 1: to
  add it, and to sum its gradient, would be two passes over [N, V].
  """
  if dtype is not None or jax.default_backend() != "cpu" or len(x_NK) < _MANY:
    return plus(product(x_NK, kernel_KV, dtype), bias_V)
  # Seven rows more, which are 0: products of odd widths take longer.
  ones_N8 = jnp.ones((len(x_NK), 8), x_NK.dtype)
  bias_8V = jnp.pad(bias_V[None], [(0, 7), (0, 0)])
  return product(
    jnp.concatenate([x_NK, ones_N8], axis=1),
    jnp.concatenate([kernel_KV, bias_8V]),
  )


def step_dot(a_BD: jax.Array, b_DK: jax.Array, dtype: Any = None) -> jax.Array:
  """`dot` for the body of a loop in which b does not change.

  Where b is large and a has few rows, XLA's CPU product takes up to twice as
  long as that of b.T and a.T; the loop makes b.T once, before its first step.
  Measured with one row and with whole vectors of 16, to which more than 32 are
  filled up; others lose by it. One row is not rounded: that is slower.
  """
  made: Any = _step_dot(a_BD, b_DK, dtype)
  return made


def _kernel_first(a_BD, b_DK, dtype):
  if jax.default_backend() != "cpu":
    return dot(a_BD, b_DK, dtype)
  B = a_BD.shape[0]
  if B == 1:
    dtype = None
  spare = -B % 16 if 32 < B <= 64 else 0
  few = B == 1 or ((B + spare) % 16 == 0 and B <= 64)
  if dtype is None and few and min(b_DK.shape) >= 512:
    a_BD = jnp.pad(a_BD, ((0, spare), (0, 0)))
    # Without barriers XLA turns it back into a @ b.
    first_KD = lax.optimization_barrier(b_DK.T)
    return lax.optimization_barrier(first_KD @ a_BD.T).T[:B]
  return dot(a_BD, b_DK, dtype)


# JAX's own gradient would turn that of b at every step.
_step_dot = jax.custom_vjp(_kernel_first, nondiff_argnums=(2,))
_step_dot.defvjp(
  lambda a_BD, b_DK, dtype: (_kernel_first(a_BD, b_DK, dtype), (a_BD, b_DK)),
  _product_backward,
)


def along(x: jax.Array, vector_K: jax.Array) -> jax.Array:
  """The vector with as many axes as x, whose last one is its own."""
  return vector_K.reshape((1,) * (x.ndim - 1) + (-1,))


@jax.custom_vjp
def plus(x: jax.Array, bias_K: jax.Array) -> jax.Array:
  """The bias added to x_NK or x_TBK."""
  return x + along(x, bias_K)


plus.defvjp(
  lambda x, bias_K: (plus(x, bias_K), None), lambda _, d: (d, summed(d))
)


def summed(d: jax.Array) -> jax.Array:
  """The sum of d_NK or d_TBK over all positions, [K]."""
  if jax.default_backend() != "cpu":
    return jnp.sum(d, axis=tuple(range(d.ndim - 1)))
  # A product reads d faster, and on all cores. One row would be no product.
  return kernel_gradient(jnp.ones((*d.shape[:-1], 8), d.dtype), d)[0]


@jax.custom_vjp
def rows(table_VD: jax.Array, ids_TB: jax.Array) -> jax.Array:
  """The rows table[ids], [T, B, D]."""
  # Ids are never out of range; to look for it takes one more pass.
  return jnp.take(table_VD, ids_TB, axis=0, mode="clip")


def _rows_forward(table_VD, ids_TB):
  return rows(table_VD, ids_TB), (ids_TB, table_VD.shape[0])


def _rows_backward(saved, d_TBD):
  ids_TB, V = saved
  if V <= _FEW:
    one_hot_TBV = jax.nn.one_hot(ids_TB, V, dtype=d_TBD.dtype)
    return kernel_gradient(one_hot_TBV, d_TBD), None
  zeros_VD = jnp.zeros((V, d_TBD.shape[-1]), d_TBD.dtype)
  return zeros_VD.at[ids_TB].add(d_TBD), None


rows.defvjp(_rows_forward, _rows_backward)


class Lookup(NamedTuple):
  """The features table[ids], not yet looked up.

  A layer that begins with a product multiplies the table once, instead of the
  features of every position.

  Attributes:
    table_VD: what each id stands for.
    ids: of the positions, [B, T] or [T, B].
  """

  table_VD: jax.Array
  ids: jax.Array

  def swap(self) -> "Lookup":
    """Time-major, of what is batch-major."""
    return self._replace(ids=self.ids.T)
