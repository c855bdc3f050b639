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


def bursts(count, step, size=2):
  """So many groups of lines, a second between the lines of a group."""
  return [n * step + line for n in range(count) for line in range(size)]


def test_a_log_of_days_moves_the_clock_by_all_but_the_last_lines():
  for size, step, behind in ((2, 3 * DAY, 1), (1, DAY, 2)):
    times = bursts(100, step, size)
    positions = read(times)
    assert positions == sorted(positions)
    assert positions[-1] == times[-1 - behind * size]


def test_lines_of_a_step_may_be_out_of_order_by_seconds():
  times = [0.0, 5 * HOUR, 5 * HOUR - 3, 5 * HOUR + 1]
  assert read(times) == [0.0, 0.0, 5 * HOUR, 5 * HOUR + 1]


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
