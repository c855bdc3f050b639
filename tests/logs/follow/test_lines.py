"""Lines that arrive: the events of the whole log, however they are cut."""

import json
import random

import pytest

from seqrnn.data.logs.tail import Chunk, Position
from seqrnn.logs.follow.lines import Parser
from tests.conftest import tiny

SECOND = "2026-11-27T10:00:{:02}"
FORMS = {
  "cri": (
    {"data.log_format": "cri", "data.log_session": r"(job\d)"},
    lambda draw, n: (
      f"{SECOND.format(n % 60)}Z {draw.choice(('stdout', 'stderr'))}"
      f" {draw.choice('PF')} job{draw.randrange(3)} part {n}"
    ),
  ),
  "traces": (
    {"data.log_format": "time", "data.log_session": r"(job\d)"},
    lambda draw, n: draw.choice(
      [f"{SECOND.format(n % 60)} job{draw.randrange(3)} at {n}", "  File x", ""]
    ),
  ),
  "gap": (
    {"data.log_session": "gap=20", "data.log_header": "<Time> <Content>"},
    lambda draw, n: (
      f"{SECOND.format(draw.randrange(60))} event {n}"
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


def parser(config):
  return Parser(config.data, "app.log")


def chunk_of(lines, start, stop):
  part = [line.encode() for line in lines[start:stop]]
  return Chunk(part, start + 1, 0, Position())


@pytest.mark.parametrize("name", FORMS)
def test_events_do_not_depend_on_chunks_and_restarts(tmp_path, capsys, name):
  fields, line = FORMS[name]
  config = tiny(tmp_path, {"data.unit": "log", **fields})
  draw = random.Random(0)
  lines = [line(draw, n) for n in range(300)]
  expected = parser(config).events(chunk_of(lines, 0, 300))
  assert len({event.session for event in expected}) > 2
  found, place, own = [], 0, parser(config)
  while place < len(lines):
    stop = place + draw.choice((1, 2, 30))
    found += own.events(chunk_of(lines, place, stop))
    place = stop
    if draw.random() < 0.5 and found:
      state = json.loads(json.dumps(own.state()))
      own = parser(config)
      own.restore(state)
  assert found == expected
  capsys.readouterr()


def test_sessions_of_rotated_files_have_names_of_their_own(tmp_path):
  config = tiny(tmp_path, {"data.unit": "log", "data.log_session": "lines=2"})
  own, found = parser(config), []
  for part in (0, 1):
    chunk = Chunk([b"a", b"b", b"c"], 1, part, Position())
    found += [event.session for event in own.events(chunk)]
  assert found == [
    *("app.log:1", "app.log:1", "app.log:3"),
    *("app.log:3", "app.log+1:2", "app.log+1:2"),
  ]


def test_a_mark_of_the_byte_order_is_no_part_of_a_line(tmp_path):
  config = tiny(tmp_path, {"data.unit": "session"})
  chunk = Chunk([b"\xef\xbb\xbfx a", b"\xef\xbb\xbfx a"], 1, 0, Position())
  sessions = [event.session for event in parser(config).events(chunk)]
  assert sessions == ["x", "\ufeffx"]
