"""Windows: short segments of documents, each read from the zero carry."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

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


class Shape(NamedTuple):
  """Windows of a document, whatever it is; fields as `windows` has them."""

  length: int
  step: int
  minimum: int
  full: bool

  def count(self, rest_D: np.ndarray) -> np.ndarray:
    """How many windows there are in so many symbols, from the first one on."""
    length, step, minimum, full = self
    beyond_D = np.maximum(rest_D - length, 0)
    if full:
      counts_D = beyond_D // step + 1
    else:
      counts_D = 1 + -(-beyond_D // step)
      counts_D = np.minimum(counts_D, 1 + (rest_D - minimum) // step)
    return np.where(rest_D < minimum, 0, counts_D)

  def draw(self, rng: np.random.Generator, sizes_D: np.ndarray) -> np.ndarray:
    """Where the first window of each document begins, int64 [documents].

    A document of one window is read from its beginning. The others have the
    same number of windows whatever is drawn. Full windows begin at 0 to
    step - 1, and one that would go beyond the document ends with it. Else the
    first window begins before the document, so that no symbol is left out that
    windows from 0 on have, and `count` has one of two values: drawn are the
    places of the one that more of them have.
    """
    length, step, minimum, full = self
    shares_D = rng.random(len(sizes_D))
    low_D, high_D = np.zeros((2, len(sizes_D)), np.int64)
    if full:
      high_D += step - 1
    else:
      # The first one has the minimum at least.
      low_D += max(minimum - length, 1 - step)
      high_D = low_D + step - 1
      fewest_D = self.count(sizes_D - high_D)
      # The most symbols that so many windows have; none of them is of any.
      most_D = np.maximum(
        length + (fewest_D - 1) * step, fewest_D * step + minimum - 1
      )
      edge_D = np.clip(sizes_D - most_D, low_D, high_D + 1)
      few_D = (high_D + 1 - edge_D >= edge_D - low_D) & (fewest_D > 0)
      low_D = np.where(few_D, edge_D, low_D)
      high_D = np.where(few_D, high_D, edge_D - 1)
    drawn_D = low_D + np.floor(shares_D * (high_D - low_D + 1)).astype(np.int64)
    return np.where(sizes_D > length, drawn_D, 0)


def left_out(sizes_D: np.ndarray, offset: int, minimum: int) -> tuple[int, int]:
  """Documents and symbols that no window has, where they start at `offset`."""
  gone_D = sizes_D - offset < minimum
  symbols = np.where(gone_D, sizes_D, offset).sum()
  return int(gone_D.sum()), int(symbols)


def windows(
  sequences: Sequences,
  *,
  batch_size: int,
  length: int,
  step: int,
  offset: int = 0,
  drawn: np.random.Generator | None = None,
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
  reaches its end; the last batch is filled up with rows of PAD. With `drawn`
  each document has an offset of its own, what is before it is its first
  window, and the number of windows is the same for all that may be drawn.

  Args:
    sequences: the encoded documents; no window crosses from one to the next.
    batch_size: rows of a batch.
    length: symbols of a window.
    step: symbols from the start of a window to that of the next.
    offset: symbols before a document's first window, which no window has.
    drawn: draws an offset for each document that is longer than a window.
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
  sizes = np.diff(bounds)
  shape = Shape(length, step, minimum, full)
  firsts_D, clipped = np.full(len(sizes), offset), False
  if drawn is not None:
    firsts_D, clipped = shape.draw(drawn, sizes), full
  rest = sizes if clipped else sizes - firsts_D
  counts = shape.count(rest)
  if keep != "all":
    counts = np.minimum(counts, 1)
  total = int(counts.sum())
  if not total:
    at = f"data.window, data.offset={offset}" if offset else "data.window"
    raise UserError(
      f"{at}: no document is long enough for a window: the longest has"
      f" {sizes.max(initial=0)} symbols, {offset + minimum} are needed"
    )
  samples = total if samples is None else samples
  lengths, in_bucket = np.array([length]), np.array([total])
  short = np.array([], np.int64)
  if buckets is not None:
    # All windows of a document are whole but, perhaps, its last.
    last = np.minimum(rest - (counts - 1) * step, length)
    some = np.flatnonzero(counts)
    lengths = _lengths(last[some], total - len(some), length, buckets)
    bucket = np.searchsorted(lengths, last[some])
    short = some[np.argsort(bucket, kind="stable")]
    short = short[: np.sum(bucket < len(lengths) - 1)]
    in_bucket = np.bincount(bucket, minlength=len(lengths))
    in_bucket[-1] += total - len(some)
  # Windows are numbered: those of the shorter buckets, then document by
  # document. The document is searched here; a list of all starts would be as
  # long as the corpus where step is 1.
  wholes = counts.copy()
  wholes[short] -= 1
  firsts = len(short) + np.concatenate([[0], np.cumsum(wholes)])
  ends = np.cumsum(in_bucket)
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
        size = int(in_bucket[bucket])
        low = int(ends[bucket]) - size
        here = parts == part
        row[here] = low + shuffle(row[here] - low, size, (*order, turn))
    document = np.searchsorted(firsts, row, "right") - 1
    number = row - firsts[document]
    is_short = row < len(short)
    document[is_short] = short[row[is_short]]
    number[is_short] = counts[document[is_short]] - 1
    first_place, last_stop = bounds[document], bounds[document + 1]
    begin = first_place + firsts_D[document] + number * step
    if clipped:
      begin = np.minimum(begin, last_stop - length)
    if keep == "last":
      begin = np.maximum(begin, last_stop - length)
    # A window that begins before its document has the rest of its length.
    last_stop = np.minimum(last_stop, begin + length)
    begin = np.maximum(begin, first_place)
    segment = np.full((stop - start, width), PAD, np.int32)
    segment[: len(row)] = sequences.gather(document, begin, last_stop, width)
    missing = (0, stop - start - len(row))
    return {
      "segment": segment,
      "document": np.pad(document, missing),
      "place": np.pad(begin, missing),
    }

  number_of_batches = -(-samples // batch_size)
  return Batches(number_of_batches, batch_size, make, sequences.distinct)


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
