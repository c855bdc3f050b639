"""Journals: whatever ends the process, the state is that of a prefix."""

import errno
import json
import os
import random
import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from seqrnn.errors import MachineError, UserError
from seqrnn.following import journal
from seqrnn.following.journal import ALARMS, Journal, State
from seqrnn.runtime import files


class Killed(BaseException):
  """The process ends here."""


@pytest.fixture(autouse=True)
def quick(not_synced):
  """Nothing waits for the disk."""


class Sum:
  """A follower of numbers: an alarm at each total that 7 divides."""

  def __init__(self):
    self.read, self.count = [], 0

  def feed(self, numbers):
    alarms = []
    for number in numbers:
      self.read.append(number)
      if sum(self.read) % 7 == 0:
        self.count += 1
        name = f"s{len(self.read) % 5}"
        alarms.append({"type": "alarm", "number": self.count, "session": name})
    return alarms

  def state(self, place):
    arrays = {"read": np.array(self.read, np.int64)}
    return State(arrays, {"place": place, "count": self.count})


def start(folder, reported):
  """A journal, the follower of its state, and the place in the input."""
  opened = Journal(folder, reported.append)
  follower, place = Sum(), 0
  state, records = opened.recover()
  if state:
    follower.read = state.arrays["read"].tolist()
    follower.count, place = state.facts["count"], state.facts["place"]
  for record in records:
    opened.write_alarms(follower.feed(record["numbers"]))
    place = record["place"]
  opened.snapshot(follower.state(place))
  return opened, follower, place


def follow(opened, follower, place, numbers, draw, often=0.1):
  """Follows the numbers from a place to their end."""
  while place < len(numbers):
    size = draw.randint(1, 4)
    chunk = numbers[place : place + size]
    place += len(chunk)
    opened.append({"numbers": chunk, "place": place})
    opened.write_alarms(follower.feed(chunk))
    if draw.random() < often:
      opened.snapshot(follower.state(place))


def alarms_in(folder):
  lines = (folder / ALARMS).read_text().splitlines()
  return [json.loads(line) for line in lines]


def expected(numbers):
  return Sum().feed(numbers)


class Kills:
  """Kills at a random call of what changes files."""

  def __init__(self, monkeypatch, draw, most=60):
    self._draw, self._most, self._left = draw, most, None
    for name in ("write", "replace", "unlink", "open", "fdatasync", "fsync"):
      call = getattr(os, name)
      monkeypatch.setattr(os, name, self._killing(name, call))

  def arm(self):
    self._left = self._draw.randint(1, self._most)

  def disarm(self):
    self._left = None

  @contextmanager
  def paused(self):
    left, self._left = self._left, None
    yield
    self._left = left

  def _killing(self, name, call):
    def maybe(*args, **named):
      if self._left is not None:
        self._left -= 1
        if self._left == 0:
          if name == "write":
            call(args[0], args[1][: self._draw.randint(0, len(args[1]))])
          raise Killed
      return call(*args, **named)

    return maybe


@pytest.mark.parametrize("seed", range(10))
def test_kills_neither_lose_nor_repeat_an_alarm(tmp_path, monkeypatch, seed):
  draw, reported, kills = random.Random(seed), [], 0
  killer = Kills(monkeypatch, draw)
  numbers = [draw.randrange(10) for _ in range(400)]
  opened, ended = None, False
  while not ended:
    killer.arm()
    try:
      opened, follower, place = start(tmp_path / "state", reported)
      assert follower.read == numbers[:place]
      follow(opened, follower, place, numbers, draw)
      ended = True
    except Killed:
      kills += 1
    killer.disarm()
    if opened is not None:
      opened.close()
  assert kills > 5 and reported == []
  assert alarms_in(tmp_path / "state") == expected(numbers)
  again, follower, _ = start(tmp_path / "state", reported)
  again.close()
  assert follower.read == numbers


@pytest.fixture
def written(tmp_path):
  """A folder with two generations, and the numbers that were followed."""
  draw = random.Random(1)
  numbers = [draw.randrange(10) for _ in range(60)]
  opened, follower, _ = start(tmp_path, [])
  follow(opened, follower, 0, numbers[:40], random.Random(8))
  opened.snapshot(follower.state(40))
  for place in range(40, 60):
    opened.append({"numbers": numbers[place : place + 1], "place": place + 1})
    opened.write_alarms(follower.feed(numbers[place : place + 1]))
  opened.close()
  return tmp_path, numbers


def newest(folder, kind):
  return max(folder.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime_ns)


def resume(folder, numbers):
  """Follows to the end; what is reported."""
  reported = []
  opened, follower, place = start(folder, reported)
  assert follower.read == numbers[:place]
  follow(opened, follower, place, numbers, random.Random(0))
  opened.close()
  assert alarms_in(folder) == expected(numbers)
  return reported


def test_a_journal_may_end_at_any_byte(written):
  folder, numbers = written
  path = newest(folder, "journal")
  content = {file: file.read_bytes() for file in folder.iterdir()}
  for size in range(0, len(content[path]), 13):
    for file in folder.iterdir():
      file.unlink()
    for file, data in content.items():
      file.write_bytes(data)
    path.write_bytes(content[path][:size])
    # Later alarms are not on the disk: the journal comes first.
    kept = expected(numbers[: 40 + content[path][:size].count(b"\n")])
    some = [json.dumps(row) + "\n" for row in kept]
    (folder / ALARMS).write_text("".join(some))
    assert resume(folder, numbers) == []


def test_a_damaged_record_is_reported_and_read_again(written):
  folder, numbers = written
  path = newest(folder, "journal")
  lines = path.read_bytes().splitlines(True)
  lines[3] = lines[3].replace(b'"numbers"', b'"nmubers"')
  path.write_bytes(b"".join(lines))
  [line] = resume(folder, numbers)
  assert line.startswith(f"{path}: line 4: damaged")


def test_many_alarms_may_come_after_a_snapshot(written, monkeypatch):
  folder, numbers = written
  monkeypatch.setattr(journal, "_END", 1)
  assert resume(folder, numbers) == []


def test_the_last_record_may_be_damaged(written):
  folder, numbers = written
  path = newest(folder, "journal")
  path.write_bytes(path.read_bytes().replace(b'"numbers"', b'"nmubers"'))
  *head, last = path.read_bytes().splitlines(True)
  path.write_bytes(b"".join(head).replace(b"nmubers", b"numbers") + last)
  [line] = resume(folder, numbers)
  assert line.startswith(f"{path}: line {len(head) + 1}: damaged")


@pytest.mark.parametrize(
  "line", [b"[]", b'{"number": 1e999}', b'{"number": 1, "session": []}']
)
def test_a_line_of_alarms_that_a_person_wrote_is_left_out(written, line):
  folder, numbers = written
  with (folder / ALARMS).open("ab") as file:
    file.write(line + b"\n")
  opened, _, _ = start(folder, [])
  opened.close()


def test_a_damaged_snapshot_has_one_before_it(written):
  folder, numbers = written
  path = newest(folder, "snapshot")
  path.write_bytes(path.read_bytes()[:-30])
  [line] = resume(folder, numbers)
  assert line.startswith(f"{path}: damaged (")
  assert line.endswith("; the one before it and its journal are used")


def test_no_damage_of_a_snapshot_goes_unnoticed(written):
  folder, _ = written
  path = newest(folder, "snapshot")
  content, whole = path.read_bytes(), journal._load(path)
  path.write_bytes(content.replace(b"read.npy", b"raed.npy"))
  with pytest.raises(ValueError, match="lacks arrays"):
    journal._load(path)
  for place in range(0, len(content), 3):
    damaged = bytearray(content)
    damaged[place] ^= 1 << place % 8
    path.write_bytes(damaged)
    try:
      state = journal._load(path)
    except Exception:
      continue
    assert state.facts == whole.facts  # The byte is not read.
    assert (state.arrays["read"] == whole.arrays["read"]).all()


def test_only_damaged_snapshots_are_refused(written):
  folder, _ = written
  for path in folder.glob("snapshot-*"):
    path.write_bytes(b"PK")
  with pytest.raises(
    UserError, match=r"snapshot-\d+.npz: damaged \(.*; remove"
  ):
    start(folder, [])


def test_one_process_follows_with_a_state(tmp_path):
  with Journal(tmp_path, print), pytest.raises(MachineError) as caught:
    Journal(tmp_path, print)
  assert "is being followed by process" in str(caught.value)


class Full:
  """A disk with room for so many bytes of a write."""

  def __init__(self, monkeypatch):
    self.room, self.refused = 10**9, b""
    self._write, self._atomic = os.write, files.atomic_write
    monkeypatch.setattr(os, "write", self._write_some)
    monkeypatch.setattr(files, "atomic_write", self._write_file)

  def _write_some(self, descriptor, data):
    if len(data) > self.room and data.startswith(self.refused):
      self._write(descriptor, data[: self.room])
      raise OSError(errno.ENOSPC, "No space left on device")
    return self._write(descriptor, data)

  def _write_file(self, path, mode):
    if self.room < 10**9:
      raise MachineError(f"{path}: cannot be written: No space left on device")
    return self._atomic(path, mode)


def test_a_folder_that_is_removed_is_written_and_locked_again(tmp_path):
  folder, reported, numbers = tmp_path / "state", [], list(range(60))
  opened, follower, place = start(folder, reported)
  follow(opened, follower, place, numbers[:30], random.Random(0))
  for another in (True, False):
    shutil.rmtree(folder)
    if another:
      taken = Journal(folder, reported.append)
    assert opened.snapshot(follower.state(30)) != another
    if another:
      taken.close()
  with pytest.raises(MachineError, match="is being followed by process"):
    Journal(folder, reported.append)
  opened.close()
  opened, follower, place = start(folder, reported)
  assert (follower.read, place, opened.alarms) == (
    numbers[:30],
    30,
    len(expected(numbers[:30])),
  )
  opened.close()
  assert len(reported) == 2


@pytest.mark.parametrize("refused", [b"", b'{"type"'])
def test_a_full_disk_is_reported_once_and_loses_nothing(
  tmp_path, monkeypatch, refused
):
  draw, reported = random.Random(3), []
  disk = Full(monkeypatch)
  numbers = [draw.randrange(10) for _ in range(100)]
  opened, follower, _ = start(tmp_path, reported)
  follow(opened, follower, 0, numbers[:30], random.Random(8))
  disk.room, disk.refused = 3, refused
  follow(opened, follower, 30, numbers[:60], draw)
  assert not opened.snapshot(follower.state(60))
  assert len(reported) == 1 and opened.fault
  copy = tmp_path / "copy"  # Of a process that is killed now.
  shutil.copytree(tmp_path, copy, ignore=shutil.ignore_patterns("copy"))
  disk.room = 10**9
  assert resume(copy, numbers) == []
  # Only a snapshot has the records that are not in the journal.
  follow(opened, follower, 60, numbers[:80], draw, 0)
  assert opened.snapshot(follower.state(80))
  assert reported == [
    f"{tmp_path}: the state cannot be written: No space left on device;"
    " following goes on, and writing is tried again every 5 seconds",
    f"{tmp_path}: the state is written again",
  ]
  assert alarms_in(tmp_path) == expected(numbers[:80])
  opened.append({"numbers": [], "place": 80})
  opened.close()
  # The journal before lacks records, if its snapshot has to be used.
  path = newest(tmp_path, "snapshot")
  path.write_bytes(b"PK")
  assert [line.split(": ")[-1][:7] for line in resume(tmp_path, numbers)] == [
    "damaged",
    "damaged",
  ]


def test_another_model_repeats_no_alarm_of_a_session(written):
  """A model that is retrained while nothing follows brings others about."""
  folder, _ = written
  before = alarms_in(folder)
  opened = Journal(folder, print)
  _, records = opened.recover()
  sessions = [before[-2]["session"]]  # And not that of the last alarm.
  for _ in records:
    found = opened.write_alarms(
      [{"number": 1, "session": name} for name in [*sessions, "new"]]
    )
    sessions = []
    if found:
      break
  assert [row["session"] for row in found] == ["new"]
  assert found[0]["number"] == len(before) + 1
  for _ in records:
    pass
  opened.snapshot(State({}, {}))
  again = [{"number": 1, "session": before[-1]["session"]}]
  assert opened.write_alarms(again)  # Another session of the same name.
  opened.close()


def test_old_generations_are_removed(tmp_path):
  opened, follower, _ = start(tmp_path, [])
  for _ in range(5):
    opened.append({"numbers": [1], "place": 1})
    opened.snapshot(follower.state(0))
  opened.close()
  for kind in ("snapshot", "journal"):
    assert len(list(tmp_path.glob(f"{kind}-*"))) == 2


def test_a_snapshot_is_due_after_a_while(tmp_path, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
  opened, follower, _ = start(tmp_path, [])
  now[0] += 61
  assert not opened.is_due  # Nothing has changed.
  opened.append({"numbers": [1], "place": 1})
  assert opened.is_due
  opened.snapshot(follower.state(1))
  opened.append({"numbers": [1], "place": 1})
  assert not opened.is_due
  monkeypatch.setattr(journal, "_BYTES", 10)
  assert opened.is_due
  opened.close()
