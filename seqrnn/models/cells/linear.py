"""Cells whose step is linear in the carry: no scan over time is needed."""

import jax
import jax.numpy as jnp

from seqrnn.models import scan
from seqrnn.models.cell import Cell, register


class Linear(Cell):
  """A cell whose step is h' = a * h + b, where a and b depend on x alone.

  Two such steps together have the same form, so `scan.parallel` can compute T
  steps in log2(T) rounds.
  """

  recurrent_product = False
  recurrent_bias = None
  path = "parallel"

  def terms(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The factors a and the terms b, from z_BK or z_TBK."""
    raise NotImplementedError

  def __call__(self, carry, z_BK, mask_BH=None):
    del mask_BH  # There is no recurrent product.
    a_BH, b_BH = self.terms(z_BK)
    return a_BH * carry + b_BH

  def parallel(self, carry, z_TBK, take, *, reverse):
    """The last carry and h_TBH; `take` is as in `scan.hold`, T before B."""
    return scan.parallel(self.terms(z_TBK), carry, take, reverse=reverse)


@register("min_lstm")
class MinLSTM(Linear):
  r"""minLSTM (Feng et al. 2024), whose gates depend on the input alone.

  .. math::
    f &= \sigma(x W_f + b_f) \\
    i &= \sigma(x W_i + b_i) \\
    h' &= (f \odot h + i \odot (x W_g + b_g)) / (f + i)

  The shares f / (f + i) and i / (f + i) are computed from log f and log i, so
  that they are exact where f and i underflow. The shares and their products are
  at most 1, so the scan needs no logarithms. The authors' scan of logarithms
  requires a positive candidate, this one does not.
  """

  gate_count = 3
  forget_place = 0
  formula = "3(HD + H)"

  def terms(self, z):
    f, i, g = jnp.split(z, 3, axis=-1)
    odds = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)  # log(f / i)
    return jax.nn.sigmoid(odds), jax.nn.sigmoid(-odds) * g


@register("min_gru")
class MinGRU(Linear):
  r"""minGRU (Feng et al. 2024), whose gate depends on the input alone.

  .. math::
    z &= \sigma(x W_z + b_z) \\
    h' &= (1 - z) \odot h + z \odot (x W_n + b_n)
  """

  gate_count = 2
  formula = "2(HD + H)"

  def terms(self, z):
    z, n = jnp.split(z, 2, axis=-1)
    return jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * n
