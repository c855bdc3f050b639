"""The automaton of a pattern over the symbols of a vocabulary, as arrays."""

import functools
import sys
from typing import NamedTuple

import numpy as np
from scipy.sparse import csgraph, csr_array

from seqrnn.data.vocabulary import END, RESERVED, Vocabulary
from seqrnn.errors import counted
from seqrnn.sampling.patterns import bounded
from seqrnn.sampling.patterns.bounded import PatternError
from seqrnn.sampling.patterns.expression import Expression

DEAD, ENDED, START = range(3)  # States of every table.
NEVER = 2**15 - 1  # Above the number of states, so above every need.
_SURROGATES = range(0xD800, 0xE000)  # No characters of UTF-8.
_BYTES = 2**27  # Of the arrays of a table, at most.


class Table(NamedTuple):
  """States, of which DEAD has no match, and ENDED follows the end symbol.

  Attributes:
    next_SV: the state after a symbol, int16.
    need_SV: the fewest symbols that must follow a symbol until the text
      matches, without an end symbol, int16; NEVER: no text matches. The end
      symbol, after which none must follow, may follow a match only.
    shortest: the number of symbols of the shortest match.
  """

  next_SV: np.ndarray
  need_SV: np.ndarray
  shortest: int


def compile_pattern(
  pattern: str, vocabulary: Vocabulary, length: int | None = None
) -> Table:
  """The table of a regular expression that a whole text must match.

  Args:
    pattern: in the syntax of Python's re.
    vocabulary: the symbols of which a text consists, joined as its unit needs.
    length: the most symbols of a text.

  Raises:
    PatternError: the pattern has no table for this vocabulary and length.
  """
  table = _table(pattern, vocabulary)
  if length is not None and table.shortest > length:
    raise PatternError(
      f"its shortest match has {counted(table.shortest, 'symbol')}, and a text"
      f" at most {length:,}"
    )
  return table


@functools.lru_cache(4)  # Of large vocabularies, some 100 MB each.
def _table(pattern: str, vocabulary: Vocabulary) -> Table:
  if vocabulary.unit == "log":
    raise PatternError("the symbols of data.unit=log are templates, not texts")
  expression = Expression(pattern, _letters(vocabulary))
  if expression.rust is None:
    lacks = " ".join(map(repr, dict.fromkeys(expression.missing)))
    raise PatternError(
      "no text matches"
      + (f", as the vocabulary lacks {lacks}" if lacks else _no(vocabulary))
    )
  # \z: all branches are read to their end. The space before gives outlines-core
  # a first state, which the end of an empty text would not.
  rows = bounded.run("automaton", rf" (?:{expression.rust})\z")
  table_SB = np.frombuffer(rows, np.int32).reshape(-1, 257)
  next_SV, start = _over_symbols(table_SB[:, :256], vocabulary)
  accepts_S = np.resize(table_SB[:, 256] > 0, len(next_SV))
  graph = _graph(next_SV)
  steps_S = csgraph.dijkstra(
    graph.T, indices=np.flatnonzero(accepts_S), unweighted=True, min_only=True
  )
  need_S = np.where(np.isfinite(steps_S), steps_S, NEVER).astype(np.int16)
  if need_S[start] == NEVER:
    raise PatternError("no text matches" + _no(vocabulary))
  order = csgraph.breadth_first_order(graph, start, return_predecessors=False)
  alive = order[need_S[order] < NEVER]
  ids_S = np.full(len(next_SV), DEAD, np.int16)
  ids_S[alive] = np.arange(START, START + len(alive))
  size = max(256, 1 << (START + len(alive) - 1).bit_length())  # Few programs.
  shape = size, len(vocabulary)
  table = Table(
    np.full(shape, DEAD, np.int16),
    np.full(shape, NEVER, np.int16),
    int(need_S[start]),
  )
  symbols = slice(len(RESERVED), None)
  rows = slice(START, START + len(alive))
  table.next_SV[rows, symbols] = ids_S[next_SV[alive]]
  table.need_SV[rows, symbols] = need_S[next_SV[alive]]
  table.next_SV[START:, END] = table.next_SV[ENDED, END] = ENDED
  table.need_SV[ENDED, END] = 0
  table.need_SV[rows, END] = np.where(accepts_S[alive], 0, NEVER)
  return table


def _no(vocabulary: Vocabulary) -> str:
  return f" that consists of the vocabulary's symbols ({vocabulary.unit})"


@functools.lru_cache(1)
def _letters(vocabulary: Vocabulary) -> str:
  """The characters of which texts consist."""
  joins = "" if vocabulary.unit in ("char", "byte") else " "
  letters = {*joins.join(vocabulary.symbols)} - {*map(chr, _SURROGATES)}
  if vocabulary.unit == "byte" and max(letters) > "\x7f":
    # All whose bytes in UTF-8 are symbols.
    known = {ord(letter) for letter in letters}
    points = (n for n in range(sys.maxunicode + 1) if n not in _SURROGATES)
    return "".join(c for c in map(chr, points) if known.issuperset(c.encode()))
  return "".join(sorted(letters))


def _over_symbols(
  next_SB: np.ndarray, vocabulary: Vocabulary
) -> tuple[np.ndarray, int]:
  """The state after each symbol, of all its bytes; and the first state.

  Symbols with spaces between them have two blocks of states, as a symbol of
  the second block has no space before it: the first one, and for words the one
  after a newline.
  """
  symbols, unit = vocabulary.symbols, vocabulary.unit
  spaced = unit not in ("char", "byte")
  S, V = len(next_SB), len(symbols)
  if (S << spaced) * V * 4 > _BYTES:
    raise PatternError(
      f"its table of {S << spaced:,} states and {V:,} symbols has more than"
      f" {_BYTES >> 20} MB"
    )
  encoding = "latin-1" if unit == "byte" else "utf-8"
  bare_SV = np.empty((S, V), np.int32)
  for v, symbol in enumerate(symbols):
    state_S = np.arange(S)
    for byte in symbol.encode(encoding, "surrogatepass"):
      state_S = next_SB[state_S, byte]
    bare_SV[:, v] = state_S
  space_S = next_SB[:, ord(" ")]
  start = int(space_S[1])  # Each expression begins with a space.
  if not spaced:
    return bare_SV, start
  later_SV = bare_SV[space_S]
  if unit == "word" and "\n" in symbols:
    newline = symbols.index("\n")
    bare_SV[:, newline] += S
    later_SV[:, newline] = bare_SV[:, newline]
  return np.concatenate([later_SV, bare_SV]), S + start


def _graph(next_SV: np.ndarray) -> csr_array:
  """A distinct edge from each state to each that follows it."""
  S = len(next_SV)
  pairs = np.unique(np.arange(S)[:, None] * S + next_SV)
  return csr_array((np.ones(len(pairs)), (pairs // S, pairs % S)), (S, S))
