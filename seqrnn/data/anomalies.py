"""Anomalies put into normal sessions, for detection to find."""

from collections.abc import Callable

import numpy as np

from seqrnn.data.sessions import Sessions

_RUN = (2, 9)  # Events of a foreign run, from and below.

# The events of a session changed, with bool marks of what is odd; None: it is
# too short for that. Beside it the events of any other session.
Change = Callable[
  [np.random.Generator, np.ndarray, np.ndarray],
  tuple[np.ndarray, np.ndarray] | None,
]


def _swap(rng, ids, _):
  """Two neighbours that differ change places."""
  places = np.flatnonzero(ids[1:] != ids[:-1])
  if not len(places):
    return None
  place = rng.choice(places)
  ids = ids.copy()
  ids[[place, place + 1]] = ids[[place + 1, place]]
  return ids, _marks(len(ids), place, place + 2)


def _drop(rng, ids, _):
  """An event is missing, not the last one; the one after it is odd."""
  if len(ids) < 2:
    return None
  place = rng.integers(len(ids) - 1)
  return np.delete(ids, place), _marks(len(ids) - 1, place, place + 1)


def _insert(rng, ids, other):
  """One event more."""
  return _put(rng, ids, rng.choice(other, 1))


def _foreign(rng, ids, other):
  """A run of another session's events more."""
  size = min(int(rng.integers(*_RUN)), len(other))
  start = rng.integers(len(other) - size + 1)
  return _put(rng, ids, other[start : start + size])


def _truncate(rng, ids, _):
  """Its last events are missing; the last one left is odd."""
  if len(ids) < 2:
    return None
  size = rng.integers(1, len(ids))
  return ids[:size], _marks(size, size - 1, size)


def _put(rng, ids, run):
  place = rng.integers(len(ids) + 1)
  ids = np.insert(ids, place, run)
  return ids, _marks(len(ids), place, place + len(run))


def _marks(size: int, start: int, stop: int) -> np.ndarray:
  marks = np.zeros(size, bool)
  marks[start:stop] = True
  return marks


KINDS: dict[str, Change] = {
  "swap": _swap,
  "drop": _drop,
  "insert": _insert,
  "foreign": _foreign,
  "truncate": _truncate,
}


def inject(rng: np.random.Generator, sessions: Sessions, kind: str) -> Sessions:
  """Each session with one anomaly of that kind; what is too short is left out.

  `line_labels` are True where it is odd. Lines and timestamps are gone.
  """
  parts = np.split(sessions.ids, sessions.bounds[1:-1])
  names = []
  # Without a session, arrays of no events.
  changed, marks = [sessions.ids[:0]], [np.zeros(0, bool)]
  for name, ids in zip(sessions.names, parts, strict=True):
    other = parts[rng.integers(len(parts))]
    found = KINDS[kind](rng, ids, other)
    if found is not None:
      names.append(name)
      changed.append(found[0])
      marks.append(found[1])
  return Sessions(
    np.concatenate(changed),
    np.cumsum([*map(len, changed)]),
    names,
    labels=np.ones(len(names), bool),
    line_labels=np.concatenate(marks),
  )
