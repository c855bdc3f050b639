"""The clock of a follower: it leaps with the log, not with a wrong time."""

import pytest

from seqrnn.logs.follow.open_sessions import EventClock

HOUR, DAY, WRONG = 3600.0, 86400.0, 4e9


def read(times, clock=None):
  """The clock after each of the times."""
  clock, positions = clock or EventClock(), []
  for time in times:
    clock.read(time)
    positions.append(clock.now)
  return positions


@pytest.mark.parametrize("wrong", [WRONG, 3 * HOUR, -WRONG, -3 * HOUR])
def test_a_wrong_time_does_not_move_the_clock(wrong):
  right = [n * HOUR / 2 for n in range(9)]
  for place in range(1, 9):
    times = [*right]
    times.insert(place, right[place - 1] + wrong)
    positions = read(times)
    del positions[place]
    assert positions == right
  wrong += right[-1] if wrong > 0 else 0
  assert read([t for r in right for t in (r, wrong)])[::2] == right


def test_the_clock_is_set_back_by_three_earlier_times():
  clock = EventClock()
  read([9 * DAY, 9 * DAY + 1], clock)
  assert read([0.0, 2 * HOUR], clock) == [9 * DAY + 1] * 2
  # The first of them; each of the others is a step that is confirmed in turn.
  assert read([4 * HOUR], clock) == [2 * HOUR]
  assert clock.begin == 0.0
  # Times alternately behind the clock and ahead of it confirm no step.
  clock = EventClock()
  assert set(read([DAY, 0.0, 5 * DAY, 1.0, 5 * DAY], clock)) == {DAY}
