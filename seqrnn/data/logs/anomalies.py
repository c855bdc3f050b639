"""Anomalies put into normal sessions, for detection to find."""

from collections.abc import Callable

import numpy as np

from seqrnn.data.logs.sessions import Sessions, set_label

# The least, and one more than the most.
_RUN = (2, 9)  # Events of a foreign run.


def _swap(rng, ids, _):
  """Swaps two different neighbours."""
  places = np.flatnonzero(ids[1:] != ids[:-1])
  if not len(places):
    return None
  position, ids = rng.choice(places), ids.copy()
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


def inject(
  sessions: Sessions, share: float
) -> tuple[Sessions, np.ndarray | None]:
  """Makes a share of the sessions anomalous, equally many by each anomaly.

  Returns:
    the sessions in random order, without sessions that are too short for their
    anomaly; the name of the anomaly of each, "" for normal sessions. If the
    share is 0, the sessions and None.
  """
  if not share:
    return sessions, None
  rng = np.random.default_rng(0)
  order = rng.permutation(len(sessions.bounds) - 1)
  count = round(share * len(order))
  tables = [set_label(sessions.take(np.sort(order[count:])), False)]
  names = [""]
  for number, name in enumerate(CHANGES):
    some = np.sort(order[:count][number :: len(CHANGES)])
    if len(some):
      tables.append(change(rng, sessions.take(some), name))
      names.append(name)
  mixed = Sessions.concatenate(tables)
  order = rng.permutation(len(mixed.names))
  each = np.repeat(names, [len(table.names) for table in tables])
  return mixed.take(order), each[order]


def change(rng: np.random.Generator, sessions: Sessions, name: str) -> Sessions:
  """The sessions with an anomaly each, without those too short.

  The result has no lines and no timestamps. A truncated session ends where it
  is truncated.
  """
  apart = np.split(sessions.ids, sessions.bounds[1:-1])
  long_enough, changed = [], [sessions.ids[:0]]
  for j, ids in enumerate(apart):
    other = apart[rng.integers(len(apart))]
    if (anomaly := CHANGES[name](rng, ids, other)) is not None:
      long_enough.append(j)
      changed.append(anomaly)
  some = sessions.take(np.array(long_enough, int))
  _, ends = some.whole
  return Sessions(
    np.concatenate(changed),
    np.cumsum([*map(len, changed)]),
    some.names,
    begins=some.begins,
    ends=None if some.ends is None else ends | (name == "truncate"),
    labels=np.ones(len(long_enough), np.int8),
  )
