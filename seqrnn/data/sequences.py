"""Sequences: the documents of a split as ids of a vocabulary.

They are looked up when a batch is made: no array of them is ever as long as
the corpus.
"""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary


class Sequences(NamedTuple):
  """Documents one after the other, BEGIN and END between them.

  A place counts the symbols of all documents, BEGIN and END among them, which
  are stored nowhere.

  Attributes:
    ids: of the corpus, any unsigned type.
    table: the id in the vocabulary of each id of the corpus, int32.
    shifts: int64 [documents]; what is at `place` is `ids[place + shift]`.
    begins: bool [documents], whether BEGIN comes first.
    ends: bool [documents], whether END comes last.
    bounds: int64 [documents + 1]; j has the places bounds[j]..bounds[j + 1].
    distinct: int64 [documents read]: which of these each one is; equal ones
      may stand here once.
  """

  ids: np.ndarray
  table: np.ndarray
  shifts: np.ndarray
  begins: np.ndarray
  ends: np.ndarray
  bounds: np.ndarray
  distinct: np.ndarray

  def gather(
    self,
    document_B: np.ndarray,
    place_B: np.ndarray,
    stop_B: np.ndarray,
    length: int,
  ) -> np.ndarray:
    """Rows of `length` ids, int32: from each place on, PAD from each stop on.

    A row's place and stop, and so all of it, are within its document.
    """
    begins_B1, ends_B1 = (
      self.begins[document_B, None],
      self.ends[document_B, None],
    )
    first_B1 = self.bounds[document_B, None]
    last_B1 = self.bounds[document_B + 1, None] - 1
    place_BT = place_B[:, None] + np.arange(length)
    inside_BT = place_BT < stop_B[:, None]
    # Where BEGIN, END or PAD stands, any symbol will do before they are put.
    stored_BT = np.clip(place_BT, first_B1 + begins_B1, last_B1 - ends_B1)
    ids_BT = self.table[self.ids[stored_BT + self.shifts[document_B, None]]]
    ids_BT[(place_BT == first_B1) & begins_B1] = BEGIN
    ids_BT[(place_BT == last_B1) & ends_B1] = END
    ids_BT[~inside_BT] = PAD
    return ids_BT


def encode(
  pieces: Pieces, vocabulary: Vocabulary, boundaries: bool
) -> Sequences:
  """Pieces as ids; `boundaries` puts BEGIN and END where they do so."""
  begins, ends = pieces.begins & boundaries, pieces.ends & boundaries
  sizes = pieces.stops - pieces.starts + begins + ends
  bounds = np.concatenate([[0], np.cumsum(sizes)])
  return Sequences(
    pieces.corpus.ids,
    vocabulary.encode(pieces.corpus.symbols),
    pieces.starts - bounds[:-1] - begins,
    begins,
    ends,
    bounds,
    np.arange(len(sizes)),
  )


def as_read(
  sequences: Sequences, symbols: Sequence[str]
) -> Callable[..., np.ndarray]:
  """Like `Sequences.gather`, but of the symbols of the corpus: objects.

  Where there is none, as at BEGIN, END and PAD, is an empty one.
  """
  names = np.array(["", *symbols], object)
  own = sequences._replace(table=np.arange(len(symbols)) + UNKNOWN + 1)
  return lambda *rows: names[np.maximum(own.gather(*rows) - UNKNOWN, 0)]


def once(sequences: Sequences) -> Sequences:
  """Of equal documents the first alone."""
  ids, table, shifts, begins, ends, bounds, _ = sequences
  index: dict[bytes, int] = {}
  first = []
  distinct = np.empty(len(shifts), np.int64)
  starts, stops = bounds[:-1] + shifts + begins, bounds[1:] + shifts - ends
  for j, (start, stop) in enumerate(
    zip(starts.tolist(), stops.tolist(), strict=True)
  ):
    # In its place, for documents may be large.
    digest = hashlib.blake2b(table[ids[start:stop]].data, digest_size=16)
    digest.update(begins[j].tobytes() + ends[j].tobytes())
    place = index.setdefault(digest.digest(), len(first))
    if place == len(first):
      first.append(j)
    distinct[j] = place
  kept = np.array(first, np.int64)
  new = np.concatenate([[0], np.cumsum(np.diff(bounds)[kept])])
  moved = bounds[kept] + shifts[kept] - new[:-1]
  return Sequences(ids, table, moved, begins[kept], ends[kept], new, distinct)


def checksum(
  pieces: Pieces, vocabulary: Vocabulary, sequences: Sequences
) -> int:
  """A CRC-32 that differs where the sequences do, and only there."""
  # The smallest type: there may be billions.
  table = sequences.table.astype(np.min_scalar_type(len(vocabulary)))
  crc32 = 0
  for ids in pieces.chunks():
    crc32 = zlib.crc32(table[ids].data, crc32)
  for array in (sequences.bounds, sequences.begins, sequences.ends):
    crc32 = zlib.crc32(array.data, crc32)
  return crc32
