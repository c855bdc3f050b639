"""From ids, or frames of notes, to logits: embed -> layers -> head."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqrnn.config import Config
from seqrnn.data.vocabulary import PAD, UNKNOWN
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Carry, Params, Totals
from seqrnn.models import cells, layers, losses
from seqrnn.models.dropout import Dropout
from seqrnn.models.products import Lookup, affine, rows


def _remembers(kind: Callable[..., cells.Cell], **switches):
  """A cell with a forget gate, for CELLS."""
  return lambda model, **shape: kind(
    forget_bias=model.forget_bias, **switches, **shape
  )


# name -> the fields of `config.model` -> a cell
CELLS: dict[str, Callable[..., cells.Cell]] = {
  "lstm": _remembers(cells.LSTM),
  "gru": lambda _, **shape: cells.GRU(**shape),
  "rnn_tanh": lambda _, **shape: cells.RNN(**shape),
  "rnn_relu": lambda _, **shape: cells.RNN(activation=jax.nn.relu, **shape),
  "odyssey": _remembers(cells.Odyssey),
  "odyssey_nig": _remembers(cells.Odyssey, input_gate=False),
  "odyssey_nfg": _remembers(cells.Odyssey, forget_gate=False),
  "odyssey_nog": _remembers(cells.Odyssey, output_gate=False),
  "odyssey_niaf": _remembers(cells.Odyssey, input_activation=False),
  "odyssey_noaf": _remembers(cells.Odyssey, output_activation=False),
  "odyssey_cifg": _remembers(cells.Odyssey, coupled=True),
  "odyssey_np": _remembers(cells.Odyssey, peepholes=False),
  "odyssey_fgr": _remembers(cells.Odyssey, gate_recurrence=True),
  "layer_norm_lstm": _remembers(cells.LayerNormLSTM),
  "slstm": _remembers(cells.SLSTM),
  "gru_reset_before": lambda _, **shape: cells.ResetBeforeGRU(**shape),
  "mgu": lambda _, **shape: cells.MGU(**shape),
  "min_lstm": _remembers(cells.MinLSTM),
  "min_gru": lambda _, **shape: cells.MinGRU(**shape),
}
_LOOP = 256  # Steps of a sampling loop, about; see sample.py.

# `config.model.products` -> the type of the factors; None: as they are
PRODUCTS = {"float32": None, "bfloat16": jnp.bfloat16}


def mean(y_BTH: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """The mean over the positions of the mask, [B, H]; of none, 0."""
  count_B1 = jnp.sum(mask_BT, axis=1, keepdims=True)
  total_BH = jnp.sum(jnp.where(mask_BT[..., None], y_BTH, 0), axis=1)
  return total_BH / jnp.maximum(count_B1, 1)


def largest(y_BTH: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """The maximum over the positions of the mask, [B, H]; of none, 0."""
  any_B1 = jnp.any(mask_BT, axis=1, keepdims=True)
  y_BTH = jnp.where(mask_BT[..., None], y_BTH, -jnp.inf)
  return jnp.where(any_B1, jnp.max(y_BTH, axis=1), 0)


POOLINGS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "mean": mean,
  "max": largest,
}


class Letters(nn.Module):
  """What the characters of each word say: the last states over them.

  Attributes:
    body: the layers, a sequence module.
    vocabulary_size: of the characters.
    size: of their embedding.
  """

  body: Any
  vocabulary_size: int
  size: int

  @nn.compact
  def __call__(self, ids_BTL: jax.Array, train: bool = False) -> jax.Array:
    """The features of each word, [B, T, H]; L characters a word."""
    B, T, L = ids_BTL.shape
    ids_NL = ids_BTL.reshape(B * T, L)
    x_NLD = nn.Embed(self.vocabulary_size, self.size)(ids_NL)
    carry = self.body.initial_carry(B * T)
    carry, _ = self.body(x_NLD, ids_NL != PAD, carry, train)
    return self.body.summary(carry, train).reshape(B, T, -1)


class SequenceModel(nn.Module):
  """embed -> layers -> head.

  Attributes:
    body: the layers, a sequence module.
    vocabulary_size: V, of the inputs.
    embedding_size: D; None: the ids go straight to the gates of layer 1.
    tied: the head's kernel is the embedding, transposed (Press & Wolf 2017).
    pooling: how a sequence has one output: from the `last` state of each
      direction, or a name of POOLINGS; None: an output a symbol.
    initial_scale: as in Cell; None: 1/sqrt(fan in).
    dropout: of the embedding; so is variational_dropout, as in Stack.
    symbol_dropout: share of input symbols replaced by the unknown symbol in
      training.
    embedding_dropout: share of symbols whose embedding is zero in training, the
      same ones for a whole batch (Merity et al. 2017).
    products: as in Cell.
    outputs: V, of the outputs; None: that of the inputs.
    letters: Letters, whose features stand beside the embedding; or None.

  Where the body gives its directions apart, each has a head of its own, and the
  logits come by their names.
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
  embedding_dropout: float = 0.0
  products: Any = None
  outputs: int | None = None
  letters: Any = None

  def setup(self):
    if self.embedding_size is not None:
      if self.initial_scale is None:
        embedding_init = nn.initializers.normal(1.0)
      else:
        embedding_init = cells.uniform(self.initial_scale)
      self.embedding = nn.Embed(
        self.vocabulary_size,
        self.embedding_size,
        # As the softmax's kernel too, it must start small.
        embedding_init=cells.uniform(0.1) if self.tied else embedding_init,
      )
      self.drop = Dropout(self.dropout)
      self.drop_units = Dropout(self.variational_dropout, broadcast_dims=(1,))
      self.drop_symbols = Dropout(self.embedding_dropout, broadcast_dims=(1,))
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
    """The last carry, and logits_BTV, or logits_B1V where there is pooling."""
    mask_BT = ids_BT != PAD
    if train and self.symbol_dropout:
      hide_BT = jax.random.bernoulli(
        self.make_rng("dropout"), self.symbol_dropout, ids_BT.shape
      )
      ids_BT = jnp.where(hide_BT & (ids_BT > UNKNOWN), UNKNOWN, ids_BT)
    x_BTD: Any = ids_BT
    if self.embedding_size is not None:
      table_VD = self.drop_symbols(
        self.embedding.embedding, deterministic=not train
      )
      B, T = ids_BT.shape
      # Sampling reads one position a step, in a loop before which XLA makes
      # what rests on the table alone.
      few = self.vocabulary_size >= B * (T if T > 1 else _LOOP)
      if (
        few
        or self.letters is not None
        or (train and (self.dropout or self.variational_dropout))
      ):
        x_BTD = rows(table_VD, ids_BT)
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
    return carry, _flat(self._tied if self.tied else self.head, y_BTH)

  def _tied(self, y_NH):
    table_HV = self.embedding.embedding.T
    return affine(y_NH, table_HV, self.head_bias, self.products)

  def initial_carry(self, batch_size: int) -> Carry:
    """The carry before the first symbol."""
    return self.body.initial_carry(batch_size)


class NoteModel(nn.Module):
  """layers -> head, of frames of notes.

  Attributes:
    body: the layers, a sequence module.
    notes: V, of an input frame and of an output frame.
    initial_scale: as in Cell; None: 1/sqrt(fan in).
    input_noise: standard deviation of the Gaussian noise that is added to each
      note in training (Greff et al. 2017).
    products: as in Cell.
  """

  body: Any
  notes: int
  initial_scale: float | None = None
  input_noise: float = 0.0
  products: Any = None

  def setup(self):
    self.head = Head(self.notes, self.initial_scale, self.products)

  def __call__(
    self, notes_BTV: jax.Array, carry: Carry, train: bool = False
  ) -> tuple[Carry, jax.Array]:
    """The last carry, and logits_BTV: each note's log odds by itself."""
    x_BTV = notes_BTV.astype(jnp.float32)
    if train and self.input_noise:
      key = self.make_rng("dropout")
      x_BTV += self.input_noise * jax.random.normal(key, x_BTV.shape)
    # Padding needs no mask: it stands at the end, where the carry is dropped.
    mask_BT = jnp.ones(x_BTV.shape[:2], bool)
    carry, y_BTH = self.body(x_BTV, mask_BT, carry, train)
    y_NH = y_BTH.reshape(-1, y_BTH.shape[-1])
    return carry, self.head(y_NH).reshape(x_BTV.shape)

  def initial_carry(self, batch_size: int) -> Carry:
    """The carry before the first frame."""
    return self.body.initial_carry(batch_size)


def _flat(head: Callable, y_BTH: jax.Array) -> jax.Array:
  """Logits_BTV of a head that takes y_NH."""
  logits_NV = head(y_BTH.reshape(-1, y_BTH.shape[-1]))
  return logits_NV.reshape(*y_BTH.shape[:-1], -1)


class Head(nn.Module):
  """The layer that makes logits, of y_NH.

  Attributes:
    features: V, how many.
    initial_scale: as in Cell; None: 1/sqrt(H).
    products: as in Cell.
  """

  features: int
  initial_scale: float | None = None
  products: Any = None

  @nn.compact
  def __call__(self, y_NH: jax.Array) -> jax.Array:
    H = y_NH.shape[-1]
    init = cells.uniform(self.initial_scale or H**-0.5)
    kernel_HV = self.param("kernel", init, (H, self.features))
    bias_V = self.param("bias", nn.initializers.zeros, (self.features,))
    return affine(y_NH, kernel_HV, bias_V, self.products)


def recurrent(model: Config, reverse: bool, **shape) -> layers.Recurrent:
  """One scanned cell, as `config.model` describes it.

  Raises:
    UserError: a regulariser of what the cell does not have.
  """
  cell = CELLS[model.cell](
    model,
    hidden_size=model.hidden_size,
    initial_scale=model.initial_scale,
    products=PRODUCTS[model.products],
    **shape,
  )
  carry = jax.eval_shape(lambda: cell.initial_carry(1))
  lacks = {
    "zoneout_cell": len(jax.tree.leaves(carry)) != 2 and "carry (c, h)",
    "weight_drop": not cell.recurrent_product and "recurrent kernel",
    "recurrent_dropout": not cell.recurrent_product and "recurrent product",
  }
  for name, part in lacks.items():
    if model[name] and part:
      raise UserError(
        f"model.{name}={model[name]} with model.cell={model.cell!r}: it has no"
        f" {part}"
      )
  return layers.Recurrent(
    cell,
    reverse=reverse,
    fused=model.scan == "fused",
    weight_drop=model.weight_drop,
    recurrent_dropout=model.recurrent_dropout,
    zoneout=(model.zoneout_hidden, model.zoneout_cell),
  )


def stack(
  model: Config,
  vocabulary_size: int | None,
  *,
  reverse=False,
  bidirectional=False,
) -> layers.Stack:
  """`model.layers` layers of one direction or, inside each layer, of both.

  `vocabulary_size` is None where the inputs are features, not ids.
  """

  def layer(depth):
    ids = depth == 0 and model.embedding_size is None
    shape = {"vocabulary_size": vocabulary_size if ids else None}
    if bidirectional:
      return layers.Bidirectional(
        recurrent(model, False, **shape),
        recurrent(model, True, **shape),
        merge=model.merge,
      )
    return recurrent(model, reverse, **shape)

  return layers.Stack(
    [layer(depth) for depth in range(model.layers)],
    dropout=model.dropout,
    variational_dropout=model.variational_dropout,
    activation_penalty=model.activation_penalty,
    change_penalty=model.change_penalty,
    reverse=reverse,
  )


def sequence_model(
  model: Config,
  body: nn.Module,
  vocabulary_size: int,
  pooled: bool,
  outputs: int | None = None,
  letters: nn.Module | None = None,
) -> SequenceModel:
  """The model that `config.model` describes around its layers.

  Args:
    model: the fields.
    body: the layers.
    vocabulary_size: of the inputs.
    pooled: one output a sequence, as `model.pooling` makes it.
    outputs: how many there are; None: as many as inputs.
    letters: as in SequenceModel.

  Raises:
    UserError: weights are tied whose shapes differ.
  """
  if model.tied and outputs is not None:
    raise UserError(
      "model.tied=True: the outputs are labels, which have no embedding to tie"
    )
  if model.tied:
    two = model.bidirectional or isinstance(body, layers.Bidirectional)
    width = model.hidden_size * (2 if two and model.merge == "concat" else 1)
    if model.embedding_size != width:
      raise UserError(
        f"model.tied=True with model.embedding_size={model.embedding_size}:"
        f" tied weights need an embedding as wide as the last layer, {width}"
      )
  return SequenceModel(
    body=body,
    vocabulary_size=vocabulary_size,
    embedding_size=model.embedding_size,
    tied=model.tied,
    pooling=model.pooling if pooled else None,
    initial_scale=model.initial_scale,
    dropout=model.dropout,
    symbol_dropout=model.symbol_dropout,
    variational_dropout=model.variational_dropout,
    embedding_dropout=model.embedding_dropout,
    products=PRODUCTS[model.products],
    outputs=outputs,
    letters=letters,
  )


def init(
  model: SequenceModel | NoteModel,
  key: jax.Array,
  inputs: Any = None,
) -> Params:
  """New parameters; `inputs` is an example of the model's; None: an id."""
  more = {}
  if inputs is None:
    inputs = jnp.full((1, 1), UNKNOWN)
    more["letters_BTL"] = inputs[..., None]
  return model.init(key, inputs, model.initial_carry(1), **more)["params"]


def apply(
  model: SequenceModel | NoteModel,
  params: Params,
  inputs: jax.Array,
  carry: Carry,
  key: jax.Array | None = None,
  **more: Any,
) -> tuple[Carry, jax.Array]:
  """The last carry and logits_BNV; dropout, where there is a key to draw it.

  `more` is what else the model reads.
  """
  result: Any = model.apply(
    {"params": params},
    inputs,
    carry,
    train=key is not None,
    rngs=None if key is None else {"dropout": key},
    **more,
  )
  return result


def forward_params(params: Params) -> Params:
  """Those of the forward tower and its head, as a language model has them.

  Args:
    params: of a model whose directions have a head each.
  """
  own = {
    "body": params["body"]["forward"]["tower"],
    "head": params["forward_head"],
  }
  if "embedding" in params:
    own["embedding"] = params["embedding"]
  return own


def next_symbol(
  model: SequenceModel | NoteModel,
  params: Params,
  carry: Carry,
  symbol_B: jax.Array,
) -> tuple[Carry, jax.Array]:
  """A decoder's step: the carry, and logits_BV of what follows a symbol.

  Of music, a symbol is a frame of notes, [B, V].
  """
  carry, logits_B1V = apply(model, params, symbol_B[:, None], carry)
  return carry, logits_B1V[:, 0]


def loss(
  model: SequenceModel,
  params: Params,
  batch: Batch,
  carry: Carry,
  key: jax.Array | None,
  label_smoothing: float,
  figures: Callable[..., tuple[jax.Array, Totals]] = losses.cross_entropy,
) -> tuple[jax.Array, tuple[Carry, Totals]]:
  """The mean loss of a batch, the last carry, and the totals.

  Where there is a key, the model trains: what is random is drawn from it, and
  the loss, not the totals, has what regularises. `figures` takes and gives what
  metrics.cross_entropy does.
  """
  ids_BT = batch["inputs"]
  target = (batch["targets"], batch["weights"])
  letters_BTL = batch.get("letters")
  if key is None:
    carry, logits_BNV = apply(
      model, params, ids_BT, carry, letters_BTL=letters_BTL
    )
    mean, totals = figures(logits_BNV, *target)
    return mean, (carry, totals)
  result: Any = model.apply(
    {"params": params},
    ids_BT,
    carry,
    train=True,
    rngs={"dropout": key},
    mutable=["penalties"],
    letters_BTL=letters_BTL,
  )
  (carry, logits_BNV), penalties = result
  penalty_BN = None
  if penalties:  # One, or one of each tower.
    penalty_BN = jnp.sum(jnp.stack(jax.tree.leaves(penalties)), axis=0)
    if model.pooling is not None:
      mask_BT = ids_BT != PAD
      total_B1 = jnp.sum(penalty_BN * mask_BT, axis=1, keepdims=True)
      length_B1 = jnp.sum(mask_BT, axis=1, keepdims=True)
      penalty_BN = total_B1 / jnp.maximum(length_B1, 1)
  mean, totals = figures(logits_BNV, *target, label_smoothing, penalty_BN)
  return mean, (carry, totals)
