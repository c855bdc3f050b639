"""Rotated logs: which files are parts of one log, and in which order.

Programs rename a full log: `a.log` becomes `a.log.1`, `a.log-20261125`,
`a-2026-11-25.log` or `a.log.2026-11-25-12`, and may pack it.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from seqrnn.data.read.reading import PACKED

_DATE = re.compile(
  r"[._-](\d{4})-?([01]\d)-?([0-3]\d)((?:[T_.-]?\d{1,6})*)(?=\.[A-Za-z]|$)"
)
# Not the end of an address of a host, as 10.0.0.1.
_NUMBER = re.compile(r"(?<!\.\d)(?<!\.\d\d)(?<!\.\d\d\d)\.(\d{1,4})$")
_LAST = "9"  # After the digits of any date.
_LISTS = 100  # Of the files of a log, at most, while they are renamed.


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


class Part(NamedTuple):
  """A file of a log."""

  path: Path
  inode: int
  size: int
  changed: int
  packed: bool


def files(path: Path) -> list[Part]:
  """The files of a log, the oldest first; the last one is `path` if it exists.

  They are listed until two lists are equal: a file that is renamed meanwhile
  may be in no list.

  Raises:
    OSError: there is no such folder, or `path` is no file.
  """
  found = _listed(path)
  for _ in range(_LISTS):
    before, found = found, _listed(path)
    if [part[:2] for part in before] == [part[:2] for part in found]:
      break
  return found


def _listed(path: Path) -> list[Part]:
  """The files of a log; no packed file whose unpacked content is there."""
  names = parts(path.name, os.listdir(path.parent))
  found = []
  for file in (*(path.with_name(name) for name in names), path):
    with suppress(FileNotFoundError):  # It was renamed meanwhile.
      status = file.stat()
      packed = file.suffix in PACKED and file != path
      if stat.S_ISREG(status.st_mode):
        found.append(
          Part(file, status.st_ino, status.st_size, status.st_mtime_ns, packed)
        )
      elif file == path:
        raise OSError("not a regular file")
  plain = {part.path for part in found}
  return [
    part
    for part in found
    if not (part.packed and part.path.with_suffix("") in plain)
  ]


@contextmanager
def opened(part: Part) -> Iterator[IO[bytes]]:
  """The unpacked bytes of a file.

  Raises:
    OSError: it cannot be read, or was renamed meanwhile.
  """
  with ExitStack() as stack:
    file = stack.enter_context(part.path.open("rb", buffering=0))
    if os.fstat(file.fileno()).st_ino != part.inode:
      raise FileNotFoundError
    if part.packed:
      file = stack.enter_context(PACKED[part.path.suffix](file))
    yield file
