"""Modules from ids, or frames of notes, to logits: embed -> layers -> head."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqrnn.data.vocabulary import PAD, UNKNOWN
from seqrnn.experiment import Carry
from seqrnn.models.cell import uniform
from seqrnn.models.dropout import Dropout
from seqrnn.models.products import Lookup, Products

_LOOP = 256  # About the number of steps in a loop of sampling/sampler.py.


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


class SequenceModel(nn.Module):
  """embed -> layers -> head.

  Attributes:
    body: the layers, a sequence module.
    vocabulary_size: V of the inputs.
    embedding_size: D; None: layer 1 reads the ids.
    tied: the head's kernel is the embedding, transposed (Press & Wolf 2017).
    pooling: what the one output of a sequence is computed from: the `last`
      state of each direction, or a name of POOLINGS; None: each symbol has an
      output.
    initial_scale: as in Cell; None: 1/sqrt(fan in).
    dropout: of the embedding, as in Stack.
    symbol_dropout: the share of input symbols replaced by the unknown symbol in
      training.
    variational_dropout: of the embedding, as in Stack.
    products: as in Cell.
    outputs: V of the outputs; None: V of the inputs.
    letters: Letters or Affixes, whose features are concatenated to the
      embedding; or None.
    embedding_scale: the standard deviation of the initial embedding; None: as
      `initial_scale` says, 1 without it.

  If the body returns its directions separately, each has a head of its own, and
  the logits are a dict with their names.
  """

  body: Any
  vocabulary_size: int
  embedding_size: int | None = None
  tied: bool = False
  pooling: str | None = None
  initial_scale: float | None = None
  dropout: float = 0.0
  symbol_dropout: float = 0.0
  variational_dropout: float = 0.0
  products: Products = Products()
  outputs: int | None = None
  letters: Any = None
  embedding_scale: float | None = None

  def setup(self):
    if self.embedding_size is not None:
      if self.embedding_scale is not None or self.initial_scale is None:
        embedding_init = nn.initializers.normal(self.embedding_scale or 1.0)
      else:
        embedding_init = uniform(self.initial_scale)
      self.embedding = nn.Embed(
        self.vocabulary_size,
        self.embedding_size,
        # It is also the softmax's kernel, which must start small.
        embedding_init=uniform(0.1) if self.tied else embedding_init,
      )
      self.drop = Dropout(self.dropout)
      self.drop_units = Dropout(self.variational_dropout, broadcast_dims=(1,))
    if self.tied:
      self.head_bias = self.param(
        "head_bias", nn.initializers.zeros, (self.vocabulary_size,)
      )
    else:
      shape = (
        self.outputs or self.vocabulary_size,
        self.initial_scale,
        self.products,
      )
      self.head = Head(*shape)
      self.forward_head, self.backward_head = Head(*shape), Head(*shape)

  def __call__(
    self,
    ids_BT: jax.Array,
    carry: Carry,
    train: bool = False,
    letters_BTL: jax.Array | None = None,
  ) -> tuple[Carry, Any]:
    """The last carry, and logits_BTV, or logits_B1V with pooling."""
    mask_BT = ids_BT != PAD
    if train and self.symbol_dropout:
      hide_BT = jax.random.bernoulli(
        self.make_rng("dropout"), self.symbol_dropout, ids_BT.shape
      )
      ids_BT = jnp.where(hide_BT & (ids_BT > UNKNOWN), UNKNOWN, ids_BT)
    x_BTD: Any = ids_BT
    if self.embedding_size is not None:
      table_VD = self.embedding.embedding
      B, T = ids_BT.shape
      # Sampling reads one position a step, in a loop; XLA computes products of
      # the table before the loop.
      positions = B * (T if T > 1 else _LOOP)
      if (
        positions <= self.vocabulary_size
        or self.letters is not None
        or (train and (self.dropout or self.variational_dropout))
      ):
        x_BTD = self.products.rows(table_VD, ids_BT.T).swapaxes(0, 1)
        if self.letters is not None:
          letters_BTH = self.letters(letters_BTL, train)
          x_BTD = jnp.concatenate([x_BTD, letters_BTH], axis=-1)
        x_BTD = self.drop(x_BTD, deterministic=not train)
        x_BTD = self.drop_units(x_BTD, deterministic=not train)
      else:
        x_BTD = Lookup(table_VD, ids_BT)
    carry, y_BTH = self.body(x_BTD, mask_BT, carry, train)
    if self.pooling == "last":
      y_BTH = self.body.summary(carry, train)[:, None]
    elif self.pooling is not None:
      y_BTH = POOLINGS[self.pooling](y_BTH, mask_BT)[:, None]
    if isinstance(y_BTH, dict):
      return carry, {
        "joint": _flat(self.head, y_BTH["joint"]),
        "forward": _flat(self.forward_head, y_BTH["forward"]),
        "backward": _flat(self.backward_head, y_BTH["backward"]),
      }
    return carry, self.joint(y_BTH)

  def embedded(self, ids_BT: jax.Array) -> jax.Array:
    """What the layers read of ids outside of training."""
    if self.embedding_size is None:
      return ids_BT
    table_VD = self.embedding.embedding
    return self.products.rows(table_VD, ids_BT.T).swapaxes(0, 1)

  def joint(self, y_BTH: jax.Array) -> jax.Array:
    """The logits_BTV of what the layers, or both towers, return."""
    return _flat(self._tied if self.tied else self.head, y_BTH)

  def _tied(self, y_NH):
    table_HV = self.products.transpose(self.embedding.embedding)
    return self.products.affine(y_NH, table_HV, self.head_bias)

  def initial_carry(self, batch_size: int) -> Carry:
    """The carry before the first symbol."""
    return self.body.initial_carry(batch_size)


class NoteModel(nn.Module):
  """layers -> head, for frames of notes.

  Attributes:
    body: the layers, a sequence module.
    notes: V, the notes of an input frame and of an output frame.
    initial_scale: as in Cell; None: 1/sqrt(fan in).
    input_noise: the standard deviation of the Gaussian noise that is added to
      each note in training (Greff et al. 2017).
    products: as in Cell.
  """

  body: Any
  notes: int
  initial_scale: float | None = None
  input_noise: float = 0.0
  products: Products = Products()

  def setup(self):
    self.head = Head(self.notes, self.initial_scale, self.products)

  def __call__(
    self, notes_BTV: jax.Array, carry: Carry, train: bool = False
  ) -> tuple[Carry, jax.Array]:
    """The last carry, and logits_BTV: the log odds of each note."""
    x_BTV = notes_BTV.astype(jnp.float32)
    if train and self.input_noise:
      key = self.make_rng("dropout")
      x_BTV += self.input_noise * jax.random.normal(key, x_BTV.shape)
    # No mask: padding stands at the end, and the last carry is not used.
    mask_BT = jnp.ones(x_BTV.shape[:2], bool)
    carry, y_BTH = self.body(x_BTV, mask_BT, carry, train)
    y_NH = y_BTH.reshape(-1, y_BTH.shape[-1])
    return carry, self.head(y_NH).reshape(x_BTV.shape)

  def initial_carry(self, batch_size: int) -> Carry:
    """The carry before the first frame."""
    return self.body.initial_carry(batch_size)


def _flat(head: Callable, y_BTH: jax.Array) -> jax.Array:
  """The logits_BTV of a head that reads y_NH."""
  logits_NV = head(y_BTH.reshape(-1, y_BTH.shape[-1]))
  return logits_NV.reshape(*y_BTH.shape[:-1], -1)


class Head(nn.Module):
  """The layer from y_NH to logits.

  Attributes:
    features: V, their number.
    initial_scale: as in Cell; None: 1/sqrt(H).
    products: as in Cell.
  """

  features: int
  initial_scale: float | None = None
  products: Products = Products()

  @nn.compact
  def __call__(self, y_NH: jax.Array) -> jax.Array:
    H = y_NH.shape[-1]
    init = uniform(self.initial_scale or H**-0.5)
    kernel_HV = self.param("kernel", init, (H, self.features))
    bias_V = self.param("bias", nn.initializers.zeros, (self.features,))
    return self.products.affine(y_NH, kernel_HV, bias_V)
