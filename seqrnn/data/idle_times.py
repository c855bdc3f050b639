"""Idle times: after how much silence a session has ended, or a log cuts it.

data/logs/cuts.py learns them from a log.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from seqrnn.data.read.columns import Texts


class IdleTimes(NamedTuple):
  """After how much silence a session has ended.

  Attributes:
    clock: "seconds" or "lines"; empty: sessions end by no silence.
    longest: the idle time after all other symbols.
    first: symbol, as read -> the idle time before it; of other symbols 0.
    last: symbol, as read -> the idle time after it.
  """

  clock: str = ""
  longest: float = math.inf
  first: dict[str, float] = {}
  last: dict[str, float] = {}

  def before(self, symbol: str) -> float:
    """A session that begins sooner after the begin of a log may be cut."""
    return self.first.get(symbol, 0.0)

  def after(self, symbol: str) -> float:
    """A session that is silent for longer after the symbol has ended."""
    return self.last.get(symbol, self.longest)

  def limited(self, idle: float) -> "IdleTimes":
    """One idle time after all events, and none before that is longer."""
    first = {symbol: min(time, idle) for symbol, time in self.first.items()}
    return IdleTimes(self.clock, idle, first)

  def whole(
    self,
    events: Texts,
    bounds: np.ndarray,
    before_D: np.ndarray,
    after_D: np.ndarray,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Whether each session has its begin and its end, bool [sessions].

    Args:
      events: as read, session by session.
      bounds: of the sessions.
      before_D: from the begin of the log to the first event; NaN: unknown.
      after_D: from the last event to the end of the log; NaN: unknown.
    """
    first_V = np.array([*map(self.before, events.symbols)])
    last_V = np.array([*map(self.after, events.symbols)])
    first_D = first_V[events.ids[bounds[:-1]]]
    last_D = last_V[events.ids[bounds[1:] - 1]]
    return is_edge(before_D, first_D), is_edge(after_D, last_D)


def is_edge(silence: ArrayLike, idle: ArrayLike) -> np.ndarray:
  """Whether sessions begin, or end, where a log is silent for some time.

  Args:
    silence: of the log there; NaN: unknown.
    idle: the idle time there.
  """
  return np.logical_not(np.less(silence, idle))


class LogCuts(NamedTuple):
  """What decides which sessions of a log are cut.

  Times are in seconds; in a log without times, in lines.

  Attributes:
    log: its name, for messages.
    idle: after how much silence a session of the log has ended.
    patience: the same, for a log that grows: a session surely has ended.
    before_D: float64 [sessions], from the begin of the log to the first event.
    after_D: float64 [sessions], from the last event to the end of the log.
    begun: whether each session began in the log, bool [sessions].
    ended: whether each session ended in the log, bool [sessions].
  """

  log: str
  idle: IdleTimes
  patience: IdleTimes
  before_D: np.ndarray
  after_D: np.ndarray
  begun: np.ndarray
  ended: np.ndarray
