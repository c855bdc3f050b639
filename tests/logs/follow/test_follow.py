"""Following lines: rows and alarms, whatever a line may hold."""

import json
import random
import tempfile
from functools import partial
from pathlib import Path

import pytest

from seqrnn.data.logs.tail import Chunk, FileTail, LogPosition, StreamTail
from seqrnn.errors import UserError
from seqrnn.logs.follow import follow
from seqrnn.logs.follow.state import ALARMS, open_state
from tests.data.logs.test_tail import Log
from tests.logs.follow.test_follower import make
from tests.logs.follow.test_state import Killed, Kills


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """A detection whose models are compiled once."""
  fields = {"detect.rate": 0.1, "detect.quiet": 0.0}
  return make(tmp_path_factory.mktemp("made"), fields)


def service(model, folder, write, report=print):
  """A service that follows with a state in a folder."""
  opened = open_state(folder / "state", report)
  running = follow.Service(lambda: model, folder, opened.__enter__(), write)
  running.close = lambda: opened.__exit__(None, None, None)
  return running


def followed(model, lines, wanted="events"):
  """The rows of a kind that are written of lines on standard input."""
  model.config.detect.follow = wanted
  with tempfile.TemporaryDirectory() as folder:
    path, written = Path(folder) / "lines", []
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with path.open("rb") as file:
      running = service(model, Path(folder), written.append)
      running.recover()
      source = StreamTail(file.fileno())
      running.follow(source, lambda: False, lambda: False)
      running.close()
  rows = map(json.loads, "".join(written).splitlines())
  return [row for row in rows if row["type"] == wanted.removesuffix("s")]


def test_a_line_may_end_a_session(model, capsys):
  lines = [
    b"x a",
    b'{"session": "x", "end": true}',
    b'{"session": "x", "end": true}',
    b'{"session": "y", "event": "b", "end": true}',
    b'{"session": "x", "event": "c", "end": false}',
    b"bad",
  ]
  rows = followed(model, lines)
  assert [row["session"] for row in rows] == ["x", "x", "y", "y", "x"]
  assert [row["event"] for row in rows] == ["a", "<end>", "b", "<end>", "c"]
  assert [row["line"] for row in rows] == [1, None, 4, None, 5]
  third, last = sorted(capsys.readouterr().err.splitlines())
  assert third == "line 3: skipped, ends session 'x', which is not open"
  assert last.startswith("line 6: skipped, must be a session and an event")


def lines_of(draw, count):
  """Lines of sessions that interleave, each with a line that ends it."""
  waiting = {}
  for number in range(count):
    while len(waiting) < 5:
      name = f"s{number}-{len(waiting)}"
      size = draw.randint(2, 12)
      waiting[name] = draw.choices("abcdefg?", [6, 6, 6, 6, 6, 2, 1, 1], k=size)
    name = draw.choice(list(waiting))
    if waiting[name]:
      yield f"{name} {waiting[name].pop()}".encode()
    else:
      del waiting[name]
      yield json.dumps({"session": name, "end": True}).encode()


def alarms_in(folder):
  """The alarms of a state, without the numbers of their lines."""
  rows = (folder / "state" / ALARMS).read_text().splitlines()
  return [{**json.loads(row), "line": None} for row in rows]


class Driver:
  """Writes and rotates a log between two looks of a follower."""

  def __init__(self, path, lines, draw):
    self.log, self._lines, self._draw = Log(path, draw), lines, draw
    self._calls = self._idle = 0

  def __call__(self):
    self._calls += 1
    # Before the first line is read, there is no position in the log.
    may = self._calls > 9 and self.log.path.stat().st_size
    if may and self._draw.random() < 0.1:
      getattr(self.log, self._draw.choice(("rename", "copy")))()
    some = [self._lines.pop(0) for _ in range(min(5, len(self._lines)))]
    self.log.append(some)
    self._idle = 0 if some else self._idle + 1
    return self._idle > 9


def run_on(model, folder, path, stopped, written):
  """Follows a log until it is stopped."""
  model.config.detect.input = str(path)
  running = service(model, folder, written.append)
  try:
    running.recover()
    source = running.source()
    try:
      running.follow(source, stopped, lambda: False)
    finally:
      source.close()
  finally:
    running.close()


@pytest.fixture
def quick(monkeypatch, model):
  """Nothing waits, and the input is a name."""
  monkeypatch.setattr(follow, "_WAIT", 0.0)
  monkeypatch.setattr(follow, "FileTail", partial(FileTail, grace=0))
  model.config.detect.follow = "alarms"
  yield
  model.config.detect.input = None


def test_kills_and_rotations_neither_lose_nor_repeat_an_alarm(
  model, tmp_path, monkeypatch, quick
):
  """At any statement or write of one process after the other."""
  del quick
  draw, written, kills = random.Random(1), [], 0
  lines = list(lines_of(draw, 500))
  whole = tmp_path / "whole.log"
  whole.write_bytes(b"\n".join(lines) + b"\n")
  looks = iter([False] * 9 + [True] * 9)
  run_on(model, tmp_path / "whole", whole, lambda: next(looks), [])
  expected = alarms_in(tmp_path / "whole")
  killer = Kills(monkeypatch, draw, most=150)
  driver = Driver(tmp_path / "app.log", lines, draw)
  while True:
    killer.arm()
    try:
      run_on(model, tmp_path / "killed", driver.log.path, driver, written)
      break
    except Killed:
      kills += 1
    finally:
      killer.disarm()
  driver.log.close()
  assert kills >= 6 and len(expected) > 6
  assert alarms_in(tmp_path / "killed") == expected
  rows = [row for text in written for row in text.splitlines()]
  # A row that is in alarms.jsonl is not written again.
  assert len(rows) == len(set(rows)) >= len(expected) - kills


class Lines:
  """An input that is one line at each look; calls functions between lines."""

  def __init__(self, *lines):
    self._lines, self.position, self.ended = [*lines], LogPosition(), False

  behind = 0

  def read(self, _):
    while self._lines and callable(self._lines[0]):
      self._lines.pop(0)()
    self.ended = len(self._lines) < 2
    if not self._lines:
      return None
    number = self.position.line + 1
    self.position = self.position._replace(line=number)
    return Chunk([self._lines.pop(0)], number, 0, self.position)


def judged(running, source, written):
  """The ended sessions that are written, with the number of their events."""
  running.recover()
  running.follow(source, lambda: False, lambda: False)
  running.close()
  rows = map(json.loads, "".join(written).splitlines())
  return [(r["session"], r["events"]) for r in rows if r["type"] == "session"]


END = b'{"session": "x", "end": true}'


@pytest.mark.parametrize("valid", [True, False])
def test_a_new_detection_takes_up_the_open_sessions(
  model, tmp_path, capsys, monkeypatch, valid
):
  model.config.detect.follow = "sessions"
  monkeypatch.setattr(follow, "_LOOK", 0.0)
  record, written, restored = tmp_path / "detect/deployed.npz", [], []
  record.parent.mkdir()
  record.write_text("1")

  def restore():
    if restored and not valid:  # Damaged files may raise any exception.
      raise IsADirectoryError(21, "Is a directory", "deployed.npz")
    restored.append(model)
    return model

  def change():
    record.unlink()
    record.write_text("22")

  running = service(model, tmp_path, written.append)
  running._restore, restored = restore, [model]
  first = running.follower
  source = Lines(b"x a", b"x b", change, b"x c", END, END)
  assert judged(running, source, written) == [("x", 3)]
  message = capsys.readouterr().err.splitlines()[0]
  assert len(restored) == 1 + valid and (running.follower is first) != valid
  assert message.startswith(
    "a new detection is taken up" if valid else "the detection before stays"
  )


def test_a_restart_goes_on_with_open_sessions_and_lines(
  model, tmp_path, capsys
):
  model.config.detect.follow = "sessions"
  written = []
  first = service(model, tmp_path, written.append)
  assert judged(first, Lines(b"x a", b"x b", b"y a"), written) == []
  again = service(model, tmp_path, written.append)
  again.recover()
  assert again.position.line == 3
  again.close()
  again = service(model, tmp_path, written.append)
  assert judged(again, Lines(b"x c", END), written) == [("x", 3)]
  model.config.detect.input = "other.log"
  other = service(model, tmp_path, written.append)
  model.config.detect.input = None
  with pytest.raises(UserError) as caught:
    other.recover()
  other.close()
  message = "config.detect.input='other.log': the state is of 'standard input';"
  assert str(caught.value).startswith(message)
  resumed, *others = capsys.readouterr().err.splitlines()
  assert "/state: resumes after line 3 of standard input" in resumed
  assert others == [resumed]


def test_secrets_are_masked_in_alarms(model):
  name = "https://u:hunter2@example.org/"
  lines = [f"{name} {event}".encode() for event in "ab?c?"]
  for wanted in ("alarms", "events"):
    rows = followed(model, lines, wanted)
    assert rows
    for row in rows:
      assert "hunter2" not in json.dumps(row)
      assert row["session"].startswith("https://u:<masked-")


def test_a_kind_that_is_answered_normal_is_quiet_from_then_on(
  model, tmp_path, capsys, monkeypatch
):
  model.config.detect.follow = "alarms"
  monkeypatch.setattr(follow, "_LOOK", 0.0)
  path, written = tmp_path / "review.csv", []
  lines = lambda name: [f"{name} {event}".encode() for event in "ab?c?"]
  first = service(model, tmp_path, written.append)
  source = Lines(
    *lines("x"),
    lambda: path.write_text("kind,session,answer\n1,x,normal\n"),
    *lines("y"),
    lambda: path.write_text("kind,session,answer\n1,x,maybe\n"),
    *(b"u a", b"u b"),
  )
  judged(first, source, written)
  rows = [json.loads(row) for row in "".join(written).splitlines()]
  assert rows and {row["session"] for row in rows} == {"x"}
  assert {row["kind"] for row in rows} == {1}
  assert first.health.figures["quiet_kinds"] == 1
  quiet, wrong = capsys.readouterr().err.splitlines()
  assert quiet.startswith("alarms of kind 1 (? ?) are normal by review.csv: ")
  assert wrong.startswith(
    f"the answers before stay: {path}:2: answer='maybe': "
  )
  # A restart knows it without repeating it; without an answer it is written.
  path.write_text("kind,session,answer\n1,x,normal\n")
  again = service(model, tmp_path, written.append)
  judged(again, Lines(*lines("z"), path.unlink, *lines("v")), written)
  assert "of kind 1" not in capsys.readouterr().err
  path.write_text("kind,session,answer\n1,x,\n")
  again = service(model, tmp_path, written.append)
  judged(again, Lines(*lines("w")), written)
  rows = [json.loads(row) for row in "".join(written).splitlines()]
  assert {row["session"] for row in rows} == {"x", "w"}
  assert again.health.figures["quiet_kinds"] == 0
