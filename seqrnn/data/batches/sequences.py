"""Sequences: the documents of a split as ids of a vocabulary.

The ids are looked up when a batch is made: no array of them is as long as the
corpus.
"""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary


class Sequences(NamedTuple):
  """Documents one after the other, with BEGIN and END where they have them.

  A place is an index into the symbols of all documents, counting BEGIN and END,
  which are not stored.

  Attributes:
    ids: of the corpus, any unsigned type.
    table: the id in the vocabulary of each id of the corpus, int32.
    shifts: int64 [documents]; the symbol at `place` is `ids[place + shift]`.
    begins: bool [documents], whether BEGIN comes first.
    ends: bool [documents], whether END comes last.
    bounds: int64 [documents + 1]; j has the places bounds[j]..bounds[j + 1].
    distinct: int64 [documents read]: the index here of each document that was
      read; equal documents may be here once.
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
    """Rows of ids, int32 [B, length], padded with PAD at the right.

    Args:
      document_B: the document of each row.
      place_B: the place of its first symbol, in the document.
      stop_B: the place after its last one, at most the document's end.
      length: of the rows.
    """
    begins_B1 = self.begins[document_B, None]
    ends_B1 = self.ends[document_B, None]
    first_B1 = self.bounds[document_B, None]
    last_B1 = self.bounds[document_B + 1, None] - 1
    place_BT = place_B[:, None] + np.arange(length)
    inside_BT = place_BT < stop_B[:, None]
    # BEGIN, END and PAD then replace a symbol of the document.
    stored_BT = np.clip(place_BT, first_B1 + begins_B1, last_B1 - ends_B1)
    ids_BT = self.table[self.ids[stored_BT + self.shifts[document_B, None]]]
    ids_BT[(place_BT == first_B1) & begins_B1] = BEGIN
    ids_BT[(place_BT == last_B1) & ends_B1] = END
    ids_BT[~inside_BT] = PAD
    return ids_BT

  def reader(self, symbols: Sequence[str]) -> Callable[..., np.ndarray]:
    """Like `gather`, but returns the corpus's symbols as objects.

    BEGIN, END and PAD are empty symbols.
    """
    names = np.array(["", *symbols], object)
    numbered = self._replace(table=np.arange(len(symbols)) + UNKNOWN + 1)
    return lambda *rows: names[np.maximum(numbered.gather(*rows) - UNKNOWN, 0)]

  def size(self) -> dict[str, int]:
    """The numbers of documents and of symbols."""
    return {"documents": len(self.shifts), "symbols": int(self.bounds[-1])}


def encode(pieces: Pieces, names: Vocabulary, boundaries: bool) -> Sequences:
  """Pieces as ids; `boundaries` adds BEGIN and END to whole documents."""
  begins, ends = pieces.begins & boundaries, pieces.ends & boundaries
  sizes = pieces.stops - pieces.starts + begins + ends
  bounds = np.concatenate([[0], np.cumsum(sizes)])
  return Sequences(
    pieces.corpus.ids,
    names.encode(pieces.corpus.symbols),
    pieces.starts - bounds[:-1] - begins,
    begins,
    ends,
    bounds,
    np.arange(len(sizes)),
  )


def once(sequences: Sequences) -> Sequences:
  """The sequences with the first of equal documents only."""
  ids, table, shifts, begins, ends, bounds, _ = sequences
  index: dict[bytes, int] = {}
  first = []
  distinct = np.empty(len(shifts), np.int64)
  starts, stops = bounds[:-1] + shifts + begins, bounds[1:] + shifts - ends
  for j, (start, stop) in enumerate(
    zip(starts.tolist(), stops.tolist(), strict=True)
  ):
    # A digest, since documents may be large.
    digest = hashlib.blake2b(table[ids[start:stop]].data, digest_size=16)
    digest.update(begins[j].tobytes() + ends[j].tobytes())
    position = index.setdefault(digest.digest(), len(first))
    if position == len(first):
      first.append(j)
    distinct[j] = position
  some = np.array(first, np.int64)
  new = np.concatenate([[0], np.cumsum(np.diff(bounds)[some])])
  moved = bounds[some] + shifts[some] - new[:-1]
  return Sequences(ids, table, moved, begins[some], ends[some], new, distinct)


def checksum(pieces: Pieces, names: Vocabulary, sequences: Sequences) -> int:
  """A CRC-32 of the sequences, however the corpus numbers its symbols."""
  # The smallest type, since there may be billions of ids.
  table = sequences.table.astype(np.min_scalar_type(len(names)))
  crc32 = 0
  for ids in pieces.chunks():
    crc32 = zlib.crc32(table[ids].data, crc32)
  for array in (sequences.bounds, sequences.begins, sequences.ends):
    crc32 = zlib.crc32(array.data, crc32)
  return crc32
