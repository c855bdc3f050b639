"""Rotated logs: which files are parts of one log, and in which order.

Programs rename a full log: `a.log` becomes `a.log.1`, `a.log-20261125`,
`a-2026-11-25.log` or `a.log.2026-11-25-12`, and may pack it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from seqrnn.data.reading import PACKED

_DATE = re.compile(
  r"[._-](\d{4})-?([01]\d)-?([0-3]\d)((?:[T_.-]?\d{1,6})*)(?=\.[A-Za-z]|$)"
)
# Not the end of an address of a host, as 10.0.0.1.
_NUMBER = re.compile(r"(?<!\.\d)(?<!\.\d\d)(?<!\.\d\d\d)\.(\d{1,4})$")
_LAST = "9"  # After the digits of any date.


def _parts(name: str) -> tuple[str, str, int]:
  """The log of a file, the date in its name, and minus the number in it."""
  for suffix in PACKED:
    name = name.removesuffix(suffix)
  number = _NUMBER.search(name)
  count = int(number[1]) if number else 0
  name = name[: number.start()] if number else name
  date = _DATE.search(name)
  if date is None:
    return name, _LAST, -count
  digits = "".join(date.groups())
  return name[: date.start()] + name[date.end() :], digits, -count


def order(name: str) -> tuple[str, int]:
  """What orders the files of a log by their names: the oldest first."""
  return _parts(name)[1:]


def logs(names: Sequence[str]) -> list[str]:
  """The log of each file: its own name if no other file is of that log."""
  found = [_parts(name)[0] for name in names]
  counts = Counter(found)
  return [
    log if counts[log] > 1 else name
    for log, name in zip(found, names, strict=True)
  ]


def parts(log: str, names: Iterable[str]) -> list[str]:
  """The files among some that were parts of a log, the oldest first."""
  whole = _parts(log)[0]
  found = (name for name in names if name != log and _parts(name)[0] == whole)
  return sorted(found, key=order)
