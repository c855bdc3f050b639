"""States of a model's layers: of each symbol that it reads, or of whole texts.

The outputs of a layer's recurrent cells are captured while `predict` of the
task runs, so each task whose model has recurrent layers has states.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn

from seqrnn.data.batches.sequences import encode
from seqrnn.data.splits import Pieces, continued
from seqrnn.data.vocabulary import PAD, RESERVED
from seqrnn.errors import UserError, counted
from seqrnn.experiment import Batch, Carry, Experiment, Params, Predict
from seqrnn.models.layers import Recurrent
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS


class StateVectors(NamedTuple):
  """Vectors of some symbols or texts, in order.

  Attributes:
    vectors: of both directions, concatenated, float32 [rows, D].
    document: the document of each row.
    position: of a symbol in its document, from 0; of a text, its length: the
      number of symbols that were read.
    ids: of symbols in the vocabulary; empty for texts.
    read: symbols of the data, which the vocabulary may lack; empty for texts.
  """

  vectors: np.ndarray
  document: np.ndarray
  position: np.ndarray
  ids: np.ndarray = np.empty(0, np.int32)
  read: np.ndarray = np.empty(0, object)


# Whether a direction is reversed -> y_BTH, at each position the state after the
# symbol there was read.
States = dict[bool, jax.Array]


class LayerOfTexts(NamedTuple):
  """The texts of a model, and the layer whose states are returned.

  Attributes:
    experiment: the task.
    params: of its model.
    pieces: the documents, as `ended` returns them.
    layer: its number, from 1; None: the last.
  """

  experiment: Experiment
  params: Params
  pieces: Pieces
  layer: int | None = None


def is_symbol(batch: Batch) -> np.ndarray:
  """The positions of symbols of the data, not of BEGIN, END and PAD."""
  # Rows that fill up a batch have inputs of PAD alone.
  return (batch["read"] != "") & (batch["inputs"] != PAD)


def ended(experiment: Experiment, pieces: Pieces, boundaries: bool) -> Pieces:
  """The pieces, such that a model of the next symbol reads the last one, too.

  Its inputs end before the last symbol of a piece, which is only a target. So
  a piece without END gets one.

  Args:
    experiment: the task.
    pieces: the documents.
    boundaries: `data.boundaries`.
  """
  if not experiment.in_bits or experiment.fills_gaps:
    return pieces
  if boundaries:
    return dataclasses.replace(pieces, ends=np.ones(len(pieces), bool))
  return continued(pieces)


@lru_cache(CACHED_FUNCTIONS)
def reader(
  predict: Predict, layer: int | None
) -> Callable[..., tuple[Carry, States]]:
  """A jitted function params, carry, batch -> carry, states of a layer.

  Raises:
    UserError: the model has no such layer.
  """

  @sharding.jit
  def read(params, carry, batch):
    states: dict[bool, list[jax.Array]] = {False: [], True: []}

    def note(call, args, kwargs, context):
      result = call(*args, **kwargs)
      module = context.module
      if (
        isinstance(module, Recurrent)
        and context.method_name == "__call__"
        and "letters" not in module.path  # It reads characters of words.
      ):
        states[module.reverse].append(result[1])
      return result

    with nn.intercept_methods(note):
      carry, _ = predict(params, carry, batch)
    depth = max(map(len, states.values()))
    n = depth if layer is None else layer
    if not 0 < n <= depth:
      layers = counted(depth, "recurrent layer")
      raise UserError(f"config.embed.layer={layer}: the model has {layers}")
    chosen = {way: ys[n - 1] for way, ys in states.items() if n <= len(ys)}
    return carry, chosen

  return read


def _batches(reading: LayerOfTexts) -> Iterator[tuple[Batch, States]]:
  """Yields batches with the states of the layer."""
  experiment, params, pieces, layer = reading
  assert experiment.predict is not None, "checked by the caller"
  read, carry = reader(experiment.predict, layer), None
  others = ("read", "truth", "document", "place")
  for batch in experiment.batches(pieces, 0, ordered=True, named=True):
    inputs = {name: x for name, x in batch.items() if name not in others}
    if carry is None:
      carry = experiment.carry(len(batch["inputs"]))
    carry, states = read(params, carry, inputs)
    yield batch, jax.device_get(states)


def symbols(reading: LayerOfTexts, boundaries: bool) -> Iterator[StateVectors]:
  """Yields the states of all symbols, as long as their windows contain them.

  Windows that overlap give a symbol several rows.

  Args:
    reading: the texts.
    boundaries: `data.boundaries`.

  Raises:
    UserError: the model has no such layer.
  """
  names = reading.experiment.vocabularies["symbols"]
  sequences = encode(reading.pieces, names, boundaries)
  # The place of each document's first symbol, without BEGIN.
  firsts = sequences.bounds[:-1] + sequences.begins
  for batch, states in _batches(reading):
    row, t = np.nonzero(is_symbol(batch))
    document = batch["document"][row]
    yield StateVectors(
      np.concatenate([y_BTH[row, t] for y_BTH in states.values()], axis=1),
      document,
      batch["place"][row] + t - firsts[document],
      batch["inputs"][row, t],
      batch["read"][row, t],
    )


def texts(reading: LayerOfTexts, pooling: str) -> StateVectors:
  """A vector of each document; zeros where no symbol is read.

  Args:
    reading: the texts.
    pooling: last, mean or max. `last` is the state of each direction after its
      last step: the forward state at the end of the text, the backward state at
      its begin.

  Raises:
    UserError: the model has no such layer.
  """
  documents = len(reading.pieces)
  counts, pooled = np.zeros(documents, np.int64), {}
  start = -np.inf if pooling == "max" else 0.0
  for batch, states in _batches(reading):
    # A model of the next or a missing symbol is not trained on its states at
    # BEGIN and END; other models read them as part of the text.
    symbols_only = reading.experiment.in_bits
    mask_BT = is_symbol(batch) if symbols_only else batch["inputs"] != PAD
    row, t = np.nonzero(mask_BT)
    document = batch["document"][row]
    first = np.flatnonzero(counts[document] == 0)[::-1]
    for reverse, y_BTH in states.items():
      y_NH, size = y_BTH[row, t], y_BTH.shape[2]
      vectors = pooled.setdefault(reverse, np.full((documents, size), start))
      if pooling == "last":  # Of equal indices, the last one counts.
        rows = first if reverse else slice(None)
        vectors[document[rows]] = y_NH[rows]
      else:
        pool = np.add if pooling == "mean" else np.maximum
        pool.at(vectors, document, y_NH)
    np.add.at(counts, document, 1)
  vectors = np.concatenate([*pooled.values()], axis=1)
  vectors[counts == 0] = 0
  if pooling == "mean":
    vectors /= np.maximum(counts, 1)[:, None]
  return StateVectors(vectors.astype(np.float32), np.arange(documents), counts)


def vectors(
  reading: LayerOfTexts, of: str, pooling: str, boundaries: bool
) -> Iterable[StateVectors]:
  """The vectors of all `texts`, or of all symbols, in their order."""
  return (
    [texts(reading, pooling)] if of == "texts" else symbols(reading, boundaries)
  )


def embedding(experiment: Experiment, params: Params) -> np.ndarray:
  """The embedding of each id of the vocabulary, [V, D].

  Raises:
    UserError: the model has none.
  """
  if "embedding" not in params:
    raise UserError(
      "config.embed.of='vocabulary': the model has no embedding, as with"
      " model.embedding_size; layer 1 reads the ids"
    )
  count = len(RESERVED) + len(experiment.vocabularies["symbols"].symbols)
  return np.asarray(params["embedding"]["embedding"])[:count]
