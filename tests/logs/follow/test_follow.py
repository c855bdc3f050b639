"""Following lines: rows and alarms, whatever a line may hold."""

import contextlib
import json
import math
import random
import shutil
from functools import partial

import pytest

from seqrnn.data.logs.tail import Chunk, FileTail, LogPosition
from seqrnn.errors import UserError
from seqrnn.logs.follow import follow
from seqrnn.logs.follow.state import ALARMS, StateRow, open_state
from seqrnn.runtime import generations
from tests.data.logs.test_tail import Log
from tests.logs.follow.test_follower import make, p_of
from tests.logs.follow.test_state import Killed, Kills


@pytest.fixture
def model(monkeypatch):
  """A detection; nothing waits, and each look is in time."""
  monkeypatch.setattr(follow, "_WAIT", 0.0)
  monkeypatch.setattr(follow, "_LOOK", 0.0)
  monkeypatch.setattr(follow, "FileTail", partial(FileTail, grace=0))
  return make({"detect.rate": 0.1, "detect.quiet": 0.0})


@contextlib.contextmanager
def service(model, folder, write, **settings):
  """A service that follows with a state in a folder."""
  model.config.detect.update(settings)
  with open_state(folder / "state", print) as state:
    running = follow.Service(model, folder, state, write)
    running.recover()
    yield running


class Lines:
  """An input that is a line, or None, at each look; calls functions between."""

  behind = 0

  def __init__(self, *lines):
    self._lines, self.position, self.ended = [*lines], LogPosition(), False

  def close(self):
    self.ended = True

  def read(self, _):
    while self._lines and callable(self._lines[0]):
      self._lines.pop(0)()
    self.ended = len(self._lines) < 2
    if not self._lines or self._lines[0] is None:
      self._lines[:1] = []
      return None
    number = self.position.line + 1
    self.position = self.position._replace(line=number)
    return Chunk([self._lines.pop(0)], number, 0, self.position)


def rows_of(model, folder, lines, wanted, then=id):
  """The rows of a kind that are written of lines."""
  written = []
  with service(model, folder, written.append, follow=wanted) as running:
    running.follow(Lines(*lines), lambda: False)
    then(running)
  rows = map(json.loads, "".join(written).splitlines())
  return [row for row in rows if row["type"] == wanted.removesuffix("s")]


def judged(model, folder, *lines):
  """The sessions that lines end, with the number of their events."""
  rows = rows_of(model, folder, lines, "sessions")
  return [(row["session"], row["events"]) for row in rows]


def test_a_line_may_end_a_session(model, tmp_path, capsys):
  lines = [
    b"x a",
    b'{"session": "x", "end": true}',
    b'{"session": "x", "end": true}',
    b'{"session": "y", "event": "b", "end": true}',
    b'{"session": "x", "event": "c", "end": false}',
    b"bad",
  ]
  assert judged(model, tmp_path, *lines) == [("x", 1), ("y", 1)]
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
  settings = {"input": str(path), "follow": "alarms"}
  with (
    service(model, folder, written.append, **settings) as running,
    contextlib.closing(running.source()) as source,
  ):
    running.follow(source, stopped)


def test_kills_and_rotations_neither_lose_nor_repeat_an_alarm(
  model, tmp_path, monkeypatch
):
  """At any statement or write of one process after the other."""
  draw, written, kills = random.Random(1), [], 0
  lines = list(lines_of(draw, 350))
  whole = tmp_path / "whole.log"
  whole.write_bytes(b"\n".join(lines) + b"\n")
  looks = iter([False] * 9 + [True] * 9)
  run_on(model, tmp_path / "whole", whole, lambda: next(looks), [])
  expected = alarms_in(tmp_path / "whole")
  killer = Kills(monkeypatch, draw, most=150)
  driver = Driver(tmp_path / "app.log", lines, draw)
  while True:
    try:
      with killer:
        run_on(model, tmp_path / "killed", driver.log.path, driver, written)
      break
    except Killed:
      kills += 1
  driver.log.close()
  assert kills >= 6 and len(expected) > 6
  assert alarms_in(tmp_path / "killed") == expected
  rows = [row for text in written for row in text.splitlines()]
  # A row that is in alarms.jsonl is not written again.
  assert len(rows) == len(set(rows)) >= len(expected) - kills


def test_an_error_of_ours_does_not_condemn_the_state(
  model, tmp_path, monkeypatch
):
  judged(model, tmp_path, b"x a")

  def fail(*_):
    raise TypeError("a bug")

  monkeypatch.setattr(follow.Follower, "restore", fail)
  with pytest.raises(TypeError, match="a bug"), service(model, tmp_path, print):
    pass


END = b'{"session": "x", "end": true}'


def test_a_restart_goes_on_with_open_sessions_and_lines(
  model, tmp_path, capsys
):
  assert judged(model, tmp_path, b"x a", b"x b", b"y a") == []
  with service(model, tmp_path, print) as again:
    assert again.position.line == 3
    least = 1 / (model.normal.scores["combined"].n + 1)
    probe = again.health.probe()
    assert (probe["rate"], probe["least_p_value"]) == (0.1, least)
  assert judged(model, tmp_path, b"x c", END) == [("x", 3)]
  other = service(model, tmp_path, print, input="other.log")
  with pytest.raises(UserError) as caught, other:
    pass
  message = "config.detect.input='other.log': the state is of 'standard input';"
  assert str(caught.value).startswith(message)
  resumed, *others = capsys.readouterr().err.splitlines()
  assert "/state: resumes after line 3 of standard input" in resumed
  assert others == [resumed]


def test_secrets_are_masked_in_alarms(model, tmp_path):
  name = "https://u:hunter2@example.org/"
  events = "a", "b", "token=hunter2", "c", "token=hunter2"
  lines = [f"{name}\t{event}".encode() for event in events]
  lines.append(json.dumps({"session": name, "end": True}).encode())
  for wanted in ("alarms", "sessions"):
    rows = rows_of(model, tmp_path / wanted, lines, wanted)
    assert rows and "hunter2" not in json.dumps(rows)
    assert {row["session"][:18] for row in rows} == {"https://u:<masked-"}
    assert "token=<masked>" in json.dumps(rows)


def test_a_kind_that_is_answered_normal_is_quiet_from_then_on(
  model, tmp_path, capsys
):
  path = tmp_path / "review.csv"
  lines = lambda name: [f"{name} {event}".encode() for event in "ab?c?"]
  answer = lambda word: (
    lambda: path.write_text(f"kind,session,answer\n1,x,{word}\n")
  )
  quiet, then = [], lambda run: quiet.append(run.health.figures["quiet_kinds"])
  source = *lines("x"), answer("normal"), *lines("y"), answer("maybe")
  rows = rows_of(model, tmp_path, [*source, b"u a", b"u b"], "alarms", then)
  assert {(row["session"], row["kind"]) for row in rows} == {("x", 1)}
  first, wrong = capsys.readouterr().err.splitlines()
  assert first.startswith("alarms of kind 1 (? ?) are normal by review.csv: ")
  assert wrong.startswith(
    f"the answers before stay: {path}:2: answer='maybe': "
  )
  # A restart knows it; without an answer it is written.
  answer("normal")()
  assert rows_of(model, tmp_path, lines("z"), "alarms", then) == []
  answer("")()
  rows = rows_of(model, tmp_path, lines("w"), "alarms", then)
  assert {row["session"] for row in rows} == {"w"}
  assert quiet == [1, 1, 0]


def test_a_log_that_falls_silent_raises_one_alarm_and_ends_its_sessions(
  model, tmp_path, capsys
):
  silent, rows, states = model._replace(silence=0.0), [], []
  for lines in (
    [None, b"x a", b"y a", None, None, None],  # At first nothing is silent.
    [None, b"x b", b"x a"],  # After a restart it is silent as before.
  ):
    written = []
    with service(
      silent, tmp_path, written.append, follow="sessions"
    ) as running:
      note = lambda running=running: states.append(running.health.probe())
      running.follow(Lines(lines[0], note, *lines[1:], note), lambda: False)
    rows += [[*map(json.loads, "".join(written).splitlines())]]
  of = lambda n, kind: [row for row in rows[n] if row["type"] == kind]
  assert [row["session"] for row in of(0, "session")] == ["x", "y"]
  [begin], [end] = of(0, "silence"), of(1, "silence")
  assert begin["line"] == 2 and not begin["ended"] and end["ended"]
  assert end.items() >= {**begin, "ended": True}.items()
  assert begin["since"] <= end["until"]
  since = begin["since"]
  assert [state["silence"] for state in states] == ["", since, since, ""]
  alarms = (tmp_path / "state" / "alarms.jsonl").read_text().splitlines()
  assert [*map(json.loads, alarms)].count(begin) == 1
  error = capsys.readouterr().err
  assert f"the log has been silent since {since}" in error
  # Without times no pause is known.
  assert make().silence == math.inf


def test_the_next_model_is_taken_up_between_two_transactions(
  model, tmp_path, monkeypatch, capsys
):
  """Its verdicts on a session are those on all events of the session."""
  other = make({"detect.rate": 0.1}, ("max",))
  models = {tmp_path: model, generations.folder_of(tmp_path, 1): other}
  generations.folder_of(tmp_path, 1).mkdir(parents=True)
  for one in models.values():
    one.config.detect.follow = "sessions"
  read_run = lambda _: model.config
  monkeypatch.setattr(follow.config_lib, "read_run", read_run)
  monkeypatch.setattr(
    follow.deployed, "restore", lambda *args: models[args[-1]]
  )
  use = lambda: generations.use(tmp_path, generations.read(tmp_path), 1)
  end = lambda name: END.replace(b"x", name)
  lines = [b"x a", b"y a", b"x e", end(b"y"), use, b"z a", b"x c"]
  lines += [end(b"x"), b"z ?", end(b"z")]
  monkeypatch.setattr(follow.Service, "source", lambda _: Lines(*lines))
  (tmp_path / "config.json").touch()
  follow.run(lambda: None, model.config, tmp_path)
  out, error = capsys.readouterr()
  rows = [json.loads(line) for line in out.splitlines()]
  p = {row["session"]: row["p_value"] for row in rows if row["ended"]}
  expected = p_of(model, ["a"]) + p_of(other, ["aec", "a?"])
  assert [p[name] for name in "yxz"] == pytest.approx(expected, rel=1e-5)
  assert "refresh/1: this model decides from here on" in error


def test_a_state_of_other_types_is_refused(model, tmp_path):
  with service(model, tmp_path, id) as running:
    running.follow(Lines(b"x a", b"x q", b"y q"), lambda: False)
  with open_state(tmp_path / "state", print) as opened:
    good = opened.value("facts", dict)
    [(_, number, _, kind), *_] = opened.rows("kinds")
    [(_, session, _, (header, columns)), *_] = opened.rows("sessions")
  drift = follow.drift.of_calibration(model.normal, None).facts()
  clocks = {"clock": {}, "lines": {"now": []}}
  forged = [
    *(("meta", "facts", x) for x in ([], [1], 5, {})),
    *(("meta", "facts", {**good, name: 5}) for name in good),
    ("meta", "facts", {**good, "position": ["x"]}),
    ("meta", "facts", {**good, "parser": {"near": "x"}}),
    ("meta", "facts", {**good, "parser": {"other": 1}}),
    ("meta", "facts", {**good, "follower": clocks}),
    ("meta", "facts", {**good, "silence": {"since": 3}}),
    ("meta", "drift", {**drift, "_bets": []}),
    ("meta", "drift", {**drift, "sessions": "x"}),
    *(("kinds", number, x) for x in (5, [], {}, {**kind, "other": 1})),
    *(("kinds", number, {**kind, name: {"x": []}}) for name in kind),
    ("sessions", session, []),
    ("sessions", session, [header[:-1], columns]),
    ("sessions", session, [["x"] * len(header), columns]),
    ("sessions", session, [header, [["a", "b"], *columns[1:]]]),
    ("sessions", session, [header, [[1] * 9, *columns[1:]]]),
  ]
  faults = []
  for n, (table, key, value) in enumerate(forged):
    folder = tmp_path / f"{n}"
    shutil.copytree(tmp_path / "state", folder / "state")
    with open_state(folder / "state", print) as opened:
      opened.save([StateRow(table, key, 0, value)])
    try:
      with service(model, folder, id):
        faults.append((table, value))
    except UserError as error:
      path = folder / "state" / "state.db"
      if not str(error).startswith(f"{path}: cannot be used: "):
        faults.append(str(error))
  assert not faults
