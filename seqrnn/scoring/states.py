"""States of a model's layers: of each symbol that it reads, or of whole texts.

The outputs of a layer's recurrent cells are captured while `predict` of the
task runs, so each task whose model has recurrent layers has states.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from seqrnn.data.documents import Document
from seqrnn.data.splits import Pieces, from_documents
from seqrnn.data.vocabulary import PAD
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Carry, Experiment, Params
from seqrnn.models.layers import Recurrent
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

POOLINGS = ("last", "mean", "max")
_TEXTS = 2**10  # Texts of a block, at most.


class Block(NamedTuple):
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


class Reading(NamedTuple):
  """What is read, and the layer whose states are returned.

  Attributes:
    experiment: the task.
    params: of its model.
    pieces: the documents, as `whole` returns them.
    layer: its number, from 1; None: the last.
  """

  experiment: Experiment
  params: Params
  pieces: Pieces
  layer: int | None = None

  def batches(self) -> Any:
    """The batches, one document after the other."""
    return self.experiment.batches(self.pieces, 0, ordered=True, named=True)

  def mask(self, batch: Batch) -> np.ndarray:
    """The positions over which a text is pooled, bool [B, T].

    A model of the next or a missing symbol is not trained on what its states
    are at BEGIN and END; other models read them as part of the text.
    """
    if self.experiment.in_bits:
      return is_symbol(batch)
    return batch["inputs"] != PAD


def is_symbol(batch: Batch) -> np.ndarray:
  """The positions of symbols of the data, not of BEGIN, END and PAD."""
  # Rows that fill up a batch have inputs of PAD alone.
  return (batch["read"] != "") & (batch["inputs"] != PAD)


def whole(experiment: Experiment, pieces: Pieces, boundaries: bool) -> Pieces:
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
  return from_documents(
    [_followed(d) for d in pieces.documents()], pieces.corpus.unit
  )


def _followed(document: Document) -> Document:
  """The document with a symbol at its end that no vocabulary has."""
  return document._replace(symbols=[*document.symbols, ""])


def of_layers(
  predict: Callable[..., tuple[Carry, Any]],
  params: Params,
  carry: Carry,
  batch: Batch,
) -> tuple[Carry, list[dict[bool, jax.Array]]]:
  """The carry after a batch, and the states of each layer.

  Returns:
    the carry; and of each layer whether it is reversed -> y_BTH: at each
    position, the state after the symbol there was read.
  """
  found: dict[bool, list[jax.Array]] = {False: [], True: []}

  def note(call, args, kwargs, context):
    result = call(*args, **kwargs)
    module = context.module
    if (
      isinstance(module, Recurrent)
      and context.method_name == "__call__"
      and "letters" not in module.path  # It reads characters of words.
    ):
      found[module.reverse].append(result[1])
    return result

  with nn.intercept_methods(note):
    carry, _ = predict(params, carry, batch)
  depth = max(map(len, found.values()))
  return carry, [
    {reverse: ys[n] for reverse, ys in found.items() if n < len(ys)}
    for n in range(depth)
  ]


def _chosen(
  layers: list[dict[bool, jax.Array]], layer: int | None
) -> dict[bool, jax.Array]:
  """The directions of a layer.

  Raises:
    UserError: the model has no such layer.
  """
  if not layers:
    raise UserError("--mode=embed: the model has no recurrent layer")
  if layer is not None and layer > len(layers):
    raise UserError(
      f"config.embed.layer={layer}: the model has {len(layers)}"
      f" layer{'s' * (len(layers) > 1)}"
    )
  return layers[-1 if layer is None else layer - 1]


@lru_cache(CACHED_FUNCTIONS)
def reader(
  predict: Callable[..., Any], layer: int | None, mesh: Mesh | None = None
) -> Callable[..., Any]:
  """A jitted function params, carry, batch -> carry, y_BTD."""

  @partial(sharding.jit, mesh=mesh)
  def read(params, carry, batch):
    carry, layers = of_layers(predict, params, carry, batch)
    return carry, jnp.concatenate([*_chosen(layers, layer).values()], axis=-1)

  return read


@lru_cache(CACHED_FUNCTIONS)
def pooler(
  predict: Callable[..., Any],
  layer: int | None,
  pooling: str,
  mesh: Mesh | None = None,
) -> Callable[..., Any]:
  """A jitted function params, carry, batch, mask_BT -> carry, values, back.

  value_BD is the sum of the states over the mask, their maximum, or the state
  of each direction after its last step, as `pooling` says; without meaning in a
  row without a symbol. back_D is true for a backward direction.
  """

  @partial(sharding.jit, mesh=mesh)
  def read(params, carry, batch, mask_BT):
    carry, layers = of_layers(predict, params, carry, batch)
    mask_BT1, T = mask_BT[..., None], mask_BT.shape[1]
    values, back = [], []
    for reverse, y_BTH in _chosen(layers, layer).items():
      if pooling == "mean":
        values.append(jnp.sum(jnp.where(mask_BT1, y_BTH, 0), axis=1))
      elif pooling == "max":
        values.append(jnp.max(jnp.where(mask_BT1, y_BTH, -jnp.inf), axis=1))
      else:
        place_1T = jnp.arange(T)[None]
        place_BT = jnp.where(mask_BT, -place_1T if reverse else place_1T, -T)
        values.append(y_BTH[jnp.arange(len(y_BTH)), place_BT.argmax(axis=1)])
      back.append(jnp.full(y_BTH.shape[-1], reverse))
    return carry, jnp.concatenate(values, axis=-1), jnp.concatenate(back)

  return read


def _columns(batch: Batch) -> tuple[Batch, Batch]:
  """A batch without the columns that no model reads, and those."""
  own = ("read", "truth", "document", "place")
  kept = {name: x for name, x in batch.items() if name not in own}
  return kept, {name: batch[name] for name in own if name in batch}


def symbols(reading: Reading, boundaries: bool) -> Iterator[Block]:
  """Yields the states of all symbols, as long as their windows contain them.

  Windows that overlap give a symbol several rows.

  Args:
    reading: what is read.
    boundaries: `data.boundaries`.

  Raises:
    UserError: the model has no such layer.
  """
  experiment, params, pieces, layer = reading
  assert experiment.predict is not None, "checked by the caller"
  read = reader(experiment.predict, layer)
  begins = pieces.begins & boundaries
  sizes = pieces.stops - pieces.starts + begins + (pieces.ends & boundaries)
  # The place of each document's first symbol, without BEGIN.
  firsts = np.cumsum(sizes) - sizes + begins
  carry = None
  for batch in reading.batches():
    row, t = np.nonzero(is_symbol(batch))
    batch, own = _columns(batch)
    if carry is None:
      carry = experiment.carry(len(batch["inputs"]))
    carry, y_BTD = read(params, carry, batch)
    document = own["document"][row]
    yield Block(
      np.asarray(y_BTD)[row, t],
      document,
      own["place"][row] + t - firsts[document],
      batch["inputs"][row, t],
      own["read"][row, t],
    )


def count_symbols(reading: Reading) -> int:
  """The number of rows of `symbols`, for which no model runs."""
  return sum(int(is_symbol(batch).sum()) for batch in reading.batches())


def texts(reading: Reading, pooling: str) -> Iterator[Block]:
  """Yields a vector of each document; zeros where no symbol is read.

  Args:
    reading: what is read.
    pooling: a name of POOLINGS. `last` is the state of each direction after
      its last step: the forward state at the end of the text, the backward
      state at its begin.

  Raises:
    UserError: the model has no such layer.
  """
  first, last = 0, len(reading.pieces)
  found: list[tuple[int, np.ndarray, int]] = []
  for document, parts in groupby(_parts(reading, pooling), itemgetter(0)):
    found.append((document, *_joined(parts, pooling)))
    if len(found) == _TEXTS and document + 1 < last:
      yield _block(found, first, document + 1)
      first, found = document + 1, []
  yield _block(found, first, last)


class _Part(NamedTuple):
  """A window of a document.

  Attributes:
    document: its index.
    count: the number of symbols.
    value: the result of `pooler`, [D].
    back: bool [D], whether a backward layer has made it.
  """

  document: int
  count: int
  value: np.ndarray
  back: np.ndarray


def _parts(reading: Reading, pooling: str) -> Iterator[_Part]:
  """Yields the windows that have symbols, one document after the other."""
  experiment, params, _, layer = reading
  assert experiment.predict is not None, "checked by the caller"
  read = pooler(experiment.predict, layer, pooling)
  carry = None
  for batch in reading.batches():
    mask_BT = reading.mask(batch)
    batch, own = _columns(batch)
    if carry is None:
      carry = experiment.carry(len(batch["inputs"]))
    carry, value_BD, back_D = read(params, carry, batch, mask_BT)
    value_BD, back_D = np.asarray(value_BD), np.asarray(back_D)
    for row, count in enumerate(mask_BT.sum(1).tolist()):
      if count:
        yield _Part(int(own["document"][row]), count, value_BD[row], back_D)


def _joined(parts: Iterator[_Part], pooling: str) -> tuple[np.ndarray, int]:
  """The vector of a document's windows, and its number of symbols."""
  _, count, value, back = next(parts)
  # Sums of a long text need more digits.
  value = value.astype(np.float64 if pooling == "mean" else np.float32)
  for part in parts:
    count += part.count
    if pooling == "mean":
      value += part.value
    elif pooling == "max":
      value = np.maximum(value, part.value)
    else:  # A backward layer ends in the first window.
      value = np.where(back, value, part.value)
  return value / count if pooling == "mean" else value, count


def _block(
  found: list[tuple[int, np.ndarray, int]], first: int, last: int
) -> Block:
  """The documents from `first` to before `last`, of those that were read."""
  document, vectors, counts = zip(*found, strict=True)
  place = np.array(document) - first
  every = np.zeros((last - first, len(vectors[0])), np.float32)
  every[place] = vectors
  lengths = np.zeros(last - first, np.int64)
  lengths[place] = counts
  return Block(every, np.arange(first, last), lengths)


def vectors(
  reading: Reading, of: str, pooling: str, boundaries: bool
) -> np.ndarray:
  """The vectors of all `texts`, or of all symbols, in their order."""
  blocks = (
    texts(reading, pooling) if of == "texts" else symbols(reading, boundaries)
  )
  return np.concatenate([block.vectors for block in blocks])


def embedding(params: Params) -> np.ndarray:
  """The embedding of each symbol of the vocabulary, [V, D].

  Raises:
    UserError: the model has none.
  """
  if "embedding" not in params:
    raise UserError(
      "config.embed.of='vocabulary': the model has no embedding, as with"
      " model.embedding_size; layer 1 reads the ids"
    )
  return np.asarray(params["embedding"]["embedding"])
