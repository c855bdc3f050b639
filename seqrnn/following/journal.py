"""The durable state of a follower: snapshots, journals and a file of alarms.

A generation N is snapshot-N.npz, the whole state at a moment, and
journal-N.jsonl, the records after it. A record is in the journal before it is
processed, so the state after any end of the process is that of a snapshot and
of the records after it. Alarms are numbered, and alarms.jsonl has each once: it
never has an alarm whose record is not on the disk. The generation before the
last one is kept for the case that a snapshot is damaged.
"""

import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn.errors import UserError
from seqrnn.runtime import files

ALARMS = "alarms.jsonl"
_SUFFIXES = {"snapshot": ".npz", "journal": ".jsonl"}
_FACTS = "facts_of_journal"  # The array of a snapshot with JSON.
_SECONDS = 60.0  # Between snapshots, at least,
_BYTES = 2**26  # unless the journal is longer.
_RETRY = 5.0  # Seconds between snapshots while nothing can be written.
_END = 2**24  # Bytes of the end of alarms.jsonl that are read at first.
_FULL = "No space left on device"


class State(NamedTuple):
  """A state, as `Journal.snapshot` stores it.

  Attributes:
    arrays: of the follower.
    facts: JSON.
  """

  arrays: dict[str, np.ndarray]
  facts: dict[str, Any]


class Journal:
  """Writes and recovers the state in a folder, which it locks.

  If the disk is full, records and alarms stay in memory: this is reported once,
  and a snapshot is tried every five seconds, which has all that was not
  written. If the process is killed before, the input has to be read again.

  Attributes:
    folder: of the state.
    sequence: number of records so far.
    alarms: number of alarms so far.
    fault: why nothing can be written; empty: it can.
  """

  def __init__(self, folder: Path, report: Callable[[str], None]):
    """Locks the folder, and creates it if it is missing.

    Raises:
      MachineError: another process follows with this state, or the folder
        cannot be written.
    """
    self.sequence, self.alarms, self.fault = 0, 0, ""
    self.folder, self._report = folder, report
    self._open, self._held = ExitStack(), None
    self._lock()
    self._generation = max(
      [
        0,
        *_generations(self.folder, "snapshot"),
        *_generations(self.folder, "journal"),
      ]
    )
    self._journal: int | None = None  # The descriptor of the open journal,
    self._size, self._begun = 0, time.monotonic()  # its bytes and its begin.
    self._unwritten: list[dict[str, Any]] = []  # Alarms.
    # Alarms in alarms.jsonl that records may bring about again.
    self._written: Counter[tuple] = Counter()
    self._is_damaged = False  # Then input that is read again may, too.

  def __enter__(self) -> "Journal":
    return self

  def __exit__(self, *_):
    self.close()

  def close(self):
    """Releases the folder; takes no snapshot."""
    self._close_journal()
    self._open.close()

  def _lock(self):
    """Locks the folder, also one that was removed meanwhile.

    Raises:
      MachineError: as `__init__`.
    """
    if self._held and self._held.in_place():
      return
    self._held = None
    self._open.close()
    with files.write_errors(self.folder):
      self.folder.mkdir(parents=True, exist_ok=True)
    lock = files.locked(self.folder / ".lock", "followed")
    self._held = self._open.enter_context(lock)

  def recover(self) -> tuple[State | None, Iterator[dict[str, Any]]]:
    """The newest intact snapshot, and the records after it.

    The caller processes the records and then takes a snapshot, also if there
    was none.

    Raises:
      UserError: there are snapshots, and all are damaged.
      MachineError: alarms.jsonl cannot be changed.
    """
    state, generation = self._newest()
    own: dict[str, Any] = {"sequence": 0, "alarms": 0, "unwritten": []}
    own = state.facts.pop(_FACTS) if state else own
    with files.write_errors(self.folder / ALARMS):
      rows = self._read_alarms(own["alarms"])
    last = max((row["number"] for row in rows), default=0)
    self.sequence = own["sequence"]
    self.alarms = max(last, own["alarms"])
    self._unwritten = [r for r in own["unwritten"] if r["number"] > last]
    self._written = Counter(
      _key(r) for r in rows if r["number"] > own["alarms"]
    )
    return state, self._records(generation)

  def _newest(self) -> tuple[State | None, int]:
    """The newest intact snapshot, and its generation."""
    faults = []
    for generation in sorted(
      _generations(self.folder, "snapshot"), reverse=True
    ):
      path = _path(self.folder, "snapshot", generation)
      try:
        state = _load(path)
      except Exception as error:  # A damaged archive may raise any exception.
        faults.append(f"{path}: damaged ({error})")
        continue
      for fault in faults:
        self._report(f"{fault}; the one before it and its journal are used")
      return state, generation
    if faults:
      raise UserError(
        f"{faults[0]}, and no other snapshot is intact; remove {self.folder}"
        " to begin without a state"
      )
    return None, 0

  def _records(self, generation: int) -> Iterator[dict[str, Any]]:
    """The records of a generation and of those after it."""
    for number in range(generation, self._generation + 1):
      path = _path(self.folder, "journal", number)
      if not path.exists():
        continue
      with path.open("rb") as file:
        for count, line in enumerate(file, 1):
          record = _parse(line)
          if record is None and not line.endswith(b"\n"):
            break  # The process was killed while it wrote the last line.
          if record is None or record["sequence"] != self.sequence + 1:
            self._report(
              f"{path}: line {count}: damaged, or lines before it are missing;"
              " the records from it on are not used"
            )
            self._is_damaged = True
            return
          self.sequence += 1
          yield record

  def append(self, record: dict[str, Any]):
    """Adds a record to the journal, in one write."""
    self.sequence += 1
    if self.fault:
      return
    assert self._journal is not None, "no snapshot was taken"
    line = _line({**record, "sequence": self.sequence})
    try:
      _write(self._journal, line)
      self._size += len(line)
    except OSError as error:
      self._fail(error)

  def write_alarms(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Numbers alarms and adds them to alarms.jsonl.

    Returns:
      those that were not in it already, because of a record that is recovered.
    """
    new = []
    for row in rows:
      if self._written[_key(row)]:
        self._written[_key(row)] -= 1
        continue
      self.alarms += 1
      new.append({**row, "number": self.alarms})
    self._unwritten += new
    if self._unwritten and not self.fault and self._journal is not None:
      try:
        self._write_alarms()
      except OSError as error:
        self._fail(error)
    return new

  @property
  def is_due(self) -> bool:
    """Whether it is time for a snapshot."""
    if self._size > _BYTES:
      return True
    wait = _RETRY if self.fault else _SECONDS
    changed = self._size > 0 or bool(self.fault)
    return changed and time.monotonic() - self._begun >= wait

  def snapshot(self, state: State) -> bool:
    """Writes the whole state and begins a journal; False: it is impossible."""
    self._begun = time.monotonic()
    if not self._is_damaged:
      self._written.clear()
    number = self._generation + 1
    own = {
      "sequence": self.sequence,
      "alarms": self.alarms,
      "unwritten": self._unwritten,
      "arrays": sorted(state.arrays),
    }
    facts = json.dumps({**state.facts, _FACTS: own}).encode()
    arrays: Any = {_FACTS: np.frombuffer(facts, np.uint8), **state.arrays}
    try:
      self._lock()
      with files.atomic_write(
        _path(self.folder, "snapshot", number), "wb"
      ) as file:
        np.savez(file, **arrays)
      self._close_journal()
      flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
      self._journal = os.open(
        _path(self.folder, "journal", number), flags, 0o666
      )
      files.sync(self.folder)
      self._write_alarms()
    except (OSError, UserError) as error:
      self._fail(error)
      return False
    if self.fault:
      self._report(f"{self.folder}: the state is written again")
    self.fault, self._size, self._generation = "", 0, number
    for kind in _SUFFIXES:
      for old in _generations(self.folder, kind):
        if old < number - 1:
          _path(self.folder, kind, old).unlink(missing_ok=True)
    return True

  def _close_journal(self):
    if self._journal is not None:
      os.close(self._journal)
    self._journal = None

  def _fail(self, error: Exception):
    """Reports once that nothing can be written."""
    fault = str(getattr(error, "strerror", None) or error)
    if not self.fault:
      self._report(
        f"{self.folder}: the state cannot be written: {fault}; following goes"
        f" on, and writing is tried again every {_RETRY:.0f} seconds"
      )
    self.fault = fault

  def _write_alarms(self):
    """Writes the alarms that are not in the file, after their records.

    Raises:
      OSError: the file cannot be written.
    """
    if not self._unwritten:
      return
    assert self._journal is not None
    os.fdatasync(self._journal)
    flags = os.O_WRONLY | os.O_CREAT
    descriptor = os.open(self.folder / ALARMS, flags, 0o666)
    try:
      lines = [f"{json.dumps(row)}\n".encode() for row in self._unwritten]
      _write(descriptor, b"".join(lines))
      os.fdatasync(descriptor)
    finally:
      os.close(descriptor)
    self._unwritten = []

  def _read_alarms(self, after: int) -> list[dict[str, Any]]:
    """The alarms after a number, and the last ones before, in alarms.jsonl.

    An incomplete last line is cut off the file.

    Raises:
      OSError: the file cannot be changed.
    """
    path, found, most = self.folder / ALARMS, [], _END
    if not path.exists():
      return []
    with path.open("r+b") as file:
      size = file.seek(0, os.SEEK_END)
      while True:
        start = max(size - most, 0)
        file.seek(start)
        *lines, rest = file.read().split(b"\n")
        found = list(_rows(lines))
        if not start or any(row["number"] <= after for row in found):
          break
        most *= 2
      if rest:
        file.truncate(size - len(rest))
    return found


def _path(folder: Path, kind: str, generation: int) -> Path:
  return folder / f"{kind}-{generation}{_SUFFIXES[kind]}"


def _generations(folder: Path, kind: str) -> list[int]:
  """The generations with a file of a kind, whose name is as it is written."""
  paths = folder.glob(f"{kind}-*{_SUFFIXES[kind]}")
  numbers = (path.stem.removeprefix(f"{kind}-") for path in paths)
  return [int(n) for n in numbers if n.isdecimal() and n == str(int(n))]


def read_facts(folder: Path) -> dict[str, Any] | None:
  """The facts of the newest intact snapshot, also of a running follower.

  None: there is none. The arrays are not read.
  """
  for number in sorted(_generations(folder, "snapshot"), reverse=True):
    # It may have been removed, or be damaged in any way.
    with (
      suppress(Exception),
      _path(folder, "snapshot", number).open("rb") as file,
      np.load(file, allow_pickle=False) as found,
    ):
      return json.loads(found[_FACTS].tobytes())
  return None


def _rows(lines: list[bytes]) -> Iterator[dict[str, Any]]:
  """The alarms in lines of alarms.jsonl."""
  for line in lines:
    with suppress(Exception):  # The first line is cut, or a person edited it.
      row = json.loads(line)
      hash(_key(row))
      yield {**row, "number": int(row["number"])}


def _key(row: dict[str, Any]) -> tuple:
  """What two rows of one alarm have in common, also with another model."""
  return tuple(row.get(name) for name in ("session", "ended", "severity"))


def _load(path: Path) -> State:
  """The state of a snapshot; a damaged one raises any exception."""
  with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
    arrays = {name: found[name] for name in found.files}
  facts: dict[str, Any] = json.loads(arrays.pop(_FACTS).tobytes())
  if sorted(arrays) != facts[_FACTS]["arrays"]:
    raise ValueError("lacks arrays")
  return State(arrays, facts)


def _line(record: dict[str, Any]) -> bytes:
  """A line of a journal: a list of a checksum and a record."""
  text = json.dumps(record, separators=(",", ":")).encode()
  return b'["%08x",%b]\n' % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict[str, Any] | None:
  """The record of a line of a journal; None: the line is damaged."""
  text = line[12:-2]
  if line != b'["%08x",%b]\n' % (zlib.crc32(text), text):
    return None
  return json.loads(text)


def _write(descriptor: int, data: bytes):
  """Appends all of the data to a file, or nothing.

  Raises:
    OSError: it cannot be written.
  """
  size = os.lseek(descriptor, 0, os.SEEK_END)
  try:
    if os.write(descriptor, data) < len(data):
      raise OSError(_FULL)
  except OSError:
    os.ftruncate(descriptor, size)
    raise
