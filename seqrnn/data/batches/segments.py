"""Segments: what a task reads of a split, in batches.

A segment is a run of symbols of one document: a window, or the next part of a
stream. The task makes inputs and targets of it.
"""

import functools
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.batches.sequences import Sequences, checksum, encode, once
from seqrnn.data.batches.streams import StreamLayout, streams
from seqrnn.data.batches.windows import Batches, Epoch, Shape, windows
from seqrnn.data.documents import Document
from seqrnn.data.read.columns import Arrays
from seqrnn.data.splits import Pieces, from_documents, reader
from seqrnn.data.vocabulary import Vocabulary

Split = str | Pieces | Sequence[Document]  # A split's name, or documents.


class Request(NamedTuple):
  """The arguments of `Segments.batches`.

  Attributes:
    split: a split's name, or documents.
    epoch: of training; None: the batches are for evaluation.
    batch_size: None: that of training, or the number of windows where it is
      less; the rows of a stream are not reduced. A given size also adds
      `document` and `place` to the batches.
    ordered: one document after the other, whatever `data.buckets` and
      `data.repeats` say.
    placed: batches hold `document` and `place` in any case.
    named: they also hold `read` [B, T], the symbols of the corpus, which a
      vocabulary may lack.
  """

  split: Split
  epoch: int | None
  batch_size: int | None = None
  ordered: bool = False
  placed: bool = False
  named: bool = False

  @property
  def trains(self) -> bool:
    """Whether the batches are those of training: shuffled, as many as set."""
    asked = self.batch_size is None and not self.ordered
    return self.split == "train" and asked and self.epoch is not None


class Segments:
  """The documents of a run, encoded and cut; a file is read when needed."""

  def __init__(self, config: Config, vocabulary: Vocabulary, **shape: Any):
    """`shape` has fields of `Shape`; its `length` counts targets, too."""
    self._shape = Shape(step=config.data.window, **shape)
    self._config, self._vocabulary = config, vocabulary
    self._read = reader(config)
    self._encoded = functools.cache(self._encode)  # Of splits by name.
    self.facts = functools.cache(self._facts)  # It reads all symbols.

  def pieces(self, split: Split) -> Pieces:
    """The documents of a split, or documents given."""
    if isinstance(split, Pieces):
      return split
    if not isinstance(split, str):
      return from_documents(list(split), self._config.data.unit)
    return self._read(split)

  def sequences(self, split: Split, ordered: bool = False) -> Sequences:
    """The documents, encoded.

    Equal documents are kept once where `data.repeats` says so, but never if
    `ordered`.
    """
    make = self._encoded if isinstance(split, str) else self._encode
    return make(split, ordered or self._config.data.repeats == "each")

  def _encode(self, split: Split, every: bool) -> Sequences:
    if not every:
      return once(self.sequences(split, ordered=True))
    boundaries = self._config.data.boundaries
    return encode(self.pieces(split), self._vocabulary, boundaries)

  def _facts(self, split: str) -> dict[str, Any]:
    """The size and the checksum of a split, as `Experiment.facts`."""
    pieces, sequences = self._read(split), self.sequences(split, ordered=True)
    facts: dict[str, Any] = {**sequences.size()}
    facts["crc32"] = checksum(pieces, self._vocabulary, sequences)
    if origin := pieces.corpus.origin:
      facts["origin"] = origin
    if self._config.data.repeats == "weight":
      sizes = self.sequences(split).size().items()
      facts |= {f"distinct_{name}": size for name, size in sizes}
    return facts

  def batches(self, split: Split, epoch: int | None, **how: Any) -> Batches:
    """The batches of an epoch; those of `train` are shuffled, for training.

    In evaluation, windows of many-to-many do not overlap: every symbol counts
    once. The arguments are those of `Request`.

    Returns:
      batches of `segment`; `reset` [B]; and `weight` [B, 1], float32: the
      number of documents that a row stands for.
    """
    request = Request(split, epoch, **how)
    sequences = self.sequences(split, request.ordered)
    batches = cut(self._config, sequences, self._shape, request)
    if not request.named:
      return batches
    symbols = sequences.reader(self.pieces(split).corpus.symbols)

    def read(batch: Arrays) -> Arrays:
      document, T = batch["document"], batch["segment"].shape[1]
      rows = document, batch["place"], sequences.bounds[document + 1], T
      return {**batch, "read": symbols(*rows)}

    return batches.map(read)


def cut(
  config: Config, sequences: Sequences, shape: Shape, request: Request
) -> Batches:
  """The batches of `Segments.batches`, of windows or of streams.

  `shape.step` is the step of evaluation; training takes `data.step`.
  """
  if config.data.stateful:
    batches = _streams(config, sequences, request)
  else:
    batches = _windows(config, sequences, shape, request)
  counts = np.bincount(sequences.distinct).astype(np.float32)

  def finish(batch: Arrays) -> Arrays:
    batch["weight"] = counts[batch["document"], None]
    # Every window starts from the zero carry.
    batch.setdefault("reset", np.ones(len(batch["segment"]), bool))
    if not (request.batch_size or request.placed or request.named):
      del batch["document"], batch["place"]
    return batch

  return batches.map(finish)


def _streams(config: Config, sequences: Sequences, request: Request) -> Batches:
  train = config.train
  # StreamLayout are parts of the whole: a text given on its own is one stream.
  rows = train.batch_size if isinstance(request.split, str) else 1
  steps = None
  if request.trains:
    steps = train.batches_per_epoch
    if train.samples_per_epoch is not None:
      steps = -(-train.samples_per_epoch // train.batch_size)
  first = request.epoch * steps if steps and request.epoch else 0
  fitted = StreamLayout(rows, config.data.window).fitted(sequences)
  return streams(sequences, fitted, first, steps)


def _windows(
  config: Config, sequences: Sequences, shape: Shape, request: Request
) -> Batches:
  data, train = config.data, config.train
  if data.step is not None and (request.trains or shape.full):
    shape = shape._replace(step=data.step)
  rows = request.batch_size
  if rows is None:
    # More rows than windows would be padding, or repeat windows.
    most = int(shape.count(np.diff(sequences.bounds)).sum())
    if not request.trains:  # Few sizes, to compile for few.
      most = next(size for n in count() if (size := 8**n) >= most)
    rows = min(train.batch_size, max(most, 1))
  epoch = Epoch(buckets=None if request.ordered else data.buckets)
  if request.trains:
    key = (config.seed, request.epoch or 0)
    samples = train.samples_per_epoch
    if train.batches_per_epoch is not None:
      samples = train.batches_per_epoch * rows
    offset = np.random.default_rng(key) if data.random_offset else data.offset
    epoch = epoch._replace(offset=offset, order=key, samples=samples)
  return windows(sequences, shape, rows, epoch)
