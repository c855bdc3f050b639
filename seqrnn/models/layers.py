"""Modules over whole sequences: the scan over time, two directions, a stack.

A sequence module is called with x_BTD (or ids x_BT), mask_BT, a carry and
`train`, and returns its last carry and y_BTH. Where the mask is false, a row
keeps its carry, so padding may stand at either end and a reversed scan needs no
flipping. `summary` of a carry is y after the last step of each direction;
`initial_carry` is the carry before the first step.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from seqrnn.experiment import Carry
from seqrnn.models import scan
from seqrnn.models.cell import Cell, uniform
from seqrnn.models.cells.classic import normalize
from seqrnn.models.products import Lookup, Products


def keep_mask(
  key: jax.Array, share: jax.Array, shape: Sequence[int], swap: bool = False
) -> jax.Array:
  """Independent draws, each True with probability share / 256.

  Most of the time that dropout takes on a CPU goes into random bits. JAX and
  Flax draw 32 bits for each number; here 32 bits serve four numbers.

  Args:
    key: of jax.random.
    share: in units of 1/256, from 0 to 255.
    shape: of the result, before a swap; at least one axis.
    swap: swap the first two axes of the result.
  """
  *front, last = shape
  words = jax.random.bits(key, (*front, -(-last // 4)), jnp.uint32)
  if swap:  # Here, where the array is a quarter of its later size.
    words, front = words.swapaxes(0, 1), [front[1], front[0]]
  numbers = lax.bitcast_convert_type(words, jnp.uint8).reshape(*front, -1)
  return numbers[..., :last] < share.astype(jnp.uint8)


# The value of each Rate in what a step traces; None: its own.
step_rate: ContextVar[jax.Array | None] = ContextVar("step_rate", default=None)


class Rate(float):
  """A rate of dropout that a step has as an argument.

  All are equal, and so are models that differ in them: these are evaluated by
  the same programs.
  """

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Rate)

  __ne__ = object.__ne__  # That of floats compares their values.

  def __hash__(self) -> int:
    return hash(Rate)


class Dropout(nn.Module):
  """Sets numbers to zero and divides the rest by 1 - rate.

  Attributes:
    rate: the share that is set to zero, from 0 to below 1 (Srivastava et al.
      2014). It is rounded to a multiple of 1/256, and is not rounded to 0 or 1.
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
    given = step_rate.get() if isinstance(self.rate, Rate) else None
    rate = float(self.rate) if given is None else given
    share = jnp.clip(jnp.round(256 * (1 - jnp.float32(rate))), 1, 255)
    scale = (256 / share).astype(x.dtype)
    if x.ndim != 3:
      return jnp.where(keep_mask(key, share, shape), x * scale, 0)
    # The outputs of layers, [B, T, H], have T first in memory. A draw in that
    # order would make each row depend on the number of rows.
    keep_TBH = keep_mask(key, share, shape, swap=True)
    return jnp.where(keep_TBH, x.swapaxes(0, 1) * scale, 0).swapaxes(0, 1)


class Recurrent(nn.Module):
  """A cell scanned over time.

  Random numbers are drawn before the scan and batch-major, so that rows of
  padding do not change the draws of the other rows.

  Attributes:
    cell: one time step.
    reverse: from the last position to the first; an output stands where its
      input does.
    weight_drop: the share of the recurrent kernel's entries that are zero in
      training, the same entries for a whole batch (Wan et al. 2013; Merity et
      al. 2017).
    recurrent_dropout: the share of the units of h that the recurrent product
      reads as zero in training, the same units at all steps of a sequence (Gal
      & Ghahramani 2016).
  """

  cell: Cell
  reverse: bool = False
  weight_drop: float = 0.0
  recurrent_dropout: float = 0.0

  def setup(self):
    self.drop_weights = Dropout(self.weight_drop)
    self.drop_state = Dropout(self.recurrent_dropout)

  def __call__(self, x_BTD, mask_BT, carry, train=False):
    x_TBD = x_BTD.swap() if isinstance(x_BTD, Lookup) else x_BTD.swapaxes(0, 1)
    cell, inputs = self.cell, (self.cell.inputs(x_TBD), mask_BT.T)
    mask_BH = None
    if train and self.recurrent_dropout:
      ones_BH = jnp.ones_like(cell.hidden(carry))
      mask_BH = self.drop_state(ones_BH, deterministic=False)
    if train and self.weight_drop:
      cell, variables = cell.unbind()
      params = dict(variables["params"])
      params["recurrent_kernel"] = self.drop_weights(
        params["recurrent_kernel"], deterministic=False
      )
      cell = cell.bind({"params": params})
    carry, h_TBH = scan.scan(cell, carry, inputs, mask_BH, reverse=self.reverse)
    return carry, h_TBH.swapaxes(0, 1)

  def initial_carry(self, batch_size: int) -> Carry:
    return self.cell.initial_carry(batch_size)

  def summary(self, carry: Carry, train: bool = False) -> jax.Array:
    del train
    return self.cell.hidden(carry)


MERGES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "concat": lambda a, b: jnp.concatenate([a, b], axis=-1),
  "sum": lambda a, b: a + b,
  "mean": lambda a, b: (a + b) / 2,
}


class Bidirectional(nn.Module):
  """Two sequence modules over the same input, and their merge.

  Attributes:
    forward: reads from the first position on.
    backward: reads from the last position on: its scans are reversed.
    merge: a name of MERGES.
    apart: returns a dict of the merge and of both outputs: "joint", "forward",
      "backward".
  """

  forward: nn.Module
  backward: nn.Module
  merge: str = "concat"
  apart: bool = False

  def __call__(self, x_BTD, mask_BT, carry, train=False):
    ahead, back = carry
    ahead, y_ahead_BTH = self.forward(x_BTD, mask_BT, ahead, train)
    back, y_back_BTH = self.backward(x_BTD, mask_BT, back, train)
    y_BTH = MERGES[self.merge](y_ahead_BTH, y_back_BTH)
    if self.apart:
      each = {"forward": y_ahead_BTH, "backward": y_back_BTH}
      return (ahead, back), {"joint": y_BTH, **each}
    return (ahead, back), y_BTH

  def initial_carry(self, batch_size: int) -> Carry:
    return (
      self.forward.initial_carry(batch_size),
      self.backward.initial_carry(batch_size),
    )

  def summary(self, carry: Carry, train: bool = False) -> jax.Array:
    ahead, back = carry
    return MERGES[self.merge](
      self.forward.summary(ahead, train), self.backward.summary(back, train)
    )


class Block(nn.Module):
  r"""What a residual block adds to its input: a gated unit of the layer's h.

  .. math:: (g W_1 + b_1) \odot \sigma(g W_2 + b_2), g = \mathrm{gelu}(h)

  That is what follows the linear recurrent unit of Orvieto et al. 2023.

  Attributes:
    initial_scale: as in Cell; None: 1/sqrt(W).
    products: as in Cell.
  """

  initial_scale: float | None = None
  products: Products = Products()

  @nn.compact
  def __call__(self, h_BTW: jax.Array) -> jax.Array:
    W = h_BTW.shape[-1]
    init = uniform(self.initial_scale or W**-0.5)
    kernel = self.param("kernel", init, (W, 2 * W))
    bias = self.param("bias", nn.initializers.zeros, (2 * W,))
    g_TBW = nn.gelu(h_BTW).swapaxes(0, 1)
    both = self.products.add_bias(self.products.product(g_TBW, kernel), bias)
    linear_TBW, gate_TBW = jnp.split(both, 2, axis=-1)
    return (linear_TBW * nn.sigmoid(gate_TBW)).swapaxes(0, 1)


class Stack(nn.Module):
  """Sequence modules one above the other, with dropout after each.

  With blocks, a layer reads its input x shifted and scaled to mean 0 and
  variance 1 at each position, and its block's output is added to x. The first
  layer, whose input may be ids or have another size, adds nothing and reads x.

  In training, the variable "penalty" of "penalties" is the penalty that the
  last layer adds to the loss of each position, [B, T].

  Attributes:
    layers: from the input up.
    dropout: the share of outputs set to zero in training (Zaremba et al. 2014:
      between layers and before the head, never along time).
    variational_dropout: the same, of the same units at all steps of a sequence
      (Gal & Ghahramani 2016).
    blocks: a Block for each layer; empty: there are none.
  """

  layers: Sequence[nn.Module]
  dropout: float = 0.0
  variational_dropout: float = 0.0
  blocks: Sequence[nn.Module] = ()

  def setup(self):
    self.drop = Dropout(self.dropout)
    self.drop_units = Dropout(self.variational_dropout, broadcast_dims=(1,))
    if self.variational_dropout and self.has_rng("dropout"):
      self.units_key = self.make_rng("dropout")

  def __call__(self, x_BTD, mask_BT, carry, train=False):
    carries = []
    for depth, layer in enumerate(self.layers):
      read_BTD = normalize(x_BTD).y if self.blocks and depth else x_BTD
      layer_carry, y_BTH = layer(read_BTD, mask_BT, carry[depth], train)
      x_BTD = self._above(depth, x_BTD, y_BTH, train)
      carries.append(layer_carry)
    return tuple(carries), x_BTD

  def _above(self, depth, x_BTD, y_BTH, train):
    """What the layer above reads, of the input and the output of a layer."""
    if not self.blocks:
      return self._after_dropout(depth, y_BTH, train)
    y_BTH = self._after_dropout(depth, self.blocks[depth](y_BTH), train)
    return x_BTD + y_BTH if depth else y_BTH

  def _after_dropout(self, depth, y_BTH, train):
    """Applies dropout to the outputs of a layer."""
    y_BTH = self.drop(y_BTH, deterministic=not train)
    if not (train and self.variational_dropout):
      return y_BTH
    # The same key each time: the summary drops the units that outputs drop.
    key = jax.random.fold_in(self.units_key, depth)
    return self.drop_units(y_BTH, deterministic=False, rng=key)

  def initial_carry(self, batch_size: int) -> Carry:
    return tuple(layer.initial_carry(batch_size) for layer in self.layers)

  def summary(self, carry: Carry, train: bool = False) -> jax.Array:
    # Blocks add what all layers below add.
    first = 0 if self.blocks else len(self.layers) - 1
    y_B1H = jnp.zeros(())  # The first layer does not read it.
    for depth in range(first, len(self.layers)):
      h_B1H = self.layers[depth].summary(carry[depth], train)[:, None]
      y_B1H = self._above(depth, y_B1H, h_B1H, train)
    return y_B1H[:, 0]


class Before(nn.Module):
  """A tower whose output at t is its state before it reads t.

  Two of these, one of them reversed, read both sides of every position but not
  the position itself: the towers of the gap model.

  Attributes:
    tower: a causal stack, or a reversed one.
    reverse: whether the tower's scans are reversed.
  """

  tower: nn.Module
  reverse: bool = False

  def __call__(self, x_BTD, mask_BT, carry, train=False):
    first_B1H = self.tower.summary(carry, train)[:, None]
    carry, y_BTH = self.tower(x_BTD, mask_BT, carry, train)
    if self.reverse:
      return carry, jnp.concatenate([y_BTH[:, 1:], first_B1H], axis=1)
    return carry, jnp.concatenate([first_B1H, y_BTH[:, :-1]], axis=1)

  def initial_carry(self, batch_size: int) -> Carry:
    return self.tower.initial_carry(batch_size)
