"""Encoding: from bytes to indices of symbols, a chunk at a time.

What is read is read as it stands: nothing is lowercased, stripped or left out
but what a unit says. Neither the bytes nor the symbols of a corpus are ever in
memory as a whole, unless the caller's files are.
"""

import bisect
import codecs
import gzip
import hashlib
import itertools
import lzma
import math
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from seqrnn.data.columns import Spool, frozen
from seqrnn.errors import MachineError, UserError

UNITS = ("char", "byte", "word", "id", "session", "log")
CHUNK = 2**20  # Bytes read at once; also the characters of a line of a log.
LONGEST = 2**24  # Characters of a line, or of a field, that has a whole text.
# What can be done about a byte that is wrong.
NOT_UTF8 = (
  "is not UTF-8; data.errors=latin-1 reads each byte as a character,"
  " data.errors=replace puts U+FFFD there"
)

# Files that are read as what they hold.
_COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}
_LONGEST = 2**16  # Characters of a word or id; what is longer is none.
_SHOWN = 20  # Characters of one in a message.


class Document(NamedTuple):
  """A sequence of symbols that nothing runs across.

  Attributes:
    name: for messages and tables.
    symbols: a str is a sequence of characters, a list holds tokens.
    group: documents of one group stay on one side of a split.
    begins: False for a piece without the document's first symbol.
    ends: False for a piece without the document's last symbol.
  """

  name: str
  symbols: str | list[str]
  group: str
  begins: bool = True
  ends: bool = True


class Corpus(NamedTuple):
  """Documents as indices of symbols, one after the other.

  It may be larger than memory: `ids`, `bounds` and what `names` rests on are
  then a file's, and no document is an object of Python's.

  Attributes:
    unit: what a symbol is, as `data.unit`.
    symbols: the distinct ones, in the order they come.
    ids: of all documents, uint8, uint16 or uint32: indices into `symbols`.
    bounds: int64 [documents + 1]; j is `ids[bounds[j] : bounds[j + 1]]`.
    names: of the documents.
    group: of each document, int64 [documents]: indices into `groups`.
    groups: their names, or the `digest` of each; documents of one group stay on
      one side of a split.
    labels: a label for each document, as documents of one symbol; None: none.
    tags: a tag for each symbol, as documents of the same lengths; None: none.
    lines: int64, of each of `ids` its line in its file; None: not known here.
    timestamps: of each of `ids` its time, as it was written; None: none.
    origin: what the data change with, as a version of Python; else empty.
  """

  unit: str
  symbols: list[str]
  ids: np.ndarray
  bounds: np.ndarray
  names: Sequence[str]
  group: np.ndarray
  groups: Sequence[str] | np.ndarray
  labels: "Corpus | None" = None
  tags: "Corpus | None" = None
  lines: np.ndarray | None = None
  timestamps: Sequence[str] | None = None
  origin: str = ""

  def text(self, start: int, stop: int) -> str | list[str]:
    """The symbols from one place in `ids` to another, as a Document has them.

    They are objects of Python's, so this is for what a person reads.
    """
    found = [self.symbols[i] for i in self.ids[start:stop].tolist()]
    return "".join(found) if self.unit in ("char", "byte") else found


class Source(NamedTuple):
  """Where bytes come from: a file, or memory."""

  name: str
  content: Path | bytes


# A file, or a line of one.
Place = str | tuple[str, int]


class Encoded(NamedTuple):
  """What encoding gives beside the two files that it writes.

  Attributes:
    symbols: the distinct ones, in the order they come.
    kind: the type of the ids in the first file, the smallest that holds them.
    files: name and first document of each file.
  """

  symbols: list[str]
  kind: str
  files: list[tuple[str, int]]


def chunks(source: Source) -> Iterator[bytes]:
  """The bytes of a source, none empty, at most CHUNK at once.

  What a file ending in .gz or .xz holds is read as it is unpacked.

  Raises:
    UserError: it is no file, cannot be read, or changes meanwhile.
  """
  path = source.content
  if isinstance(path, bytes):
    yield from (path[i : i + CHUNK] for i in range(0, len(path), CHUNK))
    return
  try:
    # Before it is opened: a pipe would wait for a writer, a device never end.
    if not stat.S_ISREG(os.stat(path).st_mode):
      raise UserError(f"{path}: not a regular file")
    with path.open("rb", buffering=0) as file:
      before = os.fstat(file.fileno())
      with _COMPRESSED.get(path.suffix, nullcontext)(file) as content:
        # No more than it has: it may grow as fast as it is read.
        left = before.st_size if content is file else math.inf
        while chunk := content.read(min(CHUNK, left)):
          left -= len(chunk)
          yield chunk
      after = os.fstat(file.fileno())
  except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
    reason = getattr(error, "strerror", None) or error
    raise MachineError(f"{path}: cannot be read: {reason}") from None
  if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
    raise changed(source)


def changed(source: Source) -> MachineError:
  """What is said of a file that is not the same to its end."""
  return MachineError(f"{source.content}: changed while it was read")


def encode(
  sources: Iterable[tuple[Place, Iterable[bytes]]],
  unit: str,
  errors: str,
  ids: BinaryIO | Spool,
  documents: BinaryIO | Spool,
) -> Encoded:
  """Writes the ids and the documents of sources to two empty files.

  Args:
    sources: place and bytes of each, in order.
    unit: as `data.unit`.
    errors: as `data.errors`.
    ids: takes the ids; it is read, too.
    documents: takes int64 [documents + 1, 2]: the end of each in the ids, and
      the line of a session or of the source, else 0; the first row is 0, 0.

  Raises:
    UserError: bytes that are not what `unit` says, or an unknown unit.
  """
  if unit not in UNITS[:-1]:  # Of a log, the symbols are not all there is.
    known = ", ".join(UNITS[:-1])
    raise UserError(f"data.unit={unit!r}: must be one of {known}")
  encoder = _Encoder(unit, ids, documents)
  files: list[tuple[str, int]] = []
  for place, content in sources:
    file, line = (place, 0) if isinstance(place, str) else place
    name = f"{file}:{line}" if line else file
    if not (line and files and files[-1][0] == file):
      files.append((file, encoder.documents))
    if unit == "byte":
      for chunk in content:
        encoder.codes(np.frombuffer(chunk, np.uint8))
    elif unit == "char":
      for text in _decode(name, content, errors):
        encoded = text.encode("utf-32-le")
        encoder.codes(np.frombuffer(encoded, np.dtype("<u4")))
    else:
      encoder.tokens(name, _decode(name, content, errors))
    encoder.end(line=line)
  return Encoded(encoder.symbols, encoder.kind.str, files)


def open_encoded(
  unit: str, encoded: Encoded, ids: np.ndarray, documents: np.ndarray
) -> Corpus:
  """The corpus of what `encode` gave and wrote."""
  names = Names(encoded.files, documents[1:, 1])
  group = np.arange(len(names))
  symbols, bounds = encoded.symbols, documents[:, 0]
  return Corpus(unit, symbols, ids, bounds, names, group, names)


def encode_in_memory(
  sources: Iterable[Source], unit: str, errors: str
) -> Corpus:
  """The corpus of sources that are not kept encoded for the next time.

  Raises:
    UserError: as `chunks` and `encode`.
  """
  places = ((source.name, chunks(source)) for source in sources)
  return encode_parts(places, unit, errors)


def encode_parts(
  sources: Iterable[tuple[Place, Iterable[bytes]]], unit: str, errors: str
) -> Corpus:
  """The corpus of what `encode` takes.

  Raises:
    UserError: as `encode`.
  """
  ids, documents = Spool(), Spool()
  encoded = encode(sources, unit, errors, ids, documents)
  return open_encoded(
    unit,
    encoded,
    frozen(ids, encoded.kind),
    frozen(documents, "<i8").reshape(-1, 2),
  )


def text(source: Source, errors: str) -> Iterator[str]:
  """The text of a source, a chunk at a time.

  Raises:
    UserError: as `chunks`, or it is not what `errors` says.
  """
  return _decode(source.name, chunks(source), errors)


def lines(
  source: Source, errors: str, longest: int | None = None
) -> Iterator[str]:
  """The lines of a source, which newlines end and nothing else.

  Args:
    source: read as it is unpacked; no more than a line of it is kept.
    errors: as `data.errors`.
    longest: characters of a line at most; None: CHUNK.

  Raises:
    UserError: as `text`, or a line has no end.
  """
  longest = longest or CHUNK
  held = ""
  number = 1
  for part in _decode(source.name, chunks(source), errors):
    *whole, held = (held + part).split("\n")
    yield from whole
    number += len(whole)
    if len(held) > longest:
      raise UserError(
        f"{source.name}: line {number}: has more than {longest} characters"
      )
  if held:
    yield held


def collect(documents: Sequence[Document], unit: str) -> Corpus:
  """The corpus of documents that are objects already, so of few."""
  index: dict[str, int] = {}
  groups: dict[str, int] = {}
  sizes = [len(document.symbols) for document in documents]
  ids = [
    index.setdefault(symbol, len(index))
    for document in documents
    for symbol in document.symbols
  ]
  group = [groups.setdefault(d.group, len(groups)) for d in documents]
  return Corpus(
    unit,
    list(index),
    np.array(ids, kind_for(len(index))),
    np.cumsum([0, *sizes], dtype=np.int64),
    [document.name for document in documents],
    np.array(group, np.int64),
    list(groups),
  )


def digest(group: bytes) -> int:
  """The first 64 bits of the SHA-256: where a group stands in a split."""
  return int.from_bytes(hashlib.sha256(group).digest()[:8])


def kind_for(symbols: int) -> np.dtype:
  """The smallest type that numbers so many symbols."""
  return np.min_scalar_type(max(symbols - 1, 0)).newbyteorder("<")


class Names(Sequence):
  """Names of documents, made when they are asked for: `file` or `file:line`.

  Attributes:
    lines: int64 [documents], in its file, from 1; 0: the document is the file.
  """

  def __init__(self, files: list[tuple[str, int]], lines: np.ndarray):
    self._files = [name for name, _ in files]
    self._firsts = [first for _, first in files]
    self.lines = lines

  def __len__(self) -> int:
    return len(self.lines)

  def __getitem__(self, index):
    line = self.lines[index]
    # Of several files that begin there, all but the last have no document.
    file = self._files[bisect.bisect_right(self._firsts, index) - 1]
    return f"{file}:{line}" if line else file


def _decode(name: str, content: Iterable[bytes], errors: str) -> Iterator[str]:
  """Text of UTF-8, its lines ended by a newline, without a byte order mark.

  What stands before a wrong byte is given before that is told, so that the
  first mistake in a file is the one that is told, however it is cut in chunks.
  """
  if errors == "latin-1":  # In which there are none.
    decoder = codecs.getincrementaldecoder("latin-1")()
  else:
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
  read = 0
  held = ""  # A carriage return that a newline may follow.
  begun = False
  fault = None
  for chunk in itertools.chain(content, [b""]):
    last = not chunk
    left, _ = decoder.getstate()  # The beginning of a character.
    try:
      text = decoder.decode(chunk, last)
    except UnicodeDecodeError as error:
      text = (left + chunk)[: error.start].decode()
      fault = UserError(
        f"{name}: byte {read - len(left) + error.start} {NOT_UTF8}"
      )
    read += len(chunk)
    if text and not begun:
      text = text.removeprefix("\ufeff")
      begun = True
    text = held + text
    held = "\r" if text.endswith("\r") and not (last or fault) else ""
    yield text.removesuffix(held).replace("\r\n", "\n")
    if fault:
      raise fault


class _Encoder:
  """Numbers symbols as they come and writes the numbers."""

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
    self._table = np.full(0x110000, -1, np.int32)  # The id of a code point.
    self._index: dict[str, int] = {}  # The id of a token.

  def codes(self, codes: np.ndarray):
    """Takes characters by their code points."""
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
    """Takes the tokens of a source's text, which may be cut anywhere."""
    index, unit = self._index, self._unit
    line = 1
    before = None  # The id that this line has, where it may have but one.
    held = ""  # A token at the end of a text may go on in the next one.
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
      # Not splitlines(): it breaks lines at U+0085, U+2028 and form feeds, too.
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
      # From the end of the index: its front is long, and sources may be many.
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
    """Refuses tokens that are none; the last one on the line so far."""
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
    """Ends a document, where it has symbols: here, or at an earlier id."""
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
    """Writes all ids anew in a larger type, in place: from the end on."""
    file, old = self._ids, self.kind
    for start in reversed(range(0, self._count, CHUNK)):
      size = min(CHUNK, self._count - start)
      file.seek(start * old.itemsize)
      ids = np.frombuffer(file.read(size * old.itemsize), old)
      file.seek(start * kind.itemsize)
      file.write(ids.astype(kind).data)
    file.seek(0, os.SEEK_END)
    self.kind = kind
