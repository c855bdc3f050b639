"""Splits: training, validation and test, made before windows are cut."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from seqrnn.config import derived
from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus, Document, collect, digest, nouns
from seqrnn.data.logs import log_corpus
from seqrnn.data.read.columns import concatenate
from seqrnn.data.sources import corpora
from seqrnn.data.sources.corpora import SPLITS
from seqrnn.errors import UserError, counted

# Less than a symbol of any corpus, more than an error of floating point: for
# example 0.07 * 100 is 7.000000000000001.
_ROUNDING = 1e-6

_CHUNK = 2**20  # Symbols that are handled together.

# Characters of a line that is not there twice by chance. Of the topics of
# Python's help, shorter ones join almost all.
_LONG_LINE = 40

_NEAR = 10  # A border moves by at most this part of a block.


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
  """Documents of a corpus, or parts of documents: what a split consists of.

  Attributes:
    corpus: of the documents.
    document: int64 [pieces], the document of each piece.
    starts: int64 [pieces], its first place in `corpus.ids`.
    stops: int64 [pieces], the place after its last one.
    begins: bool [pieces], whether it has the document's first symbol; no
      document that the begin of its log cuts has one.
    ends: bool [pieces], whether it has the document's last symbol; no document
      that the end of its log cuts has one.
  """

  corpus: Corpus
  document: np.ndarray
  starts: np.ndarray
  stops: np.ndarray
  begins: np.ndarray
  ends: np.ndarray

  def __len__(self) -> int:
    return len(self.document)

  @property
  def are_documents(self) -> bool:
    """Whether each is all of a document that the corpus has."""
    sizes = np.diff(self.corpus.bounds)[self.document]
    return np.array_equal(self.stops - self.starts, sizes)

  def text(self, n: int) -> str | list[str]:
    """The symbols of a piece."""
    return self.corpus.text(int(self.starts[n]), int(self.stops[n]))

  def documents(self) -> Iterator[Document]:
    """The pieces one by one, as Python objects."""
    for n in range(len(self)):
      name, symbols = self.corpus.names[int(self.document[n])], self.text(n)
      yield Document(name, symbols, bool(self.begins[n]), bool(self.ends[n]))

  def chunks(self) -> Iterator[np.ndarray]:
    """The ids of all pieces, in order, a chunk at a time."""
    # Pieces that lie side by side are read as one piece.
    apart = np.flatnonzero(self.starts[1:] != self.stops[:-1])
    starts = self.starts[np.concatenate([[0], apart + 1])]
    stops = self.stops[np.concatenate([apart, [-1]])]
    parts, size = [], 0
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
      for place in range(start, stop, _CHUNK):
        parts.append(self.corpus.ids[place : min(place + _CHUNK, stop)])
        size += len(parts[-1])
        if size >= _CHUNK:
          yield np.concatenate(parts)
          parts, size = [], 0
    if parts:
      yield np.concatenate(parts)

  def counts(self) -> np.ndarray:
    """The frequency of each of `corpus.symbols` in the pieces, int64."""
    counts = np.zeros(len(self.corpus.symbols), np.int64)
    for ids in self.chunks():
      counts += np.bincount(ids, minlength=len(counts))
    return counts


PiecesOfSplits = dict[str, Pieces]
Read = Callable[[str], Pieces]  # From the name of a split to its pieces.


def whole(corpus: Corpus) -> Pieces:
  """All documents of a corpus, as far as its log has them."""
  return _select(corpus, np.arange(len(corpus.names)))


def from_documents(documents: list[Document], unit: str) -> Pieces:
  """Documents that are Python objects, as pieces."""
  return dataclasses.replace(
    whole(collect(documents, unit)),
    begins=np.array([document.begins for document in documents], bool),
    ends=np.array([document.ends for document in documents], bool),
  )


def continued(pieces: Pieces) -> Pieces:
  """The pieces, each with a symbol at its end that no vocabulary has."""
  documents = [
    document._replace(symbols=[*document.symbols, ""], ends=False)
    for document in pieces.documents()
  ]
  return from_documents(documents, pieces.corpus.unit)


def joined(parts: Sequence[Pieces]) -> Pieces:
  """Labelled documents of several splits, as one split."""
  documents = [document for pieces in parts for document in pieces.documents()]
  labels = [x.corpus.labels[x.document] for x in parts if x.corpus.labels]
  whole = from_documents(documents, parts[0].corpus.unit)
  corpus = whole.corpus._replace(labels=concatenate(labels))
  return dataclasses.replace(whole, corpus=corpus)


def _select(corpus: Corpus, document: np.ndarray) -> Pieces:
  """Some documents, from their first symbol in the corpus to the last."""
  starts, stops = corpus.bounds[:-1][document], corpus.bounds[1:][document]
  return _pieces(corpus, document, starts, stops)


def _pieces(
  corpus: Corpus, document: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> Pieces:
  """Parts of documents, which the split or the log may cut."""
  begins = starts == corpus.bounds[document]
  ends = stops == corpus.bounds[document + 1]
  if corpus.cuts is not None:
    begins &= corpus.cuts.begun[document]
    ends &= corpus.cuts.ended[document]
  return Pieces(corpus, document, starts, stops, begins, ends)


def some(pieces: Pieces, which: np.ndarray) -> Pieces:
  """The pieces for which `which` is true, bool [pieces]."""
  names = ("document", "starts", "stops", "begins", "ends")
  return Pieces(pieces.corpus, *(getattr(pieces, n)[which] for n in names))


def _groups(corpus: Corpus) -> np.ndarray:
  """The digest of each document's group, uint64 [documents]."""
  if corpus.groups is not None:
    return corpus.groups
  # A file's name that is not UTF-8 has lone surrogates.
  names = (name.encode("utf-8", "surrogateescape") for name in corpus.names)
  return np.fromiter(map(digest, names), np.uint64, len(corpus.names))


def _joined(corpus: Corpus) -> np.ndarray:
  """The groups, joined where documents have a long line in common.

  A group has the digest of the first that it consists of.
  """
  groups, count = _groups(corpus), len(corpus.names)
  index: dict[str | int, int] = {}
  pairs = []
  for document, group in enumerate(groups.tolist()):
    text = corpus.text(*corpus.bounds[document : document + 2].tolist())
    text = text if isinstance(text, str) else " ".join(text)
    lines = {" ".join(line.split()) for line in text.split("\n")}
    pairs += [
      (document, count + index.setdefault(key, len(index)))
      for key in (group, *(line for line in lines if len(line) >= _LONG_LINE))
    ]
  # A graph of documents, groups and lines; an edge leads to what one has.
  ends = tuple(np.array(pairs, np.int64).T)
  from scipy.sparse import coo_array
  from scipy.sparse.csgraph import connected_components

  graph = coo_array((np.ones(len(pairs)), ends), 2 * (count + len(index),))
  _, component = connected_components(graph, directed=False)
  _, firsts, joined = np.unique(
    component[:count], return_index=True, return_inverse=True
  )
  return groups[firsts][joined]


def blocks(pieces: Pieces, parts: int, each: int = 1) -> np.ndarray:
  """The number of the part of each piece, of `parts` equal ones, from 0.

  A part is a block, or has `each` of them, which are dealt out in turn. A block
  has documents that are side by side, because documents of the same time are
  alike: a model that has seen the neighbours of a document is no judge of it.
  Between documents with the same symbols there is no border, if there is
  another place near it. Documents with labels, which files often have label by
  label, are assigned in the order of the digests of their groups.

  Raises:
    UserError: there are fewer groups than blocks.
  """
  groups = _groups(pieces.corpus)[pieces.document]
  _, firsts, group = np.unique(groups, return_index=True, return_inverse=True)
  if len(firsts) < parts:
    documents = counted(len(firsts), nouns(pieces.corpus.unit)[1])
    raise UserError(
      f"detect.folds={parts}: {documents}: too few for {parts} parts of the"
      " training split"
    )
  if pieces.corpus.labels is not None:
    return (np.arange(len(firsts)) % parts)[group]
  order, count = np.sort(firsts), parts * min(each, len(firsts) // parts)
  edges = [_border(pieces, order, k, count) for k in range(1, count)]
  return (np.searchsorted(edges, firsts, "right") % parts)[group]


def _border(pieces: Pieces, firsts: np.ndarray, k: int, parts: int) -> int:
  """The first piece after the border of blocks k and k + 1.

  Args:
    pieces: in their order.
    firsts: the first piece of each group, rising.
    k: from 1.
    parts: the number of blocks.
  """
  count = len(firsts)
  middle, reach = k * count // parts, count // (_NEAR * parts)

  def symbols(group):
    piece = firsts[group]
    ids = pieces.corpus.ids[pieces.starts[piece] : pieces.stops[piece]]
    return np.unique(ids).tobytes()

  near = sorted(range(-reach, reach + 1), key=abs)
  apart = (n for n in near if symbols(middle + n - 1) != symbols(middle + n))
  return int(firsts[middle + next(apart, 0)])


def split(
  corpus: Corpus, data: Config, batch_size: int, has_test: bool = False
) -> PiecesOfSplits:
  """Documents, or pieces of documents, by the name of their split.

  A fraction is of the symbols, or of the documents where they have labels. Only
  `data.split=stream_tails` uses `batch_size`. With `has_test` the test split
  has files of its own. A fraction of 0 gives an empty split; the training split
  is never empty.

  Raises:
    UserError: a corpus too small for the split.
  """
  fractions = data.validation_fraction, 0 if has_test else data.test_fraction
  if data.split == "tails":
    return _tails(corpus, fractions)
  if data.split == "stream_tails":
    return _stream_tails(corpus, *fractions, batch_size, data.window)
  groups = (_joined if data.split == "shared_lines" else _groups)(corpus)
  # In the order of a hash: a new document moves no other document.
  _, firsts, group = np.unique(groups, return_index=True, return_inverse=True)
  few = len(firsts) < 10 and corpus.labels is None  # A label is of a whole.
  if data.split == "auto" and few:
    return _tails(corpus, fractions)
  each = None if corpus.labels is not None else np.diff(corpus.bounds)
  sizes = np.bincount(group, each)
  order = np.arange(len(firsts))
  if data.split == "last_documents":
    order = np.argsort(-firsts)
  if data.split == "shared_lines":  # The largest group comes last: it trains.
    largest = np.lexsort((-firsts, sizes))[-1]
    order = np.append(np.delete(order, largest), largest)
  # Test has the first groups, validation the next, and training all others.
  ends, edges = np.append(0, np.cumsum(sizes[order])), [0]
  for fraction in reversed(fractions):
    goal = ends[edges[-1]] + fraction * ends[-1] - _ROUNDING
    edges.append(max(int(np.searchsorted(ends[:-1], goal)), edges[-1]))
  if edges[-1] == len(order):
    rule = "data.split=tails holds out the end of each"
    if corpus.unit == "log":
      rule = "data.log_session cuts a log"
    if corpus.labels is not None:  # A label is of a whole.
      rule = "more are needed, and equal ones count as one"
    documents = counted(len(order), f"different {nouns(corpus.unit)[1]}")
    raise UserError(
      f"data.split={data.split!r}: {documents}: too few to hold whole ones out;"
      f" {rule}"
    )
  parts = np.split(order, edges[1:])[::-1]
  return {
    name: _select(corpus, np.flatnonzero(np.isin(group, part)))
    for name, part in zip(SPLITS, parts, strict=True)
  }


def _tails(corpus: Corpus, fractions: tuple[float, float]) -> PiecesOfSplits:
  n = np.diff(corpus.bounds)
  held_out = np.floor(np.outer(fractions, n) + _ROUNDING)
  validation, test = held_out.astype(np.int64)
  edges = np.stack([0 * n, n - validation - test, n - test, n])
  return _between(corpus, np.arange(len(n)), edges + corpus.bounds[:-1])


def _between(
  corpus: Corpus, document: np.ndarray, edges: np.ndarray
) -> PiecesOfSplits:
  """The parts of documents between edges, places in `corpus.ids` [4, parts]."""
  parts = {}
  for name, start, stop in zip(SPLITS, edges[:-1], edges[1:], strict=True):
    some = start < stop
    parts[name] = _pieces(corpus, document[some], start[some], stop[some])
  return parts


def _stream_tails(
  corpus: Corpus, validation: float, test: float, batch_size: int, T: int
) -> PiecesOfSplits:
  """The split of char-rnn's loader, for results that compare with its own.

  The text is cut to whole batches of B streams of T symbols, and the ends of
  each stream are held out. All parts of a split have the same length and no
  BEGIN or END, so that each part is a row of `streams`.
  """
  if len(corpus.names) != 1:
    raise UserError(
      f"data.split='stream_tails': needs one document, not {len(corpus.names)}"
    )
  n = len(corpus.ids)
  batches = n // (batch_size * T)
  train = math.floor(batches * (1 - validation - test) + _ROUNDING)
  held_out = math.floor(batches * validation + _ROUNDING)
  if test == 0:
    held_out = batches - train
  if train == 0:
    raise UserError(
      f"data.split='stream_tails': {n} symbols are too few for"
      f" train.batch_size={batch_size} streams of data.window={T}"
    )
  rows = np.arange(batch_size) * batches * T
  edges = np.array([0, train, train + held_out, batches])[:, None] * T + rows
  parts = _between(corpus, 0 * rows, edges)
  return {
    name: dataclasses.replace(p, begins=p.begins & False, ends=p.ends & False)
    for name, p in parts.items()
  }


def reader(config: Config, idle: float | None = None) -> Read:
  """A function from the name of a split to its pieces.

  A file is read at the first call that needs it, and once; where each split
  has its own path, a call reads only the split that it names. `idle` replaces
  the idle time of sessions of logs.

  Raises:
    UserError: when called, as `corpora.read` and `split`; an empty split.
  """
  data = config.data
  separate = corpora.separate(data)

  def corpus(name: str | None = None) -> Corpus:
    return log_corpus.with_cuts(corpora.read_corpus(data, name), idle)

  @functools.cache
  def parts() -> PiecesOfSplits:
    return split(corpus(), data, config.train.batch_size, "test" in separate)

  @functools.cache
  def read(name: str) -> Pieces:
    if name not in SPLITS:
      raise UserError(f"split={name!r}: must be one of {', '.join(SPLITS)}")
    if config.train.choice == "all" and name == "train":
      read_alone = reader(derived.copy(config, {"train.choice": "last"}), idle)
      return joined([read_alone("train"), read_alone("validation")])
    pieces = whole(corpus(name)) if name in separate else parts()[name]
    if not len(pieces):
      field, (symbol, _) = f"{name}_fraction", nouns(data.unit)
      raise UserError(
        f"data.{field}={data[field]}: leaves no {symbol} for the {name} split;"
        " it must be larger, or the data"
      )
    return pieces

  return read


def checked_reader(config: Config) -> Read:
  """As `reader`, for a training that has not begun: reads the test file, too.

  An evaluation after the training would be the first to refuse its faults.

  Raises:
    UserError: the test file has a fault.
  """
  read = reader(config)
  if config.data.test_path is not None:
    read("test")
  return read
