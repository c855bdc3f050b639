"""What only XLA's CPU compiler needs.

Barriers, layouts, loops with memory of their own, products with the kernel
first: each function here has another branch, plain JAX, for every other
platform. Models with `model.scan=plain` call none of them.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from seqrnn.runtime import private
from seqrnn.runtime.sharding import device_count, merge_positions, platform

# Trees of arrays of one step; of all steps, each array has T before B.
Carried = TypeVar("Carried")
Read = TypeVar("Read")
Written = TypeVar("Written")
Rounding = DTypeLike | None  # The `dtype` of `products.dot`.
# From this number of rows on, the bias of the head is a row of its kernel.
BIAS_ROW = 512


def loop(
  step: Callable[[Carried, Read], tuple[Carried, Written]],
  carry: Carried,
  inputs: Read,
  *,
  reverse: bool,
) -> tuple[Carried, Written]:
  """lax.scan(step, carry, inputs, reverse=reverse).

  On a CPU a scan first fills its outputs with zeros. XLA makes the zeros of all
  loops before the first loop and copies them, so that they take memory the
  whole time. The loop writes every element, so the initial values are free:
  here each output starts as a column of the first input, a distinct column
  each, so that XLA can neither share nor hoist the buffers.
  """
  if platform() != "cpu":
    return lax.scan(step, carry, inputs, reverse=reverse)
  first_TBX, *_ = jax.tree.leaves(inputs)
  T, B, X = first_TBX.shape
  step = jax.jit(step)  # Traced once for both of its uses.

  def inputs_at(t):
    return jax.tree.map(
      lambda x: lax.dynamic_index_in_dim(x, t, keepdims=False), inputs
    )

  def buffer(number, y):
    if y.ndim == 2 and len(y) == B and y.dtype == first_TBX.dtype:
      column_B1 = first_TBX[0, :, number % X, None]
      return jnp.broadcast_to(column_B1, (T, *y.shape))
    return jnp.zeros((T, *y.shape), y.dtype)

  def body(count, state):
    carry, outputs = state
    t = T - 1 - count if reverse else count
    carry, new = step(carry, inputs_at(t))
    outputs = jax.tree.map(
      lambda old, new: lax.dynamic_update_index_in_dim(old, new, t, 0),
      outputs,
      new,
    )
    return carry, outputs

  _, shapes = jax.eval_shape(step, carry, inputs_at(0))
  leaves, structure = jax.tree.flatten(shapes)
  outputs = structure.unflatten(
    [buffer(number, leaf) for number, leaf in enumerate(leaves)]
  )
  return lax.fori_loop(0, T, body, (carry, outputs))


def transpose(x_RC: jax.Array, dtype: Rounding = None) -> jax.Array:
  """x.T, as a factor of `dot` with that dtype.

  XLA multiplies rounded factors many times as fast if both lie in memory row by
  row. Otherwise it converts them back to the wider dtype.
  """
  # Over several devices, the constraint would gather the factor on each.
  if dtype is None or platform() != "cpu" or device_count() > 1:
    return x_RC.T
  # Rounding comes first: fused with the operation that makes x, the transpose
  # takes far longer.
  return private.row_by_row(private.row_by_row(x_RC.astype(dtype)).T)


def transpose_before_loop(x_RC: jax.Array, dtype: Rounding = None) -> jax.Array:
  """`transpose`, computed before the loop whose steps multiply by it.

  Without the barrier, XLA reads across the rows of x in every step.
  """
  x_CR = transpose(x_RC, dtype)
  return lax.optimization_barrier(x_CR) if platform() == "cpu" else x_CR


def transpose_weights(table_VD: jax.Array, dtype: Rounding = None) -> jax.Array:
  """table.T, as a kernel of products with that dtype.

  XLA merges the transpose of a kernel's gradient into the gradient's product,
  and then cannot run this product of rounded factors. The barrier, which its
  gradient has too, keeps them apart.
  """
  if dtype is None or platform() != "cpu":
    return table_VD.T
  return lax.optimization_barrier(table_VD.T)


def step_dot(
  a_BD: jax.Array, b_DK: jax.Array, dtype: Rounding = None
) -> jax.Array | None:
  """The product for the body of a loop in which b does not change.

  None: `dot` computes it.

  For a large b and few rows of a, XLA's product takes up to twice as long as
  b.T @ a.T, and the loop makes b.T once, before its first step. This was
  measured for one row and for multiples of 16 rows; 33 to 64 rows are padded to
  48 or 64, except on processors of AMD, where a text was then scored at .8 of
  the rate (50 rows). Other sizes became slower. One row is not rounded, which
  is faster.
  """
  B = a_BD.shape[0]
  if platform() != "cpu" or (B > 1 and dtype is not None):
    return None
  padding = -B % 16 if 32 < B <= 64 and not _is_amd() else 0
  few = B == 1 or ((B + padding) % 16 == 0 and B <= 64)
  if few and min(b_DK.shape) >= 512:
    a_BD = jnp.pad(a_BD, ((0, padding), (0, 0)))
    # Without the barriers XLA would turn it back into a @ b.
    b_KD = lax.optimization_barrier(b_DK.T)
    return lax.optimization_barrier(b_KD @ a_BD.T).T[:B]
  return a_BD @ b_DK if B == 1 else None


@cache
def _is_amd() -> bool:
  """Whether /proc/cpuinfo names a processor of AMD."""
  try:
    return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
  except OSError:
    return False


def add_bias_row(
  x_NK: jax.Array,
  kernel_KV: jax.Array,
  bias_V: jax.Array,
  dtype: Rounding = None,
) -> tuple[jax.Array, jax.Array] | None:
  """Two factors whose product is x @ kernel + bias; None: add the bias.

  To add the bias and to sum its gradient takes two passes over [N, V]. With
  many rows, a bias row in the kernel, multiplied by 1, takes less time.
  """
  if dtype is not None or platform() != "cpu" or len(x_NK) < BIAS_ROW:
    return None
  # Eight columns: products take longer if the width is no multiple of 8.
  ones_N8 = jnp.ones((len(x_NK), 8), x_NK.dtype)
  bias_8V = jnp.pad(bias_V[None], [(0, 7), (0, 0)])
  return (
    jnp.concatenate([x_NK, ones_N8], axis=1),
    jnp.concatenate([kernel_KV, bias_8V]),
  )


def sum_positions(d: jax.Array) -> jax.Array:
  """The sum of d_NK or d_TBK over all positions, [K].

  On a CPU a product with ones reads d faster than a sum does, and on all cores.
  It has eight rows, because XLA would turn one row back into a sum.
  """
  if platform() != "cpu":
    return jnp.sum(d, axis=tuple(range(d.ndim - 1)))
  d_DNK = merge_positions(d) if d.ndim == 3 else d[None]
  ones_DN8 = jnp.ones((*d_DNK.shape[:2], 8), d.dtype)
  if len(d_DNK) > 1:
    return jnp.sum(ones_DN8.swapaxes(1, 2) @ d_DNK, axis=0)[0]
  return (ones_DN8[0].T @ d_DNK[0])[0]
