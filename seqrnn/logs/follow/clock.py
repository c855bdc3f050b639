"""Event time: the time of a log, or its lines, whatever the machine's is."""

import math
from typing import Any

LEAP = 3600.0  # Seconds; a longer step needs confirmation.
_LONG = 12 * LEAP  # A longer step forward, or any back, needs one more time.
_CONFIRMED = 2  # Times one after the other that confirm a step.


class EventClock:
  """The latest time of events that arrive; it does not follow single errors.

  A time that is more than an hour ahead of the clock, or behind it, moves the
  clock only when later times follow it, whatever their distance: one for a step
  of up to half a day ahead, two for other steps. A time is an error if a time
  that is more than an hour earlier follows it on the same side of the clock, or
  a time of the clock.

  Attributes:
    now: in seconds; -inf before the first time.
    begin: the first time.
  """

  def __init__(self):
    self.now, self.begin = -math.inf, math.inf
    # Times that are not confirmed yet.
    self._ahead: list[float] = []
    self._behind: list[float] = []

  def read(self, time: float):
    """Reads the finite time of an event, in seconds."""
    if self.now == -math.inf:
      self.now = self.begin = time
    step = time - self.now
    if step >= -LEAP:
      self._behind.clear()
    if abs(step) <= LEAP:
      self._ahead.clear()
      self.now = max(self.now, time)
      return
    leaps = self._ahead if step > 0 else self._behind
    leaps[:] = [*(leap for leap in leaps if leap <= time + LEAP), time]
    is_short = 0 < leaps[0] - self.now <= _LONG
    if len(leaps) < _CONFIRMED + (not is_short):
      return
    self.now, *later = leaps
    self.begin = min(self.begin, self.now)
    leaps.clear()
    for leap in later:
      self.read(leap)

  def state(self) -> dict[str, Any]:
    """What `restore` takes."""
    leaps = [*self._ahead, *self._behind]
    return {"now": self.now, "begin": self.begin, "leaps": leaps}

  def restore(self, state: dict[str, Any]):
    """Sets the clock as it was."""
    self.now, self.begin = float(state["now"]), float(state["begin"])
    leaps = [float(time) for time in state["leaps"]]
    self._ahead = [leap for leap in leaps if leap > self.now]
    self._behind = [leap for leap in leaps if leap <= self.now]


class LineClock:
  """Counts lines; a line may have events of several sessions.

  Attributes:
    now: number of lines.
  """

  def __init__(self):
    self.now = 0
    self._last: int | None = None

  def read(self, line: int | None) -> bool:
    """Reads the line of an event; whether it is another than the last one.

    Args:
      line: its number; those of a rotated log begin at 1 again. None: unknown.
    """
    if line is not None and line == self._last:
      return False
    before, self._last = self._last or 0, line
    if line is None:
      self.now += 1
    else:
      self.now += line - before if line > before else line
    return True

  def state(self) -> list[Any]:
    """What `restore` takes."""
    return [self.now, self._last]

  def restore(self, state: list[Any]):
    """Sets the clock as it was."""
    self.now, self._last = state
