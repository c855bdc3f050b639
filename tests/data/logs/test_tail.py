"""Tails of logs that grow and rotate, against the lines that were written."""

import gzip
import json
import os
import random
import shutil
from collections import Counter

import pytest

from seqrnn.data.logs import rotation, tail
from seqrnn.data.logs.tail import BEGIN, FileTail, LogPosition, StreamTail
from seqrnn.errors import MachineError


@pytest.fixture
def path(tmp_path):
  return tmp_path / "app.log"


@pytest.fixture
def tail_of(path):
  """A function that begins to follow the log; its files are closed."""
  opened = []

  def begin(position=BEGIN, report=print, grace=0.0):
    opened.append(FileTail(path, report, position, grace))
    return opened[-1]

  yield begin
  for source in opened:
    source.close()


def lines_of(source):
  results = []
  while chunk := source.read(0) or source.read(0):
    results += chunk.lines
  return results


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
@pytest.mark.parametrize("seed", range(4))
def test_every_line_is_read_once(path, tail_of, rotation, seed):
  draw, reported = random.Random(seed), []
  log = Log(path, draw)

  def read():
    while chunk := source.read(0) or source.read(0):
      for number, line in enumerate(chunk.lines, chunk.first):
        results.append((line, chunk.part, number))
      saved.append((len(results), json.dumps(chunk.position)))

  source, results = tail_of(report=reported.append), []
  saved = [(0, json.dumps(BEGIN))]
  for _ in range(120):
    match draw.choice(("write", "write", "read", "rotate", "pack", "restart")):
      case "write":
        if draw.random() < 0.2:
          log.begin_line(read)
        log.write()
      case "read":
        read()
      case "rotate" if path.stat().st_size and len(saved) > 1:
        getattr(log, rotation)()
      case "pack" if draw.random() < 0.5:
        log.pack()
      case "restart":
        source.close()
        del saved[max(len(saved) - draw.randrange(3), min(len(saved), 2)) :]
        count, position = saved[-1]
        position = LogPosition(*json.loads(position))
        source = tail_of(position, reported.append)
        del results[count:]
  log.write()
  read()
  log.close()
  assert [line for line, *_ in results] == log.lines and not reported
  # Lines have the numbers of their file.
  parts = Counter(part for _, part, _ in results)
  expected = [(p, n) for p in parts for n in range(1, parts[p] + 1)]
  assert [place for _, *place in results] == list(map(list, expected))
  assert max(parts) > 3


def test_a_renamed_file_is_read_until_it_is_silent(path, tail_of, monkeypatch):
  now = [1.0]
  monkeypatch.setattr(tail.time, "monotonic", lambda: now[0])
  path.write_bytes(b"1\n")
  source = tail_of(grace=10.0)
  assert lines_of(source) == [b"1"]
  with path.open("ab", buffering=0) as old:
    path.rename(f"{path}.1")
    path.write_bytes(b"4\n")  # One process has reopened the log.
    assert lines_of(source) == []
    now[0] += 9
    for line in (b"2", b"3"):  # Another one has not.
      old.write(line + b"\n")
      assert lines_of(source) == [line]
      now[0] += 9
  now[0] += 2
  assert lines_of(source) == [b"4"]


@pytest.mark.parametrize("how", ["deleted", "truncated", "another"])
def test_lines_that_may_be_lost_are_reported(path, tail_of, how):
  reported, content = [], b"3\n4\n5\n"
  path.write_bytes(b"1\n2\n")
  source = tail_of()
  assert lines_of(source) == [b"1", b"2"]
  source.close()
  match how:
    case "deleted":
      path.unlink()
      path.write_bytes(content)
    case "truncated":
      content = b""
      path.write_bytes(b"")
    case "another":  # In the same file, so with the same inode.
      with path.open("r+b") as file:
        file.write(content)
  # The content between may have been packed and deleted, too.
  path.with_name("app.log.1").write_bytes(b"0\n")
  os.utime(f"{path}.1", (1, 1))
  again = tail_of(source.position, reported.append)
  assert lines_of(again) == content.split()
  assert reported == [
    f"{path}: lines after its line 2 may be lost, as their file is truncated or"
    " gone, without a copy"
  ]


def test_a_file_that_grew_again_between_two_looks_is_noticed(path, tail_of):
  reported = []
  path.write_bytes(b"1\n")
  source = tail_of(report=reported.append)
  assert lines_of(source) == [b"1"]
  shutil.copy(path, f"{path}.1")
  path.write_bytes(b"2\n3\n4\n")
  assert lines_of(source) == [b"2", b"3", b"4"] and not reported


def test_a_part_that_is_being_packed_is_read_once(path, tail_of):
  path.write_bytes(b"1\n")
  source = tail_of()
  assert lines_of(source) == [b"1"]
  source.close()
  path.rename(f"{path}.2")
  path.with_name("app.log.1").write_bytes(b"2\n")
  path.with_name("app.log.1.gz").write_bytes(gzip.compress(b"2\n"))
  path.write_bytes(b"3\n")
  assert lines_of(tail_of(source.position)) == [b"2", b"3"]


def test_the_bytes_that_wait_are_known_before_the_file_is_opened(path, tail_of):
  source, reported = tail_of(report=lambda text: reported.append(text)), []
  assert source.behind == 0 and source.read(0.1) is None
  assert reported == [f"{path}: no such file yet; waiting for it"]
  path.write_bytes(b"one\ntwo\n")
  assert source.behind == 8
  assert source.read(0) and source.behind == 0
  path.write_bytes(b"one\ntwo\nthree\n")
  assert source.behind == tail_of(source.position).behind == 6


def test_what_is_no_log_is_refused(tmp_path):
  for name, fault in (("no/a.log", "No such file"), (".", "not a regular")):
    with pytest.raises(MachineError, match=f": cannot be read: {fault}"):
      FileTail(tmp_path / name, print).read(0)


def test_a_line_without_an_end_takes_no_memory(path, tail_of):
  path.write_bytes(b"x" * 3_000_000)
  source = tail_of()
  assert source.read(0) is None
  assert len(source._begin) == tail.LONGEST + 1
  with path.open("ab") as file:
    file.write(b"\nshort\n")
  chunk = source.read(0)
  assert len(chunk.lines[0]) > tail.LONGEST and chunk.lines[1:] == [b"short"]
  assert chunk.position.offset == 3_000_007


def test_standard_input_is_read_as_it_arrives():
  draw = random.Random(0)
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
  path, tail_of, monkeypatch, owner, name
):
  """After it was listed, and before it is opened."""
  reported = []
  path.write_bytes(b"1\n2\n")
  source = tail_of()
  position = source.read(0).position
  source.close()
  path.rename(f"{path}.1")
  path.write_bytes(b"3\n")
  function, times = getattr(owner, name), []

  def rename(argument):
    names = function(argument) if owner is os else None
    if not times:
      times.append(1)
      path.with_name("app.log.1").rename(f"{path}.2")
    return names or function(argument)

  monkeypatch.setattr(owner, name, rename)
  again = tail_of(position, reported.append)
  chunk = again.read(0)  # It may meet the renamed file.
  assert (chunk.lines if chunk else []) + lines_of(again) == [b"3"]
  assert reported == []
