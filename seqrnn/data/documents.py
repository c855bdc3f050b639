"""Documents: sequences of symbols, as objects or as a corpus of ids."""

import bisect
import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.data.idle_times import LogCuts
from seqrnn.data.read.columns import Texts, Tokens


class Document(NamedTuple):
  """A sequence of symbols; no window and no state crosses its ends.

  Attributes:
    name: for messages and tables.
    symbols: a str is a sequence of characters, a list holds tokens.
    begins: False for a piece without the document's first symbol.
    ends: False for a piece without the document's last symbol.
  """

  name: str
  symbols: str | list[str]
  begins: bool = True
  ends: bool = True


class Corpus(NamedTuple):
  """Documents as indices of symbols, one after the other.

  It may be larger than memory: `ids`, `bounds` and the lines of `names` are
  then mapped from a file, and no document is a Python object.

  Attributes:
    unit: what a symbol is, as `data.unit`.
    symbols: the distinct symbols, in the order of their first places.
    ids: of all documents, uint8, uint16 or uint32: indices into `symbols`.
    bounds: int64 [documents + 1]; j is `ids[bounds[j] : bounds[j + 1]]`.
    names: of the documents.
    groups: uint64 [documents], a `digest` that documents of one group share,
      which stay on one side of a split; None: each has that of its name.
    labels: the label of each document; None: none.
    tags: a tag for each symbol, as documents of the same lengths; None: none.
    lines: int64, the line of each of `ids` in its file; None: unknown.
    timestamps: the time of each of `ids`, as it was written; None: none.
    cuts: of a log, which documents its begin or its end cuts; None: none.
    files: the name of the file of each of `ids`; None: there is one, or none.
    seconds: float64, the time of each of `ids`, NaN: unknown; None: no time is.
    values: float32 [ids, PLACES], the first numbers in the line of each of
      `ids`, then NaN; None: there is no number.
    origin: the version of the package that the data come from; else empty.
  """

  unit: str
  symbols: list[str]
  ids: np.ndarray
  bounds: np.ndarray
  names: Sequence[str]
  groups: np.ndarray | None = None
  labels: Texts | None = None
  tags: "Corpus | None" = None
  lines: np.ndarray | None = None
  timestamps: Texts | None = None
  cuts: LogCuts | None = None
  files: Texts | None = None
  seconds: np.ndarray | None = None
  values: np.ndarray | None = None
  origin: str = ""

  def text(self, start: int, stop: int) -> str | list[str]:
    """The symbols from one place in `ids` to another, as a Document has them.

    They are Python objects, so this is for a text that a person reads.
    """
    symbols = [self.symbols[i] for i in self.ids[start:stop].tolist()]
    return "".join(symbols) if self.unit in ("char", "byte") else symbols


@dataclasses.dataclass(frozen=True, eq=False)
class Names(Sequence):
  """Names of documents, made when they are indexed: `file` or `file:line`.

  Attributes:
    files: the name of each file.
    firsts: the first document of each file.
    lines: int64 [documents], in its file, from 1; 0: the document is the file.
  """

  files: Sequence[str]
  firsts: Sequence[int]
  lines: np.ndarray

  def __len__(self) -> int:
    return len(self.lines)

  def __getitem__(self, index):
    line = self.lines[index]
    # Of several files that begin there, all but the last have no document.
    file = self.files[bisect.bisect_right(self.firsts, index) - 1]
    return f"{file}:{line}" if line else file


def collect(documents: Sequence[Document], unit: str) -> Corpus:
  """The corpus of documents that are Python objects already, so of few."""
  tokens = Tokens()
  for document in documents:
    tokens.collect(document.symbols)
  texts = tokens.texts()
  bounds = np.cumsum([0, *(len(d.symbols) for d in documents)], dtype=np.int64)
  names = [document.name for document in documents]
  return Corpus(unit, texts.symbols, texts.ids, bounds, names)


def digest(group: bytes) -> int:
  """The first 64 bits of the SHA-256: where a group stands in a split."""
  return int.from_bytes(hashlib.sha256(group).digest()[:8])


def nouns(unit: str) -> tuple[str, str]:
  """What messages call a symbol and a document of a corpus of this unit."""
  return ("event", "session") if unit == "log" else ("symbol", "document")
