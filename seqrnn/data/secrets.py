"""Secrets in the text of a log: the patterns that find them, and their masks.

Of what `detect.redact` matches, the groups are masked, or all if no group
matches. In the name of a session a mask has a code of what it masks, so that
names differ where they did: it is a key in tables and in review.csv.
"""

import functools
import hashlib
import re
from collections.abc import Callable

from seqrnn.settings.fields import SECRETS

MASK = "<masked>"
_VALUE = r"""(?:"([^"<]+)"|'([^'<]+)'|([^\s"',;&<]+))"""
_WORD = r"(?<![\w.+-])"
# Each alternative takes time that is linear in the length of a line.
_PATTERNS = (
  r"://[^\s/:@]{0,64}:([^\s/@]{1,256})@",  # The password in a URL.
  rf"{_WORD}[\w.+-]{{1,64}}@[\w-]+\.[\w.-]*\w",  # An e-mail address.
  r"\b(?i:bearer|basic) +([\w.~+/=-]{8,})",
  r"(?i:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key)"
  rf"(?:[_-]\w{{1,32}})?[\"']?\s*[=:]\s*{_VALUE}",
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
    """`pattern`: as `detect.redact`."""
    ours = f"(?:{'|'.join(_PATTERNS)})"
    self._search = re.compile(pattern.replace(SECRETS, ours))

  def text(self, text: str) -> str:
    """A text with masks."""
    return self._search.sub(lambda match: _masked(match, lambda _: MASK), text)

  def name(self, name: str) -> str:
    """The name of a session with masks that have codes."""
    return self._search.sub(lambda match: _masked(match, _code), name)


def _masked(match: re.Match, mask: Callable[[str], str]) -> str:
  """What a match becomes."""
  whole, first = match[0], match.start()
  found = [match.span(n) for n, g in enumerate(match.groups(), 1) if g]
  for start, stop in sorted(found or [match.span()], reverse=True):
    part = slice(start - first, stop - first)
    whole = whole[: part.start] + mask(whole[part]) + whole[part.stop :]
  return whole


def _code(text: str) -> str:
  digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
  return f"{MASK[:-1]}-{digest.hexdigest()[:8]}>"


@functools.cache
def redaction(pattern: str) -> Redaction | None:
  """What `detect.redact` masks; None: nothing is masked."""
  return Redaction(pattern) if pattern else None


def excerpt(text: str, most: int, pattern: str = SECRETS) -> str:
  """The begin of a text for a message, masked before it is cut."""
  masks = redaction(pattern)
  text = masks.text(text) if masks else text
  return text[:most] + "..." * (len(text) > most)
