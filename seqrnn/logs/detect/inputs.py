"""Reads the sessions to examine, labels them, and injects anomalies.

And reads files that a detection wrote, which may be damaged or edited.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs import anomalies
from seqrnn.data.logs import sessions as data
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.read import columns
from seqrnn.data.sources import corpora
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError, counted
from seqrnn.runtime import files

_LIMIT = 2**24  # Bytes of a JSON file, at most.
_REMEDY = "run --mode=detect again"
_FAULTS = (
  *(OSError, EOFError, RecursionError, MemoryError),
  *(ValueError, TypeError, LookupError, AttributeError, OverflowError),
)


def read_sessions(
  config: Config, names: Vocabulary, read: Callable[[str], Pieces]
) -> tuple[Sessions, np.ndarray | None]:
  """The sessions to examine and the kind of anomaly injected into each.

  Args:
    config: of the run.
    names: vocabulary of the events.
    read: split -> its pieces.

  Returns:
    the sessions; the kind of each, "" for normal sessions, or None if
    `detect.inject` is off.

  Raises:
    UserError: a file cannot be read, or fields exclude each other.
  """
  settings = config.detect
  if settings.path is None and settings.anomalous_path is not None:
    raise UserError(
      f"config.detect.anomalous_path={settings.anomalous_path!r}: needs"
      " detect.path, which names the normal sessions"
    )
  trained = read("train").corpus
  anomalous_path = settings.anomalous_path
  if settings.path is None:
    anomalous_path = corpora.anomalous(config.data)
    sessions = data.of_pieces(read("test"), names, settings)
  else:
    sessions = data.read_sessions(config, names, settings.path, trained=trained)
  if anomalous_path is not None:
    anomalous = data.read_sessions(
      config, names, anomalous_path, "detect.anomalous_path", trained
    )
    sessions = concatenate(
      [set_label(sessions, False), set_label(anomalous, True)]
    )
  if settings.labels is not None:
    sessions = data.with_labels(sessions, settings.labels, config)
  if not settings.inject:
    return sessions, None
  if sessions.kinds is not None:
    raise UserError(
      f"config.detect.inject={settings.inject}: must be 0, because the sessions"
      " already have labels"
    )
  return inject(sessions, settings.inject, np.random.default_rng(0))


def examined(settings: Config, count: int) -> str:
  """Which sessions are examined, in words.

  Args:
    settings: of `config.detect`.
    count: number of the sessions.
  """
  if settings.path is None:
    words = f"the {counted(count, 'session')} of the test split"
    return f"{words}; detect.path examines others"
  paths = [f"detect.path={settings.path}"]
  if settings.anomalous_path is not None:
    paths.append(f"detect.anomalous_path={settings.anomalous_path}")
  return f"all {counted(count, 'session')} of {' and '.join(paths)}"


def set_label(sessions: Sessions, label: bool) -> Sessions:
  """The sessions, all with the same label."""
  kinds = np.full(len(sessions.names), label, np.int8)
  return sessions._replace(kinds=kinds)


def concatenate(parts: list[Sessions]) -> Sessions:
  """The sessions of several parts; fields that any part lacks become None."""

  def field(name: str) -> Any:
    values = [getattr(part, name) for part in parts]
    if any(value is None for value in values):
      return None
    if isinstance(values[0], columns.Texts):
      return columns.concatenate(values)
    if isinstance(values[0], list):
      return [x for value in values for x in value]
    return np.concatenate(values)

  if any(part.ends is not None for part in parts):
    both = [part.whole for part in parts]
    parts = [
      part._replace(begins=begins, ends=ends)
      for part, (begins, ends) in zip(parts, both, strict=True)
    ]
  sizes = np.concatenate([np.diff(part.bounds) for part in parts])
  fields = {name: field(name) for name in Sessions._fields}
  fields["bounds"] = np.concatenate([[0], np.cumsum(sizes)])
  return Sessions(**fields)


def inject(
  sessions: Sessions, share: float, rng: np.random.Generator
) -> tuple[Sessions, np.ndarray]:
  """Makes a share of the sessions anomalous, equally many of each kind.

  Returns:
    the sessions in random order, without sessions that are too short for their
    kind of anomaly; the kind of each, "" for normal sessions.
  """
  order = rng.permutation(len(sessions.bounds) - 1)
  count = round(share * len(order))
  parts = [set_label(sessions.take(np.sort(order[count:])), False)]
  kinds = [""]
  for number, kind in enumerate(anomalies.CHANGES):
    some = np.sort(order[:count][number :: len(anomalies.CHANGES)])
    if len(some):
      parts.append(anomalies.inject(rng, sessions.take(some), kind))
      kinds.append(kind)
  mixed = concatenate(parts)
  order = rng.permutation(len(mixed.names))
  each = np.repeat(kinds, [len(part.names) for part in parts])
  return mixed.take(order), each[order]


@contextmanager
def reading(path: Path, remedy: str = _REMEDY) -> Iterator[None]:
  """Turns an error of a damaged file into one with the file and the remedy.

  Raises:
    UserError: in place of any error that a damaged file causes.
  """
  try:
    yield
  except UserError as error:
    raise UserError(f"{error}; {remedy}") from None
  except _FAULTS as error:
    reason = getattr(error, "strerror", None) or error or type(error).__name__
    raise UserError(
      f"{path}: must be as it was written ({reason}); {remedy}"
    ) from None


def read_object(path: Path, remedy: str = _REMEDY) -> dict[str, Any]:
  """The object in a JSON file.

  Raises:
    UserError: the file cannot be read, or has no JSON object.
  """
  with reading(path, remedy):
    content = files.read_json(path, _LIMIT)
    if not isinstance(content, dict):
      raise ValueError("is not a JSON object")
  return content


def save_arrays(path: Path, arrays: dict[str, Any]):
  """Writes an archive of arrays, with a checksum of each."""
  with files.atomic_write(path, "wb") as file:
    np.savez_compressed(file, **arrays)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
  """The arrays of an archive.

  Raises:
    UserError: the file is damaged.
  """
  with reading(path), path.open("rb") as file:
    try:
      with np.load(file, allow_pickle=False) as archive:
        arrays = dict(archive)
        if any(x.ndim and x.dtype.kind not in "biuf" for x in arrays.values()):
          raise ValueError("an array has no numbers")
        return arrays
    except Exception as error:  # A damaged archive may raise any exception.
      raise ValueError(str(error)) from None
