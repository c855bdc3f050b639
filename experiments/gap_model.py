"""Each symbol from those on both sides of it: p(symbol | left, right).

Two towers read the window, one from either end, and never mix below the head:
the symbol at t is predicted from the forward state at t-1 and the backward
state at t+1. A deep bidirectional network would not do: its second layer at
t-1 has read t through the backward half of the first.

With `model.heads=all` each tower has a head of its own, too: of what follows
the past alone, which makes the forward tower a language model that samples, and
of what precedes the future alone.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

# The symbols are those of a language model.
from experiments.language_model import VOCABULARIES as VOCABULARIES
from experiments.language_model import prepare as prepare
from seqrnn.config import Config
from seqrnn.data.segments import Segments
from seqrnn.data.vocabulary import BEGIN, END, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Decoder, Experiment, Totals
from seqrnn.models import layers, losses, network

HEADS = ("joint", "forward", "backward")  # As `forbidden` has them.


def build(config: Config, vocabularies: dict[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are.

  Raises:
    UserError: settings of another kind of model.
  """
  data = config.data
  symbols = vocabularies["symbols"]
  if data.stateful:
    raise UserError(
      "data.stateful=True with task='gap_model': the backward tower has no"
      " carry to hand on; use task='language_model'"
    )
  if data.mapping != "many_to_many":
    raise UserError(
      f"data.mapping={data.mapping!r} with task='gap_model': it predicts every"
      " symbol of a window, many_to_many"
    )
  apart = config.model.heads == "all"
  body = layers.Bidirectional(
    layers.Before(network.stack(config.model, len(symbols))),
    layers.Before(
      network.stack(config.model, len(symbols), reverse=True), reverse=True
    ),
    merge=config.model.merge,
    apart=apart,
  )
  model = network.sequence_model(config.model, body, len(symbols), pooled=False)
  segments = Segments(config, symbols, length=data.window, minimum=1)

  def targets(batch: Batch) -> Batch:
    segment_BT = batch.pop("segment")
    # Begin and end are context: where they stand is no question. But from the
    # past alone it is one where the end stands.
    asked_BT = segment_BT > (BEGIN if apart else END)
    made = {
      "inputs": segment_BT,
      "targets": segment_BT,
      "weights": asked_BT * batch.pop("weight"),
      **batch,
    }
    if "read" in batch:
      made["truth"] = batch["read"]
    if apart:
      made["heads"] = np.ones((len(segment_BT), len(HEADS)), np.float32)
    return made

  def logits(params, batch):
    ids_BT = batch["inputs"]
    start = model.initial_carry(ids_BT.shape[0])
    return network.apply(model, params, ids_BT, start)[1]

  def by(head, params, carry, batch):
    return carry, logits(params, batch)[head]

  def predict(params, carry, batch):
    found = logits(params, batch)
    return carry, found["joint"] if apart else found

  def loss(params, carry, batch, key):
    start = model.initial_carry(batch["inputs"].shape[0])
    figures = losses.cross_entropy
    if apart:
      figures = partial(cross_entropies, batch["heads"])
    loss, (_, totals) = network.loss(
      model, params, batch, start, key, config.train.label_smoothing, figures
    )
    return loss, (carry, totals)

  def score(params, carry, batch):
    _, logits_BTV = predict(params, carry, batch)
    nll_BT = losses.surprisal(logits_BTV, batch["targets"])
    return carry, nll_BT * batch["weights"]

  def forbidden(T):
    itself = np.eye(T, dtype=bool)
    before = np.tri(T, k=-1, dtype=bool)
    return np.concatenate([itself, ~before, itself | before][: len(heads)])

  heads = {"joint": predict}
  if apart:
    heads = {name: partial(by, name) for name in HEADS}
  return Experiment(
    vocabularies=vocabularies,
    init=lambda key: network.init(model, key),
    carry=lambda _: (),
    loss=loss,
    facts=segments.facts,
    batches=lambda *split, **how: segments.batches(*split, **how).map(targets),
    predict=predict,
    score=score,
    decoder=ahead(config.model, len(symbols)) if apart else None,
    forbidden=forbidden,
    heads=heads,
    fills_gaps=True,
  )


def ahead(model: Config, vocabulary_size: int) -> Decoder:
  """The forward tower and its head, which are a language model."""
  V = vocabulary_size
  body = network.stack(model, V)
  forward = network.sequence_model(model, body, V, pooled=False)

  def step(params, carry, symbol_B):
    own = network.forward_params(params)
    return network.next_symbol(forward, own, carry, symbol_B)

  return Decoder(forward.initial_carry, step)


def cross_entropies(
  heads_BN: jax.Array,
  logits: dict[str, jax.Array],
  targets_BT: jax.Array,
  weights_BT: jax.Array,
  smoothing: float = 0.0,
  penalty_BT: jax.Array | None = None,
) -> tuple[jax.Array, Totals]:
  """The mean of the cross-entropies of HEADS; the figures are the joint one's.

  Args:
    heads_BN: how much each head counts in a row.
    logits: of each head.
    targets_BT: as in metrics.cross_entropy, and so are the others.
    weights_BT: of all heads.
    smoothing: of all heads.
    penalty_BT: of both towers, so the joint head's; it counts whole.
  """
  each, totals = [], {}
  for n, name in enumerate(HEADS):
    whole = None
    if name == "joint" and penalty_BT is not None:
      whole = len(HEADS) * penalty_BT
    loss, totals[name] = losses.cross_entropy(
      logits[name],
      targets_BT,
      weights_BT * heads_BN[:, n, None],
      smoothing,
      whole,
    )
    each.append(loss)
  others = {f"{name}_loss": totals[name]["loss"] for name in HEADS[1:]}
  return jnp.mean(jnp.stack(each)), totals["joint"] | others
