"""Windows: short segments of documents, each read from the zero carry."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self, overload

import numpy as np

from seqrnn.data.batches.sequences import Sequences
from seqrnn.data.read.columns import Arrays
from seqrnn.errors import UserError

# Of `shuffle`. With fewer, some orders of 6 numbers are rarer than others.
_ROUNDS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Batches(Sequence[Arrays]):
  """Batches that are made when they are indexed.

  A sequence of dicts of arrays: `batches[i]`, `batches[i:]`, `len(batches)`.

  Attributes:
    length: the number of batches.
    batch_size: rows of each batch, the first axis of every array.
    make: i, start, stop -> rows start..stop of batch i. A row is the same at
      each call, whichever rows are asked for with it.
    distinct: int64 [documents]: the `document` of the rows that stands for
      each document; equal documents may share one. None: rows have none.
  """

  length: int
  batch_size: int
  make: Callable[[int, int, int], Arrays]
  distinct: np.ndarray | None = None

  def __len__(self) -> int:
    return self.length

  @overload
  def __getitem__(self, index: int) -> Arrays: ...

  @overload
  def __getitem__(self, index: slice) -> Self: ...

  def __getitem__(self, index):
    places = range(self.length)[index]
    if isinstance(places, range):
      return dataclasses.replace(
        self,
        length=len(places),
        make=lambda i, a, b: self.make(places[i], a, b),
      )
    return self.make(places, 0, self.batch_size)

  def rows(self, start: int, stop: int) -> "Batches":
    """The batches with these rows only; other rows are never gathered."""
    return dataclasses.replace(
      self,
      batch_size=stop - start,
      make=lambda i, a, b: self.make(i, start + a, start + b),
    )

  def map(self, function: Callable[[Arrays], Arrays]) -> "Batches":
    """The batches with `function` applied to each when it is made.

    The function must be row-wise, for it may get some rows of a batch: a row
    of its result depends on that row of the batch alone.
    """
    return dataclasses.replace(self, make=lambda *at: function(self.make(*at)))


class Shape(NamedTuple):
  """How windows are cut from a document.

  Attributes:
    length: symbols of a window.
    step: symbols from the start of a window to the start of the next.
    minimum: a window with fewer symbols is left out.
    full: only windows of `length` symbols; a document that is shorter is one
      window.
    keep: `all` windows of a document, the `first`, or the `last`, which is
      moved to end with the document.
  """

  length: int
  step: int
  minimum: int = 2
  full: bool = False
  keep: str = "all"

  def count(self, sizes_D: np.ndarray) -> np.ndarray:
    """The number of windows in documents of these sizes, from offset 0."""
    length, step, minimum, full, keep = self
    beyond_D = np.maximum(sizes_D - length, 0)
    if full:
      counts_D = beyond_D // step + 1
    else:
      counts_D = 1 + -(-beyond_D // step)
      counts_D = np.minimum(counts_D, 1 + (sizes_D - minimum) // step)
    if keep != "all":
      counts_D = np.minimum(counts_D, 1)
    return np.where(sizes_D < minimum, 0, counts_D)

  def draw(self, rng: np.random.Generator, sizes_D: np.ndarray) -> np.ndarray:
    """Random starts of the first window of each document, int64 [documents].

    The number of windows is the same for all starts that can be drawn. A
    document of one window starts at 0. Full windows start at 0 to step - 1,
    and a window that would end after the document is moved to end with it.
    Other windows start before the document, so that each symbol of the windows
    from 0 is in a window. Their starts give one of two numbers of windows;
    only the starts that give the more frequent number are drawn.
    """
    length, step, minimum, full, _ = self
    shares_D = rng.random(len(sizes_D))
    low_D, high_D = np.zeros((2, len(sizes_D)), np.int64)
    if full:
      high_D += step - 1
    else:
      # The first window has at least `minimum` symbols.
      low_D += max(minimum - length, 1 - step)
      high_D = low_D + step - 1
      fewest_D = self._replace(keep="all").count(sizes_D - high_D)
      # The largest size with that number of windows; no size has 0 windows.
      most_D = np.maximum(
        length + (fewest_D - 1) * step, fewest_D * step + minimum - 1
      )
      edge_D = np.clip(sizes_D - most_D, low_D, high_D + 1)
      few_D = (high_D + 1 - edge_D >= edge_D - low_D) & (fewest_D > 0)
      low_D = np.where(few_D, edge_D, low_D)
      high_D = np.where(few_D, high_D, edge_D - 1)
    drawn_D = low_D + np.floor(shares_D * (high_D - low_D + 1)).astype(np.int64)
    return np.where(sizes_D > length, drawn_D, 0)


class Epoch(NamedTuple):
  """The windows that an epoch reads, and their order.

  Attributes:
    offset: symbols before the first window of each document. A generator draws
      an offset for each document that is longer than a window; the symbols
      before it are then a window, too.
    order: (seed, epoch) of a random order, another one for each pass over the
      windows; None: the order of the documents.
    samples: the number of windows; larger numbers repeat windows. None: each
      window once. With `buckets`, rounded up to whole batches.
    buckets: the largest number of different lengths. A batch has windows of
      similar length, padded to the length of their bucket; without a random
      order the shortest come first. None: all are padded to `Shape.length`.
  """

  offset: int | np.random.Generator = 0
  order: tuple[int, int] | None = None
  samples: int | None = None
  buckets: int | None = None


def windows(
  sequences: Sequences, shape: Shape, batch_size: int, epoch: Epoch
) -> Batches:
  """Batches of `segment`, int32 [batch_size, length], padded at the right.

  They also hold `document` and `place` [batch_size]: the document of each row
  and the place of its first symbol, as Sequences.gather takes them.

  No window crosses the end of a document. A document's windows start at the
  offset and every `step` symbols, until one reaches its end. The last batch is
  filled up with rows of PAD.

  Raises:
    UserError: no document is long enough for a window.
  """
  plan = _plan(_starts(sequences.bounds, shape, epoch.offset), epoch)

  def make(i: int, start: int, stop: int) -> Arrays:
    first, end = plan.span(i, batch_size)
    window = plan.windows(np.arange(first + start, min(first + stop, end)))
    # Missing rows are empty.
    missing = (0, stop - start - len(window))
    document, begin, last_stop = (
      np.pad(column, missing) for column in plan.starts.spans(window)
    )
    width = plan.width(end - 1)
    segment = sequences.gather(document, begin, last_stop, width)
    return {"segment": segment, "document": document, "place": begin}

  number_of_batches = -(-plan.samples // batch_size)
  return Batches(number_of_batches, batch_size, make, sequences.distinct)


class _Order(NamedTuple):
  """The order in which an epoch reads windows.

  A pass has each window once, the shortest bucket first.

  Attributes:
    starts: where windows start.
    epoch: the order within a bucket, and whether there are several.
    samples: the number of windows of the epoch.
    lengths: of the windows of each bucket.
    ends: the number of windows up to the end of each bucket.
    in_order: the windows, bucket by bucket; None: there is one bucket.
  """

  starts: "_Starts"
  epoch: Epoch
  samples: int
  lengths: np.ndarray
  ends: np.ndarray
  in_order: np.ndarray | None

  def span(self, i: int, batch_size: int) -> tuple[int, int]:
    """The positions in the epoch where batch i begins and ends."""
    begin, end, total = 0, self.samples, int(self.ends[-1])
    if self.epoch.buckets is not None:
      # Each pass over the windows has batches of its own.
      count = -(-total // batch_size)
      pass_, i = divmod(i, count)
      begin, end = pass_ * total, (pass_ + 1) * total
      if self.epoch.order is not None:
        key = (*self.epoch.order, pass_)
        i = int(shuffle(np.array([i]), count, key)[0])
    begin += i * batch_size
    return begin, min(begin + batch_size, end)

  def windows(self, position: np.ndarray) -> np.ndarray:
    """The windows at positions of the epoch."""
    pass_, row = np.divmod(position, self.ends[-1])
    if self.epoch.order is not None:
      # Each bucket of each pass is shuffled by itself.
      part = pass_ * len(self.ends) + np.searchsorted(self.ends, row, "right")
      for one in np.unique(part).tolist():
        number, bucket = divmod(one, len(self.ends))
        low, high = [0, *self.ends.tolist()][bucket : bucket + 2]
        here, key = part == one, (*self.epoch.order, number)
        row[here] = low + shuffle(row[here] - low, high - low, key)
    return row if self.in_order is None else self.in_order[row]

  def width(self, last: int) -> int:
    """The length of the windows of a batch whose last position is `last`.

    It depends on all rows of the batch, whichever rows are asked for.
    """
    bucket = np.searchsorted(self.ends, last % self.ends[-1], "right")
    return int(self.lengths[bucket])


def _plan(starts: "_Starts", epoch: Epoch) -> _Order:
  length, total = starts.shape.length, int(starts.numbers[-1])
  samples = total if epoch.samples is None else epoch.samples
  if epoch.buckets is None:
    ends = np.array([total])
    return _Order(starts, epoch, samples, np.array([length]), ends, None)
  _, begin_W, stop_W = starts.spans(np.arange(total))
  lengths = _lengths(stop_W - begin_W, length, epoch.buckets)
  bucket_W = np.searchsorted(lengths, stop_W - begin_W)
  in_order, ends = np.argsort(bucket_W, kind="stable"), np.bincount(bucket_W)
  return _Order(starts, epoch, samples, lengths, np.cumsum(ends), in_order)


class _Starts(NamedTuple):
  """Where the windows of each document start.

  A window's document is found by binary search: a list of all windows would be
  as long as the corpus where `step` is 1.

  Attributes:
    shape: of the windows.
    bounds: of the documents, as Sequences has them.
    firsts_D: the start of each document's first window, from its beginning.
    numbers: of each document's first window, and of all windows.
    moved: whether a window that would end after its document is moved back.
  """

  shape: Shape
  bounds: np.ndarray
  firsts_D: np.ndarray
  numbers: np.ndarray
  moved: bool

  def spans(self, window: np.ndarray) -> tuple[np.ndarray, ...]:
    """The documents of windows, and the places where they begin and end."""
    length, step, _, _, keep = self.shape
    document = np.searchsorted(self.numbers, window, "right") - 1
    number = window - self.numbers[document]
    first_place, last_stop = self.bounds[document], self.bounds[document + 1]
    begin = first_place + self.firsts_D[document] + number * step
    if self.moved:
      begin = np.minimum(begin, last_stop - length)
    if keep == "last":
      begin = np.maximum(begin, last_stop - length)
    # A window that begins before its document has the rest of its length.
    last_stop = np.minimum(last_stop, begin + length)
    return document, np.maximum(begin, first_place), last_stop


def _starts(
  bounds: np.ndarray, shape: Shape, offset: int | np.random.Generator
) -> _Starts:
  sizes_D, moved = np.diff(bounds), False
  if isinstance(offset, int):
    firsts_D = np.full(len(sizes_D), offset)
  else:
    firsts_D, moved = shape.draw(offset, sizes_D), shape.full
    offset = 0
  counts_D = shape.count(sizes_D if moved else sizes_D - firsts_D)
  if not counts_D.any():
    at = f"data.window, data.offset={offset}" if offset else "data.window"
    raise UserError(
      f"{at}: no document is long enough for a window: the longest has"
      f" {sizes_D.max(initial=0)} symbols, {offset + shape.minimum} are needed"
    )
  numbers = np.concatenate([[0], np.cumsum(counts_D)])
  return _Starts(shape, bounds, firsts_D, numbers, moved)


def _lengths(needed: np.ndarray, length: int, most: int) -> np.ndarray:
  """At most `most` lengths of buckets that need the least padding.

  They are `length` and numbers of four binary digits, as 26, 28, 30, 32, 36:
  few, so that XLA compiles for the same lengths when the data change.

  Args:
    needed: lengths of the windows, at most `length`.
    length: the greatest.
    most: of buckets.
  """
  unit = 2 ** np.maximum(np.frexp(needed)[1] - 4, 0)
  rounded = np.minimum(-(-needed // unit) * unit, length)
  sizes, rows = np.unique(rounded, return_counts=True)
  # cost[b]: symbols of all windows up to sizes[b], in one bucket, in two, ...
  upto = np.cumsum(rows)
  cost = upto * sizes
  apart = np.tri(len(sizes), k=-1, dtype=bool).T
  choices = []
  for _ in range(min(most, len(sizes)) - 1):
    # The last bucket has the windows longer than sizes[a].
    last_ab = (upto[None] - upto[:, None]) * sizes[None]
    cost_ab = np.where(apart, cost[:, None] + last_ab, np.inf)
    choices.append(cost_ab.argmin(axis=0))
    cost = cost_ab.min(axis=0)
  chosen = [len(sizes) - 1]
  for choice in reversed(choices):
    chosen.append(choice[chosen[-1]])
  return sizes[chosen[::-1]]


def shuffle(places: np.ndarray, n: int, key: tuple[int, ...]) -> np.ndarray:
  """The numbers of 0..n-1 at `places` of the random order of a key; int64.

  It takes constant memory, since n may be billions.

  A Feistel network (Luby and Rackoff 1988) on pairs of numbers. A round adds a
  hash of one half to the other half. That can be undone, so that no two pairs
  give the same pair. There are about n + sqrt(n) pairs; a result of n or more
  goes through the network again (cycle walking, Black and Rogaway 2002).

  The order depends on `key` and n only, not on the machine or NumPy's version.
  """
  text = " ".join(map(str, key)).encode()
  keys = np.frombuffer(hashlib.shake_256(text).digest(8 * _ROUNDS), "<u8")
  columns = math.isqrt(n - 1) + 1
  sides = np.array([columns, -(-n // columns)], np.uint64)
  numbers = _network(places.astype(np.uint64), sides, keys)
  while len(beyond := np.flatnonzero(numbers >= n)):
    numbers[beyond] = _network(numbers[beyond], sides, keys)
  return numbers.astype(np.int64)


def _network(x: np.ndarray, sides: np.ndarray, keys: np.ndarray) -> np.ndarray:
  """A bijection of 0..sides[0] * sides[1] - 1."""
  halves = [x % sides[0], x // sides[0]]
  for turn, key in enumerate(keys):
    here, there = turn % 2, 1 - turn % 2
    # 32 bits of the hash, so that the sum does not wrap at 2**64.
    hashed = _mix(halves[there] + key) >> 32
    halves[here] = (halves[here] + hashed) % sides[here]
  return halves[1] * sides[0] + halves[0]


def _mix(x: np.ndarray) -> np.ndarray:
  """The finalizer of SplitMix64 (Steele et al. 2014), modulo 2**64."""
  x = (x ^ (x >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> 27)) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> 31)
