"""Spelling: texts in lower case, and punctuation marks as words of their own.

A rule maps each symbol to one or several symbols, so it holds wherever a text
is read, whatever its format is. The playground has the same rule in JavaScript.
"""

import functools
import re
import sys
import unicodedata
from typing import Any

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus, digest

_CHUNK = 2**20  # Symbols that are handled together.


def spell(corpus: Corpus, data: Config) -> Corpus:
  """The corpus in the spelling of `data.lowercase` and `data.punctuation`.

  Equal texts stay on one side of a split if they are equal afterwards.
  """
  if not (data.lowercase or data.punctuation):
    return corpus
  spelled_V = [_spelled(symbol, data) for symbol in corpus.symbols]
  if spelled_V == [[symbol] for symbol in corpus.symbols]:
    return corpus
  index: dict[str, int] = {}
  table = [
    index.setdefault(s, len(index)) for symbols in spelled_V for s in symbols
  ]
  sizes_V = np.array([*map(len, spelled_V)], np.int64)
  firsts_V = np.cumsum(sizes_V) - sizes_V
  flat = np.array(table, np.min_scalar_type(len(index)))
  bounds = np.zeros_like(corpus.bounds)
  parts, count = [flat[:0]], 0
  for start in range(0, len(corpus.ids), _CHUNK):
    ids_N = corpus.ids[start : start + _CHUNK]
    sizes_N = sizes_V[ids_N]
    ends_N = np.cumsum(sizes_N)
    # The place of each new symbol among those that its old symbol became.
    within = np.arange(ends_N[-1]) - np.repeat(ends_N - sizes_N, sizes_N)
    parts.append(flat[np.repeat(firsts_V[ids_N], sizes_N) + within])
    low, high = np.searchsorted(
      corpus.bounds, [start + 1, start + len(ids_N) + 1]
    )
    bounds[low:high] = count + ends_N[corpus.bounds[low:high] - start - 1]
    count += int(ends_N[-1])
  ids = np.concatenate(parts)
  corpus = corpus._replace(symbols=[*index], ids=ids, bounds=bounds)
  if corpus.groups is not None:  # Digests of texts.
    places = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    texts = ("\0".join(corpus.text(*place)) for place in places)
    keys = (digest(text.encode("utf-8", "surrogatepass")) for text in texts)
    groups = np.fromiter(keys, np.uint64, len(corpus.groups))
    corpus = corpus._replace(groups=groups)
  return corpus


def spelled(symbols: Any, data: Config) -> Any:
  """The symbols of a document, a str or a list, in the spelling of `data`."""
  parts = [s for symbol in symbols for s in _spelled(symbol, data)]
  return "".join(parts) if isinstance(symbols, str) else parts


def _spelled(symbol: str, data: Config) -> list[str]:
  """What a symbol becomes; one character may have two in lower case."""
  if data.lowercase:
    symbol = symbol.lower()
  if data.punctuation and not symbol.isalnum():
    return [match[0] for match in _pattern().finditer(symbol)]
  return [*symbol] if data.unit == "char" else [symbol]


@functools.cache
def _pattern() -> re.Pattern[str]:
  """A word without marks at its ends, or equal marks in a row."""
  marks = "".join(
    re.escape(chr(code))
    for code in range(sys.maxunicode + 1)
    if unicodedata.category(chr(code))[0] in "PS"
  )
  inner = r"(?<=[^\W_])['\u2019-](?=[^\W_])|(?<=\d)[.,:](?=\d)"
  return re.compile(rf"(?:[^{marks}]|{inner})+|([{marks}])\1*")
