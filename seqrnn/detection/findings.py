"""Findings: the scores and flags of the sessions that were examined."""

from typing import NamedTuple

import numpy as np

from seqrnn.data.sessions import Distinct, Sessions
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary

NAME = "detection"  # Of the set of files in detect/.
LOCK = ".detect.lock"  # In the workdir, held while a detection runs.


class Findings(NamedTuple):
  """Scores and flags of sessions; equal sessions are scored once.

  There are D distinct sessions with N scored events, end symbols among them.

  Attributes:
    sessions: all of them.
    distinct: which of them are equal.
    names: vocabulary of the events.
    nll: surprisal in nats [N].
    rank: 1 plus the number of likelier events [N]; UNRANKED for unknown events.
    targets: ids of the events [N].
    bounds: int64 [D + 1]; d has the events bounds[d] : bounds[d + 1].
    offsets: position in the session of its first scored event [D].
    event_p: p-values of the events [N].
    event_flags: whether an event is flagged [N].
    scores: name -> scores of the sessions [D]; higher is more anomalous.
    p: p-values of the sessions [D]; NaN for short ones.
    flags: whether a session is flagged [D].
    short: whether a session is flagged for its length alone [D].
    seconds: time that the network took.
  """

  sessions: Sessions
  distinct: Distinct
  names: Vocabulary
  nll: np.ndarray
  rank: np.ndarray
  targets: np.ndarray
  bounds: np.ndarray
  offsets: np.ndarray
  event_p: np.ndarray
  event_flags: np.ndarray
  scores: dict[str, np.ndarray]
  p: np.ndarray
  flags: np.ndarray
  short: np.ndarray
  seconds: float

  def most_anomalous(self) -> np.ndarray:
    """The distinct sessions by falling score; short ones come last."""
    return np.lexsort((-self.scores["combined"], self.short))

  def first_alarms(self) -> np.ndarray:
    """The position of the first flagged event of each session [D]; -1: none."""
    which = np.repeat(np.arange(len(self.p)), np.diff(self.bounds))
    flagged = np.flatnonzero(self.event_flags)
    some, first = np.unique(which[flagged], return_index=True)
    alarms = np.full(len(self.p), -1)
    alarms[some] = self.offsets[some] + flagged[first] - self.bounds[some]
    return alarms

  def events(self, j: int, d: int, first: int, stop: int) -> list[str]:
    """Names of scored events of session j for display.

    Unknown events are marked by "? " and named as they were read, where that
    is known.

    Args:
      j: the session.
      d: the distinct session that it equals.
      first: the first of the scored events.
      stop: one after the last.
    """
    start = int(self.bounds[d])
    targets = self.targets[start + first : start + stop].tolist()
    names = self.names.names(targets)
    for n, target in enumerate(targets):
      symbol = self.as_read(j, int(self.offsets[d]) + first + n)
      if target == UNKNOWN and symbol is not None:
        names[n] = f"? {symbol}"
    return names

  def _index(self, j: int, place: int) -> int | None:
    """The index of an event in `sessions`; None for an end symbol."""
    start, stop = self.sessions.bounds[j : j + 2].tolist()
    return start + place if 0 <= place < stop - start else None

  def line(self, j: int, place: int) -> int | None:
    """The line of the event at a place of session j, if known."""
    index, lines = self._index(j, place), self.sessions.lines
    return None if index is None or lines is None else int(lines[index])

  def as_read(self, j: int, place: int) -> str | None:
    """The event at a place of session j as it was read, if known."""
    index, events = self._index(j, place), self.sessions.as_read
    return None if index is None or events is None else events[index]

  def timestamp(self, j: int, place: int) -> str | None:
    """The time of the event at a place of session j, if known."""
    index, times = self._index(j, place), self.sessions.timestamps
    return None if index is None or times is None else times[index]
