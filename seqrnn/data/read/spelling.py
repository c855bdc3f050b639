"""Spelling: lower case, punctuation marks as words, texts without spaces.

A rule maps each symbol to one or several symbols, so it holds wherever a text
is read, whatever its format is. The playground has the same rule in JavaScript.
"""

import functools
import itertools
import re
import sys
import unicodedata

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus, digest
from seqrnn.data.read.columns import Tokens


def spell(corpus: Corpus, data: Config) -> Corpus:
  """The corpus in the spelling of `data.lowercase` and `data.punctuation`.

  Equal texts stay on one side of a split if they are equal afterwards.
  """
  if not (data.lowercase or data.punctuation):
    return corpus
  parts_V = [_spelled(symbol, data) for symbol in corpus.symbols]
  if parts_V == [[symbol] for symbol in corpus.symbols]:
    return corpus
  tokens = Tokens()
  tokens.collect(itertools.chain.from_iterable(parts_V))
  parts, sizes_V = tokens.texts(), np.array([*map(len, parts_V)])
  firsts_V = np.cumsum(sizes_V) - sizes_V
  sizes_N = sizes_V[corpus.ids]
  ends_N = np.cumsum(sizes_N)
  bounds = np.append(0, ends_N)[corpus.bounds]
  # The first part of each symbol, less the place of that part in the corpus.
  shifts_N = firsts_V[corpus.ids] - (ends_N - sizes_N)
  places = np.repeat(shifts_N, sizes_N) + np.arange(bounds[-1])
  corpus = corpus._replace(
    symbols=parts.symbols, ids=parts.ids[places], bounds=bounds
  )
  if corpus.groups is not None:  # Digests of texts.
    edges = itertools.pairwise(bounds.tolist())
    texts = ("\0".join(corpus.text(*places)) for places in edges)
    keys = (digest(text.encode("utf-8", "surrogatepass")) for text in texts)
    groups = np.fromiter(keys, np.uint64, len(corpus.groups))
    corpus = corpus._replace(groups=groups)
  return corpus


def spelled(symbols: str | list[str], data: Config) -> str | list[str]:
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


def spaces(corpus: Corpus) -> Corpus:
  """Texts without white space; a symbol before some has the tag `space`."""
  blank_V = np.array([symbol.isspace() for symbol in corpus.symbols], bool)
  blank_N = blank_V[corpus.ids]
  places = np.flatnonzero(~blank_N)
  follows_N = np.append(blank_N[1:], False)
  follows_N[corpus.bounds[1:] - 1] = False  # The next document follows.
  bounds = np.searchsorted(places, corpus.bounds)
  some = np.flatnonzero(np.diff(bounds))
  bare = corpus._replace(
    ids=corpus.ids[places],
    bounds=np.append(bounds[some], len(places)),
    names=[corpus.names[j] for j in some.tolist()],
  )
  tags = bare._replace(
    unit="id", symbols=["none", "space"], ids=follows_N[places].astype(np.uint8)
  )
  return bare._replace(tags=tags)
