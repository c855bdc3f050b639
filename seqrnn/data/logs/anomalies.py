"""Anomalies put into normal sessions, for detection to find."""

from collections.abc import Callable

import numpy as np

from seqrnn.data.logs.sessions import Sessions

# The least, and one more than the most.
_RUN = (2, 9)  # Events of a foreign run.

# rng, the events of a session, those of any session -> the events changed, the
# place of the first anomalous one and the one after the last; None: the session
# is too short.
Change = Callable[..., tuple[np.ndarray, int, int] | None]


def _swap(rng, ids, _):
  """Swaps two different neighbours."""
  places = np.flatnonzero(ids[1:] != ids[:-1])
  if not len(places):
    return None
  position = rng.choice(places)
  ids = ids.copy()
  ids[[position, position + 1]] = ids[[position + 1, position]]
  return ids, position, position + 2


def _drop(rng, ids, _):
  """Drops an event that is not the last one, and marks the event after it."""
  if len(ids) < 2:
    return None
  position = rng.integers(len(ids) - 1)
  return np.delete(ids, position), position, position + 1


def _insert(rng, ids, other):
  """Inserts an event of the other session."""
  return _put(rng, ids, rng.choice(other, 1))


def _foreign(rng, ids, other):
  """Inserts a run of events of the other session."""
  size = min(int(rng.integers(*_RUN)), len(other))
  start = rng.integers(len(other) - size + 1)
  return _put(rng, ids, other[start : start + size])


def _truncate(rng, ids, _):
  """Drops the last events, and marks the last event that is left."""
  if len(ids) < 2:
    return None
  size = rng.integers(1, len(ids))
  return ids[:size], size - 1, size


def _put(rng, ids, run):
  position = rng.integers(len(ids) + 1)
  return np.insert(ids, position, run), position, position + len(run)


KINDS: dict[str, Change] = {
  "swap": _swap,
  "drop": _drop,
  "insert": _insert,
  "foreign": _foreign,
  "truncate": _truncate,
}


def inject(rng: np.random.Generator, sessions: Sessions, kind: str) -> Sessions:
  """The sessions with an anomaly of a kind each, without those too short.

  `event_kinds` mark the anomalous events. The result has no lines and no
  timestamps. A truncated session ends where it is truncated.
  """
  change = KINDS[kind]
  parts = np.split(sessions.ids, sessions.bounds[1:-1])
  long_enough, changed, marks = [], [sessions.ids[:0]], [np.zeros(0, bool)]
  for j, ids in enumerate(parts):
    other = parts[rng.integers(len(parts))]
    if (anomaly := change(rng, ids, other)) is not None:
      ids, start, stop = anomaly
      place = np.arange(len(ids))
      long_enough.append(j)
      changed.append(ids)
      marks.append((place >= start) & (place < stop))
  begins, ends = (cut[long_enough] for cut in sessions.whole)
  return Sessions(
    np.concatenate(changed),
    np.cumsum([*map(len, changed)]),
    [sessions.names[j] for j in long_enough],
    begins=None if sessions.begins is None else begins,
    ends=None if sessions.ends is None else ends | (kind == "truncate"),
    kinds=np.ones(len(long_enough), np.int8),
    event_kinds=np.concatenate(marks).astype(np.int8),
  )
