"""Each symbol from those on both sides of it: p(symbol | left, right).

Two towers read the window, one from either end, and never mix below the head:
the symbol at t is predicted from the forward state at t-1 and the backward
state at t+1. A deep bidirectional network would not do: its second layer at
t-1 has read t through the backward half of the first.

With `model.heads=all` each tower also has its own head. The forward head
predicts from the past alone, which makes the forward tower a language model
that samples; the backward head predicts from the future alone.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config import derived
from seqrnn.config.read import Config
from seqrnn.data.batches.segments import Segments
from seqrnn.data.vocabulary import BEGIN, END, PAD, Vocabulary
from seqrnn.experiment import (
  Batch,
  Carry,
  Experiment,
  Filler,
  Params,
  Report,
  Totals,
)
from seqrnn.experiments import language_model

# The symbols are those of a language model.
from seqrnn.experiments.language_model import VOCABULARIES as VOCABULARIES
from seqrnn.experiments.language_model import prepare as prepare
from seqrnn.models import layers, losses, network
from seqrnn.runtime.compiled import Pure

HEADS = ("joint", "forward", "backward")  # As `forbidden` has them.
_ABOUT = "It predicts the {word} in a gap from the {word}s on both sides."


def build(config: Config, vocabularies: Mapping[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are."""
  data, symbols = config.data, vocabularies["symbols"]
  apart = config.model.heads == "all"
  model = towers(config.model, len(symbols), apart)
  segments = Segments(config, symbols, length=data.window, minimum=1)
  names = HEADS if apart else HEADS[:1]
  heads = {name: Pure(predict, model, name) for name in names}
  make = partial(targets, apart=apart)
  each = heads_loss if apart else language_model.loss
  experiment = Experiment(
    vocabularies=vocabularies,
    init=Pure(network.init, model),
    loss=Pure(each, model, config.train.label_smoothing),
    facts=segments.facts,
    batches=lambda *split, **how: segments.batches(*split, **how).map(make),
    predict=heads["joint"],
    score=Pure(language_model.score, heads["joint"], losses.surprisal),
    forbidden=partial(forbidden, len(heads)),
    heads=heads,
    fills_gaps=True,
    filler=Filler(Pure(following, model), Pure(between, model)),
    unless="model.heads='all'",
    report=Report(_ABOUT, ("gaps",)),
  )
  return with_writer(experiment, config) if apart else experiment


def towers(
  model: Config, vocabulary_size: int, apart: bool
) -> network.SequenceModel:
  """The two towers; `apart`: with a head each, beside the joint one."""
  forward = network.stack(model, vocabulary_size)
  backward = network.stack(model, vocabulary_size, reverse=True)
  body = layers.Bidirectional(
    layers.Before(forward),
    layers.Before(backward, reverse=True),
    merge=model.merge,
    apart=apart,
  )
  return network.sequence_model(model, body, vocabulary_size, pooled=False)


def targets(batch: Batch, *, apart: bool) -> Batch:
  """Inputs and targets of a batch of segments: both are all its symbols.

  BEGIN and END are context and no targets. With a head for each tower, END is a
  target, too: the forward tower must predict the end of a document.
  """
  segment_BT = batch.pop("segment")
  asked_BT = segment_BT > (BEGIN if apart else END)
  asked = {
    "inputs": segment_BT,
    "targets": segment_BT,
    "weights": asked_BT * batch.pop("weight"),
    **batch,
  }
  if "read" in batch:
    asked["truth"] = batch["read"]
  if apart:
    asked["heads"] = np.ones((len(segment_BT), len(HEADS)), np.float32)
  return asked


def predict(
  model: network.SequenceModel,
  head: str,
  params: Params,
  carry: Carry,
  batch: Batch,
) -> tuple[Carry, jax.Array]:
  """The carry, and the logits_BTV of a head."""
  carry, logits = network.predict(model, params, carry, batch)
  return carry, logits[head] if isinstance(logits, dict) else logits


def following(
  model: network.SequenceModel, params: Params, ids_BT: jax.Array
) -> Carry:
  """The carry of `Filler`: y_TBH of the backward tower, t, forward carry."""

  def read(net, ids_BT):
    backward = net.body.backward
    carry = backward.initial_carry(len(ids_BT))
    _, y_BTH = backward(net.embedded(ids_BT), ids_BT != PAD, carry)
    start = jnp.zeros((), jnp.int32)
    return (
      y_BTH.swapaxes(0, 1),
      start,
      net.body.forward.initial_carry(len(ids_BT)),
    )

  return model.apply({"params": params}, ids_BT, method=read)


def between(
  model: network.SequenceModel,
  params: Params,
  carry: Carry,
  symbol_B: jax.Array,
) -> tuple[Carry, jax.Array]:
  """The step of `Filler`: the carry, and logits_BV of the joint head."""

  def step(net, carry, symbol_B):
    after_TBH, t, ahead = carry
    ids_B1, tower = symbol_B[:, None], net.body.forward.tower
    ahead, _ = tower(net.embedded(ids_B1), ids_B1 != PAD, ahead)
    after_BH = jax.lax.dynamic_index_in_dim(after_TBH, t, keepdims=False)
    merge = layers.MERGES[net.body.merge]
    y_B1H = merge(tower.summary(ahead), after_BH)[:, None]
    return (after_TBH, t + 1, ahead), net.joint(y_B1H)[:, 0]

  result: Any = model.apply({"params": params}, carry, symbol_B, method=step)
  return result


def forbidden(heads: int, T: int) -> np.ndarray:
  """The inputs that the first `heads` of HEADS must not depend on."""
  itself = np.eye(T, dtype=bool)
  before = np.tri(T, k=-1, dtype=bool)
  return np.concatenate([itself, ~before, itself | before][:heads])


def with_writer(experiment: Experiment, config: Config) -> Experiment:
  """The experiment of a model whose forward tower, with its head, samples."""
  ahead = derived.one_direction(config)
  forward = language_model.build(ahead, experiment.vocabularies)
  decoder, tower = forward.decoder, network.forward_params
  assert decoder is not None, "every language model has one"
  step = lambda params, *more: decoder.step(tower(params), *more)
  return experiment._replace(
    decoder=decoder._replace(step=step),
    writer=lambda params: (forward, tower(params)),
    report=Report(
      f"{_ABOUT} Its forward head reads only the text before, so it can write.",
      ("gaps", *forward.report.sections),
    ),
  )


def heads_loss(
  model: network.SequenceModel,
  smoothing: float,
  params: Params,
  carry: Carry,
  batch: Batch,
  key: jax.Array | None,
) -> tuple[jax.Array, tuple[Carry, Totals]]:
  """`language_model.loss` as the mean over HEADS; the totals are the joint's.

  `heads` [B, 3] of the batch say how much each head counts in a row.
  """
  carry, logits = network.predict(model, params, carry, batch, key)
  each, totals = [], {}
  for n, name in enumerate(HEADS):
    mean, totals[name] = losses.cross_entropy(
      logits[name],
      batch["targets"],
      batch["weights"] * batch["heads"][:, n, None],
      0.0 if key is None else smoothing,
    )
    each.append(mean)
  others = {f"{name}_loss": totals[name]["loss"] for name in HEADS[1:]}
  return jnp.mean(jnp.stack(each)), (carry, totals["joint"] | others)
