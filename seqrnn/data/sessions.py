"""Sessions: what detection reads, as ids of a vocabulary, flat.

Each event keeps its place in what was read: its line, its time, its label.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.config import Config
from seqrnn.data import corpora, splits
from seqrnn.data.encoding import Corpus, Names, Source, lines
from seqrnn.data.labelled import rows
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
  symbol: np.ndarray | None = None
  symbols: list[str] | None = None

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
  return of_pieces(splits.whole(corpus), vocabulary)


def of_pieces(pieces: Pieces, vocabulary: Vocabulary) -> Sessions:
  """The sessions that whole documents are."""
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
  labels = line_labels = None
  if corpus.tags is not None:
    odd = np.array([_is_odd(label) for label in corpus.tags.symbols], bool)
    line_labels = odd[corpus.tags.ids[places]]
    labels = np.logical_or.reduceat(line_labels, bounds[:-1])
  symbol = corpus.ids[places]
  return Sessions(
    vocabulary.encode(corpus.symbols)[symbol],
    bounds,
    [corpus.names[int(j)] for j in document],
    numbers,
    timestamps,
    labels,
    line_labels,
    symbol,
    corpus.symbols,
  )


def with_labels(sessions: Sessions, path: str) -> Sessions:
  """The same, with labels from a csv file of two columns: a session, its label.

  What it says of others is passed over.

  Raises:
    UserError: it cannot be read, is not that, or lacks a session.
  """
  odd: dict[str, bool] = {}
  for number, row in rows(Source(path, Path(path)), "strict"):
    if len(row) != 2 or None in row.values():
      raise UserError(
        f"{path}:{number}: must have two columns, a session and its label"
      )
    name, label = row.values()
    if odd.setdefault(name, _is_odd(label)) != _is_odd(label):
      raise UserError(
        f"{path}:{number}: session {name!r} has another label further up"
      )
  missing = next((name for name in sessions.names if name not in odd), None)
  if missing is not None:
    raise UserError(f"{path}: has no label for session {missing!r}")
  labels = np.array([odd[name] for name in sessions.names], bool)
  return sessions._replace(labels=labels)


def _is_odd(label: str) -> bool:
  """Whether it is the label of an anomaly; it may name the kind."""
  return label.strip().lower() not in ("", "0", "-", "false", "normal")
