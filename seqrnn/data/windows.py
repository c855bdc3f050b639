"""Windows: short segments of documents, each read from the zero carry."""

from collections.abc import Callable, Sequence

import numpy as np

from seqrnn.data.sequences import Sequences
from seqrnn.data.shuffle import shuffle
from seqrnn.data.vocabulary import PAD
from seqrnn.errors import UserError

Arrays = dict[str, np.ndarray]


class Batches(Sequence):
  """Batches that are made when they are asked for.

  A sequence of dicts of arrays: `batches[i]`, `batches[i:]`, `len(batches)`.

  Attributes:
    batch_size: rows of each, the first axis of every array.
  """

  def __init__(
    self, count: int, batch_size: int, make: Callable[[int, int, int], Arrays]
  ):
    """`make(i, start, stop)` gives rows start..stop of batch i.

    They are the same whenever it is asked, and whatever rows with them.
    """
    self.batch_size = batch_size
    self._count = count
    self._make = make

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index):
    places = range(self._count)[index]
    if isinstance(places, range):
      return Batches(
        len(places),
        self.batch_size,
        lambda i, start, stop: self._make(places[i], start, stop),
      )
    return self._make(places, 0, self.batch_size)

  def rows(self, start: int, stop: int) -> "Batches":
    """The batches with these rows of each alone; no other one is gathered."""
    if not 0 <= start <= stop <= self.batch_size:
      raise IndexError(f"rows {start}..{stop} of {self.batch_size}")
    return Batches(
      self._count,
      stop - start,
      lambda i, a, b: self._make(i, start + a, start + b),
    )

  def map(self, function: Callable[[Arrays], Arrays]) -> "Batches":
    """The batches with `function` applied to each, when it is made.

    It must be row-wise: a row of what it gives depends on that row alone, and
    there are as many, for it is given the rows that are asked for.
    """
    return Batches(
      self._count,
      self.batch_size,
      lambda i, start, stop: function(self._make(i, start, stop)),
    )


def windows(
  sequences: Sequences,
  *,
  batch_size: int,
  length: int,
  step: int,
  offset: int = 0,
  full: bool = False,
  minimum: int = 2,
  order: tuple[int, int] | None = None,
  samples: int | None = None,
) -> Batches:
  """Batches of `segment`, int32 [batch_size, length], padded at the right.

  A document's windows start at `offset` and every `step` symbols, until one
  reaches its end; the last batch is filled up with rows of PAD.

  Args:
    sequences: the encoded documents; no window crosses from one to the next.
    batch_size: rows of a batch.
    length: symbols of a window.
    step: symbols from the start of a window to that of the next.
    offset: symbols before a document's first window.
    full: only whole windows; but a document too short for one gives itself.
    minimum: a window with fewer symbols is left out.
    order: (seed, epoch) of a random order, another one each time they go
      round; None: as they stand.
    samples: windows of an epoch, more than there are go round again; None:
      each once.

  Raises:
    UserError: there is no window at all.
  """
  bounds = sequences.bounds
  rest = np.diff(bounds) - offset
  if full:
    counts = np.maximum(rest - length, 0) // step + 1
  else:
    counts = 1 + -(-np.maximum(rest - length, 0) // step)
    counts = np.minimum(counts, 1 + (rest - minimum) // step)
  counts = np.where(rest < minimum, 0, counts)
  # A window's document is searched here; a list of all starts would be as
  # long as the corpus where step is 1.
  firsts = np.concatenate([[0], np.cumsum(counts)])
  total = int(firsts[-1])
  if not total:
    raise UserError(
      f"data.window, data.offset={offset}: no document is long enough for a"
      f" window: the longest has {np.diff(bounds).max(initial=0)} symbols,"
      f" {offset + minimum} are needed"
    )
  samples = total if samples is None else samples

  def make(i: int, start: int, stop: int) -> Arrays:
    first = i * batch_size
    place = np.arange(first + start, min(first + stop, samples))
    row = place % total
    if order is not None:
      for turn in np.unique(place // total).tolist():
        here = place // total == turn
        row[here] = shuffle(row[here], total, (*order, turn))
    document = np.searchsorted(firsts, row, side="right") - 1
    begin = bounds[document] + offset + (row - firsts[document]) * step
    segment = np.full((stop - start, length), PAD, np.int32)
    segment[: len(row)] = sequences.gather(
      document, begin, bounds[document + 1], length
    )
    return {"segment": segment}

  return Batches(-(-samples // batch_size), batch_size, make)
