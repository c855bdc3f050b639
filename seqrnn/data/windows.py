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
    distinct: int64 [documents]: which `document` of the rows each one is;
      equal ones may be one. None: the rows are of none.
  """

  def __init__(
    self,
    count: int,
    batch_size: int,
    make: Callable[[int, int, int], Arrays],
    distinct: np.ndarray | None = None,
  ):
    """`make(i, start, stop)` gives rows start..stop of batch i.

    They are the same whenever it is asked, and whatever rows with them.
    """
    self.batch_size = batch_size
    self.distinct = distinct
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
        self.distinct,
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
      self.distinct,
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
      self.distinct,
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
  keep: str = "all",
  order: tuple[int, int] | None = None,
  samples: int | None = None,
  buckets: int | None = None,
) -> Batches:
  """Batches of `segment`, int32 [batch_size, length], padded at the right.

  With it `document` and `place` [batch_size]: which one it is of, and where its
  first symbol is, as Sequences.gather takes them.

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
    keep: of each document all windows, the `first`, or the `last`, which
      reaches its end.
    order: (seed, epoch) of a random order, another one each time they go
      round; None: as they stand.
    samples: windows of an epoch, more than there are go round again; None:
      each once. With buckets, rounded up to whole batches.
    buckets: how many lengths there may be instead of the one; a batch has
      windows of similar length, and is as long as the longest needs. In order,
      the shortest come first. None: all have `length`.

  Raises:
    UserError: there is no window at all.
  """
  bounds = sequences.bounds
  rest = np.diff(bounds) - offset
  counts = count(
    rest, length=length, step=step, full=full, minimum=minimum, keep=keep
  )
  total = int(counts.sum())
  if not total:
    raise UserError(
      f"data.window, data.offset={offset}: no document is long enough for a"
      f" window: the longest has {np.diff(bounds).max(initial=0)} symbols,"
      f" {offset + minimum} are needed"
    )
  samples = total if samples is None else samples
  lengths, sizes = np.array([length]), np.array([total])
  short = np.array([], np.int64)
  if buckets is not None:
    # All windows of a document are whole but, perhaps, its last.
    last = np.minimum(rest - (counts - 1) * step, length)
    some = np.flatnonzero(counts)
    lengths = _lengths(last[some], total - len(some), length, buckets)
    bucket = np.searchsorted(lengths, last[some])
    short = some[np.argsort(bucket, kind="stable")]
    short = short[: np.sum(bucket < len(lengths) - 1)]
    sizes = np.bincount(bucket, minlength=len(lengths))
    sizes[-1] += total - len(some)
  # Windows are numbered: those of the shorter buckets, then document by
  # document. The document is searched here; a list of all starts would be as
  # long as the corpus where step is 1.
  wholes = counts.copy()
  wholes[short] -= 1
  firsts = len(short) + np.concatenate([[0], np.cumsum(wholes)])
  ends = np.cumsum(sizes)
  turn_batches = -(-total // batch_size)

  def make(i: int, start: int, stop: int) -> Arrays:
    first, end = i * batch_size, samples
    if buckets is not None:
      turn, i = divmod(i, turn_batches)
      if order is not None:
        i = int(shuffle(np.array([i]), turn_batches, (*order, turn))[0])
      first = turn * total + i * batch_size
      end = (turn + 1) * total
    # The rows of a batch go from short to long, whichever they are.
    longest = (min(first + batch_size, end) - 1) % total
    width = int(lengths[np.searchsorted(ends, longest, "right")])
    place = np.arange(first + start, min(first + stop, end))
    row = place % total
    if order is not None:
      # Each bucket by itself, in each turn.
      parts = place // total * len(ends) + np.searchsorted(ends, row, "right")
      for part in np.unique(parts).tolist():
        turn, bucket = divmod(part, len(ends))
        low, size = int(ends[bucket] - sizes[bucket]), int(sizes[bucket])
        here = parts == part
        row[here] = low + shuffle(row[here] - low, size, (*order, turn))
    document = np.searchsorted(firsts, row, "right") - 1
    number = row - firsts[document]
    is_short = row < len(short)
    document[is_short] = short[row[is_short]]
    number[is_short] = counts[document[is_short]] - 1
    begin = bounds[document] + offset + number * step
    if keep == "last":
      begin = np.maximum(begin, bounds[document + 1] - length)
    segment = np.full((stop - start, width), PAD, np.int32)
    segment[: len(row)] = sequences.gather(
      document, begin, bounds[document + 1], width
    )
    missing = (0, stop - start - len(row))
    return {
      "segment": segment,
      "document": np.pad(document, missing),
      "place": np.pad(begin, missing),
    }

  number_of_batches = -(-samples // batch_size)
  return Batches(number_of_batches, batch_size, make, sequences.distinct)


def count(
  sizes: np.ndarray,
  *,
  length: int,
  step: int,
  full: bool = False,
  minimum: int = 2,
  keep: str = "all",
) -> np.ndarray:
  """How many windows documents of these sizes have; as `windows`."""
  if full:
    counts = np.maximum(sizes - length, 0) // step + 1
  else:
    counts = 1 + -(-np.maximum(sizes - length, 0) // step)
    counts = np.minimum(counts, 1 + (sizes - minimum) // step)
  counts = np.where(sizes < minimum, 0, counts)
  return counts if keep == "all" else np.minimum(counts, 1)


def _lengths(
  found: np.ndarray, whole: int, length: int, most: int
) -> np.ndarray:
  """The `most` lengths, or fewer, to which windows are padded with least.

  Only lengths of four binary digits, as 26, 28, 30, 32, 36, and `length` are
  chosen from: few, so that other data will need the same.

  Args:
    found: lengths of windows, at most `length`.
    whole: how many more windows have `length`.
    length: the greatest.
    most: how many to choose.
  """
  unit = 2 ** np.maximum(np.frexp(found)[1] - 4, 0)
  rounded = np.minimum(-(-found // unit) * unit, length)
  sizes, rows = np.unique(np.append(rounded, length), return_counts=True)
  rows[-1] += whole - 1
  sizes, rows = sizes[rows > 0], rows[rows > 0]
  # All windows up to sizes[b] take cost[b] symbols, in one bucket, in two, ...
  upto = np.cumsum(rows)
  cost = upto * sizes
  apart = np.tri(len(sizes), k=-1, dtype=bool).T
  choices = []
  for _ in range(min(most, len(sizes)) - 1):
    # The last bucket has those beyond sizes[a].
    last_ab = (upto[None] - upto[:, None]) * sizes[None]
    cost_ab = np.where(apart, cost[:, None] + last_ab, np.inf)
    choices.append(cost_ab.argmin(axis=0))
    cost = cost_ab.min(axis=0)
  chosen = [len(sizes) - 1]
  for choice in reversed(choices):
    chosen.append(choice[chosen[-1]])
  return sizes[chosen[::-1]]
