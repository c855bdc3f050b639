"""Windows: short segments of documents, each read from the zero carry."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from seqrnn.data.splits import Sequences
from seqrnn.data.vocabulary import PAD
from seqrnn.errors import UserError

Arrays = dict[str, np.ndarray]


class Batches(Sequence):
  """Batches that are made when they are asked for.

  A sequence of dicts of arrays: `batches[i]`, `batches[i:]`, `len(batches)`.
  """

  def __init__(self, count: int, make: Callable[[int], Arrays]):
    """`make` gives batch i, the same whenever it is asked."""
    self._count = count
    self._make = make

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index):
    places = range(self._count)[index]
    if isinstance(places, range):
      return Batches(len(places), lambda i: self._make(places[i]))
    return self._make(places)

  def rows(self, start: int, stop: int) -> "Batches":
    """The batches with only these rows of each."""
    return self.map(lambda b: {k: v[start:stop] for k, v in b.items()})

  def map(self, function: Callable[[Arrays], Arrays]) -> "Batches":
    """The batches with `function` applied to each, when it is made."""
    return Batches(self._count, lambda i: function(self._make(i)))


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
    order: (seed, epoch) of a random order; None: as they stand.
    samples: windows of an epoch, more than there are go round again; None:
      each once.

  Raises:
    UserError: there is no window at all.
  """
  ids, bounds = sequences
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

  @functools.lru_cache(maxsize=2)  # A batch may span two passes.
  def shuffled(turn: int) -> np.ndarray:
    if order is None:
      return np.arange(total)
    return np.random.default_rng((*order, turn)).permutation(total)

  def make(i: int) -> Arrays:
    places = np.arange(i * batch_size, min((i + 1) * batch_size, samples))
    turns = places // total
    rows = np.empty_like(places)
    for turn in np.unique(turns):
      rows[turns == turn] = shuffled(int(turn))[places[turns == turn] % total]
    documents = np.searchsorted(firsts, rows, side="right") - 1
    starts = bounds[documents] + offset + (rows - firsts[documents]) * step
    segment = np.full((batch_size, length), PAD, np.int32)
    segment[: len(rows)] = gather(ids, starts, bounds[documents + 1], length)
    return {"segment": segment}

  return Batches(-(-samples // batch_size), make)


def gather(
  ids: np.ndarray, starts: np.ndarray, ends: np.ndarray, length: int
) -> np.ndarray:
  """Rows of `length` ids from each start, PAD from each end on."""
  places = starts[:, None] + np.arange(length)
  inside = places < ends[:, None]
  return np.where(inside, ids[np.where(inside, places, 0)], PAD)
