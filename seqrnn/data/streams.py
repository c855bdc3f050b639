"""Streams: batches whose rows go on from one batch to the next.

Truncated backpropagation through time hands the carry on with them.
"""

import numpy as np

from seqrnn.data.sequences import Sequences
from seqrnn.data.vocabulary import PAD
from seqrnn.data.windows import Arrays, Batches
from seqrnn.errors import UserError


def fitted(
  sequences: Sequences, batch_size: int, window: int, whole: bool = False
) -> tuple[int, int]:
  """The rows and the window of `streams`, less where they would be padding.

  More rows than windows have pieces that are shorter than one. The rows stay,
  for a carry is of each; those of whole documents need not.
  """
  inputs = np.maximum(np.diff(sequences.bounds) - 1, 0)
  windows = int((-(-inputs // window)).sum())
  if 0 < windows < batch_size:
    longest = int(inputs.max())
    if whole:
      batch_size = windows
    else:
      longest = min(longest, -(-int(sequences.bounds[-1]) // batch_size))
    window = min(window, longest)
  return batch_size, window


def streams(
  sequences: Sequences,
  *,
  batch_size: int,
  window: int,
  whole: bool = False,
  first: int = 0,
  count: int | None = None,
) -> Batches:
  """Batches of `segment`, int32 [B, window + 1], and `reset`, bool [B].

  With them `document` and `place`, as `windows` has them.

  Row b reads the b-th of B equal slices of all symbols. Where a document
  begins, in a slice or with it, a piece begins: `reset` says to start from the
  zero carry. A segment is `window` inputs and the symbol after them, which is
  the first input of the next; a piece's last is padded at the right. Each
  symbol but a document's first is the target of one input, also where a slice
  ends within a document.

  Args:
    sequences: the encoded documents.
    batch_size: B, the rows.
    window: inputs of a segment.
    whole: no slice ends within a document, so that each symbol is read with
      all that comes before it; slices are then only about equal.
    first: the batch to begin with, of all; beyond the last it goes round.
    count: batches of an epoch; None: all.

  Raises:
    UserError: no document has two symbols.
  """
  bounds = sequences.bounds
  slices = np.arange(batch_size + 1) * bounds[-1] // batch_size
  if whole:
    slices = bounds[np.searchsorted(bounds, slices)]
  edges = np.unique(np.concatenate([bounds, slices]))
  starts = edges[:-1]
  documents = np.searchsorted(bounds, starts, side="right") - 1
  ends = bounds[documents + 1]
  # A document's last symbol is no input, for nothing follows it.
  inputs = np.minimum(edges[1:], ends - 1) - starts
  some = inputs > 0
  starts, inputs, documents = starts[some], inputs[some], documents[some]
  if not len(starts):
    raise UserError(
      "data.stateful=True: no document has the two symbols that an input and"
      " its target need"
    )
  # Segments are numbered through all pieces, so those of a row are a range.
  numbers = np.concatenate([[0], np.cumsum(-(-inputs // window))])
  begin_B, end_B = (
    numbers[np.searchsorted(starts, edge)] for edge in (slices[:-1], slices[1:])
  )
  total = int((end_B - begin_B).max())

  def make(i: int, start: int, stop: int) -> Arrays:
    number_B = begin_B[start:stop] + (first + i) % total
    live_B = number_B < end_B[start:stop]
    number = number_B[live_B]
    piece = np.searchsorted(numbers, number, side="right") - 1
    done = (number - numbers[piece]) * window
    last = starts[piece] + inputs[piece] + 1  # After the last target.
    segment = np.full((stop - start, window + 1), PAD, np.int32)
    segment[live_B] = sequences.gather(
      documents[piece], starts[piece] + done, last, window + 1
    )
    reset_B = np.ones(stop - start, bool)  # Rows that have ended, too.
    reset_B[live_B] = done == 0
    document_B, place_B = np.zeros((2, stop - start), np.int64)
    document_B[live_B] = documents[piece]
    place_B[live_B] = starts[piece] + done
    return {
      "segment": segment,
      "reset": reset_B,
      "document": document_B,
      "place": place_B,
    }

  count = total if count is None else count
  return Batches(count, batch_size, make, sequences.distinct)
