"""Streams: batches whose rows continue in the next batch.

Truncated backpropagation through time hands the carry on with them.
"""

from typing import NamedTuple

import numpy as np

from seqrnn.data.batches.sequences import Sequences
from seqrnn.data.batches.windows import Batches
from seqrnn.data.read.columns import Arrays
from seqrnn.errors import UserError


class StreamLayout(NamedTuple):
  """How streams are laid out.

  Attributes:
    batch_size: B, the rows; row b reads the b-th of B equal slices of all
      symbols.
    window: inputs of a segment.
    whole: no slice ends within a document, so that each symbol is read after
      all symbols before it; slices are then only about equal.
  """

  batch_size: int
  window: int
  whole: bool = False

  def fitted(self, sequences: Sequences) -> "StreamLayout":
    """Fewer rows or a shorter window where the rest would be padding.

    More rows than windows have slices shorter than a window. The number of
    rows is kept, for the carry has an entry for each, unless `whole`.
    """
    inputs = np.maximum(np.diff(sequences.bounds) - 1, 0)
    windows = int((-(-inputs // self.window)).sum())
    if not 0 < windows < self.batch_size:
      return self
    window = min(self.window, int(inputs.max()))
    if self.whole:
      return self._replace(batch_size=windows, window=window)
    slice_size = -(-int(sequences.bounds[-1]) // self.batch_size)
    return self._replace(window=min(window, slice_size))


def streams(
  sequences: Sequences,
  layout: StreamLayout,
  first: int = 0,
  count: int | None = None,
) -> Batches:
  """Batches of `segment`, int32 [B, window + 1], and `reset`, bool [B].

  They also hold `document` and `place`, as in `windows`.

  A piece begins where a document begins, in a slice or with it: `reset` is
  True and the carry starts at zero. A segment is `window` inputs and the
  symbol after them, which is the first input of the next segment; the last
  segment of a piece is padded at the right. Each symbol but a document's first
  is the target of one input, also where a slice ends within a document.

  Args:
    sequences: the encoded documents.
    layout: how the streams are laid out.
    first: the batch to begin with; after the last batch comes the first.
    count: batches of an epoch; None: all.

  Raises:
    UserError: no document has two symbols.
  """
  documents, starts, inputs, numbers, edges = _cut(sequences, layout)
  begin_B, end_B = edges[:-1], edges[1:]
  window, total = layout.window, int((end_B - begin_B).max())

  def make(i: int, start: int, stop: int) -> Arrays:
    number_B = begin_B[start:stop] + (first + i) % total
    live_B = number_B < end_B[start:stop]
    number_B *= live_B  # Rows that have ended are empty.
    piece_B = np.searchsorted(numbers, number_B, side="right") - 1
    place_B = starts[piece_B] + (number_B - numbers[piece_B]) * window
    stop_B = starts[piece_B] + inputs[piece_B] + 1  # After the last target.
    rows = documents[piece_B], place_B, stop_B * live_B
    return {
      "segment": sequences.gather(*rows, window + 1),
      "reset": ~live_B | (place_B == starts[piece_B]),
      "document": documents[piece_B] * live_B,
      "place": place_B * live_B,
    }

  count = total if count is None else count
  return Batches(count, layout.batch_size, make, sequences.distinct)


def _cut(sequences: Sequences, layout: StreamLayout) -> tuple[np.ndarray, ...]:
  """Documents, or parts of documents, each in one slice.

  Returns:
    the document of each piece; its first input; the number of its inputs; the
    number of its first segment (segments are numbered through all pieces, so
    those of a row are a range); and the first segment of each row, and of one
    row more.
  """
  bounds, B = sequences.bounds, layout.batch_size
  slices = np.arange(B + 1) * bounds[-1] // B
  if layout.whole:
    slices = bounds[np.searchsorted(bounds, slices)]
  edges = np.unique(np.concatenate([bounds, slices]))
  starts = edges[:-1]
  documents = np.searchsorted(bounds, starts, side="right") - 1
  # A document's last symbol is no input, for nothing follows it.
  inputs = np.minimum(edges[1:], bounds[documents + 1] - 1) - starts
  some = inputs > 0
  if not some.any():
    raise UserError(
      "data.stateful=True: no document has the two symbols that an input and"
      " its target need"
    )
  documents, starts, inputs = documents[some], starts[some], inputs[some]
  numbers = np.concatenate([[0], np.cumsum(-(-inputs // layout.window))])
  edges = numbers[np.searchsorted(starts, slices)]
  return documents, starts, inputs, numbers, edges
