"""Anomalies put into normal sessions, for detection to find."""

from collections.abc import Callable

import numpy as np

from seqrnn.data.logs.sessions import Sessions

# The least, and one more than the most.
_RUN = (2, 9)  # Events of a foreign run.


def _swap(rng, ids, _):
  """Swaps two different neighbours."""
  places = np.flatnonzero(ids[1:] != ids[:-1])
  if not len(places):
    return None
  position = rng.choice(places)
  ids = ids.copy()
  ids[[position, position + 1]] = ids[[position + 1, position]]
  return ids


def _drop(rng, ids, _):
  """Drops an event that is not the last one."""
  return np.delete(ids, rng.integers(len(ids) - 1)) if len(ids) > 1 else None


def _insert(rng, ids, other):
  """Inserts an event of the other session."""
  run = rng.choice(other, 1)
  return np.insert(ids, rng.integers(len(ids) + 1), run)


def _foreign(rng, ids, other):
  """Inserts a run of events of the other session."""
  size = min(int(rng.integers(*_RUN)), len(other))
  start = rng.integers(len(other) - size + 1)
  run = other[start : start + size]
  return np.insert(ids, rng.integers(len(ids) + 1), run)


def _truncate(rng, ids, _):
  """Drops the last events."""
  return ids[: rng.integers(1, len(ids))] if len(ids) > 1 else None


# rng, the events of a session, those of any session -> the events changed;
# None: the session is too short.
CHANGES: dict[str, Callable[..., np.ndarray | None]] = {
  "swap": _swap,
  "drop": _drop,
  "insert": _insert,
  "foreign": _foreign,
  "truncate": _truncate,
}


def inject(rng: np.random.Generator, sessions: Sessions, kind: str) -> Sessions:
  """The sessions with an anomaly of a kind each, without those too short.

  The result has no lines and no timestamps. A truncated session ends where it
  is truncated.
  """
  change = CHANGES[kind]
  parts = np.split(sessions.ids, sessions.bounds[1:-1])
  long_enough, changed = [], [sessions.ids[:0]]
  for j, ids in enumerate(parts):
    other = parts[rng.integers(len(parts))]
    if (anomaly := change(rng, ids, other)) is not None:
      long_enough.append(j)
      changed.append(anomaly)
  begins, ends = (cut[long_enough] for cut in sessions.whole)
  return Sessions(
    np.concatenate(changed),
    np.cumsum([*map(len, changed)]),
    [sessions.names[j] for j in long_enough],
    begins=None if sessions.begins is None else begins,
    ends=None if sessions.ends is None else ends | (kind == "truncate"),
    kinds=np.ones(len(long_enough), np.int8),
  )
