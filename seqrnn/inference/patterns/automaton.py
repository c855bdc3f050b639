"""A regular expression as a deterministic automaton over characters.

Python's own parser reads the expression, and Python's own matcher finds the
characters of each set, so the automaton accepts the texts of re.fullmatch.
"""

import functools
import re
import sys
import warnings
from collections.abc import Iterable
from re import (
  _compiler,  # pyright: ignore[reportAttributeAccessIssue]
  _parser,  # pyright: ignore[reportAttributeAccessIssue]
)
from typing import Any, NamedTuple

import numpy as np

from seqrnn.inference.patterns import syntax

STATES = 10_000  # Of an automaton, at most.
_NODES = 40_000  # Of the graph from which it is made, at most.
_WORK = 2_000_000  # Nodes that are visited to make it, at most: seconds.
# Of UTF-8 with 1 to 4 bytes: the least code point, and the first byte's bits.
_LEADS = (0, 0), (0x80, 0xC0), (0x800, 0xE0), (0x10000, 0xF0)


class PatternError(Exception):
  """A pattern has no automaton; the message follows its name and value."""


class TooLarge(PatternError):
  """The automaton of a pattern has too many states."""


class Automaton(NamedTuple):
  """A deterministic automaton; its first state is 0.

  Attributes:
    next_SC: the state after a class of characters; -1: no text matches.
    classes: the class of each character that some set has.
    accepts_S: whether a text that ends here matches.
    missing: characters of the expression that the letters lack.
  """

  next_SC: np.ndarray
  classes: dict[str, int]
  accepts_S: np.ndarray
  missing: list[str]


def automaton(pattern: str, letters: str, encoded: bool = False) -> Automaton:
  """The automaton of a regular expression.

  Args:
    pattern: in the syntax of Python's re, without anchors, look-around and
      references.
    letters: the characters of which texts consist.
    encoded: the letters are bytes, and texts are in UTF-8.

  Raises:
    PatternError: the syntax, or a part that is not supported.
    TooLarge: too many states.
  """
  tree = _parsed(pattern)
  graph = _Graph(letters, encoded)
  try:
    start = graph.sequence(tree, tree.state.flags, 0)
  except _Refused as refused:
    raise PatternError(syntax.refusal(pattern, str(refused))) from None
  except RecursionError:
    raise PatternError("too many groups within groups") from None
  return _determined(graph, start)


def _parsed(pattern: str) -> Any:
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Sets that a later Python may read anew.
    try:
      return _parser.parse(pattern)
    except re.error as error:
      place = "" if error.pos is None else f" at position {error.pos}"
      raise PatternError(f"syntax error{place}: {error.msg}") from None
    except (OverflowError, RecursionError) as error:
      raise PatternError(f"syntax error: {error}") from None


class _Refused(Exception):
  """An operation of the parser that an automaton has not."""


class _Graph:
  """An automaton that is not deterministic (Thompson 1968).

  Node 0 is the end of a text. A node either has moves that read nothing, or
  reads a character of a set and goes to one node.
  """

  def __init__(self, letters: str, encoded: bool):
    self.letters = letters
    self.texts = characters(letters) if encoded else letters
    self.encoded = encoded
    self.moves: list[list[int]] = [[]]
    self.reads: list[frozenset[str] | None] = [None]
    self.missing: list[str] = []
    self._spelled: dict[tuple[str, int], Any] = {}

  def _add(self, moves: Iterable[int], reads: frozenset[str] | None = None):
    if len(self.moves) >= _NODES:
      raise TooLarge
    self.moves.append([*moves])
    self.reads.append(reads)
    return len(self.moves) - 1

  def sequence(self, items: Any, flags: int, to: int) -> int:
    """The node from which items of the parser lead to a node."""
    for item in reversed([*items]):
      to = self._item(item, flags, to)
    return to

  def _item(self, item: tuple[Any, Any], flags: int, to: int) -> int:
    name, value = str(item[0]), item[1]
    if name == "SUBPATTERN":
      _, added, removed, items = value
      flags = _compiler._combine_flags(flags, added, removed)
      return self.sequence(items, flags, to)
    if name == "BRANCH":
      return self._add(self.sequence(way, flags, to) for way in value[1])
    if name in ("MAX_REPEAT", "MIN_REPEAT"):
      return self._repeat(value, flags, to)
    if name not in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
      raise _Refused(name)
    return self._read(self._set(item, flags), to)

  def _repeat(self, value: Any, flags: int, to: int) -> int:
    low, high, items = value
    end = to
    if high is _parser.MAXREPEAT:
      to = self._add([])
      self.moves[to] = [self.sequence(items, flags, to), end]
    else:
      for _ in range(high - low):
        to = self._add([self.sequence(items, flags, to), end])
    for _ in range(low):
      before, to = to, self.sequence(items, flags, to)
      if before == to:  # It reads nothing, however often.
        break
    return to

  def _set(self, item: tuple[Any, Any], flags: int) -> Any:
    """The texts of one character, as `_read` reads them."""
    key = str(item), int(flags)
    if key not in self._spelled:
      state = _parser.State()
      state.flags = flags
      one = _compiler.compile(_parser.SubPattern(state, [item]))
      found = one.findall(self.texts)
      if not found and item[0] is _parser.LITERAL:
        self.missing.append(chr(item[1]))
      spelled = [(frozenset(found), None)]
      if self.encoded:
        points = "".join(found).encode("utf-32-le")
        spelled = _utf8(np.frombuffer(points, "<u4").astype(np.int64))
      self._spelled[key] = spelled
    return self._spelled[key]

  def _read(self, spelled: Any, to: int) -> int:
    # Pairs of a set of first characters, and what may follow them, or None.
    ways = [
      self._add([self._read(rest, to) if rest else to], firsts)
      for firsts, rest in spelled
    ]
    return ways[0] if len(ways) == 1 else self._add(ways)


def _utf8(points_N: np.ndarray) -> Any:
  """Code points in order as bytes, in the form that `_Graph._read` takes."""
  found = []
  for more, (low, lead) in enumerate(_LEADS):
    high = _LEADS[more + 1][0] if more < 3 else sys.maxunicode + 1
    some_N = points_N[(points_N >= low) & (points_N < high)]
    found += _bytes(some_N, more, lead)
  return found


def _bytes(points_N: np.ndarray, more: int, lead: int) -> Any:
  """Pairs of the first bytes, from `lead` on, and what may follow them."""
  firsts_N = points_N >> 6 * more
  firsts, begins = np.unique(firsts_N, return_index=True)
  alike: dict[bytes, tuple[np.ndarray, set[str]]] = {}
  rests = np.split(points_N & (1 << 6 * more) - 1, begins[1:])
  for first, rest_N in zip(firsts.tolist(), rests, strict=False):
    alike.setdefault(rest_N.tobytes(), (rest_N, set()))[1].add(
      chr(lead + first)
    )
  return [
    (frozenset(some), _bytes(rest_N, more - 1, 0x80) if more else None)
    for rest_N, some in alike.values()
  ]


@functools.lru_cache(1)
def characters(letters: str) -> str:
  """The characters whose bytes in UTF-8 are all among the letters."""
  if letters.isascii():
    return letters
  known_N = np.isin(np.arange(256), [ord(c) for c in letters])
  places = [n for n in range(sys.maxunicode + 1) if not 0xD800 <= n < 0xE000]
  text = "".join(map(chr, places))
  lengths = np.searchsorted([0x80, 0x800, 0x10000], places, "right") + 1
  firsts = np.cumsum(lengths) - lengths
  found = known_N[np.frombuffer(text.encode(), np.uint8)]
  all_N = np.logical_and.reduceat(found, firsts)
  return "".join(text[n] for n in np.flatnonzero(all_N))


def _determined(graph: _Graph, start: int) -> Automaton:
  """The automaton whose states are sets of nodes."""
  classes, members = _classes({*graph.reads})
  work = 0

  @functools.cache
  def closure(node: int) -> frozenset[int]:
    nonlocal work
    found, open_nodes = {node}, [node]
    while open_nodes:
      node = open_nodes.pop()
      if graph.reads[node] is None:
        more = set(graph.moves[node]) - found
        found |= more
        open_nodes += more
    work += len(found)
    if work > _WORK:
      raise TooLarge
    return frozenset(n for n in found if n == 0 or graph.reads[n] is not None)

  @functools.cache
  def united(nodes: frozenset[int]) -> frozenset[int]:
    return frozenset().union(*map(closure, nodes))

  states = {closure(start): 0}
  rows = []
  for state in (order := [*states]):
    moves: dict[int, set[int]] = {}
    for node in state:
      if node:
        for one in members.get(graph.reads[node], ()):
          moves.setdefault(one, set()).add(graph.moves[node][0])
    row = np.full(max(1, len({*classes.values()})), -1, np.int32)
    for one, nodes in moves.items():
      following = united(frozenset(nodes))
      work += len(following)
      if following not in states:
        states[following] = len(states)
        order.append(following)
      row[one] = states[following]
    rows.append(row)
    work += len(state) * 2
    if len(states) > STATES or work > _WORK:
      raise TooLarge
  accepts = np.array([0 in state for state in order])
  return Automaton(np.stack(rows), classes, accepts, graph.missing)


def _classes(
  used: set[frozenset[str] | None],
) -> tuple[dict[str, int], dict[frozenset[str] | None, list[int]]]:
  """Characters that all sets treat alike are one class; the classes of each."""
  signs: dict[str, list[int]] = {}
  for n, letters in enumerate(used):
    for letter in letters or ():
      signs.setdefault(letter, []).append(n)
  numbers: dict[tuple[int, ...], int] = {}
  classes = {
    letter: numbers.setdefault(tuple(sign), len(numbers))
    for letter, sign in signs.items()
  }
  return classes, {
    letters: sorted({classes[letter] for letter in letters})
    for letters in used
    if letters
  }
