"""Secrets in the text of a log: the patterns that find them, and their masks.

Of what `detect.redact` matches, the groups are masked, or all if no group
matches. In the name of a session a mask has a code of its text, so that
names differ where they did: it is a key in tables and in review.csv.
"""

import hashlib
import re
from collections.abc import Callable
from itertools import chain

from seqrnn.config.rules import SECRETS, own_masks

MASK = "<masked>"
# A value in a template, or a mask.
_MASKED = r"<(?:value|session|\*|masked(?:-[0-9a-f]{8})?)>"
# Quotes may be doubled, or escaped, as in JSON within JSON.
_QUOTED = (
  rf'"(?:""?(?=\w))?+(?!{_MASKED}")((?:[^"\\]++|\\.|""(?=\w))++)'
  rf'|\\"(?!{_MASKED}\\")((?:[^"\\]++|\\\\(?:\\.|[^\\])|\\[^"\\])++)'
)
_SINGLE = _QUOTED.replace('"', "'")
# An escaped quote begins no string, so one without an end is searched once.
_INSIDE = r"(?:\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|\\?[^\[\](){}])"
# In brackets, in quotes, or up to the sign that ends a value; without the
# second bracket or quote, all that follows. A tag (!secret) or a type (str =)
# before the value may be a part of it, so it is masked, too.
_VALUE = (
  r"(?:(![\w!/:.-]*+(?=\s)"
  r"|[A-Za-z][\w.\[\]]*+(?: \| None)?+(?=\s+=\s|\s*=[\"']))[\s=]*+)?"
  rf"(?![\w.]*+[\[({{](?:{_MASKED}|[\s,\"'\\])++[\])}}])(?:([\w.]*+[\[({{]"
  rf"(?:{_INSIDE}|[\[({{]{_INSIDE}*+[\])}}])++[\])}}](?:[\])}}]*+\w++)*+)"
  r"|[\w.]*+[\[({]{1,3}\s*+\\*+[\"'](.+)|[bBfFrRuU]{0,2}(?:\\{2,}+[\"'](.+)"
  rf"|{_QUOTED}|{_SINGLE})|(?![bBfFrRuU]{{0,2}}\\*[\"'])"
  rf"(?!{_MASKED}[\])}}>.!?=]*(?:[\s\"',;&]|\Z))"
  r"(?:&quot;)?((?:[^\s\"',;&]++|(?<=\w)[\"'](?=\w))++))"
)
_SCHEME = r"(?i:bearer|basic|digest|token|negotiate|api-?key|aws\S*)(?:\s+|%20)"
_WORD = r"(?<![\w.+-])"
# Each takes time that is linear in the length of a line.
_PATTERNS = (
  # The password in a URL, but no number that may be a port; a password with an
  # @ after the name of a user; an e-mail address.
  r"://[^\s/:\"]*+:(?!\d{1,5}(?![^\s/?#\"',;)\]}>]))((?:[^\s/\"]|/(?!/))+)@"
  rf"|{_WORD}[\w.+-]{{1,64}}:([^\s/@\"',;]{{0,64}}@[^\s/\"',;]{{0,256}})@(?=\w)"
  rf"|{_WORD}[\w.+-]{{1,64}}@[\w-]++\.[\w.-]*\w",
  r"\b(?i:bearer|basic) +(?!(?i:auth|info|realm))([\w.~+/=-]{8,})",
  # A key; then a sign or, after an option, a blank, and a value, or an element.
  # Numbers of tokens, results of tests, and settings are no secrets.
  r"(?i:(?=[-_aceiopst]))(?:(?<![\w-])--?(?!no-)(?:\w{1,32}-){0,3}())?"
  r"(?i:passw(?:or)?ds?|pass(?:phrase|code)|pwd|secrets?|cred(?:ential)?s?|token"
  r"|(?:api|access|auth|private|encryption|signing|account|shared)[_-]?keys?"
  r"|tokens(?!\W{1,8}[\d.,]+(?!\w))|(?:cookies?|auth)(?=\W{1,4}[\[({])"
  r"|(?:_auth|\bpw|(?<!by)(?<!com)pass)(?!\W{1,8}(?:\d{1,3}|true|false)(?!\w)"
  r"|(?-i:(?<=(?<!_)P(?:ASS|ass)): ))|identified by|(?<=[?&])sig|\botp)"
  r"(?!(?i:[_-]?(?:count|type|ttl|file|path|ur[il]|len|policy|stdin)))(?:[_-]"
  r"\w{1,32}|(?<=[a-z])[A-Z]\w{0,31}|\d{1,3})?+(?:(?:(?:\[[^\]\s]{0,32}\])?+(?:"
  r"\\u003[aAdD]|\\*+(?:[\"']|%22)?\]?(?:[\s,]++[\"']?(?i:value)[\"']?)?\s*+(?:->"
  r"|[=:]{1,2}+>?+|%3[aAdD]))\s*+|(?<=word|WORD|d by|D BY)\s++(?=[\"'])"
  rf"|(?(1)(?:[\"'],\s*+|\s++)(?![\"']?-)|(?!)))(?:{_SCHEME})?+{_VALUE}"
  r"|(?:\s[^<>]{0,99}+)?>(?:<!\[CDATA\[)?([^<\s][^<]{0,299}?)(?=(?:\]\]>)?<\\?/))",
  r"(?i:cookie)[\"']?[=:]\s*+[\"']?([\w.-]+=[^\s\"',]+(?:(?<=;) ?[^\s\"',]+)*)",
  rf"[aA](?i:uthorization)\W{{1,8}}(?>{_SCHEME}|(?=[^\s\"']{{0,64}}\d))[\"']?"
  rf"(?!{_MASKED})((?:\b\w+=\"[^\"]*+\"|, ?(?=\w+=)|[^\s\"',])++)",
  r"\bcurl .{0,200}?(?:-u|--(?:proxy-)?user[ =])\s*[\"']?[^\s:/]+:([^\s\"']+)",
  r"PRIVATE KEY-----(.+?)(?:-----END|\Z)",
  # A JSON web token, and keys with the usual prefixes.
  rf"{_WORD}(?:eyJ[\w-]+\.[\w-]+\.[\w-]*|A[KS]IA[A-Z0-9]{{16}}\b)",
  r"\b(?:gh[a-z]|github_pat|glpat|hf|npm|sk|pk|rk|xox[a-z])[_-][\w-]{16,}",
  # Long hexadecimal numbers, and what looks like base64.
  r"\b(?=[0-9]*[a-fA-F])(?=[a-fA-F]*[0-9])[0-9a-fA-F]{32,}\b",
  rf"{_WORD}(?=[\w+-]*[a-z])(?=[\w+-]*[A-Z])(?=[\w+-]*\d)[\w+-]{{40,}}=*",
)


class Redaction:
  """Masks what a pattern matches."""

  def __init__(self, pattern: str):
    """`pattern`: as `detect.redact`; an empty one matches nothing."""
    own = ["|".join(own_masks(pattern)) or "(?!)"]
    ours = _PATTERNS if SECRETS in pattern else ()
    self._patterns = [*map(re.compile, (*own, *ours))]

  def name(self, name: str) -> str:
    """The name of a session with masks that have codes."""
    return self.text(name, _code)

  def text(self, text: str, mask: Callable[[str], str] = lambda _: MASK) -> str:
    """A text with masks; `mask`: of a part of it."""
    spans, parts, end = [], [], 0
    for match in chain(*(x.finditer(text) for x in self._patterns)):
      groups = [match.span(n) for n, g in enumerate(match.groups(), 1) if g]
      spans += groups or [match.span()]
    spans.sort(reverse=True)
    while spans:
      start, stop = spans.pop()
      while spans and spans[-1][0] < stop:  # Overlapping spans are one.
        stop = max(stop, spans.pop()[1])
      parts += [text[end:start], mask(text[start:stop])]
      end = stop
    return "".join([*parts, text[end:]])


def _code(text: str) -> str:
  digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
  return f"{MASK[:-1]}-{digest.hexdigest()[:8]}>"


def excerpt(text: str, most: int, pattern: str = SECRETS) -> str:
  """The begin of a text for a message, masked before it is cut."""
  text = Redaction(pattern).text(text)
  return text[:most] + "..." * (len(text) > most)
