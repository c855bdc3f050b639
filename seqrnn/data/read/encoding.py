"""Encoding: from bytes to indices of symbols, a chunk at a time.

Neither the bytes nor the ids of a corpus are ever in memory as a whole.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from seqrnn.data.documents import Corpus, Names
from seqrnn.data.read import reading
from seqrnn.data.read.columns import Column
from seqrnn.data.read.reading import Source
from seqrnn.errors import UserError

_LONGEST = 2**16  # Characters of a word.


def encode(sources: Iterable[Source], unit: str, errors: str) -> Corpus:
  """The corpus of sources: a document each, or one a line of unit `session`.

  Raises:
    UserError: a source cannot be read, or has no symbols of this unit.
  """
  encoder = Encoder(unit)
  for source in sources:
    encoder.begin_file(source.name)
    if unit == "byte":
      for chunk in reading.chunks(source):
        encoder.add(chunk.decode("latin-1"))
    elif unit in ("id", "session"):
      for number, line in enumerate(reading.lines(source, errors), 1):
        tokens = line.split()
        encoder.add_tokens(tokens)
        if unit == "session":
          encoder.end(number)
        elif len(tokens) > 1:
          raise UserError(
            f"{source.name}: line {number}: {' '.join(tokens[:2])[:40]!r}:"
            " data.unit=id reads one id a line; data.unit=session reads several"
          )
    else:
      for text in reading.text(source, errors):
        encoder.add(text)
    encoder.end()
  return encoder.corpus()


class Encoder:
  """Numbers symbols in the order of their first places, document by document.

  Characters are numbered by the chunk, so that a short text costs little.
  """

  def __init__(self, unit: str):
    self._unit = unit
    self._files: list[str] = []
    self._firsts: list[int] = []  # The first document of each.
    self._bounds, self._lines, self._ids = Column("<i8"), Column(), Column()
    self._bounds.collect([0])
    self._last = self._count = 0  # Symbols of ended documents, and of all.
    self._parts: list[str] = []  # Characters that have no ids yet.
    codes = {"char": 0x110000, "byte": 0x100}.get(unit, 0)
    self._table = np.full(codes, -1, np.int32)  # The id of a code point.
    self._index: dict[str, int] = defaultdict()  # The id of a symbol.
    self._index.default_factory = self._index.__len__
    self._tokens: list[int] = []  # Ids that are not in `_ids` yet.
    self._held = ""  # A word at the end of a part may continue in the next.

  def begin_file(self, name: str):
    """Names the file of the documents that follow."""
    self._files.append(name)
    self._firsts.append(len(self._lines))

  def add(self, text: str):
    """Adds a part of a document's text; bytes are characters below 256."""
    if self._unit == "word":
      self._add_words(text)
      return
    self._parts.append(text)
    self._count += len(text)
    if self._count - len(self._ids) >= reading.CHUNK:
      self._flush()

  def _add_words(self, text: str):
    text = self._held + text
    self._held = ""
    if text and not text[-1].isspace():
      self._held = text.rsplit(None, 1)[-1]
      text = text.removesuffix(self._held)
    if len(self._held) > _LONGEST:
      raise UserError(
        f"{self._files[-1]}: {self._held[:20]!r}... has more than {_LONGEST}"
        " characters without white space, which data.unit=word separates by;"
        " data.unit=char reads them one by one"
      )
    # Not splitlines(): it also breaks lines at U+0085, U+2028 and form feeds.
    for number, line in enumerate(text.split("\n")):
      if number:
        self._tokens.append(self._index["\n"])
      self.add_tokens(line.split())

  def add_tokens(self, tokens: Iterable[str]):
    """Adds symbols that are no characters."""
    self._tokens += map(self._index.__getitem__, tokens)
    self._count = len(self._ids) + len(self._tokens)
    if len(self._tokens) >= reading.CHUNK:
      self._flush()

  def end(self, line: int = 0):
    """Ends a document, if it has symbols; 0 is the line of a whole file."""
    if self._held:
      self._add_words(" ")
    if self._count > self._last:
      self._bounds.collect([self._count])
      self._lines.collect([line])
      self._last = self._count

  def _flush(self):
    """Writes the ids of all symbols that have none."""
    ids, self._tokens = np.array(self._tokens, np.int64), []
    if self._parts:
      codes = np.frombuffer("".join(self._parts).encode("utf-32-le"), "<u4")
      self._parts = []
      new, places = np.unique(codes[self._table[codes] < 0], return_index=True)
      for code in new[np.argsort(places)].tolist():
        self._table[code] = self._index[chr(code)]
      ids = self._table[codes]
    self._ids.extend(ids)

  def corpus(self) -> Corpus:
    """The corpus of all documents, each a group of its own."""
    self._flush()
    return Corpus(
      self._unit,
      [*self._index],
      self._ids.numbers(),
      self._bounds.numbers(),
      Names(self._files, self._firsts, self._lines.numbers()),
    )
