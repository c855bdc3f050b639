"""Dropout, whose random bits serve several numbers each."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


def keep_mask(
  key: jax.Array, share: float, shape: Sequence[int], swap: bool = False
) -> jax.Array:
  """Independent draws, each True with probability `share`.

  Most of the time that dropout takes on a CPU goes into random bits. JAX and
  Flax draw 32 bits for each number; here 32 bits serve four numbers, or two.

  Args:
    key: of jax.random.
    share: from 0 to 1. A multiple of 1/256 is exact; others are rounded to a
      multiple of 1/65536.
    shape: of the result, before a swap; at least one axis.
    swap: swap the first two axes of the result.
  """
  bits, dtype = (8, jnp.uint8) if share * 256 % 1 == 0 else (16, jnp.uint16)
  per_word = 32 // bits
  *front, last = shape
  words = jax.random.bits(key, (*front, -(-last // per_word)), jnp.uint32)
  if swap:  # Here, where the array is a quarter or half of its later size.
    words, front = words.swapaxes(0, 1), [front[1], front[0]]
  numbers = lax.bitcast_convert_type(words, dtype).reshape(*front, -1)
  most = min(round(share * 2**bits), 2**bits - 1)  # It must fit the type.
  return numbers[..., :last] < jnp.asarray(most, dtype)


class Dropout(nn.Module):
  """Sets numbers to zero and divides the rest by 1 - rate.

  Attributes:
    rate: the share that is set to zero, from 0 to below 1 (Srivastava et al.
      2014).
    broadcast_dims: axes along which all numbers share one draw.
  """

  rate: float
  broadcast_dims: Sequence[int] = ()

  def __call__(
    self, x: jax.Array, *, deterministic: bool, rng: jax.Array | None = None
  ) -> jax.Array:
    """Applies dropout to x.

    Args:
      x: of any shape.
      deterministic: return x as it is.
      rng: of jax.random; None: the module's "dropout".
    """
    if deterministic or not self.rate:
      return x
    key = self.make_rng("dropout") if rng is None else rng
    shape = [
      1 if axis in self.broadcast_dims else size
      for axis, size in enumerate(x.shape)
    ]
    share = 1 - self.rate
    if x.ndim != 3:
      return jnp.where(keep_mask(key, share, shape), x / share, 0)
    # The outputs of layers, [B, T, H], have T first in memory. A draw in that
    # order would make each row depend on the number of rows.
    keep_TBH = keep_mask(key, share, shape, swap=True)
    return jnp.where(keep_TBH, x.swapaxes(0, 1) / share, 0).swapaxes(0, 1)
