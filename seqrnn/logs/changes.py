"""What changes in a log: in its training period, and by the clock.

The training sessions are cut into blocks, in the order of the log. An event
changes at the begin of a block if each block from there on has a higher share
of sessions with the event than each block before, or each a lower one. Neither
a burst nor work that recurs, as that of each night, does this. Of blocks in a
random order, five are higher than 35 others with a probability of 1.5e-6.

Work of some hours or of weekends that training has not seen is no change of an
event: it is named by the times at which sessions begin.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.data.logs import formats
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.errors import counted
from seqrnn.scoring.predictions import quoted

_BLOCKS = 40
_LEAST = 25  # Sessions of a block.
_SIDE = 5  # Blocks before and after a change; 2 after it for a new event.
_SESSIONS = 30  # With the event, on the side where it is more frequent.
_FACTOR = 2  # Between the shares before and after.
_PRINTED = 3  # The changes that have a line.
_UNSEEN = 0.01  # Share of sessions at unseen times that has a line.
_HOUR, _DAY = 3600, 86400
_THURSDAY = 3  # The first day of 1970; Monday is 0.


class LogChange(NamedTuple):
  """A lasting change of the share of sessions that have an event.

  Attributes:
    event: its name.
    block: at whose begin it changes.
    session: the first session of the change, from 0.
    seconds: when that session begins, since 1970; None: unknown.
    before, after: the shares of sessions with the event.
    shares: of the blocks, in order.
  """

  event: str
  block: int
  session: int
  seconds: float | None
  before: float
  after: float
  shares: list[float]

  @property
  def since(self) -> str:
    """When the change begins."""
    if self.seconds is None:
      return f"session {self.session + 1:,}"
    return formats.in_words(self.seconds)

  @property
  def kind(self) -> tuple[str, int]:
    """What happens to the event, and in which block: of several the same."""
    words = "more frequent" if self.after > self.before else "rarer"
    if not self.before:
      words = "new"
    return "gone" if not self.after else words, self.block


def find_changes(
  sessions: Sessions, names: Vocabulary, redact: str
) -> list[LogChange]:
  """The changes, those that change the largest share of sessions first.

  Args:
    sessions: of the training split, in the order of the log.
    names: vocabulary of the events.
    redact: as `detect.redact`, for events that the vocabulary lacks.
  """
  number = len(sessions.names)
  blocks = min(_BLOCKS, number // _LEAST)
  if blocks < 2 * _SIDE:
    return []
  texts, known, symbols = sessions.as_read, len(names), []
  if texts is not None:  # New events are told apart, by an id each.
    symbols = texts.symbols
    ids = np.where(
      sessions.ids == UNKNOWN, known + texts.ids.astype(int), sessions.ids
    )
    sessions = sessions._replace(ids=ids)
  events = int(sessions.ids.max(initial=0)) + 1
  session_P, event_P = sessions.events_once()
  block_J = np.arange(number) * blocks // number
  count_EB = np.bincount(
    event_P * blocks + block_J[session_P], minlength=events * blocks
  ).reshape(events, blocks)
  size_B = np.bincount(block_J)
  found = []
  for event in np.flatnonzero(count_EB.sum(axis=1) >= _SESSIONS).tolist():
    count_B = count_EB[event]
    if (begin := _begin(count_B, size_B)) is None:
      continue
    session = int(np.searchsorted(block_J, begin))
    if not count_B[:begin].any():
      session = int(session_P[event_P == event].min())
    before, after = (
      float(count_B[part].sum() / size_B[part].sum())
      for part in (slice(begin), slice(begin, None))
    )
    seconds = math.nan
    if sessions.seconds is not None:
      seconds = float(sessions.seconds[sessions.bounds[session]])
    name = names.names([event])[0] if event < known else symbols[event - known]
    time = None if math.isnan(seconds) else seconds
    shares = (count_B / size_B).round(4).tolist()
    at = Redaction(redact).text(name), begin, session, time
    found.append(LogChange(*at, before, after, shares))
  return sorted(found, key=lambda one: -abs(one.after - one.before))


def _begin(count_B: np.ndarray, size_B: np.ndarray) -> int | None:
  """The block at whose begin an event changes; None: it does not."""
  share_B = count_B / size_B
  best, largest = None, 0.0
  for begin in range(_SIDE, len(share_B) - 1):
    low, high = share_B[:begin], share_B[begin:]
    counts = count_B[begin:]
    if low.mean() > high.mean():
      low, high, counts = high, low, count_B[:begin]
    is_new = not count_B[:begin].any()
    if (
      (is_new or len(share_B) - begin >= _SIDE)
      and high.min() > low.max()
      and high.mean() >= _FACTOR * low.mean()
      and counts.sum() >= _SESSIONS
      and (gap := high.mean() - low.mean()) > largest
    ):
      best, largest = begin, gap
  return best


def change_lines(found: Sequence[LogChange], number: int) -> list[str]:
  """Lines on the changes, and on what they mean for the rate.

  Args:
    found: the changes.
    number: of the training sessions.
  """
  alike: dict[tuple[str, int], list[LogChange]] = {}
  for one in found:
    alike.setdefault(one.kind, []).append(one)
  lines = []
  for (kind, _), (first, *others) in [*alike.items()][:_PRINTED]:
    count = f" and {counted(len(others), 'other')}" if others else ""
    shares = f"in {first.after:.0%} of the sessions"
    if first.before:
      shares += f", before in {first.before:.0%}"
    lines.append(
      f"the log changes during training: {quoted(first.event)}{count}:"
      f" {kind} since {first.since}, {shares}"
    )
  if len(alike) > _PRINTED:
    lines.append(f"{len(alike) - _PRINTED} further changes: report.json")
  if found:
    share = 1 - found[0].session / number
    lines.append(
      f"detect.rate holds for sessions of which {share:.0%} are from after this"
      " change, as in training"
    )
  return lines


def unseen_times(known: Sequence[Sessions], examined: Sessions) -> list[str]:
  """A line on the examined sessions at times of which training has none.

  Times are hours of the day, and working days or weekends, in UTC or, in a log
  without time zones, in the log's own time.

  Args:
    known: the sessions that train or calibrate.
    examined: other sessions of the log.
  """
  seen, begins = np.concatenate([*map(_begins, known)]), _begins(examined)
  if not len(seen) or not len(begins):
    return []
  hours, seen_hours = (x % _DAY // _HOUR for x in (begins, seen))
  free, seen_free = ((x // _DAY + _THURSDAY) % 7 > 4 for x in (begins, seen))
  words, at = [], np.zeros(len(begins), bool)
  if len(new := np.setdiff1d(hours, seen_hours)):
    at |= np.isin(hours, new)
    words.append(f"from {_clock({*new.astype(int).tolist()})}")
  for is_free, name in ((True, "on weekends"), (False, "on working days")):
    if (free == is_free).any() and not (seen_free == is_free).any():
      at |= free == is_free
      words.append(name)
  if at.sum() < max(_UNSEEN * len(at), 2):
    return []
  return [
    f"times: {at.sum():,} of {len(at):,} sessions begin {' or '.join(words)},"
    " when no training session begins; their p-values are less reliable"
  ]


def _clock(hours: set[int]) -> str:
  """The hours of a day as spans, such as 21:00 to 06:00."""
  spans = []
  for first in sorted(hour for hour in hours if (hour - 1) % 24 not in hours):
    last = next(n for n in range(first, 48) if n % 24 not in hours) % 24
    spans.append(f"{first:02}:00 to {last:02}:00")
  return " and ".join(spans)


def _begins(sessions: Sessions) -> np.ndarray:
  """The known times at which sessions begin, in seconds since 1970."""
  if sessions.seconds is None or not len(sessions.ids):
    return np.zeros(0)
  first = sessions.bounds[:-1][np.diff(sessions.bounds) > 0]
  begins = sessions.seconds[first]
  return begins[np.isfinite(begins)]
