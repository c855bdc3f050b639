"""One time step of every cell.

A cell has three parts. `inputs` is all that depends on the input alone: one
product for the whole sequence. `recurrent` is h @ recurrent_kernel, the
recurrent product, and what is added to it. `gates` is all else of a step, and
knows no product. `Cell.__call__`, one step, is made of the last two;
`layers.Recurrent` scans it over time.

A cell that does not fit says so by `path`: "plain" has products of its own in
`__call__` and is scanned as it stands; "parallel" is linear in its carry
(`Linear`) and needs no scan.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from seqrnn.experiment import Carry
from seqrnn.models.products import Lookup, along, plus, product, rows, step_dot


def uniform(scale: float) -> Callable[..., jax.Array]:
  """Initial values from U(-scale, scale)."""

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -scale, scale)

  return init


def with_forget_bias(
  init: Callable[..., jax.Array], value: float, place: int, count: int
) -> Callable[..., jax.Array]:
  """The initializer, but for the bias of the forget gate.

  Args:
    init: of the others.
    value: of the forget gate's.
    place: of the forget gate among the gates.
    count: of gates.
  """

  def init_all(key, shape, dtype=jnp.float32):
    parts = jnp.split(init(key, shape, dtype), count)
    parts[place] = jnp.full_like(parts[place], value)
    return jnp.concatenate(parts)

  return init_all


def dropped(h_BH: jax.Array, drop_BH: jax.Array | None) -> jax.Array:
  """What a recurrent product sees of h: h times `drop_BH`, where that is."""
  return h_BH if drop_BH is None else h_BH * drop_BH


def normalize(x: jax.Array) -> jax.Array:
  """Mean 0 and variance 1 over the last axis."""
  x = x - jnp.mean(x, axis=-1, keepdims=True)
  variance = jnp.mean(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(variance + 1e-5)


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
  # How many parameters a layer has, of D inputs; D is V where they are ids.
  formula: ClassVar[Any] = "HD + H² + H"
  additive = True  # Whether `gates` sees z and u as their sum only.
  # Whether h is multiplied by a recurrent kernel. Where it is not, u is what
  # `recurrent` adds, and `gates` has all else that depends on the carry.
  recurrent_product: ClassVar[bool] = True
  # The name of what `recurrent` adds to all its outputs or to the last; None:
  # nothing. Where `inputs` adds the bias, that is a pass over all of z.
  recurrent_bias: ClassVar[Any] = "bias"
  # How it goes through time: fused (seqrnn/models/scan.py), plain (nn.scan of
  # `__call__`) or parallel (`Linear`).
  path: ClassVar[Any] = "fused"

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
    if self.recurrent_product:
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
    if isinstance(x_TBD, Lookup):
      return rows(self.shift(self.input_kernel(x_TBD.table_VD)), x_TBD.ids)
    if self.vocabulary_size is not None:
      return rows(self.shift(self.input_kernel.embedding), x_TBD)
    return self.shift(self.input_kernel(x_TBD))

  def shift(self, x: jax.Array) -> jax.Array:
    """The input product, x_NK or x_TBK, plus the bias that is not recurrent."""
    return x if self.recurrent_bias == "bias" else plus(x, self.bias)

  def recurrent(self, h_BH: jax.Array) -> jax.Array:
    """The recurrent product u_BK, if there is one, plus `recurrent_bias`."""
    if self.recurrent_product:
      u_BK = step_dot(h_BH, self.recurrent_kernel, self.products)
    else:
      K = self.gate_count * self.hidden_size
      u_BK = jnp.zeros((len(h_BH), K), h_BH.dtype)
    if self.recurrent_bias is None:
      return u_BK
    bias = getattr(self, self.recurrent_bias)
    return u_BK + jnp.pad(bias, (u_BK.shape[-1] - len(bias), 0))[None]

  def gates(self, carry: Carry, z_BK: jax.Array, u_BK: jax.Array) -> Carry:
    """The rest of a step, `u_BK` being what `recurrent` gives."""
    raise NotImplementedError

  def __call__(
    self, carry: Carry, z_BK: jax.Array, drop_BH: jax.Array | None = None
  ) -> Carry:
    """One time step; the recurrent product reads h times `drop_BH`."""
    u_BK = self.recurrent(dropped(self.hidden(carry), drop_BH))
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
  network remembers (Jozefowicz et al. 2015).
  """

  forget_bias: float = 1.0

  gate_count = 4
  formula = "4(HD + H² + H)"

  def initial_bias(self, init):
    return with_forget_bias(init, self.forget_bias, place=1, count=4)

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

  The form of cuDNN and PyTorch: one recurrent product a step.
  """

  gate_count = 3
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
    [n] = activate((TANH,), n_z + r * keep(n_u))
    return (1 - z) * n + z * carry


class RNN(Cell):
  r"""The simple recurrent network (Elman 1990).

  .. math:: h' = \phi(x W + h R + b)
  """

  activation: Callable[[jax.Array], jax.Array] = jnp.tanh

  def gates(self, carry, z_BK, u_BK):
    del carry
    return keep(self.activation(z_BK + u_BK))


class Odyssey(Cell):
  r"""The LSTM of "A Search Space Odyssey" (Greff et al. 2015), by its parts.

  .. math::
    i &= \sigma(x W_i + h R_i + p_i \odot c + b_i) \\
    f &= \sigma(x W_f + h R_f + p_f \odot c + b_f) \\
    g &= \tanh(x W_g + h R_g + b_g) \\
    c' &= f \odot c + i \odot g \\
    o &= \sigma(x W_o + h R_o + p_o \odot c' + b_o) \\
    h' &= o \odot \tanh(c')

  The carry is (c, h). A forget gate's bias starts at `forget_bias`, and that
  of i where f is 1 - i at its negative, which is the same f.

  Full gate recurrence adds to the inputs of i, f and o these three gates of
  the last step, side by side, times a matrix [3H, 3H]. The carry is then
  (c, h, i, f, o), and a second product in the step means the plain path.

  Attributes:
    input_gate: False: i = 1 (NIG).
    forget_gate: False: f = 1 (NFG).
    output_gate: False: o = 1 (NOG).
    input_activation: False: no tanh in g (NIAF).
    output_activation: False: no tanh of c' (NOAF).
    coupled: f = 1 - i, with no parameters of its own (CIFG).
    peepholes: False: all p = 0 (NP), which is LSTM.
    gate_recurrence: full gate recurrence (FGR); all three gates are there.
  """

  forget_bias: float = 1.0
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
    """The gates that have parameters, in their order; g is always there."""
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
  def formula(self):
    peepholes = f" + {self.gate_count - 1}H" if self.peepholes else ""
    recurrence = " + 9H²" if self.gate_recurrence else ""
    return f"{self.gate_count}(HD + H² + H){peepholes}{recurrence}"

  @property
  def path(self):
    return "plain" if self.gate_recurrence else "fused"

  def initial_bias(self, init):
    if not self.coupled and not self.forget_gate:
      return init
    value = -self.forget_bias if self.coupled else self.forget_bias
    place = self.names.index("i" if self.coupled else "f")
    return with_forget_bias(init, value, place, self.gate_count)

  def setup_gates(self, init):
    H = self.hidden_size
    if self.peepholes:
      self.peephole = {
        name: self.param(f"peephole_{name}", init, (H,))
        for name in self.names.replace("g", "")
      }
    if self.gate_recurrence:
      self.gate_kernel = self.param("gate_kernel", init, (3 * H, 3 * H))

  def __call__(self, carry, z_BK, drop_BH=None):
    if self.gate_recurrence:
      ifo_B3H = jnp.concatenate(carry[2:], axis=-1)
      u_B3H = step_dot(ifo_B3H, self.gate_kernel, self.products)
      i, f, o = jnp.split(u_B3H, 3, axis=-1)
      z_BK += jnp.concatenate([i, f, jnp.zeros_like(i), o], axis=-1)
    return super().__call__(carry, z_BK, drop_BH)

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
    g = activate((TANH,), a["g"])[0] if self.input_activation else keep(a["g"])
    c = f * c + i * g
    o = gate("o", c)
    h = o * (jnp.tanh(c) if self.output_activation else c)
    return (c, h, i, f, o) if self.gate_recurrence else (c, h)

  def initial_carry(self, batch_size):
    count = 5 if self.gate_recurrence else 2
    return (super().initial_carry(batch_size),) * count

  def hidden(self, carry):
    return carry[1]


class LayerNormLSTM(LSTM):
  r"""The LSTM with layer normalisation (Ba et al. 2016).

  .. math::
    (i, f, g, o) &= (\sigma, \sigma, \tanh, \sigma)
      (\alpha_x \odot N(x W) + \alpha_h \odot N(h R) + b) \\
    c' &= f \odot c + i \odot g \\
    h' &= o \odot \tanh(\alpha_c \odot N(c') + b_c)

  N gives mean 0 and variance 1, over the 4H inputs of all gates or the H of
  c', with 1e-5 added to the variance. The shifts of the first two N are one
  with b.
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
    return super().shift(along(x, self.input_gain) * normalize(x))

  def gates(self, carry, z_BK, u_BK):
    c, _ = carry
    a_BK = z_BK + self.recurrent_gain[None] * normalize(u_BK)
    i, f, g, o = activate((SIGMOID, SIGMOID, TANH, SIGMOID), a_BK)
    c = f * c + i * g
    n = self.cell_gain[None] * normalize(c) + self.cell_bias[None]
    return c, o * jnp.tanh(n)


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

  The input gate is exp, the forget gate sigma; m keeps both in range and
  cancels in h'. One head: R is not block-diagonal. The cell alone, without
  the block around it. The carry is (c, h, n, m); m starts so low that the
  first step forgets all of it, and so n is at least 1 ever after.
  """

  def gates(self, carry, z_BK, u_BK):
    c, _, n, m = carry
    log_i, f, g, o = jnp.split(z_BK + u_BK, 4, axis=-1)
    log_f = jax.nn.log_sigmoid(f) + m
    m = jnp.maximum(log_f, log_i)
    i, f = keep(jnp.exp(log_i - m)), keep(jnp.exp(log_f - m))
    [g], [o] = activate((TANH,), g), activate((SIGMOID,), o)
    c, n = f * c + i * g, f * n + i
    return c, o * c / n, n, m

  def initial_carry(self, batch_size):
    c, h = super().initial_carry(batch_size)
    return c, h, c, jnp.full_like(c, -1e30)


class ResetBeforeGRU(Cell):
  r"""Gated recurrent unit as first published (Cho et al. 2014).

  .. math::
    r &= \sigma(x W_r + h R_r + b_r) \\
    z &= \sigma(x W_z + h R_z + b_z) \\
    n &= \tanh(x W_n + (r \odot h) R_n + b_n) \\
    h' &= (1 - z) \odot n + z \odot h

  The reset gate comes before the product, so a step has two, one after the
  other.
  """

  gate_count = 3
  formula = "3(HD + H² + H)"
  recurrent_bias = None
  path = "plain"

  def __call__(self, carry, z_BK, drop_BH=None):
    H, h_BH = self.hidden_size, dropped(carry, drop_BH)
    rz_BK, n_BH = jnp.split(z_BK, [2 * H], axis=-1)
    R_rz, R_n = jnp.split(self.recurrent_kernel, [2 * H], axis=-1)
    rz_BK += step_dot(h_BH, R_rz, self.products)
    r, z = activate((SIGMOID, SIGMOID), rz_BK)
    n = jnp.tanh(n_BH + step_dot(r * h_BH, R_n, self.products))
    return (1 - z) * n + z * carry


class MGU(Cell):
  r"""Minimal gated unit (Zhou et al. 2016): one gate to reset and to update.

  .. math::
    f &= \sigma(x W_f + h R_f + b_f) \\
    n &= \tanh(x W_n + (f \odot h) R_n + b_n) \\
    h' &= (1 - f) \odot h + f \odot n

  What its authors call the forget gate lets in what is new, so it has no bias
  to remember by. Two products a step, as in ResetBeforeGRU.
  """

  gate_count = 2
  formula = "2(HD + H² + H)"
  recurrent_bias = None
  path = "plain"

  def __call__(self, carry, z_BK, drop_BH=None):
    h_BH = dropped(carry, drop_BH)
    f_BH, n_BH = jnp.split(z_BK, 2, axis=-1)
    R_f, R_n = jnp.split(self.recurrent_kernel, 2, axis=-1)
    [f] = activate((SIGMOID,), f_BH + step_dot(h_BH, R_f, self.products))
    n = jnp.tanh(n_BH + step_dot(f * h_BH, R_n, self.products))
    return (1 - f) * carry + f * n


class Linear(Cell):
  """A cell whose step is linear: h' = a * h + b, with a and b of x alone.

  Two such steps are one of the same kind, so layers.Recurrent joins T of them
  in log2(T) rounds (`scan.parallel`).
  """

  recurrent_product = False
  recurrent_bias = None
  path = "parallel"

  def terms(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The a and b of z_BK, or of z_TBK."""
    raise NotImplementedError

  def __call__(self, carry, z_BK, drop_BH=None):
    del drop_BH  # There is no recurrent product.
    a_BH, b_BH = self.terms(z_BK)
    return a_BH * carry + b_BH


class MinLSTM(Linear):
  r"""minLSTM (Feng et al. 2024), whose gates see the input alone.

  .. math::
    f &= \sigma(x W_f + b_f) \\
    i &= \sigma(x W_i + b_i) \\
    h' &= (f \odot h + i \odot (x W_g + b_g)) / (f + i)

  The shares f / (f + i) and i / (f + i) are made from the logs of f and i, so
  that they are right where both vanish. They are at most 1, and so are their
  products: the scan needs no logs, nor a positive candidate as the authors'
  own in logs does.
  """

  forget_bias: float = 1.0

  gate_count = 3
  formula = "3(HD + H)"

  def initial_bias(self, init):
    return with_forget_bias(init, self.forget_bias, place=0, count=3)

  def terms(self, z):
    f, i, g = jnp.split(z, 3, axis=-1)
    odds = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)  # log(f / i)
    return jax.nn.sigmoid(odds), jax.nn.sigmoid(-odds) * g


class MinGRU(Linear):
  r"""minGRU (Feng et al. 2024), whose gate sees the input alone.

  .. math::
    z &= \sigma(x W_z + b_z) \\
    h' &= (1 - z) \odot h + z \odot (x W_n + b_n)
  """

  gate_count = 2
  formula = "2(HD + H)"

  def terms(self, z):
    z, n = jnp.split(z, 2, axis=-1)
    return jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * n
