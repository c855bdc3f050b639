"""The LSTM, the GRU, the simple network and their relatives."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqrnn.models.cell import (
  SIGMOID,
  TANH,
  Cell,
  activate,
  masked_state,
  recall,
  register,
)
from seqrnn.models.products import align
from seqrnn.runtime.sharding import platform


class Normal(NamedTuple):
  """The result of `normalize`, and the factor that scales."""

  y: jax.Array
  scale: jax.Array


@jax.custom_jvp
def normalize(x: jax.Array, kept: Normal | None = None) -> Normal:
  """Shifts and scales the last axis to mean 0 and variance 1.

  Args:
    x: of any shape.
    kept: the result, if a forward pass has kept it; it is not computed.
  """
  if kept is not None:
    return kept
  x = x - _mean(x)
  scale = jax.lax.rsqrt(_mean(x * x) + 1e-5)
  return Normal(x * scale, scale)


def _mean(x: jax.Array) -> jax.Array:
  """The mean over the last axis, which stays."""
  total = jnp.sum(x, axis=-1, keepdims=True)
  if platform() == "tpu":  # An operation on [B, 1] takes as long as on [B, H].
    total = jnp.broadcast_to(total, x.shape)
  return total / x.shape[-1]


@normalize.defjvp
def _normalize_jvp(primals, tangents):
  # JAX's own would need the sums over x once more in the backward pass.
  kept, dx = normalize(*primals), tangents[0]
  y, scale = kept
  dy = scale * (dx - _mean(dx) - y * _mean(y * dx))
  return kept, Normal(dy, -scale * scale * _mean(y * dx))


class LSTMKept(NamedTuple):
  """The activations of the gates."""

  i: jax.Array
  f: jax.Array
  g: jax.Array
  o: jax.Array


@register("lstm")
class LSTM(Cell):
  r"""Long short-term memory with a forget gate (Gers et al. 2000).

  .. math::
    i &= \sigma(x W_i + h R_i + b_i) \\
    f &= \sigma(x W_f + h R_f + b_f) \\
    g &= \tanh(x W_g + h R_g + b_g) \\
    o &= \sigma(x W_o + h R_o + b_o) \\
    c' &= f \odot c + i \odot g \\
    h' &= o \odot \tanh(c')

  The carry is (c, h). The bias of f starts at `forget_bias`, so that a new
  network remembers (Jozefowicz et al. 2015).
  """

  gate_count = 4
  forget_place = 1
  formula = "4(HD + H² + H)"

  def activations(self, carry, z_BK, u_BK, kept=None):
    del carry
    kinds = SIGMOID, SIGMOID, TANH, SIGMOID
    return LSTMKept(*activate(kinds, z_BK + u_BK, kept))

  def update(self, carry, kept):
    c, _ = carry
    i, f, g, o = kept
    c = f * c + i * g
    return c, o * jnp.tanh(c)

  def initial_carry(self, batch_size):
    return (super().initial_carry(batch_size),) * 2

  def hidden(self, carry):
    return carry[1]


class GRUKept(NamedTuple):
  """The gates r and z, the candidate n, and h R_n + b'_n."""

  r: jax.Array
  z: jax.Array
  n: jax.Array
  product: jax.Array


@register("gru")
class GRU(Cell):
  r"""Gated recurrent unit (Cho et al. 2014), reset after the product.

  .. math::
    r &= \sigma(x W_r + h R_r + b_r) \\
    z &= \sigma(x W_z + h R_z + b_z) \\
    n &= \tanh(x W_n + b_n + r \odot (h R_n + b'_n)) \\
    h' &= (1 - z) \odot n + z \odot h

  This is the form of cuDNN and PyTorch, with one recurrent product a step.
  """

  gate_count = 3
  formula = "3(HD + H² + H) + H"
  additive = False
  recurrent_bias = "reset_bias"

  def setup_gates(self, init):
    self.reset_bias = self.param("reset_bias", init, (self.hidden_size,))

  def activations(self, carry, z_BK, u_BK, kept=None):
    del carry
    H = self.hidden_size
    rz_z, n_z = jnp.split(z_BK, [2 * H], axis=-1)
    rz_u, n_u = jnp.split(u_BK, [2 * H], axis=-1)
    n_u = n_u if kept is None else recall(n_u, kept.product)
    r, z = activate((SIGMOID, SIGMOID), rz_z + rz_u, kept and kept[:2])
    [n] = activate((TANH,), n_z + r * n_u, kept and kept[2:3])
    return GRUKept(r, z, n, n_u)

  def update(self, carry, kept):
    return (1 - kept.z) * kept.n + kept.z * carry


@register("rnn_tanh")
@register("rnn_relu", activation=jax.nn.relu)
class RNN(Cell):
  r"""The simple recurrent network (Elman 1990).

  .. math:: h' = \phi(x W + h R + b)
  """

  activation: Callable[[jax.Array], jax.Array] = jnp.tanh

  def gates(self, carry, z_BK, u_BK):
    del carry
    return self.activation(z_BK + u_BK)


class LayerNormKept(NamedTuple):
  """The gates, N(h R) and N(c')."""

  gates: LSTMKept
  product: Normal
  cell: Normal


@register("layer_norm_lstm")
class LayerNormLSTM(LSTM):
  r"""The LSTM with layer normalisation (Ba et al. 2016).

  .. math::
    (i, f, g, o) &= (\sigma, \sigma, \tanh, \sigma)
      (\alpha_x \odot N(x W) + \alpha_h \odot N(h R) + b) \\
    c' &= f \odot c + i \odot g \\
    h' &= o \odot \tanh(\alpha_c \odot N(c') + b_c)

  N shifts and scales to mean 0 and variance 1, over the 4H inputs of all gates
  or over the H units of c'; 1e-5 is added to the variance. The biases of the
  first two N are part of b.
  """

  formula = "4(HD + H² + H) + 10H"
  additive = False
  recurrent_bias = None

  def setup_gates(self, init):
    del init  # The gains start at 1.
    H, ones = self.hidden_size, nn.initializers.ones
    self.input_gain = self.param("input_gain", ones, (4 * H,))
    self.recurrent_gain = self.param("recurrent_gain", ones, (4 * H,))
    self.cell_gain = self.param("cell_gain", ones, (H,))
    self.cell_bias = self.param("cell_bias", nn.initializers.zeros, (H,))

  def shift(self, x):
    return super().shift(align(self.input_gain, x) * normalize(x).y)

  def activations(self, carry, z_BK, u_BK, kept=None):
    product = normalize(u_BK, kept and kept.product)
    a_BK = z_BK + self.recurrent_gain[None] * product.y
    zeros_BK = jnp.zeros_like(a_BK)
    gates = super().activations(carry, a_BK, zeros_BK, kept and kept.gates)
    cell = normalize(super().update(carry, gates)[0], kept and kept.cell)
    return LayerNormKept(gates, product, cell)

  def update(self, carry, kept):
    c, _ = super().update(carry, kept.gates)
    n = self.cell_gain[None] * kept.cell.y + self.cell_bias[None]
    return c, kept.gates.o * jnp.tanh(n)


@register("slstm")
class SLSTM(LSTM):
  r"""sLSTM, the scalar memory of xLSTM (Beck et al. 2024), stabilised.

  .. math::
    (\tilde i, \tilde f, \tilde g, \tilde o) &= x W + h R + b \\
    m' &= \max(\log\sigma(\tilde f) + m, \tilde i) \\
    i &= \exp(\tilde i - m') \\
    f &= \exp(\log\sigma(\tilde f) + m - m') \\
    c' &= f \odot c + i \odot \tanh(\tilde g) \\
    n' &= f \odot n + i \\
    h' &= \sigma(\tilde o) \odot c' / n'

  The activation of the input gate is exp, that of the forget gate sigma; m
  keeps both in range and cancels in h'. With N `heads`, R is block-diagonal: a
  unit reads h of the H / N units of its head alone. The recurrent kernel has
  the blocks below each other, [H, 4H / N]. There is no block around the cell.
  The carry is (c, h, n, m). m starts so low that f is 0 in the first step, so n
  is at least 1 afterwards.
  """

  may_have_heads = True

  @property
  def formula(self):
    return f"4(HD + H²{f' / {self.heads}' * (self.heads > 1)} + H)"

  @property
  def path(self):  # The fused scan has one product.
    return "fused" if self.heads == 1 else "several"

  def recurrent(self, h_BH):
    if self.heads == 1:
      return super().recurrent(h_BH)
    h_NBd = jnp.split(h_BH, self.heads, axis=-1)
    blocks = jnp.split(self.recurrent_kernel, self.heads)
    u_NB4d = map(self.products.step, h_NBd, blocks)
    u_NB4d = [u.reshape(len(h_BH), 4, -1) for u in u_NB4d]
    u_BK = jnp.stack(u_NB4d, axis=2).reshape(len(h_BH), -1)
    return u_BK + self.bias[None]

  def gates(self, carry, z_BK, u_BK):
    c, _, n, m = carry
    log_i, f, g, o = jnp.split(z_BK + u_BK, 4, axis=-1)
    log_f = jax.nn.log_sigmoid(f) + m
    m = jnp.maximum(log_f, log_i)
    i, f = jnp.exp(log_i - m), jnp.exp(log_f - m)
    [g], [o] = activate((TANH,), g), activate((SIGMOID,), o)
    c, n = f * c + i * g, f * n + i
    return c, o * c / n, n, m

  def initial_carry(self, batch_size):
    c, h = super().initial_carry(batch_size)
    return c, h, c, jnp.full_like(c, -1e30)


@register("gru_reset_before")
class ResetBeforeGRU(Cell):
  r"""Gated recurrent unit as first published (Cho et al. 2014).

  .. math::
    r &= \sigma(x W_r + h R_r + b_r) \\
    z &= \sigma(x W_z + h R_z + b_z) \\
    n &= \tanh(x W_n + (r \odot h) R_n + b_n) \\
    h' &= (1 - z) \odot n + z \odot h

  The reset gate comes before the product with R_n, so a step has two products,
  one after the other.
  """

  gate_count = 3
  formula = "3(HD + H² + H)"
  recurrent_bias = None
  path = "several"

  def __call__(self, carry, z_BK, mask_BH=None):
    H, h_BH = self.hidden_size, masked_state(carry, mask_BH)
    rz_BK, n_BH = jnp.split(z_BK, [2 * H], axis=-1)
    R_rz, R_n = jnp.split(self.recurrent_kernel, [2 * H], axis=-1)
    rz_BK += self.products.step(h_BH, R_rz)
    r, z = activate((SIGMOID, SIGMOID), rz_BK)
    n = jnp.tanh(n_BH + self.products.step(r * h_BH, R_n))
    return (1 - z) * n + z * carry


@register("mgu")
class MGU(Cell):
  r"""Minimal gated unit (Zhou et al. 2016): one gate to reset and to update.

  .. math::
    f &= \sigma(x W_f + h R_f + b_f) \\
    n &= \tanh(x W_n + (f \odot h) R_n + b_n) \\
    h' &= (1 - f) \odot h + f \odot n

  The authors call f the forget gate, but f is the share of the new state, so
  `forget_bias` does not apply. A step has two products, as in ResetBeforeGRU.
  """

  gate_count = 2
  formula = "2(HD + H² + H)"
  recurrent_bias = None
  path = "several"

  def __call__(self, carry, z_BK, mask_BH=None):
    h_BH = masked_state(carry, mask_BH)
    f_BH, n_BH = jnp.split(z_BK, 2, axis=-1)
    R_f, R_n = jnp.split(self.recurrent_kernel, 2, axis=-1)
    [f] = activate((SIGMOID,), f_BH + self.products.step(h_BH, R_f))
    n = jnp.tanh(n_BH + self.products.step(f * h_BH, R_n))
    return (1 - f) * carry + f * n
