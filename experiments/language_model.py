"""The next symbol, from those before it.

many_to_many: every symbol of a window predicts the next one. many_to_one: a
window of past symbols predicts the one after it; there a bidirectional
network is legitimate, for the whole window lies in the past.
"""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config.combinations import need
from seqrnn.config.read import Config
from seqrnn.data import splits, vocabulary
from seqrnn.data.batches.segments import Segments
from seqrnn.data.logs import templates
from seqrnn.data.vocabulary import PAD, Vocabulary
from seqrnn.experiment import (
  Batch,
  Carry,
  Decoder,
  Experiment,
  Params,
  Predict,
  Report,
  Totals,
)
from seqrnn.models import losses, network
from seqrnn.runtime.compiled import Pure

VOCABULARIES = ("symbols",)  # What `prepare` makes and `build` needs.


def prepare(config: Config) -> dict[str, Vocabulary]:
  """The vocabulary of the training split."""
  pieces = splits.reader(config)("train")
  merge = templates.template_counts if config.data.unit == "log" else dict
  return {"symbols": vocabulary.of_pieces(pieces, config.data, merge)}


def build(config: Config, vocabularies: Mapping[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are.

  Raises:
    UserError: the model would see its targets.
  """
  data, symbols = config.data, vocabularies["symbols"]
  many_to_one = data.mapping == "many_to_one"
  why = (
    "the backward direction reads the symbols that are to be predicted; use"
    " task='gap_model' (configs/brnn.py) or data.mapping='many_to_one'"
  )
  exclusive = "model.bidirectional", [True], "data.mapping", ["many_to_one"]
  need(config, *exclusive, why)
  model = network.text_model(config, len(symbols), pooled=many_to_one)
  segments = Segments(
    config, symbols, length=data.window + 1, minimum=2, full=many_to_one
  )
  make = partial(targets, many_to_one=many_to_one)
  predict = Pure(network.predict, model)
  initial = Pure(network.SequenceModel.initial_carry, model)
  decoder = Decoder(initial, Pure(network.next_symbol, model))
  if many_to_one:
    # A window of nothing but padding, [B, T].
    start = lambda B: jnp.full((B, data.window), PAD, jnp.int32)
    decoder = Decoder(start, Pure(after_window, model))
  return Experiment(
    vocabularies=vocabularies,
    init=Pure(network.init, model),
    loss=Pure(loss, model, config.train.label_smoothing),
    facts=segments.facts,
    batches=lambda *split, **how: segments.batches(*split, **how).map(make),
    predict=predict,
    score=Pure(score, predict, losses.surprisal),
    decoder=decoder,
    forbidden=None if many_to_one else lambda T: ~np.tri(T, dtype=bool),
    heads={"forward": predict},
    carry=initial if data.stateful else Experiment._field_defaults["carry"],
    report=Report("It reads {word}s and predicts the next one.", ("writing",)),
  )


def loss(
  model: network.SequenceModel,
  smoothing: float,
  params: Params,
  carry: Carry,
  batch: Batch,
  key: jax.Array | None,
  entropy: Callable[..., tuple[jax.Array, Totals]] = losses.cross_entropy,
) -> tuple[jax.Array, tuple[Carry, Totals]]:
  """The mean loss of a batch, the carry after it, and the totals.

  With a key the model trains: dropout is drawn from the key, and the loss, but
  not the totals, includes smoothing.
  """
  carry, logits_BNV = network.predict(model, params, carry, batch, key)
  mean, totals = entropy(
    logits_BNV,
    batch["targets"],
    batch["weights"],
    0.0 if key is None else smoothing,
  )
  return mean, (carry, totals)


def score(
  predict: Predict,
  surprisal: Callable[[jax.Array, jax.Array], jax.Array],
  params: Params,
  carry: Carry,
  batch: Batch,
) -> tuple[Carry, jax.Array]:
  """The carry, and the surprisal nll_BN by the logits of `predict`."""
  carry, logits_BNV = predict(params, carry, batch)
  nll_BN = surprisal(logits_BNV, batch["targets"])
  return carry, nll_BN * batch["weights"]


def targets(batch: Batch, *, many_to_one: bool) -> Batch:
  """Inputs and targets of a batch of segments.

  The targets are the symbols that follow the inputs. In many_to_one it is the
  last symbol of a segment alone: the one after a full window, or the end of a
  document that is shorter.
  """
  segment, read = batch.pop("segment"), batch.pop("read", None)
  inputs_BT, pick = segment[:, :-1], lambda ids: ids[:, 1:]
  if many_to_one:
    last_B1 = np.maximum((segment != PAD).sum(1, keepdims=True) - 1, 0)
    before_BT = np.arange(inputs_BT.shape[1]) < last_B1
    inputs_BT = np.where(before_BT, inputs_BT, PAD)
    pick = lambda ids: np.take_along_axis(ids, last_B1, axis=1)
  targets_BN = pick(segment)
  weights_BN = (targets_BN != PAD) * batch.pop("weight")
  asked = {"inputs": inputs_BT, "targets": targets_BN, "weights": weights_BN}
  if read is not None:
    asked |= {"read": read[:, :-1], "truth": pick(read)}
  return asked | batch


def after_window(
  model: network.SequenceModel,
  params: Params,
  window_BT: jax.Array,
  symbol_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """The step of a many-to-one decoder: the window with a symbol, logits_BV.

  Training starts each window from the zero carry, so it is read anew for each
  symbol: filled from the left, then moving on.
  """
  T = window_BT.shape[1]
  length_B1 = (window_BT != PAD).sum(1, keepdims=True)
  moved_BT = jnp.concatenate([window_BT[:, 1:], window_BT[:, :1]], axis=1)
  window_BT = jnp.where(length_B1 == T, moved_BT, window_BT)
  place_BT = jnp.arange(T)[None] == jnp.minimum(length_B1, T - 1)
  window_BT = jnp.where(place_BT, symbol_B[:, None], window_BT)
  initial = model.initial_carry(symbol_B.shape[0])
  _, logits_B1V = network.apply(model, params, window_BT, initial)
  return window_BT, logits_B1V[:, 0]
