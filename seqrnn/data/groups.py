"""Groups of documents: a split into whole documents never divides a group."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from seqrnn.data.documents import Corpus, digest

# Characters of a line that is not there twice by chance. Of the topics of
# Python's help, shorter ones join almost all.
_LONG_LINE = 40


def digests(corpus: Corpus) -> np.ndarray:
  """The digest of each group's name, uint64."""
  if isinstance(corpus.groups, np.ndarray):
    return corpus.groups
  # A file's name that is not UTF-8 has lone surrogates.
  names = (name.encode("utf-8", "surrogateescape") for name in corpus.groups)
  return np.fromiter(map(digest, names), np.uint64, len(corpus.groups))


def joined(corpus: Corpus) -> Corpus:
  """The corpus with groups joined whose documents have a long line in common.

  A group has the digest of the first that it consists of.
  """
  index: dict[str, int] = {}
  pairs = []
  for document, group in enumerate(corpus.group.tolist()):
    text = corpus.text(*corpus.bounds[document : document + 2].tolist())
    text = text if isinstance(text, str) else " ".join(text)
    lines = {" ".join(line.split()) for line in text.split("\n")}
    pairs += [
      (group, len(corpus.groups) + index.setdefault(line, len(index)))
      for line in lines
      if len(line) >= _LONG_LINE
    ]
  # A graph of groups and lines, with an edge for a line of a group.
  size = len(corpus.groups) + len(index)
  ends = np.array(pairs, np.int64).reshape(-1, 2).T
  graph = coo_array((np.ones(ends.shape[1]), tuple(ends)), (size, size))
  _, component = connected_components(graph, directed=False)
  _, firsts, group = np.unique(
    component[: len(corpus.groups)], return_index=True, return_inverse=True
  )
  return corpus._replace(
    group=group[corpus.group], groups=digests(corpus)[firsts]
  )
