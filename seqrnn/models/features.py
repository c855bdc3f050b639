"""Modules around the layers: features of inputs, and poolings of outputs.

Convolution, Letters and Affixes make features that the layers read. Attention
and POOLINGS make one vector of all outputs, and Wide joins its logits and those
of the head.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqrnn.data.vocabulary import PAD, UNKNOWN
from seqrnn.models.cell import uniform
from seqrnn.models.products import Products, rows

STEP = 3.0  # The rows of Wide learn at so many times the rate.


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
  """The logits of the layers, with others that are linear in terms of a text.

  The wide part of a wide and deep model (Cheng et al. 2016), which adds both.
  If the wide part is fitted before the layers learn, they are trained apart,
  because a fit leaves little of what it has been fitted to; outside of training
  both are weighted.

  Attributes:
    terms: F, the number of buckets.
    features: V, the number of logits.
    fitted: whether the wide part is fitted before the layers.
  """

  terms: int
  features: int
  fitted: bool = False

  @nn.compact
  def __call__(
    self, logits_BNV: jax.Array, terms_BF: jax.Array, train: bool = False
  ) -> jax.Array:
    """The joined logits of each text, [B, N, V]; N is 1."""
    shape = self.terms, self.features
    table_FV = self.param("table", nn.initializers.zeros, shape)
    linear_BNV = STEP * (terms_BF @ table_FV)[:, None]
    if not self.fitted:
      return logits_BNV + linear_BNV
    weights_2 = self.param("weights", nn.initializers.ones, (2,))
    if train:
      return logits_BNV
    return weights_2[0] * logits_BNV + weights_2[1] * linear_BNV


class Letters(nn.Module):
  """Features of each word: the last states of layers over its characters.

  Attributes:
    body: the layers, a sequence module.
    vocabulary_size: the number of characters.
    size: of their embedding.
    products: as in Cell.
  """

  body: nn.Module
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
