"""Models: embed -> layers -> head, their configs, outputs and losses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import PAD, UNKNOWN
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Carry, Params
from seqrnn.models import cells, features, layers, losses
from seqrnn.models.cell import hold, uniform
from seqrnn.models.products import Lookup, Products

_FITTED = 2**22  # Weights of it; their optimizer keeps some ten copies.
_LOOP = 256  # About how often a program calls a model with one position.
# Fields of `config.model` that SequenceModel has as they are.
_FIELDS = (
  *("embedding_size", "tied", "initial_scale", "symbol_dropout"),
  *("variational_dropout", "embedding_scale", "input_noise"),
)
# Arrays of a batch that the model reads beside its inputs.
_BESIDE = {"letters": "letters_BTL", "terms": "terms_BF"}


class SequenceModel(nn.Module):
  """embed -> layers -> head.

  Attributes:
    body: the layers, a sequence module.
    vocabulary_size: V of the inputs, ids or frames of notes.
    embedding_size: D; None: layer 1 reads the ids.
    tied: the head's kernel is the embedding, transposed (Press & Wolf 2017).
    pooling: what the one output of a sequence is computed from: the `last`
      state of each direction, `attention`, or a name of POOLINGS; None: each
      symbol has an output.
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
    input_noise: the standard deviation of the Gaussian noise that is added to
      each note in training (Greff et al. 2017).
    convolution: a Convolution of the embedding, which the layers read instead;
      or None.
    attention: the Attention that `pooling` may name.
    nade: Nade, or None: each note is independent of the others in its frame.
    wide: Wide, which joins its logits to those of pooled outputs; or None.

  If the body returns its directions separately, each has a head of its own, and
  the logits are a dict with their names.
  """

  body: nn.Module
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
  letters: nn.Module | None = None
  embedding_scale: float | None = None
  input_noise: float = 0.0
  convolution: nn.Module | None = None
  attention: Any = None
  nade: nn.Module | None = None
  wide: nn.Module | None = None

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
      self.drop = layers.Dropout(self.dropout)
      self.drop_units = layers.Dropout(
        self.variational_dropout, broadcast_dims=(1,)
      )
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
    notes_BTV: jax.Array | None = None,
    terms_BF: jax.Array | None = None,
  ) -> tuple[Carry, jax.Array | dict[str, jax.Array]]:
    """The last carry, and logits_BTV, or logits_B1V with pooling.

    Frames are [B, T, V]; logits are the log odds of each note. With `nade`,
    they are those of notes_BTV; without these, they are its biases.
    """
    mask_BT = ids_BT != PAD
    if ids_BT.ndim > 2:
      # No mask: padding stands at the end, and the last carry is not used.
      mask_BT = jnp.ones(ids_BT.shape[:2], bool)
      ids_BT = ids_BT.astype(jnp.float32)
      if train and self.input_noise:
        key = self.make_rng("dropout")
        ids_BT += self.input_noise * jax.random.normal(key, ids_BT.shape)
    if train and self.symbol_dropout:
      key, rate = self.make_rng("dropout"), self.symbol_dropout
      hide_BT = jax.random.bernoulli(key, rate, ids_BT.shape)
      ids_BT = jnp.where(hide_BT & (ids_BT > UNKNOWN), UNKNOWN, ids_BT)
    x_BTD: jax.Array | Lookup = ids_BT
    if self.embedding_size is not None:
      B, T = ids_BT.shape
      # A call with one position is in a loop; XLA computes products of the
      # table before the loop.
      positions = B * (T if T > 1 else _LOOP)
      if (
        positions <= self.vocabulary_size
        or self.letters is not None
        or self.convolution is not None
        or (train and (self.dropout or self.variational_dropout))
      ):
        x_BTD = self.embedded(ids_BT)
        if self.letters is not None:
          letters_BTH = self.letters(letters_BTL, train)
          x_BTD = jnp.concatenate([x_BTD, letters_BTH], axis=-1)
        x_BTD = self.drop(x_BTD, deterministic=not train)
        x_BTD = self.drop_units(x_BTD, deterministic=not train)
        if self.convolution is not None:
          x_BTD = self.convolution(x_BTD, mask_BT)
      else:
        x_BTD = Lookup(self.embedding.embedding, ids_BT)
    carry, y_BTH = self.body(x_BTD, mask_BT, carry, train)
    y_BTH = self._pooled(y_BTH, mask_BT, carry, train)
    if isinstance(y_BTH, dict):
      heads = {"forward": self.forward_head, "backward": self.backward_head}
      heads = {"joint": self.head, **heads}
      return carry, {name: _flat(heads[name], y) for name, y in y_BTH.items()}
    logits_BTV = self.joint(y_BTH)
    if self.nade is not None and notes_BTV is not None:
      logits_BTV = self.nade(logits_BTV, notes_BTV.astype(jnp.float32))
    if self.wide is not None:
      logits_BTV = self.wide(logits_BTV, terms_BF, train)
    return carry, logits_BTV

  def _pooled(self, y_BTH, mask_BT, carry, train: bool):
    """What outputs are computed from, [B, 1, H] with pooling."""
    if self.pooling is None:
      return y_BTH
    if self.pooling == "last":
      return self.body.summary(carry, train)[:, None]
    if self.pooling == "attention":
      return self.attention(y_BTH, mask_BT)[:, None]
    return features.POOLINGS[self.pooling](y_BTH, mask_BT)[:, None]

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


def products(model: Config) -> Products:
  """How a model computes its products, as `config.model` has it."""
  return Products(model.products, plain=model.scan == "plain")


def recurrent(model: Config, reverse: bool, **shape) -> layers.Recurrent:
  """One scanned cell, as `config.model` describes it.

  Raises:
    UserError: a regulariser needs a part that the cell does not have.
  """
  cell = cells.make(
    model,
    hidden_size=model.hidden_size,
    initial_scale=model.initial_scale,
    products=products(model),
    **shape,
  )
  for name in ("weight_drop", "recurrent_dropout"):
    if model[name] and not cell.recurrent_product:
      raise UserError(
        f"model.{name}={model[name]} with model.cell={model.cell!r}: it has no"
        " recurrent kernel"
      )
  return layers.Recurrent(
    cell,
    reverse=reverse,
    weight_drop=model.weight_drop,
    recurrent_dropout=model.recurrent_dropout,
  )


def stack(
  model: Config,
  vocabulary_size: int | None,
  *,
  reverse=False,
  bidirectional=False,
) -> layers.Stack:
  """`model.layers` layers of one direction, or each of both directions.

  Args:
    model: the fields.
    vocabulary_size: V of the inputs; None: they are features, not ids.
    reverse: from the last position to the first.
    bidirectional: both directions in each layer.
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

  block = lambda: layers.Block(model.initial_scale, products(model))
  blocks = model.layers if model.block == "residual" else 0
  return layers.Stack(
    [layer(depth) for depth in range(model.layers)],
    dropout=layers.Rate(model.dropout),
    variational_dropout=model.variational_dropout,
    blocks=[block() for _ in range(blocks)],
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
    vocabulary_size: V of the inputs.
    pooled: one output a sequence, as `model.pooling` says.
    outputs: V of the outputs; None: V of the inputs.
    letters: as in SequenceModel.

  Raises:
    UserError: the weights to tie have different shapes.
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
  convolution = model.convolution and features.Convolution(
    model.convolution, model.hidden_size, products(model)
  )
  return SequenceModel(
    body,
    vocabulary_size,
    convolution=convolution,
    pooling=model.pooling if pooled else None,
    products=products(model),
    outputs=outputs,
    letters=letters,
    dropout=layers.Rate(model.dropout),
    **{name: model[name] for name in _FIELDS},
  )


def fits_wide(config: Config, weights: int) -> bool:
  """Whether the wide part is fitted before the layers, and then frozen.

  With `train.choice=best` there are many texts, from which both learn together;
  and so they do where another run brings trained layers, and of numbers where
  other texts bring word vectors.
  """
  train, vectors = config.train, config.data.unlabelled_path
  if config.task == "regression" and (vectors or config.model.embedding_path):
    return False
  few = train.choice != "best" and train.start_from is None
  return few and weights <= _FITTED


def text_model(
  config: Config,
  symbols: int,
  pooled: bool,
  outputs: int | None = None,
  letters: nn.Module | None = None,
  terms: int | None = None,
) -> SequenceModel:
  """A stack, of both directions where `model.bidirectional` is set, and a head.

  Args:
    config: of the run.
    symbols: V of the inputs.
    pooled: as in `sequence_model`.
    outputs: as in `sequence_model`.
    letters: as in `sequence_model`.
    terms: the number of terms that logits are linear in; None: of none.
  """
  model = config.model
  body = stack(model, symbols, bidirectional=model.bidirectional)
  whole = sequence_model(model, body, symbols, pooled, outputs, letters)
  attention, wide = features.Attention(config.data.window), None
  if terms and outputs:
    fits = fits_wide(config, terms * outputs)
    wide = features.Wide(terms, outputs, fits)
  return whole.clone(attention=attention, wide=wide)


def note_model(model: Config, notes: int) -> SequenceModel:
  """The model of frames of notes that `config.model` describes."""
  body = stack(model, None)
  plain = sequence_model(model, body, notes, pooled=False)
  if model.nade is None:
    return plain
  head = losses.Nade(notes, model.nade)
  return plain.clone(outputs=notes + model.nade, nade=head)


def init(model: SequenceModel, key: jax.Array, inputs: Any = None) -> Params:
  """New parameters; `inputs` is an example of inputs, by default one id."""
  more = {}
  if model.nade is not None:
    more["notes_BTV"] = inputs
  if inputs is None:
    inputs = jnp.full((1, 1), UNKNOWN)
    more["letters_BTL"] = inputs[..., None]
  if model.wide is not None:
    more["terms_BF"] = jnp.zeros((1, model.wide.terms))
  return model.init(key, inputs, model.initial_carry(1), **more)["params"]


def apply(
  model: SequenceModel,
  params: Params,
  inputs: jax.Array,
  carry: Carry,
  key: jax.Array | None = None,
  **more: Any,
) -> tuple[Carry, jax.Array]:
  """The last carry and logits_BNV.

  Args:
    model: the module.
    params: of the model.
    inputs: ids or frames.
    carry: before the first position.
    key: of dropout and noise, as in training; None: there are none.
    more: other inputs of the model.
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


def predict(
  model: SequenceModel,
  params: Params,
  carry: Carry,
  batch: Batch,
  key: jax.Array | None = None,
) -> tuple[Carry, jax.Array]:
  """The carry after a batch, and its logits; with a key, as in training.

  A carry of () stays (), and then every row starts from the zero carry.
  """
  more = {x: batch[n] for n, x in _BESIDE.items() if n in batch}
  if model.nade is not None and "targets" in batch:
    more["notes_BTV"] = batch["targets"]
  stateful = bool(jax.tree.leaves(carry))
  start = model.initial_carry(len(batch["inputs"]))
  if stateful:  # Rows that start anew have the zero carry.
    start = hold(~batch["reset"], carry, start)
  last, logits = apply(model, params, batch["inputs"], start, key, **more)
  return last if stateful else carry, logits


def forward_params(params: Params) -> Params:
  """The forward tower and its head, as the parameters of a language model.

  Args:
    params: of a model with a head for each direction.
  """
  names = {"embedding": "embedding", "forward_head": "head"}
  forward = {new: params[old] for old, new in names.items() if old in params}
  return {"body": params["body"]["forward"]["tower"], **forward}


def next_symbol(
  model: SequenceModel, params: Params, carry: Carry, symbol_B: jax.Array
) -> tuple[Carry, jax.Array]:
  """A decoder's step: the carry, and logits_BV of the next symbol.

  A symbol of music is a frame of notes, [B, V].
  """
  carry, logits_B1V = apply(model, params, symbol_B[:, None], carry)
  return carry, logits_B1V[:, 0]
