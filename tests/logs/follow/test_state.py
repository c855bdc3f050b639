"""The state: whatever ends the process, it is that of a prefix of the input."""

import json
import os
import random
import shutil
import sqlite3

import pytest

from seqrnn.errors import MachineError, UserError
from seqrnn.logs.follow import state
from seqrnn.logs.follow.state import (
  ALARMS,
  NAME,
  StateRow,
  open_state,
  read_kinds,
)


class Killed(BaseException):
  """The process ends here."""


class Kills:
  """Kills at a random statement of a database, or write to alarms.jsonl."""

  def __init__(self, monkeypatch, draw, most=60):
    self._draw, self._most, self._left = draw, most, None
    killer = self

    class Connection(sqlite3.Connection):
      def execute(self, *args):
        killer.may()
        return super().execute(*args)

      def __exit__(self, *args):
        if killer.is_now():
          super().__exit__(Killed, Killed(), None)
          raise Killed
        return super().__exit__(*args)

    connect, append, sync = sqlite3.connect, state._append, os.fsync
    monkeypatch.setattr(
      sqlite3, "connect", lambda *a, **b: connect(*a, factory=Connection, **b)
    )

    def cut(path, content):
      if self.is_now():
        append(path, content[: draw.randint(0, len(content))])
        raise Killed
      append(path, content)

    monkeypatch.setattr(state, "_append", cut)
    monkeypatch.setattr(os, "fsync", lambda d: self.may() or sync(d))

  def __enter__(self):
    self._left = self._draw.randint(1, self._most)

  def __exit__(self, *_):
    self._left = None

  def is_now(self):
    if self._left is not None:
      self._left -= 1
    return self._left == 0

  def may(self):
    if self.is_now():
      raise Killed


class Sum:
  """A follower of numbers: an alarm at each total that 7 divides."""

  def __init__(self, opened):
    self._state = opened
    self.shown, facts = opened.recover(), opened.value("facts", int)
    self.read = [value for *_, value in opened.rows("sessions")]
    assert (facts or 0) == len(self.read)

  def feed(self, numbers):
    begin, lines = len(self.read), []
    for number in numbers:
      self.read.append(number)
      if sum(self.read) % 7 == 0:
        lines.append(json.dumps({"number": len(self.read)}))
    rows = enumerate(numbers, begin)
    changes = [StateRow("sessions", place, 0, number) for place, number in rows]
    changes.append(StateRow("meta", "facts", 0, len(self.read)))
    self._state.save(changes, lines)


def expected(numbers):
  totals = [sum(numbers[: n + 1]) for n in range(len(numbers))]
  return [
    json.dumps({"number": n + 1}) for n, t in enumerate(totals) if t % 7 == 0
  ]


def alarms_in(folder):
  return (folder / ALARMS).read_text().splitlines()


def resume(folder, numbers, size=3, report=pytest.fail):
  """Follows to the end; the alarms that are shown at the start."""
  with open_state(folder, report) as opened:
    follower = Sum(opened)
    assert follower.read == numbers[: len(follower.read)]
    for place in range(len(follower.read), len(numbers), size):
      follower.feed(numbers[place : place + size])
  return follower.shown


NUMBERS = [random.Random(1).randrange(10) for _ in range(120)]


@pytest.fixture
def written(tmp_path):
  folder = tmp_path / "state"
  assert resume(folder, NUMBERS[:90], 30) == []
  return folder


def test_only_a_transaction_with_alarms_waits_for_the_disk(tmp_path):
  levels, seen = {1: "NORMAL", 2: "FULL"}, []
  with open_state(tmp_path, pytest.fail) as opened:
    opened.recover()
    change, query = StateRow("meta", "facts", 0, 1), "PRAGMA synchronous"
    for lines in ([], ["1"], []):
      opened.save([change], lines)
      seen.append(levels[opened._database.execute(query).fetchone()[0]])
    # An alarm that could not be written waits, too.
    opened.fault, opened._again = "full", float("inf")
    opened.save([change], ["2"])
    opened.fault = ""
    opened.save([change])
    seen.append(levels[opened._database.execute(query).fetchone()[0]])
  assert seen == ["NORMAL", "FULL", "NORMAL", "FULL"]
  assert alarms_in(tmp_path) == ["1", "2"]


def test_alarms_that_were_truncated_are_completed_renamed_ones_stay(written):
  path = written / ALARMS
  content = path.read_bytes()
  path.write_bytes(content[:40])
  complete = content[:40].count(b"\n")
  shown = resume(written, NUMBERS[:90])
  assert shown == expected(NUMBERS[:90])[complete:]
  assert path.read_bytes() == content
  path.rename(written / "older")
  assert resume(written, NUMBERS) == []
  assert alarms_in(written) == expected(NUMBERS)[content.count(b"\n") :]


def test_a_flipped_byte_is_reported_in_a_line(written):
  path = written / NAME
  content, faults, missed = path.read_bytes(), 0, []
  for place in range(0, len(content), 211):
    damaged = bytearray(content)
    damaged[place] ^= 1 << place % 8
    path.write_bytes(damaged)
    try:
      with open_state(written, pytest.fail) as opened:
        if Sum(opened).read != NUMBERS[:90]:
          missed.append(place)
    except UserError as error:
      faults += 1
      if not str(error).startswith(f"{path}: ") or "\n" in str(error):
        missed.append(str(error))
  assert not missed and faults > 9
  assert b"facts90" in content  # In a value, the structure stays intact.
  path.write_bytes(content.replace(b"facts90", b"facts91"))
  with open_state(written, pytest.fail) as opened:
    message = f"^{path}: cannot be used: wrong checksum in the table meta"
    with pytest.raises(UserError, match=message):
      opened.recover()


def test_a_state_that_knows_less_than_its_alarms_is_refused(tmp_path):
  """SQLite drops what follows a damaged byte, and a log without its file."""
  source, draw, every = tmp_path / "a", random.Random(2), expected(NUMBERS[:60])
  with open_state(source, pytest.fail) as opened:
    follower = Sum(opened)
    for place in range(0, 60, 3):
      follower.feed(NUMBERS[place : place + 3])
    shutil.copytree(source, tmp_path / "killed")
  wal, faults, refusals = (tmp_path / "killed" / f"{NAME}-wal"), [], 0
  content = wal.read_bytes()
  places = sorted(draw.sample(range(len(content)), 8))
  cases: dict[str, tuple[str, bytes | None]] = {"older": (wal.name, None)}
  cases |= {"empty": (NAME, b""), "missing": (NAME, None)}
  for n in places:
    flipped = bytes([content[n] ^ 1]) + content[n + 1 :]
    ends = {"cut": b"", "insert": b"x" + content[n:], "flip": flipped}
    for name, end in ends.items():
      cases[f"{name} {n}"] = wal.name, content[:n] + end
  for case, (name, damaged) in cases.items():
    folder = tmp_path / case
    shutil.copytree(tmp_path / "killed", folder)
    (folder / name).unlink()
    if damaged is not None:
      (folder / name).write_bytes(damaged)
    before = (folder / ALARMS).read_bytes()
    try:
      resume(folder, NUMBERS[:60])
      if alarms_in(folder) != every:
        faults.append(case)
    except UserError as error:
      refusals += 1
      line = str(error)
      ends = line.endswith("move the folder away to begin without it")
      same = (folder / ALARMS).read_bytes() == before
      if not ends or "\n" in line or not same:
        faults.append((case, line))
  assert not faults and refusals > 20
  # Nor is a log of alarms followed without the state that was removed later.
  (written := tmp_path / "removed").mkdir()
  shutil.copy(source / ALARMS, written)
  with pytest.raises(UserError, match="its last line is not in state.db"):
    resume(written, NUMBERS[:60])


def test_a_full_disk_is_reported_once_and_loses_nothing(tmp_path, monkeypatch):
  reported, now = [], [0.0]
  monkeypatch.setattr(state.time, "monotonic", lambda: now[0])
  with open_state(tmp_path, reported.append) as opened:
    Sum(opened).feed(NUMBERS[:30])
    pages = opened._database.execute("PRAGMA page_count").fetchone()[0]
    opened._database.execute(f"PRAGMA max_page_count = {pages}")
    for number in (1, 2):
      now[0] += 6
      opened.save([StateRow("kinds", number, 0, "x" * 10**5)], [f"{number}"])
    opened.save([StateRow("kinds", 1, 0, None), StateRow("kinds", 1, 1, "y")])
    assert alarms_in(tmp_path) == expected(NUMBERS[:30]) and opened.fault
    opened._database.execute("PRAGMA max_page_count = 10000")
    opened.save([])  # Too early.
    assert opened.fault
    now[0] += 6
    opened.save([])
    kinds = [("kinds", 1, 1, "y"), ("kinds", 2, 0, "x" * 10**5)]
    assert not opened.fault and opened.rows("kinds") == kinds
  assert alarms_in(tmp_path)[-2:] == ["1", "2"]
  full, again = reported
  assert "the state cannot be written: database or disk is full;" in full
  assert again == f"{tmp_path}: the state is written again"


def refused(folder, kind, message):
  """Whether a state cannot be opened."""
  with pytest.raises(kind, match=message), open_state(folder, pytest.fail):
    pass


def test_one_process_follows_with_a_state_as_long_as_it_is_there(tmp_path):
  with open_state(tmp_path / "a", print) as opened:
    refused(tmp_path / "a", MachineError, "is being followed by process")
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(MachineError, match="was removed or replaced"):
      opened.save([])


def test_a_database_of_anybody_writes_nothing_elsewhere(written, tmp_path):
  """A journal may name a file that SQLite deletes."""
  journal = written / f"{NAME}-journal"
  journal.write_bytes(b"any" + state._SUPER_JOURNAL)
  refused(written, UserError, "-journal: names a file outside")
  mine = tmp_path / "mine"
  mine.mkdir()
  with sqlite3.connect(mine / NAME) as database:
    database.execute("CREATE TABLE mine (x)")
  database.close()
  before = (mine / NAME).read_bytes()
  refused(mine, UserError, f"tables are not of format {state._FORMAT}")
  assert (mine / NAME).read_bytes() == before


def test_a_database_with_anything_of_its_own_is_refused(written, tmp_path):
  """A view may run for ever, a trigger may silence alarms."""
  # A text has the checksum of the number.
  text = "UPDATE {0} SET key = CAST(key AS TEXT)"
  ignore = "CREATE TRIGGER t BEFORE INSERT ON alarms BEGIN SELECT {}; END"
  view = "ALTER TABLE kinds RENAME TO other; CREATE VIEW kinds AS {}"
  with open_state(written, pytest.fail) as opened:
    opened.save([StateRow("kinds", 1, 0, {"number": 1})])
  faults = []
  for script, reason in (
    (ignore.format("RAISE(IGNORE)"), "its tables are not of format"),
    (view.format("SELECT * FROM other"), "its tables are not of format"),
    ("CREATE TABLE more (x)", "its tables are not of format"),
    ("DROP INDEX lines", "its tables are not of format"),
    ("CREATE INDEX more ON alarms (sum)", "its tables are not of format"),
    ("PRAGMA user_version = 3", "its tables are not of format"),
    (text.format("alarms"), "wrong checksum in the table alarms"),
    (text.format("kinds"), "wrong checksum in the table kinds"),
    ("UPDATE kinds SET part = 'x'", "wrong checksum in the table kinds"),
  ):
    folder = tmp_path / "foreign"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(written, folder)
    database = sqlite3.connect(folder / NAME)
    database.executescript(script)
    database.close()

    def follow(folder=folder):
      with open_state(folder, pytest.fail) as opened:
        opened.recover()
        opened.rows("kinds")

    # A detection and a review read the kinds alone.
    reads = [follow, lambda folder=folder: read_kinds(folder)]
    for read in reads[: 1 + ("alarms" not in reason)]:
      try:
        read()
        faults.append(script)
      except UserError as error:
        if reason not in str(error):
          faults.append((script, str(error)))
  assert not faults


def test_a_page_that_is_a_child_twice_is_refused(tmp_path):
  """Some levels of such pages have rows for ever."""
  with open_state(tmp_path, pytest.fail) as opened:
    kinds = [StateRow("kinds", number, 0, "x" * 500) for number in range(1, 99)]
    opened.save([*kinds, StateRow("meta", "facts", 0, {"n": 1})])
  path, database = tmp_path / NAME, sqlite3.connect(tmp_path / NAME)
  query = "SELECT rootpage FROM sqlite_schema WHERE name = 'kinds'"
  [root], [size] = (
    database.execute(text).fetchone() for text in (query, "PRAGMA page_size")
  )
  database.close()
  content, page = bytearray(path.read_bytes()), (root - 1) * size
  assert content[page] == 2  # Has children; the first cell names the first.
  place = page + int.from_bytes(content[page + 12 : page + 14])
  content[page + 8 : page + 12] = content[place : place + 4]  # The last one.
  path.write_bytes(content)
  refused(tmp_path, UserError, "state.db: cannot be used: ")
  with pytest.raises(UserError, match="state.db: cannot be used: "):
    read_kinds(tmp_path)
