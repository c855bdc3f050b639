"""Dropout, and where it keeps: as few random bits as the share needs.

Random bits are the larger part of what dropout costs on a CPU. JAX and flax
draw 32 for every number; here one draw of 32 serves four numbers, or two.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


def kept(
  key: jax.Array, share: float, shape: Sequence[int], swap: bool = False
) -> jax.Array:
  """True with probability `share`, each for itself, in an array of that shape.

  Args:
    key: of jax.random.
    share: between 0 and 1. A multiple of 1/256 is met exactly, others are
      rounded to 1/65536.
    shape: of at least one axis.
    swap: give the same with the first two axes in turn.
  """
  bits, dtype = (8, jnp.uint8) if share * 256 % 1 == 0 else (16, jnp.uint16)
  at_once = 32 // bits
  *front, last = shape
  words = jax.random.bits(key, (*front, -(-last // at_once)), jnp.uint32)
  if swap:  # The draw is a quarter, or half, of what is made of it.
    words, front = words.swapaxes(0, 1), [front[1], front[0]]
  numbers = lax.bitcast_convert_type(words, dtype).reshape(*front, -1)
  most = min(round(share * 2**bits), 2**bits - 1)  # It must fit the type.
  return numbers[..., :last] < jnp.asarray(most, dtype)


class Dropout(nn.Module):
  """Sets numbers to zero and divides the others by the share that stays.

  Attributes:
    rate: share that is set to zero, from 0 to below 1 (Srivastava et al. 2014).
    broadcast_dims: axes along which all numbers share one fate.
  """

  rate: float
  broadcast_dims: Sequence[int] = ()

  def __call__(
    self, x: jax.Array, *, deterministic: bool, rng: jax.Array | None = None
  ) -> jax.Array:
    """What is left of x.

    Args:
      x: of any shape.
      deterministic: leave it as it is.
      rng: of jax.random; None: from "dropout".
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
      return jnp.where(kept(key, share, shape), x / share, 0)
    # What layers give, [B, T, H], has T first in memory. A draw in that order
    # would make rows depend on how many there are.
    kept_TBH = kept(key, share, shape, swap=True)
    return jnp.where(kept_TBH, x.swapaxes(0, 1) / share, 0).swapaxes(0, 1)
