"""Models: from a config to a module, from parameters to outputs and losses."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Carry, Params, Totals
from seqrnn.models import cells, layers, losses
from seqrnn.models.products import Products
from seqrnn.models.sequence_model import Affixes as Affixes
from seqrnn.models.sequence_model import Letters as Letters
from seqrnn.models.sequence_model import NoteModel, SequenceModel


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
  lacks = {
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

  return layers.Stack(
    [layer(depth) for depth in range(model.layers)],
    dropout=model.dropout,
    variational_dropout=model.variational_dropout,
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
    products=products(model),
    outputs=outputs,
    letters=letters,
    embedding_scale=model.embedding_scale,
  )


def init(
  model: SequenceModel | NoteModel,
  key: jax.Array,
  inputs: Any = None,
) -> Params:
  """New parameters; `inputs` is an example of inputs, by default one id."""
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


def forward_params(params: Params) -> Params:
  """The forward tower and its head, as the parameters of a language model.

  Args:
    params: of a model with a head for each direction.
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
  """A decoder's step: the carry, and logits_BV of the next symbol.

  A symbol of music is a frame of notes, [B, V].
  """
  carry, logits_B1V = apply(model, params, symbol_B[:, None], carry)
  return carry, logits_B1V[:, 0]


class Objective(NamedTuple):
  """The loss of a network of symbols.

  Attributes:
    smoothing: as in `losses.cross_entropy`.
    figures: a function of the batch and of the arguments of
      `losses.cross_entropy` with the results of the latter; None: the latter.
  """

  smoothing: float = 0.0
  figures: Callable[..., tuple[jax.Array, Totals]] | None = None


def loss(
  model: SequenceModel,
  objective: Objective,
  params: Params,
  batch: Batch,
  carry: Carry,
  key: jax.Array | None,
) -> tuple[jax.Array, tuple[Carry, Totals]]:
  """The mean loss of a batch, the last carry, and the totals.

  With a key the model trains: dropout is drawn from the key, and the loss, but
  not the totals, includes smoothing.
  """
  figures = losses.cross_entropy
  if objective.figures is not None:
    figures = partial(objective.figures, batch)
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
    letters_BTL=letters_BTL,
  )
  carry, logits_BNV = result
  mean, totals = figures(logits_BNV, *target, objective.smoothing)
  return mean, (carry, totals)
