"""Vocabularies: symbols to ids and back."""

import dataclasses
import functools
import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.read import stored
from seqrnn.data.splits import Pieces
from seqrnn.errors import UserError
from seqrnn.runtime import files
from seqrnn.runtime.compiled import rung

PAD, BEGIN, END, UNKNOWN = range(4)
_LIMIT = 2**26  # Bytes of a file: some five million words.
_CACHED = 2**10  # Characters of a line whose template is kept in memory.
_BREAKS = ("\n", " ")  # After which a sample may begin.
RESERVED = ("<pad>", "<begin>", "<end>", "<unknown>")  # Names for display.

Matcher = Callable[[Sequence[str]], Callable[[str], int | None]]


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """The symbols a model knows; the id of `symbols[i]` is i + 4.

  Attributes:
    unit: what a symbol is, as `data.unit`.
    symbols: without the reserved symbols, whose ids are below 4.
    begin: the symbol after which samples begin, "" for a random symbol; None:
      they begin as documents do.
    mask: applied to a symbol before it is shown.
    rows: of a table of ids, where it has some for no id, so that vocabularies
      of similar sizes have programs in common; 0: as many as ids.
    matcher: a function of `symbols`, which are templates: it returns a function
      from a text to the index of its template, or None. Unit `log` needs it
      (data/logs/sessions.py). None: a text is a symbol itself.
  """

  unit: str
  symbols: tuple[str, ...]
  begin: str | None = dataclasses.field(default=None, compare=False)
  mask: Callable[[str], str] = dataclasses.field(default=str, compare=False)
  matcher: Matcher | None = dataclasses.field(default=None, compare=False)
  rows: int = 0

  def __len__(self) -> int:
    """The number of rows, with those of the reserved ids."""
    return max(self.rows, len(RESERVED) + len(self.symbols))

  def padded(self) -> "Vocabulary":
    """The vocabulary, whose number of rows is a rung."""
    rows = rung(len(RESERVED) + len(self.symbols))
    return dataclasses.replace(self, rows=rows)

  def encode(self, symbols: str | Sequence[str]) -> np.ndarray:
    """The ids, int32; a symbol never seen is UNKNOWN."""
    return np.fromiter(map(self._id, symbols), np.int32, len(symbols))

  def unknown(self, symbols: str | Sequence[str]) -> list[str]:
    """The distinct symbols that are not in it, in order."""
    return [s for s in dict.fromkeys(symbols) if self._id(s) == UNKNOWN]

  def ids_of(self, other: "Vocabulary") -> np.ndarray:
    """The id here of each row of another vocabulary.

    -1: there is none; -2: the row is of no id.
    """
    ids = np.full(len(other), -2, np.int32)
    known = [self._ids.get(symbol, -1) for symbol in other.symbols]
    ids[: len(RESERVED) + len(known)] = [*range(len(RESERVED)), *known]
    return ids

  def characters(self) -> "Vocabulary":
    """The characters of its symbols."""
    every = Vocabulary("char", tuple(sorted({*"".join(self.symbols)})))
    return every.padded() if self.rows else every

  def names(self, ids: Iterable[int]) -> list[str]:
    """Single symbols for display, with escapes for control characters."""
    return [self._names[i] for i in ids]

  def text(self, ids: Iterable[int]) -> str:
    """The ids as text, joined as the unit needs, without reserved symbols.

    UNKNOWN is shown as U+FFFD or by its name. Bytes are decoded as UTF-8.
    """
    unknown = "\ufffd" if self.unit in ("char", "byte") else RESERVED[UNKNOWN]
    return joined(
      (
        unknown if i == UNKNOWN else self.mask(self.symbols[i - len(RESERVED)])
        for i in ids
        if i >= UNKNOWN
      ),
      self.unit,
    )

  @functools.cached_property
  def _ids(self) -> dict[str, int]:
    return {s: i for i, s in enumerate(self.symbols, len(RESERVED))}

  @functools.cached_property
  def _id(self) -> Callable[[str], int]:
    """The id of a symbol; of a text, that of its template."""
    ids = self._ids
    if self.matcher is None:
      assert self.unit != "log", "lines have no ids without their templates"
      return lambda symbol: ids.get(symbol, UNKNOWN)
    match = self.matcher(self.symbols)

    def find(line: str) -> int:
      template = match(line)
      return UNKNOWN if template is None else template + len(RESERVED)

    # Most lines are frequent and short; all lines kept have some 16 MB.
    cached = functools.lru_cache(maxsize=2**14)(find)
    return lambda line: (cached if len(line) < _CACHED else find)(line)

  @functools.cached_property
  def _names(self) -> tuple[str, ...]:
    return RESERVED + tuple(
      printable(self.mask(s), self.unit) for s in self.symbols
    )


def joined(symbols: Iterable[str], unit: str) -> str:
  """Symbols as text, joined as the unit needs. Bytes are decoded as UTF-8."""
  if unit == "char":
    return "".join(symbols)
  if unit == "byte":
    encoded = (
      s.encode("utf-8" if s == "\ufffd" else "latin-1") for s in symbols
    )
    return b"".join(encoded).decode("utf-8", "replace")
  text = ("\n" if unit == "log" else " ").join(symbols)
  if unit == "word":
    text = text.replace(" \n", "\n").replace("\n ", "\n")
  return text


def printable(symbol: str, unit: str) -> str:
  """A symbol for display, with escapes for control characters."""
  if unit == "byte":
    plain = symbol.isascii() and symbol.isprintable()
    return symbol if plain else f"\\x{ord(symbol):02x}"
  if symbol.isprintable():
    return symbol
  return symbol.encode("unicode_escape").decode()


# From the counts of what was read to those of symbols.
Merge = Callable[[dict[str, int]], dict[str, int]]


def make(
  symbols: Sequence[str],
  counts: np.ndarray,
  unit: str,
  min_count: int,
  size: int | None,
  merge: Merge = dict,
) -> Vocabulary:
  """The vocabulary of symbols with their counts, the most frequent first.

  Ties are ordered by symbol, so that the order of documents does not matter.

  Args:
    symbols: the distinct ones.
    counts: the frequency of each; symbols of frequency 0 are left out.
    unit: as `data.unit`.
    min_count: the lowest frequency of a symbol in it.
    size: the most symbols that are kept; None: all.
    merge: of the counts of what was read, those of the symbols that stand for
      it, as templates stand for lines.

  Raises:
    UserError: no symbol is left.
  """
  seen = {s: n for s, n in zip(symbols, counts.tolist(), strict=True) if n}
  seen = merge(seen)
  frequent = [s for s, count in seen.items() if count >= min_count]
  frequent = sorted(frequent, key=lambda s: (-seen[s], s))[:size]
  if not frequent:
    raise UserError(
      f"data.min_count={min_count}, data.vocabulary_size={size}: of"
      f" {len(seen)} distinct symbols none is left for the vocabulary"
    )
  return Vocabulary(unit, tuple(frequent))


def of_pieces(pieces: Pieces, data: Config, merge: Merge = dict) -> Vocabulary:
  """The vocabulary of a split, by the fields of `config.data`.

  A model of one document knows one begin, where its file may be cut. Samples of
  such a model begin after a line break, or where there is none after a space.
  `merge` is that of `make`.

  Raises:
    UserError: as `make`.
  """
  limits = data.unit, data.min_count, data.vocabulary_size
  vocabulary = make(pieces.corpus.symbols, pieces.counts(), *limits, merge)
  if data.boundaries and pieces.begins.sum() > 1:
    return vocabulary
  begin = next((s for s in _BREAKS if s in vocabulary.symbols), "")
  return dataclasses.replace(vocabulary, begin=begin)


def encoded(vocabularies: Mapping[str, Vocabulary]) -> bytes:
  """Vocabularies as JSON."""
  content = {
    name: {"unit": v.unit, "symbols": v.symbols}
    | ({} if v.begin is None else {"begin": v.begin})
    | ({"rows": v.rows} if v.rows else {})
    for name, v in vocabularies.items()
  }
  return json.dumps(content, indent=1).encode()


def load(path: Path) -> dict[str, Vocabulary]:
  """Reads the vocabularies that `save` wrote.

  Raises:
    UserError: the file is missing, or holds no vocabularies.
    MachineError: the file has changed since it was written.
  """
  files.verify_file(path)
  with stored.reading(path, "train the run again"):
    return {
      name: Vocabulary(
        *(v["unit"], tuple(v["symbols"]), v.get("begin")),
        rows=operator.index(v.get("rows", 0)),
      )
      for name, v in files.read_json(path, _LIMIT).items()
    }
