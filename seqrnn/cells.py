"""One time step of every cell.

A cell has three parts. `inputs` is all that depends on the input alone: one
product for the whole sequence. `h @ recurrent_kernel` is the recurrent
product. `gates` is pointwise. `Cell.__call__`, one step, is made of the last
two; `layers.Recurrent` scans it over time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from seqrnn.experiment import Carry
from seqrnn.products import Lookup, dot, product, rows


def uniform(scale: float) -> Callable[..., jax.Array]:
  """Initial values from U(-scale, scale)."""

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -scale, scale)

  return init


KEPT = "kept"  # What `keep` marks.
# The parameters that `gates` has no part in.
OUTSIDE = ("input_kernel", "recurrent_kernel", "bias")
SIGMOID, TANH = 0.5, 1.0  # Kinds of `activate`: the scales in its equation.


def _activations(kinds: tuple[float, ...], a_BK: jax.Array) -> list[jax.Array]:
  """The activation of each gate, [B, H], in one operation for all of them.

  sigmoid(x) = (1 + tanh(x / 2)) / 2, so one tanh over [B, K] serves both. Of
  gates that are split before it, XLA computes each alone and some twice.

  Args:
    kinds: SIGMOID or TANH, for each gate.
    a_BK: the gates side by side.
  """
  shape = (1, a_BK.shape[-1] // len(kinds))
  scale_1K = jnp.concatenate(
    [jnp.full(shape, kind, a_BK.dtype) for kind in kinds], axis=-1
  )
  parts = jnp.split(jnp.tanh(scale_1K * a_BK), len(kinds), axis=-1)
  return [
    keep(kind * part_BH + (1 - kind))
    for kind, part_BH in zip(kinds, parts, strict=True)
  ]


def _activations_jvp(kinds, primals, tangents):
  # The slope of each gate by itself: that of the one tanh would be one more
  # array [B, K] in the backward pass.
  (a_BK,), (da_BK,) = primals, tangents
  y = _activations(kinds, a_BK)
  parts = jnp.split(da_BK, len(kinds), axis=-1)
  slopes = [
    y_BH * (1 - y_BH) if kind == SIGMOID else 1 - y_BH * y_BH
    for kind, y_BH in zip(kinds, y, strict=True)
  ]
  return y, [s * part for s, part in zip(slopes, parts, strict=True)]


activate = jax.custom_jvp(_activations, nondiff_argnums=(0,))
activate.defjvp(_activations_jvp)


def keep(x: jax.Array) -> jax.Array:
  """Marks what the backward pass keeps; it computes all else anew."""
  return checkpoint_name(x, KEPT)


class Cell(nn.Module):
  """What all cells share: the input product and the recurrent product.

  Attributes:
    hidden_size: H, units.
    vocabulary_size: V where the inputs are ids: each id is a row of the input
      kernel, which is the product with a one-hot vector. None: the inputs are
      features x_BTD.
    initial_scale: kernels and biases start from U(-a, a); None: 1/sqrt(H).
    products: type that the factors of matrix products are rounded to.
  """

  hidden_size: int
  vocabulary_size: int | None = None
  initial_scale: float | None = None
  products: Any = None

  gate_count = 1  # K = gate_count * H
  additive = True  # Whether `gates` sees z and u as their sum only.

  def setup(self):
    scale = self.initial_scale or self.hidden_size**-0.5
    K = self.gate_count * self.hidden_size
    if self.vocabulary_size is None:
      self.input_kernel = nn.Dense(
        K,
        use_bias=False,
        kernel_init=uniform(scale),
        dot_general=lambda x, kernel, *_, **__: product(
          x, kernel, self.products
        ),
      )
    else:
      self.input_kernel = nn.Embed(
        self.vocabulary_size, K, embedding_init=uniform(scale)
      )
    self.recurrent_kernel = self.param(
      "recurrent_kernel", uniform(scale), (self.hidden_size, K)
    )
    self.bias = self.param("bias", self.initial_bias(uniform(scale)), (K,))
    self.setup_gates(uniform(scale))

  def initial_bias(self, init: Callable[..., jax.Array]):
    """The initializer of the bias, given the one of everything else."""
    return init

  def setup_gates(self, init: Callable[..., jax.Array]):
    """Makes the parameters of `gates`, where a cell has any."""

  def inputs(self, x_TBD: jax.Array | Lookup) -> jax.Array:
    """All that depends on the input alone: z_TBK.

    Args:
      x_TBD: features, or a Lookup of them; ids_TB where V is given.
    """
    bias_1K = self.bias[None]
    if isinstance(x_TBD, Lookup):
      return rows(self.input_kernel(x_TBD.table_VD) + bias_1K, x_TBD.ids)
    if self.vocabulary_size is not None:
      return rows(self.input_kernel.embedding + bias_1K, x_TBD)
    return self.input_kernel(x_TBD) + bias_1K[None]

  def gates(self, carry: Carry, z_BK: jax.Array, u_BK: jax.Array) -> Carry:
    """The pointwise part of a step, `u_BK` being the recurrent product."""
    raise NotImplementedError

  def __call__(self, carry: Carry, z_BK: jax.Array) -> Carry:
    """One time step."""
    u_BK = dot(self.hidden(carry), self.recurrent_kernel, self.products)
    return self.gates(carry, z_BK, u_BK)

  def initial_carry(self, batch_size: int) -> Carry:
    """The carry before the first step: zeros."""
    return jnp.zeros((batch_size, self.hidden_size))

  def hidden(self, carry: Carry) -> jax.Array:
    """h_BH, what the cell shows to the layer above and to itself."""
    return carry


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
  network remembers (Jozefowicz et al. 2015). A layer has 4(HD + H² + H)
  parameters.
  """

  forget_bias: float = 1.0

  gate_count = 4

  def initial_bias(self, init):
    def with_forget_bias(key, shape, dtype=jnp.float32):
      i, f, g, o = jnp.split(init(key, shape, dtype), 4)
      return jnp.concatenate([i, jnp.full_like(f, self.forget_bias), g, o])

    return with_forget_bias

  def gates(self, carry, z_BK, u_BK):
    c, _ = carry
    i, f, g, o = activate((SIGMOID, SIGMOID, TANH, SIGMOID), z_BK + u_BK)
    c = f * c + i * g
    return c, o * jnp.tanh(c)

  def initial_carry(self, batch_size):
    return (super().initial_carry(batch_size),) * 2

  def hidden(self, carry):
    return carry[1]


class GRU(Cell):
  r"""Gated recurrent unit (Cho et al. 2014), reset after the product.

  .. math::
    r &= \sigma(x W_r + h R_r + b_r) \\
    z &= \sigma(x W_z + h R_z + b_z) \\
    n &= \tanh(x W_n + b_n + r \odot (h R_n + b'_n)) \\
    h' &= (1 - z) \odot n + z \odot h

  The form of cuDNN and PyTorch: one recurrent product a step. A layer has
  3(HD + H² + H) + H parameters.
  """

  gate_count = 3
  additive = False

  def setup_gates(self, init):
    self.reset_bias = self.param("reset_bias", init, (self.hidden_size,))

  def gates(self, carry, z_BK, u_BK):
    H = self.hidden_size
    rz_z, n_z = jnp.split(z_BK, [2 * H], axis=-1)
    rz_u, n_u = jnp.split(u_BK, [2 * H], axis=-1)
    r, z = activate((SIGMOID, SIGMOID), rz_z + rz_u)
    n = keep(jnp.tanh(n_z + r * keep(n_u + self.reset_bias[None])))
    return (1 - z) * n + z * carry


class RNN(Cell):
  r"""The simple recurrent network (Elman 1990).

  .. math:: h' = \phi(x W + h R + b)

  A layer has HD + H² + H parameters.
  """

  activation: Callable[[jax.Array], jax.Array] = jnp.tanh

  def gates(self, carry, z_BK, u_BK):
    del carry
    return keep(self.activation(z_BK + u_BK))
