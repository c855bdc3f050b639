"""The automaton of a pattern over the symbols of a vocabulary, as arrays."""

import functools
from typing import NamedTuple

import numpy as np
from scipy.sparse import csgraph, csr_array

from seqrnn.data.vocabulary import END, RESERVED, Vocabulary
from seqrnn.errors import counted
from seqrnn.inference.patterns import syntax
from seqrnn.inference.patterns.automaton import (
  STATES,
  Automaton,
  PatternError,
  TooLarge,
  automaton,
)

DEAD, ENDED, START = range(3)  # States of every table.
NEVER = 2**15 - 1  # Above the number of states, so above every need.
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
  try:
    table = _table(pattern, vocabulary)
  except TooLarge:
    raise PatternError(_too_large(pattern, vocabulary)) from None
  if length is not None and table.shortest > length:
    raise PatternError(
      f"its shortest match has {counted(table.shortest, 'symbol')}, and a text"
      f" at most {length:,}"
    )
  return table


def _letters(vocabulary: Vocabulary) -> str:
  joins = "" if vocabulary.unit in ("char", "byte") else " "
  return "".join(sorted({*joins.join(vocabulary.symbols)}))


def _automaton(pattern: str, vocabulary: Vocabulary) -> Automaton:
  return automaton(pattern, _letters(vocabulary), vocabulary.unit == "byte")


@functools.lru_cache(4)  # Of large vocabularies, some 100 MB each.
def _table(pattern: str, vocabulary: Vocabulary) -> Table:
  if vocabulary.unit == "log":
    raise PatternError("the symbols of data.unit=log are templates, not texts")
  made = _automaton(pattern, vocabulary)
  next_SV = _over_symbols(made, vocabulary)
  accepts_S = np.resize(made.accepts_S, len(next_SV))
  need_S = _needs(next_SV, accepts_S)
  # The state before the first symbol is the last block's first.
  start = len(next_SV) - len(made.accepts_S)
  if need_S[start] == NEVER:
    raise PatternError(_unmatched(pattern, vocabulary, made))
  kept = _reached(next_SV, need_S < NEVER, start)
  place_S = np.full(len(next_SV) + 1, DEAD, np.int16)  # Also of state -1.
  place_S[kept] = np.arange(START, START + len(kept))
  size = max(256, 1 << (START + len(kept) - 1).bit_length())  # Few programs.
  shape = size, len(vocabulary)
  table = Table(
    np.full(shape, DEAD, np.int16),
    np.full(shape, NEVER, np.int16),
    int(need_S[start]),
  )
  symbols = slice(len(RESERVED), None)
  rows = slice(START, START + len(kept))
  table.next_SV[rows, symbols] = place_S[next_SV[kept]]
  need_S = np.append(need_S, NEVER)
  table.need_SV[rows, symbols] = need_S[next_SV[kept]]
  table.next_SV[START:, END] = table.next_SV[ENDED, END] = ENDED
  table.need_SV[ENDED, END] = 0
  table.need_SV[rows, END] = np.where(accepts_S[kept], 0, NEVER)
  return table


def _over_symbols(made: Automaton, vocabulary: Vocabulary) -> np.ndarray:
  """The state after each symbol, of all its characters; -1: no text matches.

  Symbols with spaces between them have two blocks of states, as a symbol of
  the second block has no space before it: the first one, and for words the one
  after a newline. The first state is then that of the second block.
  """
  spaced = vocabulary.unit not in ("char", "byte")
  S, V = len(made.next_SC), len(vocabulary.symbols)
  if (S << spaced) * V * 4 > _BYTES:
    raise PatternError(
      f"its table of {S << spaced:,} states and {V:,} symbols has more than"
      f" {_BYTES >> 20} MB"
    )
  symbols = vocabulary.symbols
  bare_SV = _followed(made, symbols, np.arange(S))
  if not spaced:
    return bare_SV
  after_S = _followed(made, [" "], np.arange(S))[:, 0]
  later_SV = _followed(made, symbols, after_S)
  if vocabulary.unit == "word" and "\n" in symbols:
    newline = symbols.index("\n")
    ids_S = bare_SV[:, newline]
    bare_SV[:, newline] = np.where(ids_S < 0, -1, ids_S + S)
    later_SV[:, newline] = bare_SV[:, newline]
  return np.concatenate([later_SV, bare_SV])


def _followed(made: Automaton, symbols, start_S: np.ndarray) -> np.ndarray:
  """The states [S, V] after each symbol."""
  next_SC = np.vstack([made.next_SC, np.full_like(made.next_SC[:1], -1)])
  dead_S = np.full_like(start_S, -1)

  @functools.lru_cache(2**10)  # Symbols may begin alike.
  def after(text: str) -> np.ndarray:
    if not text:
      return start_S
    letter = made.classes.get(text[-1])
    return dead_S if letter is None else next_SC[after(text[:-1]), letter]

  found_SV = np.empty((len(start_S), len(symbols)), np.int32)
  for v in sorted(range(len(symbols)), key=symbols.__getitem__):
    found_SV[:, v] = after(symbols[v])
  return found_SV


def _edges(next_SV: np.ndarray) -> np.ndarray:
  """The distinct pairs of a state and the next [2, E]."""
  S = len(next_SV)
  pairs = (np.arange(S)[:, None] * (S + 1) + next_SV)[next_SV >= 0]
  pairs = np.unique(pairs)
  return np.stack([pairs // (S + 1), pairs % (S + 1)])


def _needs(next_SV: np.ndarray, accepts_S: np.ndarray) -> np.ndarray:
  """The fewest symbols from each state to a match; NEVER: there is none."""
  S = len(next_SV)
  froms, tos = _edges(next_SV)
  matches = np.flatnonzero(accepts_S)
  # Backwards from a node S, which precedes the matches.
  rows = np.append(tos, np.full_like(matches, S))
  columns = np.append(froms, matches)
  graph = csr_array((np.ones(len(rows)), (rows, columns)), (S + 1, S + 1))
  steps = csgraph.dijkstra(graph, indices=S, unweighted=True)[:S] - 1
  return np.where(np.isfinite(steps), steps, NEVER).astype(np.int16)


def _reached(next_SV, alive_S: np.ndarray, start: int) -> np.ndarray:
  """The states on the way from the start to a match, the start first."""
  S = len(next_SV)
  froms, tos = _edges(next_SV)
  kept = alive_S[froms] & alive_S[tos]
  ones = np.ones(kept.sum())
  graph = csr_array((ones, (froms[kept], tos[kept])), (S, S))
  return csgraph.breadth_first_order(graph, start, return_predecessors=False)


def _unmatched(pattern: str, vocabulary: Vocabulary, made: Automaton) -> str:
  """Why no text of the vocabulary matches a pattern."""
  if made.missing:
    shown = " ".join(map(repr, dict.fromkeys(made.missing)))
    return f"no text matches, as the vocabulary lacks {shown}"
  for part in syntax.parts(pattern):
    try:
      found = _automaton(part, vocabulary)
    except PatternError:  # A part of alternatives.
      continue
    if not found.accepts_S.any():
      return f"no character of the vocabulary fits its part {part!r}"
  return f"no text of the vocabulary's symbols ({vocabulary.unit}) matches"


def _too_large(pattern: str, vocabulary: Vocabulary) -> str:
  """Which part of a pattern has too many states."""
  parts = syntax.parts(pattern)
  low, high = 0, len(parts)
  while high - low > 1:  # The first `low` parts are small, `high` are not.
    middle = (low + high) // 2
    try:
      _automaton("".join(parts[:middle]), vocabulary)
      low = middle
    except TooLarge:
      high = middle
    except PatternError:
      break
  part = "" if len(parts) == 1 else f" at its part {parts[high - 1]!r}"
  return f"its automaton needs more than {STATES:,} states{part}"
