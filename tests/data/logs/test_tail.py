"""Tails of logs that grow and rotate, against the lines that were written."""

import gzip
import json
import os
import random
import shutil

import pytest

from seqrnn.data.logs import rotation, tail
from seqrnn.data.logs.tail import FileTail, LogPosition, StreamTail
from seqrnn.errors import MachineError


@pytest.fixture(autouse=True)
def closed(monkeypatch):
  """Closes the files that a test leaves open."""
  opened = []
  for kind in (FileTail, Log):

    def begin(self, *args, init=kind.__init__, **named):
      opened.append(self)
      init(self, *args, **named)

    monkeypatch.setattr(kind, "__init__", begin)
  yield
  for file in opened:
    file.close()


class Log:
  """A writer of unique lines, whose log is rotated.

  Attributes:
    lines: that were written.
  """

  def __init__(self, path, draw):
    self.path, self.lines = path, []
    self._draw, self._file = draw, path.open("ab", buffering=0)

  def close(self):
    self._file.close()

  def write(self):
    """Writes lines, perhaps in pieces; the newline ends a line later."""
    for _ in range(self._draw.randint(1, 4)):
      text = f"{len(self.lines)} {'x' * self._draw.choice((0, 5, 300))}"
      self.lines.append(text.encode())
      self._file.write(self.lines[-1] + b"\n")

  def append(self, lines):
    """Writes lines."""
    self._file.write(b"".join(line + b"\n" for line in lines))

  def begin_line(self, read):
    """Writes half a line; it is read at a wrong moment."""
    self._file.write(b"half")
    read()
    self._file.write(b" and half\n")
    self.lines.append(b"half and half")

  def _shift(self):
    names = sorted(
      self.path.parent.glob(f"{self.path.name}.*"),
      key=lambda file: -int(file.name.split(".")[2]),
    )
    for name in names:
      number, *packed = name.name.split(".")[2:]
      new = [self.path.name, str(int(number) + 1), *packed]
      name.rename(self.path.parent / ".".join(new))

  def rename(self):
    """Renames the log; the writer reopens it a moment later."""
    self._shift()
    self.path.rename(f"{self.path}.1")
    if self._draw.random() < 0.7:
      self.path.touch()
    if self._draw.random() < 0.5 and self.lines:
      self.write()  # Of the old file.
    self._file.close()
    self._file = self.path.open("ab", buffering=0)

  def copy(self):
    """Copies the log and truncates it."""
    self._shift()
    shutil.copy(self.path, f"{self.path}.1")
    os.truncate(self.path, 0)

  def pack(self):
    """Packs the second newest file, as logrotate does with delaycompress."""
    file = self.path.with_name(f"{self.path.name}.2")
    if file.exists():
      with gzip.open(f"{file}.gz", "wb") as packed:
        packed.write(file.read_bytes())
      file.unlink()


@pytest.mark.parametrize("rotation", ["rename", "copy"])
@pytest.mark.parametrize("seed", range(6))
def test_every_line_is_read_once(tmp_path, rotation, seed):
  draw, reported = random.Random(seed), []
  log = Log(tmp_path / "app.log", draw)

  def start(position):
    return FileTail(log.path, reported.append, position, grace=0)

  def read():
    while chunk := source.read(0) or source.read(0):
      results.extend(chunk.lines)
      parts.add(chunk.part)
      saved.append((len(results), json.dumps(chunk.position)))

  source, results, parts = start(LogPosition()), [], set()
  saved = [(0, json.dumps(LogPosition()))]
  for _ in range(120):
    match draw.choice(("write", "write", "read", "rotate", "pack", "restart")):
      case "write":
        if draw.random() < 0.2:
          log.begin_line(read)
        log.write()
      case "read":
        read()
      case "rotate" if log.path.stat().st_size and len(saved) > 1:
        getattr(log, rotation)()
      case "pack" if draw.random() < 0.5:
        log.pack()
      case "restart":
        source.close()
        del saved[max(len(saved) - draw.randrange(3), min(len(saved), 2)) :]
        count, position = saved[-1]
        source = start(LogPosition(*json.loads(position)))
        del results[count:]
  log.write()
  read()
  assert results == log.lines
  assert reported == []
  assert max(parts) > 3


@pytest.mark.parametrize("seed", range(2))
def test_lines_have_the_numbers_of_their_file(tmp_path, seed):
  draw = random.Random(seed)
  log = Log(tmp_path / "app.log", draw)
  source = FileTail(log.path, print, grace=0)
  of_part = {}
  for _ in range(60):
    log.write()
    if draw.random() < 0.3:
      log.rename()
      log.write()
    while chunk := source.read(0) or source.read(0):
      before = of_part.setdefault(chunk.part, [])
      assert chunk.first == len(before) + 1
      before += chunk.lines
  newest = max(of_part)
  for part, lines in of_part.items():
    name = f"app.log.{newest - part}" if part < newest else "app.log"
    assert (tmp_path / name).read_bytes().split(b"\n")[:-1] == lines


def lines_of(source):
  results = []
  while chunk := source.read(0) or source.read(0):
    results += chunk.lines
  return results


def test_a_renamed_file_is_read_until_it_is_silent(tmp_path, monkeypatch):
  now, path = [1.0], tmp_path / "app.log"
  monkeypatch.setattr(tail.time, "monotonic", lambda: now[0])
  path.write_bytes(b"1\n")
  source = FileTail(path, print, grace=10)
  assert lines_of(source) == [b"1"]
  with path.open("ab", buffering=0) as old:
    path.rename(tmp_path / "app.log.1")
    path.write_bytes(b"4\n")  # One process has reopened the log.
    assert lines_of(source) == []
    now[0] += 9
    old.write(b"2\n")  # Another one has not.
    assert lines_of(source) == [b"2"]
    now[0] += 9
    old.write(b"3\n")
    assert lines_of(source) == [b"3"]
  now[0] += 11
  assert lines_of(source) == [b"4"]


def test_a_last_line_without_a_newline_ends_with_its_file(tmp_path):
  path = tmp_path / "app.log"
  path.write_bytes(b"1\n2")
  source = FileTail(path, print, grace=0)
  assert lines_of(source) == [b"1"]
  path.rename(tmp_path / "app.log.1")
  path.write_bytes(b"3\n")
  assert lines_of(source) == [b"2", b"3"]


@pytest.mark.parametrize("how", ["deleted", "truncated", "another"])
def test_lines_that_may_be_lost_are_reported(tmp_path, how):
  path, reported = tmp_path / "app.log", []
  path.write_bytes(b"1\n2\n")
  source = FileTail(path, reported.append)
  assert lines_of(source) == [b"1", b"2"]
  source.close()
  match how:
    case "deleted":
      path.unlink()
      path.write_bytes(b"3\n4\n5\n")
    case "truncated":
      path.write_bytes(b"3\n")
      os.truncate(path, 0)
    case "another":  # In the same file, so with the same inode.
      with path.open("r+b") as file:
        file.write(b"3\n4\n5\n")
  # The content between may have been packed and deleted, too.
  (tmp_path / "app.log.1").write_bytes(b"0\n")
  os.utime(tmp_path / "app.log.1", (1, 1))
  again = FileTail(path, reported.append, source.position, grace=0)
  assert lines_of(again) == ([] if how == "truncated" else [b"3", b"4", b"5"])
  assert reported == [
    f"{path}: the file that was read is truncated or gone, without a copy;"
    " lines after its line 2 may be lost"
  ]


def test_a_file_that_grew_again_between_two_looks_is_noticed(tmp_path):
  path, reported = tmp_path / "app.log", []
  path.write_bytes(b"1\n")
  source = FileTail(path, reported.append, grace=0)
  assert lines_of(source) == [b"1"]
  shutil.copy(path, tmp_path / "app.log.1")
  path.write_bytes(b"2\n3\n4\n")
  assert lines_of(source) == [b"2", b"3", b"4"]
  assert reported == []


def test_a_part_that_is_being_packed_is_read_once(tmp_path):
  path = tmp_path / "app.log"
  path.write_bytes(b"1\n")
  source = FileTail(path, print, grace=0)
  assert lines_of(source) == [b"1"]
  source.close()
  path.rename(tmp_path / "app.log.2")
  (tmp_path / "app.log.1").write_bytes(b"2\n")
  (tmp_path / "app.log.1.gz").write_bytes(gzip.compress(b"2\n"))
  path.write_bytes(b"3\n")
  again = FileTail(path, print, source.position, grace=0)
  assert lines_of(again) == [b"2", b"3"]


def test_the_name_may_be_a_link_to_the_newest_file(tmp_path):
  first, second = (tmp_path / f"app-2026-11-2{day}.log" for day in (6, 7))
  first.write_bytes(b"1\n")
  path = tmp_path / "app.log"
  path.symlink_to(first.name)
  source = FileTail(path, print, grace=0)
  assert lines_of(source) == [b"1"]
  with first.open("ab") as file:
    file.write(b"2\n")
  second.write_bytes(b"3\n")
  path.unlink()
  path.symlink_to(second.name)
  assert lines_of(source) == [b"2", b"3"]


def test_a_damaged_packed_file_is_reported(tmp_path):
  path, reported = tmp_path / "app.log", []
  path.write_bytes(b"".join(b"%d\n" % n for n in range(40_000)))
  source = FileTail(path, reported.append, grace=0)
  chunk = source.read(0)
  source.close()
  packed = gzip.compress(path.read_bytes())
  (tmp_path / "app.log.1.gz").write_bytes(packed[: len(packed) * 3 // 4])
  path.unlink()
  path.write_bytes(b"next\n")
  again = FileTail(path, reported.append, chunk.position, grace=0)
  assert lines_of(again)[-1] == b"next"
  assert reported[0].startswith(f"{path}: the end of a packed part: ")
  assert len(reported) == 1


def test_the_bytes_that_wait_are_known_before_the_file_is_opened(tmp_path):
  path = tmp_path / "app.log"
  path.write_bytes(b"one\ntwo\n")
  source = FileTail(path, print)
  assert source.behind == 8
  assert source.read(0) and source.behind == 0
  path.write_bytes(b"one\ntwo\nthree\n")
  assert source.behind == 6
  assert FileTail(path, print, source.position).behind == 6
  assert FileTail(tmp_path / "later.log", print).behind == 0


def test_a_log_may_begin_later(tmp_path):
  path, reported = tmp_path / "app.log", []
  source = FileTail(path, reported.append)
  assert source.read(0.1) is None
  assert reported == [f"{path}: no such file yet; waiting for it"]
  path.write_bytes(b"1\n")
  assert lines_of(source) == [b"1"]


def test_what_is_no_log_is_refused(tmp_path):
  for name, fault in (
    ("no/app.log", "No such file"),
    (".", "not a regular"),
  ):
    with pytest.raises(MachineError, match=f": cannot be read: {fault}"):
      FileTail(tmp_path / name, print).read(0)


def test_a_line_without_an_end_takes_no_memory(tmp_path):
  path = tmp_path / "app.log"
  path.write_bytes(b"x" * 3_000_000)
  source = FileTail(path, print)
  assert source.read(0) is None
  assert len(source._lines._begin) == tail.LONGEST + 1
  with path.open("ab") as file:
    file.write(b"\nshort\n")
  chunk = source.read(0)
  assert len(chunk.lines[0]) > tail.LONGEST and chunk.lines[1:] == [b"short"]
  assert chunk.position.offset == 3_000_007


@pytest.mark.parametrize("seed", range(3))
def test_standard_input_is_read_as_it_arrives(seed):
  draw = random.Random(seed)
  reading, writing = os.pipe()
  lines = [b"x" * draw.choice((0, 3, 900)) for _ in range(50)] + [b"no newline"]
  data, source, results = b"\n".join(lines), StreamTail(reading), []
  source.position = LogPosition(line=7)
  while not source.ended:
    if writing >= 0 and draw.random() < 0.5:
      size = draw.randint(1, 2000)
      os.write(writing, data[:size])
      data = data[size:]
      if not data:
        os.close(writing)
        writing = -1
    elif chunk := source.read(0):
      assert chunk.first == 8 + len(results)
      results += chunk.lines
      assert chunk.position.line == 7 + len(results)
  os.close(reading)
  assert results == lines


@pytest.mark.parametrize("owner, name", [(os, "listdir"), (rotation, "opened")])
def test_a_file_may_be_renamed_at_any_moment(
  tmp_path, monkeypatch, owner, name
):
  """After it was listed, and before it is opened."""
  path, reported = tmp_path / "app.log", []
  path.write_bytes(b"1\n2\n")
  source = FileTail(path, reported.append, grace=0)
  position = source.read(0).position
  source.close()
  path.rename(tmp_path / "app.log.1")
  path.write_bytes(b"3\n")
  function, times = getattr(owner, name), []

  def rename(argument):
    names = function(argument) if owner is os else None
    if not times:
      times.append(1)
      (tmp_path / "app.log.1").rename(tmp_path / "app.log.2")
    return names or function(argument)

  monkeypatch.setattr(owner, name, rename)
  again = FileTail(path, reported.append, position, grace=0)
  chunk = again.read(0)  # It may meet the renamed file.
  assert (chunk.lines if chunk else []) + lines_of(again) == [b"3"]
  assert reported == []
