r"""A regular expression of Python, written for outlines-core.

Python's parser reads the expression, and Python's matcher finds the characters
of each set among the letters of a vocabulary. So \w or (?i:a) has the meaning
of re.fullmatch, and a branch that needs another letter is left out.
"""

import re
import warnings
from re import (
  _compiler,  # pyright: ignore[reportAttributeAccessIssue]
  _parser,  # pyright: ignore[reportAttributeAccessIssue]
)
from typing import Any

import numpy as np

from seqrnn.sampling.patterns.bounded import STATES, PatternError, TooLarge

# Operations of Python's parser that an automaton has not.
_REFUSED = {
  "AT": r"an anchor (^ $ \A \Z \b \B): the text matches as a whole, remove it",
  "ASSERT": "a look-around (?=...): a pattern must read each symbol once",
  "ASSERT_NOT": "a look-around (?!...): a pattern must read each symbol once",
  "FAILURE": "a look-around (?!): a pattern must read each symbol once",
  "GROUPREF": r"a reference (\1): a pattern cannot repeat the text of a group",
  "GROUPREF_EXISTS": "a condition (?(1)...): write the branches with |",
  "ATOMIC_GROUP": "an atomic group (?>...): write (?:...)",
  "POSSESSIVE_REPEAT": "a possessive quantifier (*+): remove its last +",
}


class Expression:
  """A regular expression over some letters.

  Attributes:
    rust: in the syntax of outlines-core; None: no text of the letters matches.
    missing: the literal characters that the letters lack.
    used: the letters that some set has.
  """

  def __init__(self, pattern: str, letters: str):
    """Parses it.

    Args:
      pattern: in the syntax of Python's re, without the operations above.
      letters: the characters of which texts consist, in order.

    Raises:
      PatternError: the syntax, or an operation that is not supported.
      TooLarge: too many states.
    """
    self.letters = letters
    self.missing: list[str] = []
    self.used: set[str] = set()
    self._sets: dict[tuple[str, int], str | None] = {}
    tree = _parsed(pattern)
    try:
      self.rust, _ = self._sequence(tree, tree.state.flags)
    except RecursionError:
      raise PatternError("too many groups within groups") from None

  def _sequence(self, items: Any, flags: int) -> tuple[str | None, int]:
    """The expression of items, and the most letters that they spell out."""
    parts = [self._item(item, flags) for item in items]
    size = sum(size for _, size in parts)
    if size > STATES:
      raise TooLarge
    texts = [text for text, _ in parts if text is not None]
    return "".join(texts) if len(texts) == len(parts) else None, size

  def _item(self, item: Any, flags: int) -> tuple[str | None, int]:
    name, value = str(item[0]), item[1]
    if name == "SUBPATTERN":
      _, added, removed, items = value
      return self._sequence(
        items, _compiler._combine_flags(flags, added, removed)
      )
    if name == "BRANCH":
      ways = [self._sequence(way, flags) for way in value[1]]
      texts = [text for text, _ in ways if text is not None]
      size = sum(size for _, size in ways)
      return f"(?:{'|'.join(texts)})" if texts else None, size
    if name in ("MAX_REPEAT", "MIN_REPEAT"):
      low, high, items = value
      text, size = self._sequence(items, flags)
      if text is None or not size:  # It reads nothing, however often.
        return (None if text is None and low else ""), 0
      endless = high is _parser.MAXREPEAT
      last = "" if endless else high
      return f"(?:{text}){{{low},{last}}}", size * (
        low + 1 if endless else high
      )
    if name in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
      return self._set(item, flags), 1
    raise PatternError(f"it has {_REFUSED.get(name, name)}")

  def _set(self, item: Any, flags: int) -> str | None:
    key = str(item), int(flags)
    if key not in self._sets:
      state = _parser.State()
      state.flags = flags
      one = _compiler.compile(_parser.SubPattern(state, [item]))
      letters = one.findall(self.letters)
      self.used.update(letters)
      if not letters and item[0] is _parser.LITERAL:
        self.missing.append(chr(item[1]))
      self._sets[key] = _ranges(letters) if letters else None
    return self._sets[key]


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


def _ranges(letters: list[str]) -> str:
  points_N = np.frombuffer("".join(letters).encode("utf-32-le"), "<u4")
  points_N = np.sort(points_N)
  runs = np.split(points_N, np.flatnonzero(np.diff(points_N) > 1) + 1)
  return "[" + "".join(rf"\x{{{r[0]:x}}}-\x{{{r[-1]:x}}}" for r in runs) + "]"
