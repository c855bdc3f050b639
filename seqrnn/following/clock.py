"""Event time: the time of a log, or its lines, whatever the machine's is."""

import math
from typing import Any

_LEAP = 3600.0  # Seconds; a longer step needs confirmation.
_CONFIRMED = 3  # Events one after the other that confirm a step.


class EventClock:
  """The latest time of events that arrive; it does not follow single errors.

  A time that is more than an hour ahead of the clock, or behind it, moves the
  clock only when the times of the next events agree.

  Attributes:
    now: in seconds; -inf before the first time.
    begin: the first time.
  """

  def __init__(self):
    self.now, self.begin = -math.inf, math.inf
    self._leaps: list[float] = []  # Times that are not confirmed yet.

  def read(self, time: float) -> float:
    """Reads the time of an event; returns by how much the clock was set back.

    Args:
      time: in seconds, finite.
    """
    if self.now == -math.inf:
      self.now = self.begin = time
    if abs(time - self.now) <= _LEAP:
      self._leaps.clear()
      self.now = max(self.now, time)
      return 0.0
    if self._leaps and abs(time - self._leaps[-1]) > _LEAP:
      self._leaps.clear()
    self._leaps.append(time)
    if len(self._leaps) < _CONFIRMED:
      return 0.0
    before, self.now = self.now, max(self._leaps)
    self._leaps.clear()
    self.begin = min(self.begin, self.now)
    return max(before - self.now, 0.0)

  def state(self) -> dict[str, Any]:
    """What `restore` takes."""
    return {"now": self.now, "begin": self.begin, "leaps": self._leaps[:]}

  def restore(self, state: dict[str, Any]):
    """Sets the clock as it was."""
    self.now, self.begin = float(state["now"]), float(state["begin"])
    self._leaps = [float(time) for time in state["leaps"]]


class LineClock:
  """Counts lines; a line may have events of several sessions.

  Attributes:
    now: number of lines.
  """

  def __init__(self):
    self.now = 0
    self._last: tuple[int | None, str | None] = None, None

  def read(self, line: int | None, file: str | None) -> bool:
    """Reads the line of an event; whether it is another than the last one.

    Args:
      line: its number; those of a rotated log begin at 1 again. None: unknown.
      file: that has the line.
    """
    if line is not None and (line, file) == self._last:
      return False
    before = self._last[0] or 0
    self._last = line, file
    if line is None:
      self.now += 1
    else:
      self.now += line - before if line > before else line
    return True

  def state(self) -> list[Any]:
    """What `restore` takes."""
    return [self.now, *self._last]

  def restore(self, state: list[Any]):
    """Sets the clock as it was."""
    self.now, *last = state
    self._last = last[0], last[1]
