"""Modules over whole sequences: the scan over time, two directions, a stack.

A sequence module is called with x_BTD (or ids x_BT), mask_BT, a carry and
`train`, and returns its last carry and y_BTH. Where the mask is false, a row
keeps its carry, so padding may stand at either end and a reversed scan needs no
flipping. `summary` of a carry is y after the last step of each direction;
`initial_carry` is the carry before the first step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from seqrnn.data.vocabulary import PAD, UNKNOWN
from seqrnn.experiment import Carry
from seqrnn.models import scan
from seqrnn.models.cell import Cell, uniform
from seqrnn.models.cells.classic import normalize
from seqrnn.models.products import Lookup, Products, rows

PAIRS = 2**13  # Rows of pairs in the table of Wide.
_MULTIPLIER = 40_503  # Of a hash: 2**16 over the golden ratio.
_STEP = 3.0  # Of a row of Wide; a learning rate that many times as high.


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
    y_B1H: Any = None
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


def mean(y_BTH: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """The mean over the positions of the mask, [B, H]; 0 if there are none."""
  count_B1 = jnp.sum(mask_BT, axis=1, keepdims=True)
  total_BH = jnp.sum(jnp.where(mask_BT[..., None], y_BTH, 0), axis=1)
  return total_BH / jnp.maximum(count_B1, 1)


def maximum(y_BTH: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """The maximum over the positions of the mask, [B, H]; 0 if there are none."""
  any_B1 = jnp.any(mask_BT, axis=1, keepdims=True)
  y_BTH = jnp.where(mask_BT[..., None], y_BTH, -jnp.inf)
  return jnp.where(any_B1, jnp.max(y_BTH, axis=1), 0)


POOLINGS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "mean": mean,
  "max": maximum,
}


class Attention(nn.Module):
  """The mean of outputs, weighted by a softmax over time of v · y_t + b_t.

  v and b are parameters that start at zero, where all positions weigh the same.
  t counts the positions of the mask: a place may have a meaning of its own.

  Attributes:
    length: T, the number of places; later ones have the b of the last.
  """

  length: int

  @nn.compact
  def __call__(self, y_BTH: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """The mean over the positions of the mask, [B, H]; 0 if there are none."""
    v_H = self.param("vector", nn.initializers.zeros, y_BTH.shape[-1:])
    b_T = self.param("place", nn.initializers.zeros, (self.length,))
    place_BT = jnp.clip(jnp.cumsum(mask_BT, axis=1) - 1, 0, self.length - 1)
    score_BT = jnp.sum(y_BTH * v_H[None, None], axis=-1)
    score_BT += rows(b_T[:, None], place_BT.T)[..., 0].T
    score_BT = jnp.where(mask_BT, score_BT, jnp.finfo(y_BTH.dtype).min)
    weight_BT = jnp.where(mask_BT, jax.nn.softmax(score_BT), 0)
    return jnp.sum(weight_BT[..., None] * y_BTH, axis=1)


class Convolution(nn.Module):
  """Features of each position: relu(W x + b), x the positions around it.

  Positions outside of the mask are read as zeros, as those beyond the ends.

  Attributes:
    width: the number of positions; half of them, rounded down, come before.
    features: H, of each position.
    products: as in Cell.
  """

  width: int
  features: int
  products: Products = Products()

  @nn.compact
  def __call__(self, x_BTD: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """The features of each position, [B, T, H]."""
    before, (B, T, _) = self.width // 2, x_BTD.shape
    around = (0, 0), (before, self.width - 1 - before), (0, 0)
    wide = jnp.pad(jnp.where(mask_BT[..., None], x_BTD, 0), around)
    parts = [wide[:, n : n + T] for n in range(self.width)]
    x_NK = jnp.concatenate(parts, axis=-1).reshape(B * T, -1)
    K = x_NK.shape[-1]
    kernel_KH = self.param("kernel", uniform(K**-0.5), (K, self.features))
    bias_H = self.param("bias", nn.initializers.zeros, (self.features,))
    y_NH = nn.relu(self.products.affine(x_NK, kernel_KH, bias_H))
    return y_NH.reshape(B, T, -1)


class Wide(nn.Module):
  """Logits that are linear in the symbols and the pairs of symbols of a text.

  The wide part of a wide and deep model (Cheng et al. 2016). Pairs share rows
  of the table by a hash (Joulin et al. 2017).

  Attributes:
    vocabulary_size: V of the inputs.
    features: the number of logits.
  """

  vocabulary_size: int
  features: int

  @nn.compact
  def __call__(self, ids_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """The logits of each text; 0 if the mask has no positions."""
    V = self.vocabulary_size
    shape = V + PAIRS, self.features
    table = self.param("table", nn.initializers.zeros, shape)
    left, right = ids_BT[:, :-1].astype(jnp.uint32), ids_BT[:, 1:]
    hashed = (left * _MULTIPLIER + right.astype(jnp.uint32)) % PAIRS
    rows_BN = jnp.concatenate([ids_BT, V + hashed.astype(jnp.int32)], axis=1)
    used = [mask_BT, mask_BT[:, :-1] & mask_BT[:, 1:]]
    used_BN1 = jnp.concatenate(used, axis=1)[..., None]
    terms_BNV = rows(table, rows_BN.T).swapaxes(0, 1)
    total_BV = jnp.sum(jnp.where(used_BN1, terms_BNV, 0), axis=1)
    count_B1 = jnp.sum(used_BN1, axis=1)
    return _STEP * total_BV / jnp.sqrt(jnp.maximum(count_B1, 1))


class Letters(nn.Module):
  """Features of each word: the last states of layers over its characters.

  Attributes:
    body: the layers, a sequence module.
    vocabulary_size: the number of characters.
    size: of their embedding.
    products: as in Cell.
  """

  body: Any
  vocabulary_size: int
  size: int
  products: Products = Products()

  @nn.compact
  def __call__(self, ids_BTL: jax.Array, train: bool = False) -> jax.Array:
    """The features of each word, [B, T, H]; L characters a word."""
    B, T, L = ids_BTL.shape
    ids_NL = ids_BTL.reshape(B * T, L)
    embed = nn.Embed(self.vocabulary_size, self.size)
    x_LND = self.products.rows(embed.embedding, ids_NL.T)
    carry = self.body.initial_carry(B * T)
    carry, _ = self.body(x_LND.swapaxes(0, 1), ids_NL != PAD, carry, train)
    return self.body.summary(carry, train).reshape(B, T, -1)


class Affixes(nn.Module):
  """Features of each word: the sum of those of its affixes and its shape.

  Attributes:
    vocabulary_size: the number of affixes and shapes.
    size: D, of the features.
    count: the number of ids of a word.
    products: as in Cell.
  """

  vocabulary_size: int
  size: int
  count: int
  products: Products = Products()

  @nn.compact
  def __call__(self, ids_BTA: jax.Array, train: bool = False) -> jax.Array:  # noqa: ARG002
    """The features of each word, [B, T, D]; A ids a word."""
    init = nn.initializers.normal(self.count**-0.5)
    table_VD = self.param("affixes", init, (self.vocabulary_size, self.size))
    B, T, A = ids_BTA.shape
    ids_NB = ids_BTA.transpose(2, 1, 0).reshape(A * T, B)
    features_NBD = self.products.rows(table_VD, ids_NB)
    # An affix that training has not seen has no feature, as an absent one.
    features_NBD *= (ids_NB > UNKNOWN)[..., None]
    features_ATBD = features_NBD.reshape(A, T, B, self.size)
    return jnp.sum(features_ATBD, axis=0).swapaxes(0, 1)
