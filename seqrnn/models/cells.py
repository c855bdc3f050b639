"""The cells that `model.cell` names."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqrnn.config.read import Config
from seqrnn.models.arrays import align, platform
from seqrnn.models.cell import (
  CELLS,
  SIGMOID,
  TANH,
  Cell,
  activate,
  masked_state,
  register,
  save,
)


def make(model: Config, **shape: Any) -> Cell:
  """The cell that `config.model` names, not bound to parameters."""
  return CELLS[model.cell](forget_bias=model.forget_bias, **shape)


@jax.custom_jvp
def normalize(x: jax.Array) -> jax.Array:
  """Shifts and scales the last axis to mean 0 and variance 1."""
  return _normalized(x)[0]


def _normalized(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The result of `normalize`, and the factor that scales."""
  x = x - _mean(x)
  scale = jax.lax.rsqrt(_mean(x * x) + 1e-5)
  return save(x * scale), save(scale)


def _mean(x: jax.Array) -> jax.Array:
  """The mean over the last axis, which stays."""
  total = jnp.sum(x, axis=-1, keepdims=True)
  if platform() == "tpu":  # An operation on [B, 1] takes as long as on [B, H].
    total = jnp.broadcast_to(total, x.shape)
  return total / x.shape[-1]


@normalize.defjvp
def _normalize_jvp(primals, tangents):
  # JAX's own would need the sums over x once more in the backward pass.
  (y, scale), (dx,) = _normalized(*primals), tangents
  return y, scale * (dx - _mean(dx) - y * _mean(y * dx))


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
  sigmoid_gates = "input", "forget", None, "output"
  formula = "4(HD + H² + H)"

  def gates(self, carry, z_BK, u_BK):
    c, _ = carry
    i, f, g, o = activate((SIGMOID, SIGMOID, TANH, SIGMOID), z_BK + u_BK)
    c = f * c + i * g
    return c, o * jnp.tanh(c)

  def initial_carry(self, batch_size):
    return (super().initial_carry(batch_size),) * 2

  def hidden(self, carry):
    return carry[1]


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
  sigmoid_gates = "reset", "update", None
  formula = "3(HD + H² + H) + H"
  additive = False
  recurrent_bias = "reset_bias"

  def setup_gates(self, init):
    self.reset_bias = self.param("reset_bias", init, (self.hidden_size,))

  def gates(self, carry, z_BK, u_BK):
    H = self.hidden_size
    rz_z, n_z = jnp.split(z_BK, [2 * H], axis=-1)
    rz_u, n_u = jnp.split(u_BK, [2 * H], axis=-1)
    r, z = activate((SIGMOID, SIGMOID), rz_z + rz_u)
    [n] = activate((TANH,), n_z + r * save(n_u))
    return (1 - z) * n + z * carry


@register("rnn_tanh")
@register("rnn_relu", activation=jax.nn.relu)
class RNN(Cell):
  r"""The simple recurrent network (Elman 1990).

  .. math:: h' = \phi(x W + h R + b)
  """

  activation: Callable[[jax.Array], jax.Array] = jnp.tanh

  def gates(self, carry, z_BK, u_BK):
    del carry
    return save(self.activation(z_BK + u_BK))


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

  sigmoid_gates = ()
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
    return super().shift(align(self.input_gain, x) * normalize(x))

  def gates(self, carry, z_BK, u_BK):
    c, _ = carry
    a_BK = z_BK + self.recurrent_gain[None] * normalize(u_BK)
    i, f, g, o = activate((SIGMOID, SIGMOID, TANH, SIGMOID), a_BK)
    c = f * c + i * g
    n = self.cell_gain[None] * normalize(c) + self.cell_bias[None]
    return c, o * jnp.tanh(n)


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
  keeps both in range and cancels in h'. There is one head, so R is not
  block-diagonal, and no block around the cell. The carry is (c, h, n, m). m
  starts so low that f is 0 in the first step, so n is at least 1 afterwards.
  """

  sigmoid_gates = ()

  def gates(self, carry, z_BK, u_BK):
    c, _, n, m = carry
    log_i, f, g, o = jnp.split(z_BK + u_BK, 4, axis=-1)
    log_f = jax.nn.log_sigmoid(f) + m
    m = jnp.maximum(log_f, log_i)
    i, f = save(jnp.exp(log_i - m)), save(jnp.exp(log_f - m))
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
  sigmoid_gates = "reset", "update", None
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
  sigmoid_gates = "forget", None
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


class Linear(Cell):
  """A cell whose step is h' = a * h + b, where a and b depend on x alone.

  Two such steps together have the same form, so `scan.parallel` computes T
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


@register("odyssey")
@register("odyssey_nig", input_gate=False)
@register("odyssey_nfg", forget_gate=False)
@register("odyssey_nog", output_gate=False)
@register("odyssey_niaf", input_activation=False)
@register("odyssey_noaf", output_activation=False)
@register("odyssey_cifg", coupled=True)
@register("odyssey_np", peepholes=False)
@register("odyssey_fgr", gate_recurrence=True)
class Odyssey(Cell):
  r"""The LSTM of "LSTM: A Search Space Odyssey" (Greff et al. 2015).

  .. math::
    i &= \sigma(x W_i + h R_i + p_i \odot c + b_i) \\
    f &= \sigma(x W_f + h R_f + p_f \odot c + b_f) \\
    g &= \tanh(x W_g + h R_g + b_g) \\
    c' &= f \odot c + i \odot g \\
    o &= \sigma(x W_o + h R_o + p_o \odot c' + b_o) \\
    h' &= o \odot \tanh(c')

  The carry is (c, h). The bias of f starts at `forget_bias`. Where f is 1 - i,
  the bias of i starts at the negative of it, which gives the same f.

  With full gate recurrence, the inputs of i, f and o include a product: these
  three gates of the step before, side by side, times a matrix [3H, 3H]. The
  carry is then (c, h, i, f, o). A step has two products: the path is several.

  Attributes:
    input_gate: False: i = 1 (NIG).
    forget_gate: False: f = 1 (NFG).
    output_gate: False: o = 1 (NOG).
    input_activation: False: no tanh in g (NIAF).
    output_activation: False: no tanh of c' (NOAF).
    coupled: f = 1 - i, without parameters of f (CIFG).
    peepholes: False: all p = 0 (NP), which equals `cells.LSTM`.
    gate_recurrence: full gate recurrence (FGR), of all three gates.
  """

  input_gate: bool = True
  forget_gate: bool = True
  output_gate: bool = True
  input_activation: bool = True
  output_activation: bool = True
  coupled: bool = False
  peepholes: bool = True
  gate_recurrence: bool = False

  @property
  def names(self) -> str:
    """The names of g and of the gates that have parameters, in their order."""
    absent = {
      "i": not self.input_gate,
      "f": not self.forget_gate or self.coupled,
      "o": not self.output_gate,
    }
    return "".join(name for name in "ifgo" if not absent.get(name))

  @property
  def gate_count(self):
    return len(self.names)

  @property
  def sigmoid_gates(self):
    if self.peepholes or self.gate_recurrence:
      return ()
    names = {"i": "input", "f": "forget", "o": "output"}
    return tuple(names.get(name) for name in self.names)

  @property
  def formula(self):
    peepholes = f" + {self.gate_count - 1}H" if self.peepholes else ""
    recurrence = " + 9H²" if self.gate_recurrence else ""
    return f"{self.gate_count}(HD + H² + H){peepholes}{recurrence}"

  @property
  def path(self):
    return "several" if self.gate_recurrence else "fused"

  @property
  def forget_place(self):
    """The place of f, or of i where f is 1 - i; None: f is 1."""
    place = self.names.find("i" if self.coupled else "f")
    return None if place < 0 else place

  def initial_bias(self, init, sign=1.0):
    return super().initial_bias(init, -sign if self.coupled else sign)

  def setup_gates(self, init):
    H = self.hidden_size
    if self.peepholes:
      self.peephole = {
        name: self.param(f"peephole_{name}", init, (H,))
        for name in self.names.replace("g", "")
      }
    if self.gate_recurrence:
      self.gate_kernel = self.param("gate_kernel", init, (3 * H, 3 * H))

  def __call__(self, carry, z_BK, mask_BH=None):
    if self.gate_recurrence:
      ifo_B3H = jnp.concatenate(carry[2:], axis=-1)
      u_B3H = self.products.step(ifo_B3H, self.gate_kernel)
      i, f, o = jnp.split(u_B3H, 3, axis=-1)
      z_BK += jnp.concatenate([i, f, jnp.zeros_like(i), o], axis=-1)
    return super().__call__(carry, z_BK, mask_BH)

  def gates(self, carry, z_BK, u_BK):
    c = carry[0]
    parts = jnp.split(z_BK + u_BK, self.gate_count, axis=-1)
    a = dict(zip(self.names, parts, strict=True))

    def gate(name, c):
      if name not in a:
        return 1.0
      a_BH = a[name]
      if self.peepholes:
        a_BH += self.peephole[name][None] * c
      return activate((SIGMOID,), a_BH)[0]

    i = gate("i", c)
    f = 1 - i if self.coupled else gate("f", c)
    g = activate((TANH,), a["g"])[0] if self.input_activation else save(a["g"])
    c = f * c + i * g
    o = gate("o", c)
    h = o * (jnp.tanh(c) if self.output_activation else c)
    return (c, h, i, f, o) if self.gate_recurrence else (c, h)

  def initial_carry(self, batch_size):
    count = 5 if self.gate_recurrence else 2
    return (super().initial_carry(batch_size),) * count

  def hidden(self, carry):
    return carry[1]
