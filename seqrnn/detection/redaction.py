"""Redaction: secrets in the text of a log are masked where it is shown.

Shown are the names of sessions, the templates of lines, and lines that have no
template, in tables, alarms, reports and on the terminal. What detection works
with is not masked: the vocabulary, the calibration and the state of a follower
in the workdir have the log's own text.

Of what `detect.redact` matches, the groups are masked, or all if no group
matches. In the name of a session a mask has a code of what it masks, so that
names differ where they did: it is a key in tables and in review.csv.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from seqrnn.data.columns import Texts
from seqrnn.data.sessions import Sessions
from seqrnn.data.vocabulary import Vocabulary
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


def masked_vocabulary(names: Vocabulary, pattern: str) -> Vocabulary:
  """The vocabulary, whose templates of a log are shown with masks."""
  masks = redaction(pattern)
  if masks is None or names.unit != "log":
    return names
  return dataclasses.replace(names, mask=masks.text)


def masked_sessions(sessions: Sessions, pattern: str) -> Sessions:
  """Sessions to show: names and events as they were read have masks."""
  masks = redaction(pattern)
  if masks is None:
    return sessions
  as_read = sessions.as_read
  if as_read is not None:
    symbols: Any = _Masked(as_read.symbols, masks)
    as_read = Texts(symbols, as_read.ids)
  names = [masks.name(name) for name in sessions.names]
  return sessions._replace(names=names, as_read=as_read)


class _Masked(Sequence):
  """Texts that are masked when they are read, as few of many are."""

  def __init__(self, texts: Sequence[str], masks: Redaction):
    self._texts, self._masks = texts, masks

  def __len__(self) -> int:
    return len(self._texts)

  def __getitem__(self, index: Any) -> Any:
    text: Any = self._texts[index]
    return self._masks.text(text)
