"""What a task reads: the segments of a split, in batches.

A segment is a run of symbols of one document: a window, or the next piece of a
stream. The task makes inputs and targets of it.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np

from seqrnn.config import Config
from seqrnn.data.encoding import Document
from seqrnn.data.sequences import Sequences, as_read, checksum, encode, once
from seqrnn.data.splits import Pieces, given, reader
from seqrnn.data.streams import fitted, streams
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.data.windows import Arrays, Batches, Shape, left_out, windows


class Segments:
  """The documents of a run, encoded and cut. Nothing is read before it must.

  Attributes:
    length: symbols in a segment, targets included.
    minimum: what is shorter has no target.
    full: only whole windows, as the many-to-one mapping needs.
    keep: as in `windows`.
  """

  def __init__(
    self,
    config: Config,
    vocabulary: Vocabulary,
    *,
    length: int,
    minimum: int,
    full: bool = False,
    keep: str = "all",
  ):
    self.length, self.minimum = length, minimum
    self.full, self.keep = full, keep
    self._config = config
    self._vocabulary = vocabulary
    self._read = reader(config)
    self._sequences: dict[tuple[str, bool], Sequences] = {}
    self._checksums: dict[str, int] = {}

  def pieces(self, split: str | Pieces | Sequence[Document]) -> Pieces:
    """The documents of a split, or documents given."""
    if isinstance(split, Pieces):
      return split
    if not isinstance(split, str):
      return given(list(split), self._config.data.unit)
    return self._read(split)

  def sequences(
    self, split: str | Pieces | Sequence[Document], ordered: bool = False
  ) -> Sequences:
    """The same, encoded.

    Equal ones once where `data.repeats` says so, unless they must be ordered.
    """
    each = ordered or self._config.data.repeats == "each"
    if not isinstance(split, str):
      encoded = self._encode(self.pieces(split))
      return encoded if each else once(encoded)
    if (split, each) not in self._sequences:
      self._sequences[split, each] = (
        self._encode(self._read(split))
        if each
        else once(self.sequences(split, ordered=True))
      )
    return self._sequences[split, each]

  def _encode(self, pieces: Pieces) -> Sequences:
    return encode(pieces, self._vocabulary, self._config.data.boundaries)

  def facts(self, split: str) -> dict[str, Any]:
    """How much there is, and a checksum of it."""
    sequences = self.sequences(split)
    every = self.sequences(split, ordered=True)
    pieces = self._read(split)
    if split not in self._checksums:
      found = checksum(pieces, self._vocabulary, every)
      self._checksums[split] = found
    facts: dict[str, Any] = {
      "documents": len(every.bounds) - 1,
      "symbols": int(every.bounds[-1]),
      "crc32": self._checksums[split],
    }
    if split == "train":
      facts |= skipped(self._config, every.bounds, self.minimum)
    if pieces.corpus.origin:
      facts["origin"] = pieces.corpus.origin
    if self._config.data.repeats == "weight":
      facts["distinct_documents"] = len(sequences.bounds) - 1
      facts["distinct_symbols"] = int(sequences.bounds[-1])
    return facts

  def batches(
    self,
    split: str | Pieces | Sequence[Document],
    epoch: int,
    *,
    batch_size: int | None = None,
    ordered: bool = False,
    placed: bool = False,
    named: bool = False,
  ) -> Batches:
    """The batches of an epoch; only those of `train` are shuffled, to train.

    In evaluation windows of many-to-many do not overlap: every symbol counts
    once.

    Args:
      split: or documents given.
      epoch: of training.
      batch_size: None: that of training, or the number of windows where it is
        less. A stream's rows stay as they are. Where it is given, batches hold
        `document` and `place`, too.
      ordered: one document after the other, whatever `data.buckets` and
        `data.repeats` say.
      placed: batches hold `document` and `place` in any case.
      named: they also hold `read` [B, T], the symbols of the corpus, which a
        vocabulary may lack.

    Returns:
      batches of `segment`; `reset` [B]; and `weight` [B, 1], float32: how many
      documents a row stands for.
    """
    sequences = self.sequences(split, ordered)
    batches = cut(
      self._config,
      sequences,
      split,
      epoch,
      length=self.length,
      minimum=self.minimum,
      full=self.full,
      keep=self.keep,
      batch_size=batch_size,
      ordered=ordered,
      placed=placed or named,
    )
    if not named:
      return batches
    symbols = as_read(sequences, self.pieces(split).corpus.symbols)

    def name(batch: Arrays) -> Arrays:
      segment, document = batch["segment"], batch["document"]
      stops = sequences.bounds[document + 1]
      batch["read"] = symbols(document, batch["place"], stops, segment.shape[1])
      return batch

    return batches.map(name)


def skipped(config: Config, bounds: np.ndarray, minimum: int) -> dict[str, int]:
  """How much `data.offset` keeps from training; nothing where it is 0."""
  offset = config.data.offset
  if not offset:
    return {}
  documents, symbols = left_out(np.diff(bounds), offset, minimum)
  return {"left_out_documents": documents, "left_out_symbols": symbols}


def cut(
  config: Config,
  sequences: Sequences,
  split: str | Pieces | Sequence[Document],
  epoch: int,
  *,
  length: int,
  minimum: int,
  full: bool = False,
  keep: str = "all",
  batch_size: int | None = None,
  ordered: bool = False,
  placed: bool = False,
) -> Batches:
  """The batches of `Segments.batches`, which has what the others are."""
  data, train = config.data, config.train
  training = (
    isinstance(split, str)
    and split == "train"
    and batch_size is None
    and not ordered
  )
  samples, batches_per_epoch = train.samples_per_epoch, train.batches_per_epoch
  if data.stateful:
    # Rows are parts of the whole: a text given on its own is one stream.
    rows = train.batch_size if isinstance(split, str) else 1
    steps = None
    if training:
      steps = batches_per_epoch
      if samples is not None:
        steps = -(-samples // train.batch_size)
    rows, window = fitted(sequences, rows, data.window)
    batches = streams(
      sequences,
      batch_size=rows,
      window=window,
      first=epoch * steps if steps else 0,
      count=steps,
    )
  else:
    step = data.window if data.step is None else data.step
    if not training and not full:
      step = data.window
    drawn = None
    if training and data.random_offset:
      drawn = np.random.default_rng((config.seed, epoch))
    rows = batch_size
    if rows is None:
      # No more than there are windows: the others would be padding, or repeat
      # them.
      sizes = np.diff(sequences.bounds)
      counts = Shape(length, step, minimum, full).count(sizes)
      most = int((counts if keep == "all" else np.minimum(counts, 1)).sum())
      if not isinstance(split, str):  # Texts of any length compile few times.
        most = next(size for n in count() if (size := 8**n) >= most)
      rows = min(train.batch_size, max(most, 1))
    if batches_per_epoch is not None:
      samples = batches_per_epoch * rows
    batches = windows(
      sequences,
      batch_size=rows,
      length=length,
      step=step,
      offset=data.offset if training else 0,
      drawn=drawn,
      full=full,
      minimum=minimum,
      keep=keep,
      order=(config.seed, epoch) if training else None,
      samples=samples if training else None,
      buckets=None if ordered else data.buckets,
    )
  counts = np.bincount(sequences.distinct).astype(np.float32)

  def finish(batch: Arrays) -> Arrays:
    batch["weight"] = counts[batch["document"], None]
    # Every window starts from the zero carry.
    batch.setdefault("reset", np.ones(len(batch["segment"]), bool))
    if batch_size is None and not placed:
      del batch["document"], batch["place"]
    return batch

  return batches.map(finish)
