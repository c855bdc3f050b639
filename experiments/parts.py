"""Parts of the tasks' networks, and functions that tasks bind to them.

`model` is the network. The other arguments are those of the fields of
`Experiment`. A carry of () stays (), and then every row starts from the zero
carry.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from seqrnn.config import derived
from seqrnn.config.read import Config
from seqrnn.data.batches.segments import Request, Segments, Split
from seqrnn.data.batches.windows import Batches
from seqrnn.data.read.words import affix_vocabulary, affixes, characters
from seqrnn.data.vocabulary import PAD, Vocabulary
from seqrnn.experiment import Batch, Carry, Totals
from seqrnn.models import features, losses, network
from seqrnn.models.scan import hold

# The figures of a loss, and its smoothing, as `losses.cross_entropy` has it.
Objective = tuple[Callable[..., tuple[jax.Array, Totals]], float]


def sequence_model(
  config: Config, vocabularies: dict[str, Vocabulary], **more: Any
) -> network.SequenceModel:
  """A stack, of both directions where `model.bidirectional` is set, and a head.

  Outputs are logits of the labels, where there is a vocabulary of them, else of
  the symbols. `more` is `pooled` and `letters` of `network.sequence_model`.
  """
  model, V = config.model, len(vocabularies["symbols"])
  if "labels" in vocabularies:
    more["outputs"] = len(vocabularies["labels"].symbols)
  body = network.stack(model, V, bidirectional=model.bidirectional)
  whole = network.sequence_model(model, body, V, **more)
  attention = features.Attention(config.data.window)
  wide = None
  if model.wide and whole.pooling and whole.outputs:
    wide = features.Wide(V, whole.outputs)
  return whole.clone(attention=attention, wide=wide)


def spelling(
  config: Config, symbols: Vocabulary
) -> tuple[nn.Module | None, Callable[..., np.ndarray] | None]:
  """The module that reads the spelling of words, and a function words -> ids.

  Both are None if words are read by their ids alone.
  """
  model, products = config.model, network.products(config.model)
  if model.letters is None and model.affixes is None:
    return None, None
  if model.letters is None:
    longest = model.affixes
    known = affix_vocabulary(symbols.symbols, longest)
    count = 2 * longest + 1
    module = features.Affixes(len(known), model.embedding_size, count, products)
    return module, functools.partial(affixes, known, longest)
  characters_known = symbols.characters()
  shape, size = derived.speller(model), len(characters_known)
  body = network.stack(shape, size, bidirectional=True)
  module = features.Letters(body, size, model.letters, products)
  return module, functools.partial(characters, characters_known)


def predict(model, params, carry, batch, key=None) -> tuple[Carry, Any]:
  """The carry after a batch, and its logits; with a key, as in training."""
  more = {"letters_BTL": batch["letters"]} if "letters" in batch else {}
  if model.nade is not None and "targets" in batch:
    more["notes_BTV"] = batch["targets"]
  stateful = bool(jax.tree.leaves(carry))
  start = model.initial_carry(len(batch["inputs"]))
  if stateful:  # Rows that start anew have the zero carry.
    start = hold(~batch["reset"], carry, start)
  last, logits = network.apply(
    model, params, batch["inputs"], start, key, **more
  )
  return last if stateful else carry, logits


def cross_entropy(_batch, *terms: Any) -> tuple[jax.Array, Totals]:
  """`losses.cross_entropy` as `figures` of `loss`."""
  return losses.cross_entropy(*terms)


def loss(
  model, objective: Objective, params, carry, batch, key
) -> tuple[jax.Array, tuple[Carry, Totals]]:
  """The mean loss of a batch, the carry after it, and the totals.

  With a key the model trains: dropout is drawn from the key, and the loss, but
  not the totals, includes smoothing. `figures` is a function of a batch and the
  arguments of `losses.cross_entropy`, with the results of the latter.
  """
  figures, smoothing = objective
  carry, logits = predict(model, params, carry, batch, key)
  terms = logits, batch["targets"], batch["weights"]
  mean, totals = figures(batch, *terms, 0.0 if key is None else smoothing)
  return mean, (carry, totals)


def score(
  predict, params, carry, batch, surprisal=losses.surprisal
) -> tuple[Carry, jax.Array]:
  """The carry, and the surprisal nll_BN by the logits of `predict`."""
  carry, logits_BNV = predict(params, carry, batch)
  return carry, surprisal(logits_BNV, batch["targets"]) * batch["weights"]


def once_a_split(read: Callable[[Split], Any]) -> Callable[[Split], Any]:
  """The same function, whose result for the name of a split is cached."""
  cached = functools.cache(read)
  return lambda split: cached(split) if isinstance(split, str) else read(split)


def text_segments(config: Config, symbols: Vocabulary) -> Segments:
  """The windows of texts with one answer each."""
  length, keep = config.data.window, config.data.keep
  # All symbols are read, unless one window of a text stands for it.
  shape = {"length": length, "full": keep != "all", "keep": keep}
  return Segments(config, symbols, minimum=1, **shape)


def answers(answer_D: np.ndarray, batch: Batch) -> Batch:
  """The targets of windows: the answers of their documents."""
  some_B1 = (batch["segment"] != PAD).any(1, keepdims=True)
  targets = answer_D[batch["document"], None]
  return {"targets": targets, "weights": some_B1.astype(np.float32)}


def labelled(
  segments: Segments, columns, split: Split, epoch: int | None, **how
) -> Batches:
  """Batches of windows with labels.

  `columns` is a function split -> a function of a batch of segments -> its
  other arrays. It is called for the first batch, so that batches which are only
  counted need no labels. In training, nothing needs the documents of the rows.
  """
  arrays = functools.cache(functools.partial(columns, split))
  names = ["reset"]
  if how.get("named"):
    names.append("read")
  if how.get("named") or not Request(split, epoch, **how).trains:
    names += ["document", "place"]

  def make(batch: Batch) -> Batch:
    asked = {"inputs": batch["segment"], **{n: batch[n] for n in names}}
    return asked | arrays()(batch)

  return segments.batches(split, epoch, placed=True, **how).map(make)
