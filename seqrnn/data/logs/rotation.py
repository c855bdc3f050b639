"""Rotated logs: which files are parts of one log, and in which order.

Programs rename a full log: `a.log` becomes `a.log.1`, `a.log-20261125`,
`a-2026-11-25.log` or `a.log.2026-11-25-12`, and may pack it.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, NamedTuple

from seqrnn.data.read.reading import PACKED

_DATE = re.compile(
  r"[._-](\d{4})-?([01]\d)-?([0-3]\d)((?:[T_.-]?\d{1,6})*)(?=\.[A-Za-z]|$)"
)
# Not the end of an address of a host, as 10.0.0.1.
_NUMBER = re.compile(r"(?<!\.\d)(?<!\.\d\d)(?<!\.\d\d\d)\.(\d{1,4})$")
_LAST = "9"  # After the digits of any date.


def _split(name: str) -> tuple[str, str, int]:
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


def age(name: str) -> tuple[str, int]:
  """A key that orders the files of a log by their names: the oldest first."""
  return _split(name)[1:]


def log_names(names: Sequence[str]) -> list[str]:
  """The log of each file: its name if no other file is of that log."""
  logs = [_split(name)[0] for name in names]
  counts = Counter(logs)
  return [
    log if counts[log] > 1 else name
    for log, name in zip(logs, names, strict=True)
  ]


class LogFile(NamedTuple):
  """A file of a log."""

  path: Path
  inode: int
  size: int
  changed: int
  packed: bool


def list_files(path: Path) -> list[LogFile]:
  """The files of a log, the oldest first; the last one is `path` if it exists.

  They are listed until two lists are equal: a file that is renamed meanwhile
  may be in no list.

  Raises:
    OSError: there is no such folder, or `path` is no file.
  """
  parts = _listed(path)
  while True:
    before, parts = parts, _listed(path)
    if [part[:2] for part in before] == [part[:2] for part in parts]:
      return parts


def _listed(path: Path) -> list[LogFile]:
  """The files of a log; no packed file whose unpacked content is there."""
  log = _split(path.name)[0]
  names = {n for n in os.listdir(path.parent) if _split(n)[0] == log}
  twice = {name + suffix for name in names for suffix in PACKED}
  others = sorted(names - twice - {path.name}, key=age)
  parts = []
  for file in (*map(path.with_name, others), path):
    with suppress(FileNotFoundError):  # It was renamed meanwhile.
      status = file.stat()
      if stat.S_ISREG(status.st_mode):
        packed = file.suffix in PACKED and file != path
        times = status.st_ino, status.st_size, status.st_mtime_ns
        parts.append(LogFile(file, *times, packed))
      elif file == path:
        raise OSError("not a regular file")
  return parts


@contextmanager
def opened(part: LogFile) -> Iterator[IO[bytes]]:
  """The unpacked bytes of a file.

  Raises:
    OSError: it cannot be read, or was renamed meanwhile.
  """
  unpack = PACKED[part.path.suffix] if part.packed else nullcontext
  with part.path.open("rb", buffering=0) as file:
    if os.fstat(file.fileno()).st_ino != part.inode:
      raise FileNotFoundError
    with unpack(file) as content:
      yield content
