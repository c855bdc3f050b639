"""Encoding: from bytes to indices of symbols, a chunk at a time.

Neither the bytes nor the ids of a corpus are ever in memory as a whole.
"""

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from seqrnn.data.documents import Corpus, names_of
from seqrnn.data.read import reading
from seqrnn.data.read.columns import Spool, frozen, kind_for
from seqrnn.data.read.reading import Source, decode
from seqrnn.errors import UserError

UNITS = ("char", "byte", "word", "id", "session", "log")

_LONGEST = 2**16  # Characters of a word or an id.
_SHOWN = 20  # Characters of a token in a message.

# The name of a file, and a line in it; 0: the whole file.
Place = tuple[str, int]


class Encoded(NamedTuple):
  """What encoding returns beside the two files that it writes.

  Attributes:
    symbols: the distinct symbols, in the order of their first places.
    kind: the type of the ids in the first file, the smallest that holds them.
    files: name and first document of each file.
  """

  symbols: list[str]
  kind: str
  files: list[tuple[str, int]]


def encode(
  texts: Iterable[tuple[Place, Iterable[bytes]]],
  unit: str,
  errors: str,
  ids: BinaryIO | Spool,
  documents: BinaryIO | Spool,
) -> Encoded:
  """Writes the ids and the bounds of documents to two empty files.

  Args:
    texts: the place and the bytes of each text, in order.
    unit: as `data.unit`.
    errors: as `data.errors`.
    ids: receives the ids; it is read, too.
    documents: receives int64 [documents + 1, 2]: the end of each document in
      the ids, and its line, 0 where it is a whole file; the first row is 0, 0.

  Raises:
    UserError: a text has no symbols of this unit, or the unit is unknown.
  """
  if unit not in UNITS[:-1]:  # Symbols alone do not make a log.
    known = ", ".join(UNITS[:-1])
    raise UserError(f"data.unit={unit!r}: must be one of {known}")
  encoder = _Encoder(unit, ids, documents)
  files: list[tuple[str, int]] = []
  for (file, line), content in texts:
    name = f"{file}:{line}" if line else file
    if not (line and files and files[-1][0] == file):
      files.append((file, encoder.documents))
    if unit == "byte":
      for chunk in content:
        encoder.codes(np.frombuffer(chunk, np.uint8))
    elif unit == "char":
      for text in filter(None, decode(name, content, errors)):
        encoded = text.encode("utf-32-le")
        encoder.codes(np.frombuffer(encoded, np.dtype("<u4")))
    else:
      encoder.tokens(name, decode(name, content, errors))
    encoder.end(line=line)
  return Encoded(encoder.symbols, encoder.kind.str, files)


def open_encoded(
  unit: str, encoded: Encoded, ids: np.ndarray, documents: np.ndarray
) -> Corpus:
  """The corpus of what `encode` returned and wrote."""
  names = names_of(encoded.files, documents[1:, 1])
  group = np.arange(len(names), dtype=kind_for(len(names)))
  symbols, bounds = encoded.symbols, documents[:, 0]
  return Corpus(unit, symbols, ids, bounds, names, group, names)


def encode_in_memory(
  sources: Iterable[Source],
  unit: str,
  errors: str,
  folder: Path | None = None,
) -> Corpus:
  """The corpus of sources, which is not kept on disk for the next run.

  Raises:
    UserError: as `reading.chunks` and `encode`.
  """
  texts = (((source.name, 0), reading.chunks(source)) for source in sources)
  return encode_texts(texts, unit, errors, folder)


def encode_texts(
  texts: Iterable[tuple[Place, Iterable[bytes]]],
  unit: str,
  errors: str,
  folder: Path | None = None,
) -> Corpus:
  """The corpus of texts, as `encode` takes them.

  Args:
    texts: as of `encode`.
    unit: as `data.unit`.
    errors: as `data.errors`.
    folder: of the temporary files; None: the system's.

  Raises:
    UserError: as `encode`.
  """
  ids, documents = Spool(folder), Spool(folder)
  encoded = encode(texts, unit, errors, ids, documents)
  return open_encoded(
    unit,
    encoded,
    frozen(ids, encoded.kind),
    frozen(documents, "<i8").reshape(-1, 2),
  )


class _Encoder:
  """Numbers symbols in the order of their first places, and writes the ids."""

  def __init__(
    self, unit: str, ids: BinaryIO | Spool, documents: BinaryIO | Spool
  ):
    self.symbols: list[str] = []
    self.documents = 0
    self.kind = kind_for(0)
    self._unit = unit
    self._ids = ids
    self._file = documents
    self._count = 0  # Ids written.
    self._bound = 0  # Where the last document ended.
    self._file.write(np.zeros(2, "<i8").data)
    codes = {"char": 0x110000, "byte": 0x100}.get(unit, 0)
    self._table = np.full(codes, -1, np.int32)  # The id of a code point.
    self._index: dict[str, int] = {}  # The id of a token.

  def codes(self, codes: np.ndarray):
    """Adds characters, given by their code points."""
    ids = self._table[codes]
    new = codes[ids < 0]
    if len(new):
      found, places = np.unique(new, return_index=True)
      found = found[np.argsort(places)]
      self._table[found] = np.arange(len(found)) + len(self.symbols)
      self.symbols += map(chr, found.tolist())
      ids = self._table[codes]
    self._write(ids)

  def tokens(self, name: str, texts: Iterable[str]):
    """Adds the tokens of a text, whose parts may be cut anywhere."""
    index, unit = self._index, self._unit
    line = 1
    before = None  # The id on this line, where a line has one.
    held = ""  # A token at the end of a part may continue in the next part.
    for text in itertools.chain(texts, [None]):
      if text is None:
        text, held = held, ""
      else:
        text = held + text
        inside = text and not text[-1].isspace()
        held = text.rsplit(None, 1)[-1] if inside else ""
        text = text.removesuffix(held)
      ids: list[int] = []
      ends: list[tuple[int, int]] = []
      # Not splitlines(): it also breaks lines at U+0085, U+2028 and form feeds.
      for n, part in enumerate(text.split("\n")):
        if n:
          if unit == "word":
            ids.append(index.setdefault("\n", len(index)))
          elif unit == "session":
            ends.append((self._count + len(ids), line))
          line += 1
          before = None
        tokens = part.split()
        if len(part) > _LONGEST or unit == "id":
          before = self._check(name, line, before, tokens)
        ids += [index.setdefault(token, len(index)) for token in tokens]
      # From the end of the index: its front is long, and texts may be many.
      new = len(index) - len(self.symbols)
      self.symbols += [*itertools.islice(reversed(index), new)][::-1]
      self._write(np.array(ids, np.int64))
      for end in ends:
        self.end(*end)
      self._check(name, line, before, [held] if len(held) > _LONGEST else [])
    if unit == "session":
      self.end(self._count, line)

  def _check(
    self, name: str, line: int, before: str | None, tokens: list[str]
  ) -> str | None:
    """Refuses long tokens and a second id; returns the line's last token."""
    for token in tokens:
      if len(token) > _LONGEST:
        raise UserError(
          f"{name}: line {line}: {token[:_SHOWN]!r}... has more than {_LONGEST}"
          f" characters without white space, which data.unit={self._unit}"
          " separates by; data.unit=char reads them one by one"
        )
      if self._unit == "id" and before is not None:
        shown = f"{before[:_SHOWN]} {token[:_SHOWN]}"
        raise UserError(
          f"{name}: line {line}: {shown!r}: data.unit=id reads one id a line;"
          " data.unit=session reads several"
        )
      before = token
    return before

  def end(self, place: int | None = None, line: int = 0):
    """Ends a document that has symbols: here, or at an earlier id."""
    place = self._count if place is None else place
    if place > self._bound:
      self._file.write(np.array([place, line], "<i8").data)
      self._bound = place
      self.documents += 1

  def _write(self, ids: np.ndarray):
    kind = kind_for(len(self.symbols))
    if kind.itemsize > self.kind.itemsize:
      self._widen(kind)
    self._ids.write(ids.astype(self.kind).data)
    self._count += len(ids)

  def _widen(self, kind: np.dtype):
    """Rewrites all ids in a larger type, in place: from the end on."""
    file, old = self._ids, self.kind
    for start in reversed(range(0, self._count, reading.CHUNK)):
      size = min(reading.CHUNK, self._count - start)
      file.seek(start * old.itemsize)
      ids = np.frombuffer(file.read(size * old.itemsize), old)
      file.seek(start * kind.itemsize)
      file.write(ids.astype(kind).data)
    file.seek(0, os.SEEK_END)
    self.kind = kind
