"""Cells whose step is linear in the carry: no scan over time is needed."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from seqrnn.models.arrays import before, held
from seqrnn.models.cell import Cell, hold, register
from seqrnn.models.products import align
from seqrnn.runtime.sharding import platform

Pair = tuple[jax.Array, jax.Array]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear(
  a_TBH: jax.Array, b_TBH: jax.Array, h_BH: jax.Array, reverse: bool
) -> jax.Array:
  """h_TBH of the steps h' = a * h + b; see `parallel`."""
  if platform() == "cpu":
    # Rounds over all steps take five to ten times longer.
    step = lambda h_BH, terms: (terms[0] * h_BH + terms[1],) * 2
    return lax.scan(step, h_BH, (a_TBH, b_TBH), reverse=reverse)[1]

  def join(first, second):
    (a, b), (then_a, then_b) = first, second
    return then_a * a, then_a * b + then_b

  terms = lax.associative_scan(join, (a_TBH, b_TBH), reverse=reverse)
  return terms[0] * h_BH[None] + terms[1]


def _linear_forward(a_TBH, b_TBH, h_BH, reverse):
  h_TBH = linear(a_TBH, b_TBH, h_BH, reverse)
  return h_TBH, (a_TBH, h_BH, h_TBH)


def _linear_backward(reverse, saved, dh_TBH):
  # The gradient of h is such a recurrence, too, in the other direction.
  a_TBH, h_BH, h_TBH = saved
  zeros_BH = jnp.zeros_like(h_BH)
  then_TBH = before(zeros_BH, a_TBH, not reverse)
  db_TBH: Any = linear(then_TBH, dh_TBH, zeros_BH, not reverse)
  first = -1 if reverse else 0
  da_TBH = db_TBH * before(h_BH, h_TBH, reverse)
  return da_TBH, db_TBH, a_TBH[first] * db_TBH[first]


linear.defvjp(_linear_forward, _linear_backward)


def parallel(terms: Pair, h_BH: jax.Array, take: Any, *, reverse: bool) -> Pair:
  """The last h and h_TBH of the steps h' = a * h + b.

  On a CPU, a loop has one multiplication and one addition a step; elsewhere,
  log2(T) rounds compute all steps.

  Args:
    terms: a_TBH, which is at most 1, and b_TBH; both may be complex.
    h_BH: the state before the first step.
    take: as in `hold`, T before B.
    reverse: from the last step to the first.
  """
  a_TBH = hold(take, terms[0], jnp.ones_like(terms[0]))
  b_TBH = hold(take, terms[1], jnp.zeros_like(terms[1]))
  h_TBH: Any = linear(a_TBH, b_TBH, h_BH, reverse)
  return h_TBH[0 if reverse else -1], h_TBH


class Linear(Cell):
  """A cell whose step is h' = a * h + b, where a and b depend on x alone.

  Two such steps together have the same form, so `parallel` can compute T
  steps in log2(T) rounds.
  """

  recurrent_product = False
  recurrent_bias = None
  path = "parallel"

  def terms(self, z: jax.Array) -> Pair:
    """The factors a and the terms b, from z_BK or z_TBK."""
    raise NotImplementedError

  def __call__(self, carry, z_BK, mask_BH=None):
    del mask_BH  # There is no recurrent product.
    a_BH, b_BH = self.terms(z_BK)
    return a_BH * carry + b_BH

  def parallel(self, carry, z_TBK, take, *, reverse):
    """The last carry and h_TBH; `take` is as in `hold`, T before B."""
    return parallel(self.terms(z_TBK), carry, take, reverse=reverse)


class Minimal(Linear):
  """A cell whose factor of h is a share, and whose input has the other.

  A factor of h that is not negative cannot count modulo 2 (Grazzi et al. 2025).
  A signed share s of h is 2 s - 1, in (-1, 1).

  Attributes:
    signed: the factor of h is in (-1, 1).
    tied: the factors of h and of the input are shares of one.
  """

  signed: bool = False
  tied: bool = True

  def shares(self, gate: jax.Array) -> Pair:
    """sigma(gate), in (-1, 1) if it is signed, and 1 - sigma(gate)."""
    factor = jnp.tanh(gate / 2) if self.signed else jax.nn.sigmoid(gate)
    return factor, jax.nn.sigmoid(-gate)


@register("min_lstm")
@register("min_lstm_signed", signed=True)
@register("min_lstm_untied", signed=True, tied=False)
class MinLSTM(Minimal):
  r"""minLSTM (Feng et al. 2024), whose gates depend on the input alone.

  .. math::
    f &= \sigma(x W_f + b_f) \\
    i &= \sigma(x W_i + b_i) \\
    h' &= (f \odot h + i \odot (x W_g + b_g)) / (f + i)

  The shares f / (f + i) and i / (f + i) are computed from log f and log i, so
  that they are exact where f and i underflow. The shares and their products are
  at most 1, so the scan needs no logarithms. The authors' scan of logarithms
  requires a positive candidate, this one does not.

  Signed (Grazzi et al. 2025), a share s of h is 2 s - 1. Where the input is
  untied from it, h' = (2 f - 1) * h + i * (x W_g + b_g).
  """

  gate_count = 3
  forget_place = 0
  formula = "3(HD + H)"

  def terms(self, z):
    f, i, g = jnp.split(z, 3, axis=-1)
    if not self.tied:
      return self.shares(f)[0], jax.nn.sigmoid(i) * g
    odds = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)  # log(f / i)
    forget, write = self.shares(odds)
    return forget, write * g


@register("min_gru")
@register("min_gru_signed", signed=True)
@register("min_gru_untied", signed=True, tied=False)
class MinGRU(Minimal):
  r"""minGRU (Feng et al. 2024), whose gate depends on the input alone.

  .. math::
    z &= \sigma(x W_z + b_z) \\
    h' &= (1 - z) \odot h + z \odot (x W_n + b_n)

  Signed, the factor of h is 1 - 2 z. Where the input is untied from the gate,
  h' = (1 - 2 z) * h + x W_n + b_n.
  """

  gate_count = 2
  formula = "2(HD + H)"

  def terms(self, z):
    z, n = jnp.split(z, 2, axis=-1)
    keep, write = self.shares(-z)
    return keep, write * n if self.tied else n


@register("rg_lru")
class RGLRU(Linear):
  r"""Real-gated linear recurrent unit, of Griffin (De et al. 2024).

  .. math::
    r &= \sigma(x W_r + b_r) \\
    i &= \sigma(x W_i + b_i) \\
    a &= \exp(-8 \, \mathrm{softplus}(\Lambda) \odot r) \\
    h' &= a \odot h + \sqrt{1 - a^2} \odot i \odot (x W_g + b_g)

  In Griffin, W_g is a layer before the unit, with a convolution, and the gates
  read its output. Lambda starts such that a is uniform between 0.9 and 0.999
  where r is 1; it is the parameter ``decay``.
  """

  gate_count = 3
  formula = "3(HD + H) + H"

  def setup_gates(self, init):
    del init

    def decays(key, shape, dtype=jnp.float32):
      a_H = jax.random.uniform(key, shape, dtype, 0.9, 0.999)
      return jnp.log(jnp.expm1(-jnp.log(a_H) / 8))

    self.decay = self.param("decay", decays, (self.hidden_size,))

  def terms(self, z):
    r, i, g = jnp.split(z, 3, axis=-1)
    rate_H = align(8 * jax.nn.softplus(self.decay), z)
    log_a = -rate_H * jax.nn.sigmoid(r)
    # Where r underflows, the slope of the root is infinite.
    left = jnp.maximum(-jnp.expm1(2 * log_a), jnp.finfo(z.dtype).tiny)
    return jnp.exp(log_a), jnp.sqrt(left) * jax.nn.sigmoid(i) * g


@register("lru")
class LRU(Linear):
  r"""Linear recurrent unit (Orvieto et al. 2023), with a complex state s.

  .. math::
    \lambda &= \exp(-\exp(\nu) + \mathrm{i} \exp(\theta)) \\
    s' &= \lambda \odot s
      + \exp(\gamma) \odot (x B_1 + \mathrm{i} \, x B_2 + b_s) \\
    h' &= s'_1 C_1 - s'_2 C_2 + x D + b_h

  The real part has the index 1, the imaginary one 2. The factors lambda start
  uniformly in the unit disc, and gamma at the logarithm of
  :math:`\sqrt{1 - |\lambda|^2}`. The biases are not in the paper, and its D is
  diagonal. The carry is (s_1, s_2, h), so it has no complex numbers. The cell
  has no activation: with `model.block=residual` it is the paper's layer.
  """

  gate_count = 3
  formula = "3(HD + H) + 2H² + 3H"

  def setup_gates(self, init):
    H = self.hidden_size

    def nu(key, shape, dtype=jnp.float32):
      square_H = jax.random.uniform(key, shape, dtype, 1e-6, 1 - 1e-6)
      return jnp.log(-jnp.log(square_H) / 2)

    def theta(key, shape, dtype=jnp.float32):
      most = 2 * jnp.pi
      return jnp.log(jax.random.uniform(key, shape, dtype, most / 1e6, most))

    def gamma(_key, _shape):
      return jnp.log(-jnp.expm1(-2 * jnp.exp(self.nu))) / 2

    self.nu = self.param("nu", nu, (H,))
    self.theta = self.param("theta", theta, (H,))
    self.gamma = self.param("gamma", gamma, (H,))
    self.output_kernel = self.param("output_kernel", init, (2 * H, H))

  def terms(self, z):
    real, imaginary, _ = jnp.split(z, 3, axis=-1)
    factor_H = jnp.exp(-jnp.exp(self.nu) + 1j * jnp.exp(self.theta))
    scale = align(jnp.exp(self.gamma), z)
    terms = jax.lax.complex(scale * real, scale * imaginary)
    return jnp.broadcast_to(align(factor_H, z), terms.shape), terms

  def output(self, state, z):
    """h, of the state after a step, or after all, and what the step reads."""
    parts = jnp.concatenate([state.real, -state.imag], axis=-1)
    product = self.products.product(parts, self.output_kernel)
    return product + jnp.split(z, 3, axis=-1)[2]

  def __call__(self, carry, z_BK, mask_BH=None):
    state_BH = super().__call__(jax.lax.complex(*carry[:2]), z_BK, mask_BH)
    return state_BH.real, state_BH.imag, self.output(state_BH, z_BK)

  def parallel(self, carry, z_TBK, take, *, reverse):
    *state, h_BH = carry
    state = jax.lax.complex(*state)
    last, states = super().parallel(state, z_TBK, take, reverse=reverse)
    h_TBH = self.output(states, z_TBK)
    h_BH, h_TBH = held(take, h_TBH, h_BH, reverse=reverse)
    return (last.real, last.imag, h_BH), h_TBH

  def initial_carry(self, batch_size):
    return (super().initial_carry(batch_size),) * 3

  def hidden(self, carry):
    return carry[2]
