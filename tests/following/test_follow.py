"""Following lines: what is written of them, whatever a line may hold."""

import io
import json

import pytest

from seqrnn.data.reading import NOT_UTF8
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.following import follow
from seqrnn.following.follower import Follower
from tests.following.test_follower import make


class Out(io.StringIO):
  """Counts how often it is flushed."""

  flushed = 0

  def flush(self):
    self.flushed += 1


def followed(made, lines):
  """What is written of lines, the scores of events among it."""
  config = made.config
  config.detect.follow = "events"
  out = Out()
  stdin = io.BytesIO(b"".join(line + b"\n" for line in lines))
  follow.follow(Follower(made), config, stdin, out)
  found = [json.loads(line) for line in out.getvalue().splitlines()]
  assert out.flushed == len(found)
  return [row for row in found if row["type"] == "event"]


def told(found):
  """Sessions and events as they were written."""
  return [(line["session"], line["event"]) for line in found]


def test_a_line_may_end_a_session(tmp_path, capsys):
  made = make(tmp_path, {})
  lines = [
    b"x a",
    b'{"session": "x", "end": true}',
    b'{"session": "x", "end": true}',
    b'{"session": "y", "event": "b", "end": true}',
    b'{"session": "x", "event": "c", "end": false}',
    b'{"session": "x", "end": false}',
    b'{"session": "x", "end": 1}',
    b'{"session": "x", "event": ["c"], "end": true}',
  ]
  found = followed(made, lines)
  assert told(found) == [
    ("x", "a"),
    ("x", "<end>"),
    ("y", "b"),
    ("y", "<end>"),
    ("x", "c"),
  ]
  assert [line["line"] for line in found] == [1, None, 4, None, 5]
  told_of = capsys.readouterr().err.splitlines()
  assert told_of[0] == ("line 3: skipped, ends session 'x', which is not open")
  numbers = [line.partition(":")[0] for line in told_of]
  assert numbers == [f"line {n}" for n in (3, 6, 7, 8)]


def test_sessions_cut_by_lines_end_where_the_next_one_begins(tmp_path):
  fields = {"data.unit": "log", "data.log_lines": 2}
  symbols = Vocabulary("log", ("begin", "read"))
  lines = [b"begin", b"read", b"begin", b"read"]
  found = followed(make(tmp_path, fields, symbols), lines)
  first, second = "standard input:1", "standard input:3"
  assert told(found) == [
    (first, "begin"),
    (first, "read"),
    (first, "<end>"),
    (second, "begin"),
    (second, "read"),
  ]


def test_lines_of_a_log_are_events_of_the_sessions_that_they_name(
  tmp_path, capsys
):
  fields = {"data.unit": "log", "data.log_session": r"(job_\d+)"}
  symbols = Vocabulary("log", ("begin <session>", "read <value> B"))
  lines = [
    b"begin job_3",
    b"",
    b"no session",
    b"begin \xff job_3",
    b"crash of job_3 and job_14",
    b"begin job_14",
  ]
  found = followed(make(tmp_path, fields, symbols), lines)
  shown = ("session", "position", "line", "event", "unknown")
  crash = "crash of <session> and <session>"
  assert [tuple(line[name] for name in shown) for line in found] == [
    ("job_3", 0, 1, "begin <session>", False),
    ("job_3", 1, 5, crash, True),
    ("job_14", 0, 5, crash, True),
    ("job_14", 1, 6, "begin <session>", False),
  ]
  assert capsys.readouterr().err == f"line 4: skipped, {NOT_UTF8}\n"


def test_lines_come_in_several_forms_and_others_are_told(tmp_path, capsys):
  made = make(tmp_path, {})
  lines = [
    b"x a",
    b"one",
    b"my session\tb",
    b'{"session": 3, "event": "c", "more": []}',
    b"",
    b"x b c",
    b"x \xff",
    b"x\t",
    b'{"session": "x"}',
    b'{"session": "x", "event": null}',
    b"{" * 9999,
    b"long " + b"a" * 200_000,
    b"x c\r",
  ]
  pairs = told(followed(made, lines))
  assert pairs == [("x", "a"), ("my session", "b"), ("3", "c"), ("x", "c")]
  told_of = capsys.readouterr().err.splitlines()
  numbers = [line.partition(":")[0] for line in told_of]
  assert numbers == [f"line {n}" for n in (2, 6, 7, 8, 9, 10, 11, 12)]


def test_a_line_whose_time_does_not_exist_is_left_out(tmp_path, capsys):
  fields = {"data.unit": "log", "data.log_gap": 60.0}
  symbols = Vocabulary("log", ("<value> begin", "<time> read"))
  lines = [
    b"no time yet",
    b"2024-02-28 10:00:00 begin",
    b"2024-02-31 10:00:01 read",  # Nor has what goes on with it a time.
    b"  and more of it",
    b"2024-02-28 25:00:00 read",
    b"2024-02-28 09:59:30 read",  # Back: still of the same session.
    b"Feb 30 10:00:00 begin",
    b"2024-02-28 10:05:00 begin",
  ]
  found = followed(make(tmp_path, fields, symbols), lines)
  shown = [(line["session"], line["line"], line["event"]) for line in found]
  first, second = "standard input:2", "standard input:8"
  assert shown == [
    (first, 2, "<value> begin"),
    (first, 6, "<value> read"),
    (first, None, "<end>"),
    (second, 8, "<value> begin"),
  ]
  told_of = capsys.readouterr().err.splitlines()
  numbers = [line.partition(":")[0] for line in told_of]
  assert numbers == [f"line {n}" for n in (1, 3, 4, 5, 7)]
  assert told_of[1].startswith(
    "line 3: skipped, '2024-02-31 10:00:01': is no time that data.log_gap"
  )


BAD = {
  "no UTF-8": b"x \xff\xfe",
  "half an object": b'{"session": "x", "event": "a"',
  "a list": b'{"session": ["x"], "event": "a"}',
  "true": b'{"session": true, "event": "a"}',
  "nested": b'{"session": ' * 200_000,
  "nested lists": b'{"session": "x", "event": ' + b"[" * 50_000,
  "no event": b'{"session": "x"}',
  "one word": b"x",
  "zero bytes": bytes(9),
  "a number of many digits": b'{"session": 1' + b"0" * 9999 + b"}",
  "long": b"x" * 2**22,
  "an end of no session": b'{"session": "\\u001b[31m\\n", "end": true}',
  "surrogates": b'{"session": "\\ud800", "end": true}',
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_does_not_end_following(tmp_path, capsys, name):
  made = make(tmp_path, {})
  found = followed(made, [b"x a", BAD[name], b"x b", BAD[name]])
  assert told(found) == [("x", "a"), ("x", "b")]
  told_of = capsys.readouterr().err.splitlines()
  assert [line.partition(":")[0] for line in told_of] == ["line 2", "line 4"]
  for line in told_of:
    assert line.isprintable() and len(line) < 2100


def test_names_that_a_terminal_would_obey_are_written_out(tmp_path, capsys):
  lines = [b"\x1b[31m\ta", b'{"session": "\\ud800\\u0000", "event": "a"}']
  found = followed(make(tmp_path, {}), lines)
  sessions = ["\x1b[31m", "\ud800\0"]
  assert told(found) == [(session, "a") for session in sessions]
  assert capsys.readouterr().err == ""


def test_of_many_bad_lines_few_are_reported(tmp_path, capsys):
  found = followed(make(tmp_path, {}), [b"bad"] * 5000 + [b"x a"])
  assert told(found) == [("x", "a")]
  told_of = capsys.readouterr().err.splitlines()
  assert len(told_of) == 12
  assert told_of[9].startswith("line 10: skipped, must be a session and")
  assert told_of[-1] == "5,000 lines were skipped"


def test_a_stderr_that_nobody_reads_ends_nothing(tmp_path, monkeypatch):
  class Closed(io.StringIO):
    def write(self, _):
      raise BrokenPipeError

  monkeypatch.setattr(follow.sys, "stderr", Closed())
  found = followed(make(tmp_path, {}), [b"bad", b"x a"])
  assert told(found) == [("x", "a")]
