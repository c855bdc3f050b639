"""Sessions: the events that detection scores, as ids of a vocabulary.

Each event keeps its line, its time and its label.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data import splits
from seqrnn.data.documents import Corpus, Names
from seqrnn.data.logs import formats, log_corpus, templates
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.read.columns import Texts
from seqrnn.data.read.reading import Source, rows
from seqrnn.data.sources import corpora
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.errors import UserError, listed

UNLABELLED = -1  # The other kinds are 0, normal, and 1, anomalous.
_NONE = ("", "nan", "null", "none", "na", "n/a")  # How tables write no label.
_ANOMALOUS = {1.0} | {
  *("true", "yes", "anomaly", "anomalous", "abnormal", "attack", "positive"),
  "malicious",
}
# Fields with a value for each session, not for each event.
_OF_SESSIONS = ("kinds", "begins", "ends", "unusual", "counts")
# Columns of a corpus.
_OF_EVENTS = ("lines", "timestamps", "files", "seconds", "values")
# Sessions of equal events have equal keys: the ids, and whether begin and end
# are there.
Key = tuple[bytes, bool, bool]
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
    kinds: int8 [sessions], UNLABELLED, 0 or 1; None: all are unlabelled.
    as_read: the events as they were read; None: unknown.
    begins: bool [sessions], False where the begin of its log cuts a session;
      None: there is no log that can cut sessions.
    ends: bool [sessions], False where the end of its log cuts a session; None:
      there is no log that can cut sessions.
    files: the name of the file of each event; None: there is one, or none.
    seconds, values: of the events, as those of a Corpus.
    unusual: float32 [sessions, kinds, models], the scores of values and times
      by `data.values`; None: there are none.
    counts: int64 [sessions], as how many equal sessions each one counts where
      baselines are fitted; None: each counts once.
  """

  ids: np.ndarray
  bounds: np.ndarray
  names: list[str]
  lines: np.ndarray | None = None
  timestamps: Texts | None = None
  kinds: np.ndarray | None = None
  as_read: Texts | None = None
  begins: np.ndarray | None = None
  ends: np.ndarray | None = None
  files: Texts | None = None
  seconds: np.ndarray | None = None
  values: np.ndarray | None = None
  unusual: np.ndarray | None = None
  counts: np.ndarray | None = None

  def take(self, index: np.ndarray) -> "Sessions":
    """Some of the sessions, in the order of `index`."""
    places, bounds = ranges(self.bounds[index], self.bounds[index + 1])
    some: dict[str, Any] = {
      name: column[index if name in _OF_SESSIONS else places]
      for name, column in self._asdict().items()
      if column is not None and name not in ("bounds", "names")
    }
    names = [self.names[j] for j in index.tolist()]
    return self._replace(bounds=bounds, names=names, **some)

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

  def distinct(self) -> "Distinct":
    """The groups of sessions that score alike.

    They have the same events, are cut alike, and their values and times have
    the same scores.
    """
    keys: Iterable[Any] = self.session_keys()
    if self.unusual is not None:
      keys = zip(keys, map(np.ndarray.tobytes, self.unusual), strict=True)
    index: dict[Any, int] = {}
    # A dict is faster here than the sort of np.unique.
    which = np.array(
      [index.setdefault(key, len(index)) for key in keys], np.int64
    )
    _, first, counts = np.unique(which, return_index=True, return_counts=True)
    return Distinct(first, which, counts)

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


def ranges(
  starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """The numbers from each start to its stop, and the bounds of these ranges."""
  bounds = np.concatenate([[0], np.cumsum(stops - starts)])
  shifts = np.repeat(starts - bounds[:-1], stops - starts)
  return np.arange(bounds[-1]) + shifts, bounds


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
    UserError: as `kinds_of`.
  """
  corpus, document = pieces.corpus, pieces.document
  if len(pieces) and np.array_equal(pieces.starts[1:], pieces.stops[:-1]):
    # Side by side, as all that is read; a list of places takes 8 bytes each.
    places = slice(int(pieces.starts[0]), int(pieces.stops[-1]))
    bounds = np.append(pieces.starts, pieces.stops[-1]) - pieces.starts[0]
  else:
    places, bounds = ranges(pieces.starts, pieces.stops)
  fields = {name: getattr(corpus, name) for name in _OF_EVENTS}
  fields = {k: None if v is None else v[places] for k, v in fields.items()}
  if isinstance(corpus.names, Names) and corpus.names.lines.all():
    lines = corpus.names.lines[document]
    fields["lines"] = np.repeat(lines, np.diff(bounds))
  if corpus.cuts is not None:
    fields |= {"begins": pieces.begins, "ends": pieces.ends}
  sessions = Sessions(
    vocabulary.encode(corpus.symbols)[corpus.ids[places]],
    bounds,
    [corpus.names[int(j)] for j in document],
    as_read=Texts(corpus.symbols, corpus.ids[places]),
    **fields,
  )
  if corpus.tags is None or settings is None:
    return sessions
  kind_N = kinds_of(corpus.tags.symbols, settings)[corpus.tags.ids[places]]
  # 1, anomalous, is the greatest; UNLABELLED the least.
  kind_D = np.maximum.reduceat(kind_N, bounds[:-1])
  if (kind_D == UNLABELLED).all():
    return sessions
  return sessions._replace(kinds=kind_D)


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
  kinds = dict(zip(distinct, kinds_of(distinct, config.detect), strict=True))
  kind_D = np.array([kinds[label_of[name]] for name in sessions.names])
  if (kind_D == UNLABELLED).all():
    raise UserError(f"{path}: has no label for any of the sessions")
  return sessions._replace(kinds=kind_D)


def kinds_of(labels: Sequence[str], settings: Config) -> np.ndarray:
  """The kind of each label: int8 of UNLABELLED, 0 and 1.

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
    formats.report(
      f"labels: {listed(unlisted)}: not in detect.normal_labels, so anomalous"
    )
  kinds = [UNLABELLED if key == "" else key not in normal for key in keys]
  return np.array(kinds, np.int8)


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
