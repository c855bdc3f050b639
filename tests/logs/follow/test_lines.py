"""Lines that arrive: the events of the whole log, however they are cut."""

import dataclasses
import json
import random
from pathlib import Path

import pytest

from seqrnn.data.logs.entries import LineContext
from seqrnn.data.logs.tail import Chunk, LogPosition
from seqrnn.errors import UserError
from seqrnn.logs.follow.follower import Event
from seqrnn.logs.follow.lines import Parser, parse_pair
from seqrnn.logs.follow.state import as_type
from tests.conftest import tiny

SECOND = "2026-11-27T10:00:{:02}"
FORMS = {
  "traces": (
    {"data.log_format": "time", "data.log_session": r"(job\d)"},
    lambda draw, n: draw.choice(
      [f"{SECOND.format(n % 60)} job{draw.randrange(3)} at {n}", "  File x", ""]
    ),
  ),
  "gap": (
    {"data.log_session": "gap=20", "data.log_header": "<Time> <Content>"},
    lambda draw, n: (
      f"2026-11-27T{10 + n // 60}:{n % 60:02}:{draw.randrange(60):02} event {n}"
      if draw.random() < 0.8
      else "no time"
    ),
  ),
  "lines": (
    {"data.log_session": "lines=3"},
    lambda draw, n: f"event {n} {draw.random()}",
  ),
  "pairs": (
    {"data.unit": "session"},
    lambda draw, n: f"s{draw.randrange(5)} e{n}",
  ),
}


def parser(**fields):
  fields = {"data.unit": "log", "data.path": "-", **fields}
  return Parser(tiny(Path(), fields).data, "app.log")


def chunk_of(lines, first=1, part=0):
  return Chunk(lines, first, part, LogPosition())


@pytest.mark.parametrize("name", FORMS)
def test_events_do_not_depend_on_chunks_and_restarts(capsys, name):
  fields, line = FORMS[name]
  draw = random.Random(0)
  lines = [line(draw, n).encode() for n in range(300)]
  expected = parser(**fields).events(chunk_of(lines))
  assert len({event.session for event in expected}) > 2
  events, place, reader = [], 0, parser(**fields)
  while place < len(lines):
    stop = place + draw.choice((1, 2, 30))
    events += reader.events(chunk_of(lines[place:stop], place + 1))
    place = stop
    if draw.random() < 0.5 and events:
      context = json.loads(json.dumps(dataclasses.asdict(reader.context)))
      reader = parser(**fields)
      reader.restore(as_type(LineContext, context))
  assert events == expected
  capsys.readouterr()


def test_sessions_of_rotated_files_have_names_of_their_own():
  reader, events = parser(**{"data.log_session": "lines=2"}), []
  for part in (0, 1):  # A mark of the byte order is no part of a line.
    lines = [b"\xef\xbb\xbfa", b"a", b"a"]
    events += reader.events(chunk_of(lines, part=part))
  names = ["app.log:1"] * 2 + ["app.log:3"] * 2 + ["app.log+1:2"] * 2
  assert [event.session for event in events] == names
  assert {event.symbol for event in events} == {"a"}


def test_a_line_may_have_a_time():
  for stamp, time in (
    ('"2017-03-10T00:05:43Z"', 1489104343.0),
    ("1489104343.5", 1489104343.5),
    ('"soon"', None),
    ("null", None),
  ):
    line = f'{{"session": 7, "event": "a", "timestamp": {stamp}, "end": true}}'
    ends = [Event("7", "a", time, 3), Event("7", None, time, 3)]
    assert parse_pair(line, 3) == ends


def test_lines_have_several_forms_and_others_are_skipped(capsys):
  events = [b"x a", b"my session\tb", b'{"session": 3, "event": "c", "m": []}']
  events += [b"x c\r", b"", b"\x1b[31m\ta"]
  pairs = [("x", "a"), ("my session", "b"), ("3", "c"), ("x", "c")]
  pairs.append(("\x1b[31m", "a"))
  bad = [b"one", b"x b c", b"x \xff\xfe", b"x\t", b"{" * 9999, b"x" * 2**22]
  bad += [b'{"session": "x"}', b'{"session": true, "event": 1}', bytes(9)]
  read = parser(**{"data.unit": "session"}).events(chunk_of(events + bad))
  assert [(event.session, event.symbol) for event in read] == pairs
  messages = capsys.readouterr().err.splitlines()
  lines = [line.partition(":")[0] for line in messages]
  assert lines == [f"line {n}" for n in range(7, 16)]
  assert all(line.isprintable() and len(line) < 2100 for line in messages)


def test_a_form_that_no_line_has_is_reported(capsys):
  reader = parser(**{"data.log_session": r"(job_\d+)"})
  reader.events(chunk_of([b"begin"] * 1200))
  with pytest.raises(UserError) as caught:
    reader.finish()
  fault = "fits no line of app.log; line 1 is 'begin'"
  assert fault in str(caught.value)
  assert capsys.readouterr().err == f"no event in 1,200 lines: {caught.value}\n"
