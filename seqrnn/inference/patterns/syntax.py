"""The text of a regular expression: its parts, and what has no automaton."""

import re
from collections.abc import Iterator

_TOKEN = re.compile(
  r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"
  r"|\((?:\?(?:P[<=]|<[=!]|[=!>(#:]|[a-zA-Z-]+))?"
  r"|[*+?][+?]?|\{\d*(?:,\d*)?\}[+?]?|.",
  re.DOTALL,
)
_QUANTIFIER = re.compile(r"[*+?].?|\{\d*(?:,\d*)?\}.?", re.DOTALL)
# What an automaton has not, by kind: how it is written, and the rule.
_REFUSED = {
  "anchor": (r"[\^$]|\\[AbBzZ]", "the text matches as a whole, so remove it"),
  "look-around": (r"\(\?<?[=!]", "a pattern must read each symbol once"),
  "reference": (r"\(\?P=|\(\?\(|\\[1-9]", "a pattern cannot repeat a group"),
  "atomic group": (r"\(\?>", "write (?:...)"),
  "possessive quantifier": (
    r"(?:[*+?]|\{.*\})\+",
    "write it without the last +",
  ),
}
KINDS = {
  "AT": "anchor",
  "ASSERT": "look-around",
  "ASSERT_NOT": "look-around",
  "FAILURE": "look-around",
  "GROUPREF": "reference",
  "GROUPREF_EXISTS": "reference",
  "GROUPREF_IGNORE": "reference",
  "ATOMIC_GROUP": "atomic group",
  "POSSESSIVE_REPEAT": "possessive quantifier",
}


def refusal(pattern: str, operation: str) -> str:
  """Why an operation of Python's parser is refused, and where it stands."""
  kind = KINDS.get(operation, operation)
  written, rule = _REFUSED.get(kind, ("", "it is not supported"))
  for token in _TOKEN.finditer(pattern):
    if written and re.fullmatch(written, token[0], re.DOTALL):
      return (
        f"{token[0]} at position {token.start()} is no part of a pattern"
        + (f" ({kind}): {rule}")
      )
  return f"{kind} is no part of a pattern: {rule}"


def parts(pattern: str) -> list[str]:
  """The pattern, cut where no group is open, but before no quantifier."""
  return [*_parts(pattern)]


def _parts(pattern: str) -> Iterator[str]:
  depth = start = end = 0
  for token in _TOKEN.finditer(pattern):
    if not depth and end > start and not _QUANTIFIER.fullmatch(token[0]):
      yield pattern[start:end]
      start = end
    depth += token[0].startswith("(") - (token[0] == ")")
    end = token.end()
  if end > start:
    yield pattern[start:end]
