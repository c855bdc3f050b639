"""What a task reads: the segments of a split, in batches.

A segment is a run of symbols of one document: a window, or the next piece of a
stream. The task makes inputs and targets of it.
"""

from collections.abc import Sequence

import numpy as np

from seqrnn.config import Config
from seqrnn.data.encoding import Document
from seqrnn.data.sequences import Sequences, checksum, encode
from seqrnn.data.splits import Pieces, given, reader
from seqrnn.data.streams import streams
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.data.windows import Arrays, Batches, windows


class Segments:
  """The documents of a run, encoded and cut. Nothing is read before it must.

  Attributes:
    length: symbols in a segment, targets included.
    minimum: what is shorter has no target.
    full: only whole windows, as the many-to-one mapping needs.
  """

  def __init__(
    self,
    config: Config,
    vocabulary: Vocabulary,
    *,
    length: int,
    minimum: int,
    full: bool = False,
  ):
    self.length, self.minimum, self.full = length, minimum, full
    self._config = config
    self._vocabulary = vocabulary
    self._read = reader(config)
    self._sequences: dict[str, Sequences] = {}
    self._checksums: dict[str, int] = {}

  def sequences(self, split: str | Sequence[Document]) -> Sequences:
    """The encoded documents of a split, or of documents given."""
    if not isinstance(split, str):
      return self._encode(given(list(split), self._config.data.unit))
    if split not in self._sequences:
      self._sequences[split] = self._encode(self._read(split))
    return self._sequences[split]

  def _encode(self, pieces: Pieces) -> Sequences:
    return encode(pieces, self._vocabulary, self._config.data.boundaries)

  def facts(self, split: str) -> dict[str, int]:
    """How much there is, and a checksum of it."""
    sequences = self.sequences(split)
    if split not in self._checksums:
      pieces = self._read(split)
      found = checksum(pieces, self._vocabulary, sequences)
      self._checksums[split] = found
    return {
      "documents": len(sequences.bounds) - 1,
      "symbols": int(sequences.bounds[-1]),
      "crc32": self._checksums[split],
    }

  def batches(self, split: str | Sequence[Document], epoch: int) -> Batches:
    """The batches of an epoch; only those of `train` are shuffled.

    In evaluation windows of many-to-many do not overlap: every symbol counts
    once.
    """
    return cut(
      self._config,
      self.sequences(split),
      split,
      epoch,
      length=self.length,
      minimum=self.minimum,
      full=self.full,
    )


def cut(
  config: Config,
  sequences: Sequences,
  split: str | Sequence[Document],
  epoch: int,
  *,
  length: int,
  minimum: int,
  full: bool = False,
) -> Batches:
  """The batches of `Segments.batches`; the last three are its attributes."""
  data, train = config.data, config.train
  training = isinstance(split, str) and split == "train"
  samples = train.samples_per_epoch
  if train.batches_per_epoch is not None:
    samples = train.batches_per_epoch * train.batch_size
  if data.stateful:
    # Rows are parts of the whole: a text given on its own is one stream.
    rows = train.batch_size if isinstance(split, str) else 1
    count = None
    if training and samples is not None:
      count = -(-samples // train.batch_size)
    return streams(
      sequences,
      batch_size=rows,
      window=data.window,
      first=epoch * count if count else 0,
      count=count,
    )
  step = data.window if data.step is None else data.step
  if not training and not full:
    step = data.window
  offset = data.offset
  if training and data.random_offset:
    rng = np.random.default_rng((config.seed, epoch))
    offset = int(rng.integers(step))
  batches = windows(
    sequences,
    batch_size=train.batch_size,
    length=length,
    step=step,
    offset=offset if training else 0,
    full=full,
    minimum=minimum,
    order=(config.seed, epoch) if training else None,
    samples=samples if training else None,
  )

  def reset(batch: Arrays) -> Arrays:
    # Every window starts from the zero carry.
    return {**batch, "reset": np.ones(len(batch["segment"]), bool)}

  return batches.map(reset)
