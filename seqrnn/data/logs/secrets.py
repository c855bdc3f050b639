"""Secrets in the text of a log: the patterns that find them, and their masks.

Of what `detect.redact` matches, the groups are masked, or all if no group
matches. In the name of a session a mask has a code of its text, so that
names differ where they did: it is a key in tables and in review.csv.
"""

import hashlib
import re
from collections.abc import Callable

from seqrnn.config.rules import SECRETS

MASK = "<masked>"
# A value in a template, or a mask.
_MASKED = r"<(?:value|session|\*|masked(?:-[0-9a-f]{8})?)>"
# In quotes, or up to what ends a value; without the second quote, all that
# follows. Quotes may be escaped, as in JSON within JSON.
_VALUE = (
  r"[\[({bBrRuU]{0,3}(?:"
  + "|".join(
    rf"{q}(?!{_MASKED}{q})((?:[^{q}\\]++|\\.)++)"
    rf"|\\{q}(?!{_MASKED}\\{q})((?:[^{q}\\]++|\\\\(?:\\.|[^\\])|\\[^{q}\\])++)"
    for q in "\"'"
  )
  + r"|\\{2,}+[\"'](.+))"
  r"|(?![\[({bBrRuU]{0,3}\\*[\"'])"
  rf"(?!{_MASKED}[\])}}>.!?]*(?:[\s\"',;&]|\Z))([^\s\"',;&]++)"
)
_WORD = r"(?<![\w.+-])"
# Each alternative takes time that is linear in the length of a line.
_PATTERNS = (
  # The password in a URL; what may be the number of a port is none.
  r"://[^\s/:\"]*+:(?!\d{1,5}(?![^\s/?#\"',;)\]}>]))((?:[^\s/\"]|/(?!/))+)@",
  # A password with an @ after the name of a user.
  rf"{_WORD}[\w.+-]{{1,64}}:([^\s/@\"',;]{{0,64}}@[^\s/\"',;]{{0,256}})@(?=\w)",
  rf"{_WORD}[\w.+-]{{1,64}}@[\w-]++\.[\w.-]*\w",  # An e-mail address.
  r"\b(?i:bearer|basic) +([\w.~+/=-]{8,})",
  r"(?i:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key)"
  rf"(?:[_-]\w{{1,32}})?\\*+[\"']?\s*+[=:]{{1,2}}+>?+\s*+"
  rf"(?i:(?:bearer|basic) ++)?+(?:{_VALUE})",
  rf"{_WORD}eyJ[\w-]+\.[\w-]+\.[\w-]*",  # A JSON web token.
  r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
  r"\b(?:gh[a-z]|github_pat|glpat|sk|pk|xox[a-z])[_-][\w-]{16,}",
  # Long hexadecimal numbers, and what looks like base64.
  r"\b(?=[0-9]*[a-fA-F])(?=[a-fA-F]*[0-9])[0-9a-fA-F]{32,}\b",
  rf"{_WORD}(?=[\w+-]*[a-z])(?=[\w+-]*[A-Z])(?=[\w+-]*\d)[\w+-]{{40,}}=*",
)


class Redaction:
  """Masks what a pattern matches."""

  def __init__(self, pattern: str):
    """`pattern`: as `detect.redact`; an empty one matches nothing."""
    ours = f"(?:{'|'.join(_PATTERNS)})"
    self._search = re.compile(pattern.replace(SECRETS, ours) or "(?!)")

  def name(self, name: str) -> str:
    """The name of a session with masks that have codes."""
    return self.text(name, _code)

  def text(self, text: str, mask: Callable[[str], str] = lambda _: MASK) -> str:
    """A text with masks; `mask`: of a part of it."""
    spans = []
    for match in self._search.finditer(text):
      groups = [match.span(n) for n, g in enumerate(match.groups(), 1) if g]
      spans += groups or [match.span()]
    parts, end = [], 0
    for start, stop in _merged(spans):
      parts += [text[end:start], mask(text[start:stop])]
      end = stop
    return "".join([*parts, text[end:]])


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
  """The spans in order, those that overlap as one."""
  merged: list[tuple[int, int]] = []
  for start, stop in sorted(spans):
    if merged and start < merged[-1][1]:
      start, last = merged.pop()
      stop = max(stop, last)
    merged.append((start, stop))
  return merged


def _code(text: str) -> str:
  digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
  return f"{MASK[:-1]}-{digest.hexdigest()[:8]}>"


def excerpt(text: str, most: int, pattern: str = SECRETS) -> str:
  """The begin of a text for a message, masked before it is cut."""
  text = Redaction(pattern).text(text)
  return text[:most] + "..." * (len(text) > most)
