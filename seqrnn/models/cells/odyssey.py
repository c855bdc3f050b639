"""The eight variants of the LSTM that "A Search Space Odyssey" compares."""

import jax.numpy as jnp

from seqrnn.models.cell import SIGMOID, TANH, Cell, activate, register


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
    g = activate((TANH,), a["g"])[0] if self.input_activation else a["g"]
    c = f * c + i * g
    o = gate("o", c)
    h = o * (jnp.tanh(c) if self.output_activation else c)
    return (c, h, i, f, o) if self.gate_recurrence else (c, h)

  def initial_carry(self, batch_size):
    count = 5 if self.gate_recurrence else 2
    return (super().initial_carry(batch_size),) * count

  def hidden(self, carry):
    return carry[1]
