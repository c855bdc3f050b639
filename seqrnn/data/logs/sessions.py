"""Sessions: the events that detection scores, as ids of a vocabulary.

Each event keeps its line, its time and its label.
"""

import dataclasses
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.combinations import require
from seqrnn.config.read import Config
from seqrnn.data import splits
from seqrnn.data.documents import Corpus, Names
from seqrnn.data.logs import log_corpus, templates
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.read.columns import Texts, concatenate, parts_of
from seqrnn.data.read.reading import Source, rows
from seqrnn.data.sources import corpora
from seqrnn.data.splits import Pieces, Read
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.errors import UserError, listed, report

UNLABELLED = -1  # The other labels are 0, normal, and 1, anomalous.
_NONE = ("", "nan", "null", "none", "na", "n/a")  # How tables write no label.
_ANOMALOUS = {1.0} | {
  *("true", "yes", "anomaly", "anomalous", "abnormal", "attack", "positive"),
  "malicious",
}
# Sessions of equal events have equal keys: the ids, and whether begin and end
# are there.
Key = tuple[bytes, bool, bool]
# The columns of `Sessions` that have a row for each event, those that a corpus
# has, too, and those that have a row for each session.
_OF_CORPUS = ("lines", "timestamps", "files", "seconds", "values")
_OF_EVENTS = ("ids", "as_read", *_OF_CORPUS)
_OF_SESSIONS = ("labels", "begins", "ends", "unusual", "counts")
_NO_SYMBOL = ""  # In no vocabulary, so that its id is UNKNOWN.


def event_vocabulary(names: Vocabulary, pattern: str) -> Vocabulary:
  """The vocabulary; of a log, it finds the template of a line, and shows masks.

  Args:
    names: of any unit; only that of unit `log` changes.
    pattern: `detect.redact`.
  """
  if names.unit != "log":
    return names
  masks = Redaction(pattern).text
  return dataclasses.replace(names, matcher=templates.matcher, mask=masks)


class Sessions(NamedTuple):
  """Sessions of events, one after the other.

  Attributes:
    ids: int32 [events], of a vocabulary; without begin and end.
    bounds: int64 [sessions + 1]; j is ids[bounds[j] : bounds[j + 1]].
    names: of the sessions.
    lines: int64 [events], of the file, from 1; None: unknown.
    timestamps: of the events, as they were written; None: unknown.
    labels: int8 [sessions], UNLABELLED, 0 or 1; None: all are unlabelled.
    as_read: the events as they were read; None: unknown.
    begins: bool [sessions], False where the begin of its log cuts a session;
      None: there is no log that can cut sessions.
    ends: bool [sessions], False where the end of its log cuts a session; None:
      there is no log that can cut sessions.
    files: the name of the file of each event; None: there is one, or none.
    seconds, values: of the events, as those of a Corpus.
    unusual: float32 [sessions, measures, models], the scores of values and
      times by `data.values`; None: there are none.
    counts: int64 [sessions], as how many equal sessions each one counts where
      baselines are fitted; None: each counts once.
  """

  ids: np.ndarray
  bounds: np.ndarray
  names: list[str]
  lines: np.ndarray | None = None
  timestamps: Texts | None = None
  labels: np.ndarray | None = None
  as_read: Texts | None = None
  begins: np.ndarray | None = None
  ends: np.ndarray | None = None
  files: Texts | None = None
  seconds: np.ndarray | None = None
  values: np.ndarray | None = None
  unusual: np.ndarray | None = None
  counts: np.ndarray | None = None

  @classmethod
  def of_events(
    cls,
    vocabulary: Vocabulary,
    events: Texts,
    bounds: np.ndarray,
    names: list[str],
    **columns: np.ndarray | Texts | None,
  ) -> "Sessions":
    """Sessions of events as read.

    Args:
      vocabulary: of the events.
      events: of all sessions, one session after the other.
      bounds: of the sessions.
      names: of the sessions.
      **columns: further attributes.
    """
    ids = vocabulary.encode(events.symbols)[events.ids]
    return cls(ids, bounds, names, as_read=events, **columns)  # pyright: ignore[reportArgumentType]

  def take(self, index: np.ndarray) -> "Sessions":
    """Some of the sessions, in the order of `index`."""
    places, bounds = ranges(self.bounds[index], self.bounds[index + 1])
    names = [self.names[j] for j in index.tolist()]
    columns = _taken(self, _OF_EVENTS, places)
    columns |= _taken(self, _OF_SESSIONS, index)
    return self._replace(bounds=bounds, names=names, **columns)

  def without(
    self, events: Mapping[str, str | None], vocabulary: Vocabulary
  ) -> "Sessions":
    """The sessions without some unknown events, as read; none is empty.

    The time before such an event goes with it, so that no silence is longer
    without it; the times after it are earlier.

    Args:
      events: those, and the events as which they count; None: as none.
      vocabulary: of the events.
    """
    if not events or self.as_read is None:
      return self
    count_as = [events.get(x, _NO_SYMBOL) for x in self.as_read.symbols]
    id_V = vocabulary.encode([x or _NO_SYMBOL for x in count_as])
    id_V[[x is None for x in count_as]] = -1
    ids = np.where(self.ids == UNKNOWN, id_V[self.as_read.ids], self.ids)
    stays_N = ids >= 0
    places = np.flatnonzero(stays_N)
    bounds = np.append(0, np.cumsum(stays_N))[self.bounds]
    columns = _taken(self, _OF_EVENTS, places) | {"ids": ids[places]}
    if self.seconds is not None:
      gap_N = np.nan_to_num(np.diff(self.seconds, prepend=0))
      gap_N[self.bounds[:-1][np.diff(self.bounds) > 0]] = 0
      gone_N = np.append(0, np.cumsum(np.where(stays_N, 0, gap_N)))
      before_N = np.repeat(gone_N[self.bounds[:-1]], np.diff(self.bounds))
      columns["seconds"] = (self.seconds - gone_N[1:] + before_N)[places]
    less = self._replace(bounds=bounds, **columns)
    return less.take(np.flatnonzero(np.diff(bounds)))

  @classmethod
  def concatenate(cls, tables: "Sequence[Sessions]") -> "Sessions":
    """All sessions of some tables; a column that one lacks becomes None."""
    if any(table.ends is not None for table in tables):
      tables = [
        table._replace(begins=begins, ends=ends)
        for table in tables
        for begins, ends in [table.whole]
      ]
    joined = cls._make(map(_joined, zip(*tables, strict=True)))
    sizes = np.concatenate([np.diff(table.bounds) for table in tables])
    return joined._replace(bounds=np.append(0, np.cumsum(sizes)))

  @property
  def whole(self) -> tuple[np.ndarray, np.ndarray]:
    """Whether each session has its begin and its end, bool [sessions]."""
    every = np.ones(len(self.bounds) - 1, bool)
    return (
      every if self.begins is None else self.begins,
      every if self.ends is None else self.ends,
    )

  def session_keys(self) -> Iterator[Key]:
    """The key of each session."""
    content = self.ids.tobytes()
    edges = (self.bounds * self.ids.itemsize).tolist()
    begins, ends = (cut.tolist() for cut in self.whole)
    for start, stop, begin, end in zip(
      edges[:-1], edges[1:], begins, ends, strict=True
    ):
      yield content[start:stop], begin, end

  def events_once(self) -> tuple[np.ndarray, np.ndarray]:
    """The session and the id of each event, each id once in a session."""
    session_N = owners(self.bounds)
    symbols = int(self.ids.max(initial=0)) + 1
    return np.divmod(np.unique(session_N * symbols + self.ids), symbols)

  def distinct(self) -> "Distinct":
    """The groups of sessions that score alike.

    They have the same events, are cut alike, and their values and times have
    the same scores.
    """
    keys: Iterable[Hashable] = self.session_keys()
    if self.unusual is not None:
      keys = zip(keys, map(np.ndarray.tobytes, self.unusual), strict=True)
    index: dict[Hashable, int] = {}
    # A dict is faster here than the sort of np.unique.
    which = np.array([index.setdefault(k, len(index)) for k in keys], np.int64)
    _, first, counts = np.unique(which, return_index=True, return_counts=True)
    return Distinct(first, which, counts)

  def bare(self) -> "Sessions":
    """The events alone, from which networks and baselines score sessions."""
    begins, ends = self.whole
    return Sessions(self.ids, self.bounds, self.names, begins=begins, ends=ends)

  def once(self) -> "Sessions":
    """The events of distinct sessions, each with the count of equal ones."""
    bare = self.bare()
    first, which, counts = bare.distinct()
    if self.counts is not None:
      counts = np.bincount(which, self.counts).astype(np.int64)
    return bare.take(first)._replace(counts=counts)

  def parts(self, events: int) -> Iterator[np.ndarray]:
    """The numbers of all sessions, in parts of about so many events."""
    return starmap(np.arange, parts_of(self.bounds, events))

  def pieces(self, vocabulary: Vocabulary) -> Pieces:
    """The sessions as `experiment.batches` takes them."""
    corpus = Corpus(
      vocabulary.unit,
      [_NO_SYMBOL, *vocabulary.symbols],
      (self.ids - UNKNOWN).astype(np.uint32),
      self.bounds,
      self.names,
    )
    begins, ends = self.whole
    return dataclasses.replace(splits.whole(corpus), begins=begins, ends=ends)


def _taken(
  table: Sessions | Corpus, names: Iterable[str], index: np.ndarray | slice
) -> dict[str, Any]:
  """Some columns, each at an index; None: there is none."""
  columns = {name: getattr(table, name) for name in names}
  return {x: None if y is None else y[index] for x, y in columns.items()}


def _joined(columns: tuple[Any, ...]) -> Any:
  """The columns of several tables as one; None: a table lacks it."""
  if any(column is None for column in columns):
    return None
  if isinstance(columns[0], Texts):
    return concatenate(columns)
  if isinstance(columns[0], list):
    return [*chain.from_iterable(columns)]
  return np.concatenate(columns)


class Distinct(NamedTuple):
  """Groups of equal sessions.

  Attributes:
    first: int64 [groups], the first session of each, in order.
    which: int64 [sessions], the group of each session.
    counts: int64 [groups], the sessions in each group.
  """

  first: np.ndarray
  which: np.ndarray
  counts: np.ndarray


def owners(bounds: np.ndarray) -> np.ndarray:
  """The number of the session of each event, given the bounds of sessions."""
  return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))


def sums(values_N: np.ndarray, bounds: np.ndarray) -> np.ndarray:
  """The sum of a value of the events over each session."""
  return np.bincount(owners(bounds), values_N, len(bounds) - 1)


def ranges(
  starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """The numbers from each start to its stop, and the bounds of these ranges."""
  bounds = np.concatenate([[0], np.cumsum(stops - starts)])
  shifts = np.repeat(starts - bounds[:-1], stops - starts)
  return np.arange(bounds[-1]) + shifts, bounds


Places = np.ndarray | slice  # In the ids of a corpus.


def columns_of(pieces: Pieces) -> tuple[Places, np.ndarray, dict[str, Any]]:
  """The places of pieces in their corpus, their bounds, and columns there.

  A column is None if the corpus has none.
  """
  corpus = pieces.corpus
  if len(pieces) and np.array_equal(pieces.starts[1:], pieces.stops[:-1]):
    # Side by side, as all that is read; a list of places takes 8 bytes each.
    places = slice(int(pieces.starts[0]), int(pieces.stops[-1]))
    bounds = np.append(pieces.starts, places.stop) - places.start
  else:
    places, bounds = ranges(pieces.starts, pieces.stops)
  columns = _taken(corpus, _OF_CORPUS, places)
  if isinstance(corpus.names, Names) and corpus.names.lines.all():
    lines_D = corpus.names.lines[pieces.document]
    columns["lines"] = np.repeat(lines_D, np.diff(bounds))
  return places, bounds, columns


def examined_sessions(
  config: Config, vocabulary: Vocabulary, read: Read
) -> Sessions:
  """The sessions that a detection examines, with their labels.

  Args:
    config: of the run.
    vocabulary: of the events.
    read: split -> its pieces.

  Raises:
    UserError: a file cannot be read, or fields exclude each other.
  """
  settings = config.detect
  why = "needs detect.path, which names the normal sessions"
  holds = settings.path is not None or settings.anomalous_path is None
  require(config, holds, why, "detect.anomalous_path")
  trained = read("train").corpus
  anomalous_path = settings.anomalous_path
  if settings.path is None:
    anomalous_path = corpora.anomalous(config.data)
    sessions = of_pieces(read("test"), vocabulary, settings)
  else:
    sessions = read_sessions(config, vocabulary, settings.path, trained=trained)
  if anomalous_path is not None:
    anomalous = read_sessions(
      config, vocabulary, anomalous_path, "detect.anomalous_path", trained
    )
    sessions = Sessions.concatenate(
      [set_label(sessions, False), set_label(anomalous, True)]
    )
  if settings.labels is not None:
    sessions = with_labels(sessions, settings.labels, config)
  why = "must be 0, because the sessions already have labels"
  holds = not settings.inject or sessions.labels is None
  require(config, holds, why, "detect.inject")
  return sessions


def set_label(sessions: Sessions, label: bool) -> Sessions:
  """The sessions, all with the same label."""
  return sessions._replace(labels=np.full(len(sessions.names), label, np.int8))


def read_sessions(
  config: Config,
  vocabulary: Vocabulary,
  path: str,
  field: str = "detect.path",
  trained: Corpus | None = None,
) -> Sessions:
  """The sessions of a file, a glob or a folder, read as `config.data` says.

  No session is in two files.

  Args:
    config: of the run.
    vocabulary: of the events.
    path: of the file, the glob or the folder.
    field: the name of the path in messages.
    trained: the corpus that the run was trained on; it decides which sessions
      of a log are cut. None: the sessions themselves decide.

  Raises:
    UserError: as `corpora.read_files`.
  """
  corpus = corpora.read_files(field, path, config.data)
  corpus = log_corpus.with_cuts(corpus, config.detect.idle, trained)
  return of_pieces(splits.whole(corpus), vocabulary, config.detect)


def of_pieces(
  pieces: Pieces, vocabulary: Vocabulary, settings: Config | None = None
) -> Sessions:
  """The sessions of whole documents.

  Labels are read with `settings` only, the fields of `config.detect`. A session
  is anomalous if an event of it is anomalous, and unlabelled if no event of it
  is labelled.

  Raises:
    UserError: as `parse_labels`.
  """
  corpus = pieces.corpus
  places, bounds, columns = columns_of(pieces)
  sessions = Sessions.of_events(
    vocabulary,
    Texts(corpus.symbols, corpus.ids[places]),
    bounds,
    [corpus.names[int(j)] for j in pieces.document],
    begins=None if corpus.cuts is None else pieces.begins,
    ends=None if corpus.cuts is None else pieces.ends,
    **columns,
  )
  if corpus.tags is None or settings is None:
    return sessions
  label_N = parse_labels(corpus.tags.symbols, settings)[corpus.tags.ids[places]]
  # 1, anomalous, is the greatest; UNLABELLED the least.
  label_D = np.maximum.reduceat(label_N, bounds[:-1])
  if (label_D == UNLABELLED).all():
    return sessions
  return sessions._replace(labels=label_D)


def with_labels(sessions: Sessions, path: str, config: Config) -> Sessions:
  """The sessions with labels from a csv file of two columns: session, label.

  Labels of other sessions are ignored.

  Raises:
    UserError: the file cannot be read, has other columns, or lacks a session.
  """
  label_of: dict[str, str] = {}
  names = set(sessions.names)
  for number, row in rows(Source(path, Path(path)), config.data.errors):
    if len(row) != 2 or None in row.values():
      raise UserError(
        f"{path}:{number}: must have two columns, a session and its label"
      )
    name, label = row.values()
    if name in names and label_of.setdefault(name, label) != label:
      raise UserError(
        f"{path}:{number}: session {name!r} has another label in an earlier row"
      )
  if missing := [name for name in sessions.names if name not in label_of]:
    raise UserError(f"{path}: has no label for session {missing[0]!r}")
  # Not np.unique: NumPy's texts lose the NUL characters at their ends.
  distinct = list(dict.fromkeys(label_of.values()))
  values = dict(
    zip(distinct, parse_labels(distinct, config.detect), strict=True)
  )
  label_D = np.array([values[label_of[name]] for name in sessions.names])
  if (label_D == UNLABELLED).all():
    raise UserError(f"{path}: has no label for any of the sessions")
  return sessions._replace(labels=label_D)


def parse_labels(labels: Sequence[str], settings: Config) -> np.ndarray:
  """The labels as int8: UNLABELLED, 0 or 1.

  Warns on stderr of a label that neither `detect.normal_labels` has nor is a
  usual name of an anomaly.

  Args:
    labels: as they were written; case and outer blanks are ignored, and equal
      numbers are the same label.
    settings: the fields of `config.detect`.
  """
  normal = {_key(name) for name in settings.normal_labels.split(",")}
  keys = [_key(label) for label in labels]
  known = normal | _ANOMALOUS | {""}
  pairs = zip(labels, keys, strict=True)
  if unlisted := [label for label, key in pairs if key not in known]:
    report(
      f"labels: {listed(unlisted)}: not in detect.normal_labels, so anomalous"
    )
  values = [UNLABELLED if key == "" else key not in normal for key in keys]
  return np.array(values, np.int8)


def _key(label: str) -> str | float:
  """A label for comparison: a number, or a text without case."""
  text = label.strip().casefold()
  if text in _NONE:
    return ""
  try:
    number = float(text.replace("_", "?"))  # Python reads 1_03 as 103.
  except ValueError:
    return text
  return "" if math.isnan(number) else number
