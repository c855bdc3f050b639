"""Sessions: what detection reads, as ids of a vocabulary, flat.

Each event keeps its place in what was read: its line, its time, its label.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.config import Config
from seqrnn.data import corpora, splits
from seqrnn.data.documents import Corpus, Names
from seqrnn.data.labels import UNLABELLED, taken
from seqrnn.data.reading import Source, lines, rows
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.errors import UserError

_NO_SYMBOL = ""  # Of no vocabulary, so it is the unknown one of each.


class Sessions(NamedTuple):
  """Sessions of events, one after the other.

  Attributes:
    ids: int32 [events], of a vocabulary; without begin and end.
    bounds: int64 [sessions + 1]; j is ids[bounds[j] : bounds[j + 1]].
    names: of the sessions.
    lines: int64 [events], of the file, from 1; None: it has none.
    timestamps: of the events, as they were written; None: there are none.
    labels: bool [sessions], whether it is an anomaly; None: nobody says.
    line_labels: bool [events], likewise.
    labelled: bool [sessions], whether its label is known; None: all are.
    lines_labelled: bool [events], likewise.
    symbol: unsigned [events], what was read: indices into `symbols`; None: it
      is not known.
    symbols: the distinct ones; None: likewise.
  """

  ids: np.ndarray
  bounds: np.ndarray
  names: list[str]
  lines: np.ndarray | None = None
  timestamps: list[str] | None = None
  labels: np.ndarray | None = None
  line_labels: np.ndarray | None = None
  labelled: np.ndarray | None = None
  lines_labelled: np.ndarray | None = None
  symbol: np.ndarray | None = None
  symbols: list[str] | None = None

  def with_label(self) -> np.ndarray:
    """The places of the sessions whose label is known; none without labels."""
    if self.labels is None:
      return np.zeros(0, np.int64)
    if self.labelled is None:
      return np.arange(len(self.labels))
    return np.flatnonzero(self.labelled)

  def take(self, index: np.ndarray) -> "Sessions":
    """Some of them, in the order of `index`."""
    starts, stops = self.bounds[index], self.bounds[index + 1]
    places, bounds = ranges(starts, stops)
    times = self.timestamps
    return Sessions(
      self.ids[places],
      bounds,
      [self.names[j] for j in index.tolist()],
      None if self.lines is None else self.lines[places],
      None if times is None else [times[i] for i in places.tolist()],
      None if self.labels is None else self.labels[index],
      None if self.line_labels is None else self.line_labels[places],
      None if self.labelled is None else self.labelled[index],
      None if self.lines_labelled is None else self.lines_labelled[places],
      None if self.symbol is None else self.symbol[places],
      self.symbols,
    )

  def distinct(self) -> "Distinct":
    """Which sessions have the same events."""
    index: dict[bytes, int] = {}
    content = self.ids.tobytes()
    edges = (self.bounds * self.ids.itemsize).tolist()
    # A dictionary is faster here than sorting, as np.unique does.
    which = np.array(
      [
        index.setdefault(content[start:stop], len(index))
        for start, stop in zip(edges[:-1], edges[1:], strict=True)
      ],
      np.int64,
    )
    _, first, counts = np.unique(which, return_index=True, return_counts=True)
    return Distinct(first, which, counts)

  def pieces(self, vocabulary: Vocabulary) -> Pieces:
    """The same, as `experiment.batches` takes them."""
    group = np.arange(len(self.names))
    return splits.whole(
      Corpus(
        vocabulary.unit,
        [_NO_SYMBOL, *vocabulary.symbols],
        (self.ids - UNKNOWN).astype(np.uint32),
        self.bounds,
        self.names,
        group,
        self.names,
      )
    )


class Distinct(NamedTuple):
  """Which sessions are equal.

  Attributes:
    first: int64 [distinct], the first session of each, in order.
    which: int64 [sessions], the place in `first` of each one's equal.
    counts: int64 [distinct], how many there are of each.
  """

  first: np.ndarray
  which: np.ndarray
  counts: np.ndarray


def ranges(
  starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """All whole numbers from each start to its stop, and where they are cut."""
  bounds = np.concatenate([[0], np.cumsum(stops - starts)])
  shifts = np.repeat(starts - bounds[:-1], stops - starts)
  return np.arange(bounds[-1]) + shifts, bounds


def read(
  config: Config, vocabulary: Vocabulary, path: str, field: str = "detect.path"
) -> Sessions:
  """The sessions of a file, a glob or a folder, of the form `config.data` says.

  No session joins files. Messages name the path by `field`.

  Raises:
    UserError: as `corpora.read_files`.
  """
  data = config.data
  corpus = corpora.read_files(field, path, data)
  if data.unit == "id":  # One a line that is not blank.
    numbers = [
      number
      for source in corpora.files(field, path)
      for number, line in enumerate(lines(source, data.errors), 1)
      if line.strip()
    ]
    corpus = corpus._replace(lines=np.array(numbers, np.int64))
  return of_pieces(splits.whole(corpus), vocabulary, config.detect)


def of_pieces(
  pieces: Pieces, vocabulary: Vocabulary, settings: Config | None = None
) -> Sessions:
  """The sessions that whole documents are; settings are of `config.detect`.

  Without settings no label is read. A session is anomalous where one of its
  events is, and has no label where none has.

  Raises:
    UserError: as `labels.taken`.
  """
  corpus, document = pieces.corpus, pieces.document
  places, bounds = ranges(pieces.starts, pieces.stops)
  numbers = None
  if corpus.lines is not None:
    numbers = corpus.lines[places]
  elif isinstance(corpus.names, Names) and corpus.names.lines.all():
    numbers = np.repeat(corpus.names.lines[document], np.diff(bounds))
  timestamps = None
  if corpus.timestamps is not None:
    timestamps = [corpus.timestamps[int(i)] for i in places]
  found = (None, None, None, None)
  if corpus.tags is not None and settings is not None:
    ids = corpus.tags.ids[places]
    counts = np.bincount(ids, minlength=len(corpus.tags.symbols))
    found = _marks(taken(corpus.tags.symbols, counts, settings)[ids], bounds)
  symbol = corpus.ids[places]
  return Sessions(
    vocabulary.encode(corpus.symbols)[symbol],
    bounds,
    [corpus.names[int(j)] for j in document],
    numbers,
    timestamps,
    *found,
    symbol,
    corpus.symbols,
  )


Marks = tuple[
  np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray | None
]


def _marks(label_N: np.ndarray, bounds: np.ndarray) -> Marks:
  """The fields of Sessions on labels, from what the events' ones are."""
  highest = np.maximum.reduceat(label_N, bounds[:-1])
  known, known_N = highest != UNLABELLED, label_N != UNLABELLED
  if not known.any():
    return None, None, None, None
  return highest == 1, label_N == 1, known, known_N


def with_labels(sessions: Sessions, path: str, config: Config) -> Sessions:
  """The same, with labels from a csv file of two columns: a session, its label.

  What it says of others is passed over.

  Raises:
    UserError: it cannot be read, is not that, or lacks a session.
  """
  given: dict[str, str] = {}
  lines = {}
  for number, row in rows(Source(path, Path(path)), config.data.errors):
    if len(row) != 2 or None in row.values():
      raise UserError(
        f"{path}:{number}: must have two columns, a session and its label"
      )
    name, label = row.values()
    lines[name, label] = number
    given[name] = label
  texts, counts = np.unique([label for _, label in lines], return_counts=True)
  kinds = taken(texts.tolist(), counts, config.detect)
  kind = dict(zip(texts.tolist(), kinds.tolist(), strict=True))
  for (name, label), number in lines.items():
    if kind[label] != kind[given[name]]:
      raise UserError(
        f"{path}:{max(number, lines[name, given[name]])}: session {name!r} has"
        " another label further up"
      )
  missing = next((name for name in sessions.names if name not in given), None)
  if missing is not None:
    raise UserError(f"{path}: has no label for session {missing!r}")
  labels = np.array([kind[given[name]] for name in sessions.names], np.int8)
  known = labels != UNLABELLED
  if not known.any():
    raise UserError(f"{path}: has no label for any of the sessions")
  return sessions._replace(labels=labels == 1, labelled=known)
