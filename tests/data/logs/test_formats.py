"""Formats of logs: what each finds in a line, and which one is detected."""

import gzip
import json
import lzma
import random
import re
import sys
from datetime import UTC, datetime

import pytest

from seqrnn.config import read as config_lib
from seqrnn.data.logs import formats
from seqrnn.data.logs.formats import Form, parser, seconds
from seqrnn.data.read import reading
from seqrnn.data.sources import corpora
from seqrnn.errors import UserError
from seqrnn.logs.follow import follow
from seqrnn.training import setup
from tests.data.logs.test_logs import read, settings

if sys.version_info >= (3, 14):
  from compression import zstd
else:
  from backports import zstd

PACKERS = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstd.compress}
NOON = datetime(2026, 11, 25, 12, 0, 1, tzinfo=UTC).timestamp()

# Of each format lines, each with its content in front.
LINES = """
access: "GET" 404 <- 1.2.3.4 - a [25/Nov/2026:12:00:01 +0000] "GET" 404 9 "-"
syslog5424: su 7 I [a@1 b='c]'] x <- <3>1 2026-11-25T12:00:01Z h su 7 I [a@1 b='c]'] x
syslog: su[77]: failed <- <34>Nov 25 12:00:01 host su[77]: failed
syslog: kernel: [1.5] up <- Nov  5 12:00:01 host kernel: [1.5] up
time: INFO a.b: on <- 2026-11-25 12:00:01,250 INFO a.b: on
time: [error] off <- [Wed Nov 25 12:00:01 2026] [error] off
time: on <- 11/25/26, 12:00:01 on
time: on <- 1795608001 on
time: INFO a.B: on <- 26/11/25 12:00:01 INFO a.B: on
time: 148 INFO a.B: on <- 261125 120001 148 INFO a.B: on
level: WARNING a.b:on <- WARNING:a.b:on
cri: on <- 2026-11-25T12:00:01.500000000Z stdout F on
logcat: D Window: on <- 11-25 12:00:01.811  1702  2395 D Window: on
logcat: D/Window( 1702): on <- 11-25 12:00:01.811 D/Window( 1702): on
klog: E a.go:1] on <- E1125 12:00:01.123456   123 a.go:1] on
json: on <- {"ts": 1795608001.5, "msg": "on"}
json: on <- {"log": "on\\n", "time": "2026-11-25T12:00:01.000000000Z"}
json: {"a": [1]} <- {"body": {"a": [1]}}
"""  # noqa: E501
LINES = re.findall(r"(\w+): (.*) <- (.*)", LINES)


def test_a_line_has_content_and_a_time_and_its_format_is_detected():
  faults = []
  for name, content, line in LINES:
    entry = parser(Form("strict", log_format=name))(line)
    assert entry is not None, line
    time = seconds(entry.times)
    # Without a year it is of the year 4.
    at = None if time is None else datetime.fromtimestamp(time, UTC)
    is_noon = at is None or (at.month, at.hour, at.second) == (11, 12, 1)
    sample = [line] * 20 + ["\tat a.B.c(B.java:1)", "Caused by: a.E", "  in d"]
    form = formats.detected(Form("strict"), [*enumerate(sample)], "a.log")
    timed = at is not None or name in ("json", "level")
    if (entry.content, form.log_format) != (content, name) or not (
      is_noon and timed
    ):
      faults.append((line, entry.content, at, form))
  assert not faults


def test_a_time_does_not_depend_on_the_times_before():
  days = ("261125", "1125", "26/11/25", "11/25/26", "20261125", "11-25")
  texts = [f"{day} 12:00:01" for day in days]
  undated = datetime(4, 11, 25, 12, 0, 1, tzinfo=UTC).timestamp()
  expected = [NOON, undated, NOON, NOON, NOON, undated]
  for step in (1, -1, 2):
    formats._known.clear()
    for cached in (formats.seconds, formats._by_formats):
      cached.cache_clear()
    times = [seconds((text,)) for text in texts[::step]]
    assert times == expected[::step]


def test_the_fields_of_a_time_are_joined_or_one_of_them():
  node = "R 2026-11-25-12.00.01.675872 on"
  for header, line in (
    ("<Date> <Node> <Time> <Content>", f"x {node}"),
    ("<Time>|<Content>", "20261125-12:00:01:606|on"),
    ("<Date> <Time> <Content>", "2026-11-25 12:00:01.606 on"),
    ("<Date> <Time> <Content>", "25.11.2026 12:00:01,606 on"),
    ("<Time> <Content>", "25.11.2026-12:00:01.606 on"),
  ):
    entry = parser(Form("strict", header))(line)
    assert entry and entry.content == "on"
    assert seconds(entry.times) == pytest.approx(NOON, abs=1), line


HEADERS = [
  "[<Node>:<Component>@<Id>]<Content>",
  "<Date> <Time> <Level> [<Process>] <Component>: <Content>",
  "<Content><Word> x",
  "<Time> - <Name> - <Content>",
]


def lazy(header):
  """The expression of a header that tries all places, in any time."""
  first, *parts = re.split(r"<(\w+)>", header)
  pattern = re.escape(first)
  for name, text in zip(parts[::2], parts[1::2], strict=True):
    field = r"\S++" if text.isspace() else ".*?"
    pattern += rf"(?P<{name}>{field}){re.escape(text)}"
  return re.compile(pattern.replace(r"\ ", r"\s++"))


@pytest.mark.parametrize("header", HEADERS)
def test_a_field_ends_at_the_first_place_that_fits_the_rest(header):
  """In linear time: at its square, a long line would take hours."""
  rng, fits = random.Random(0), 0
  expected, pattern = lazy(header), formats._pattern(header)
  signs = sorted({*re.sub(r"<\w+>", "", header), "a", " "})
  for _ in range(3000):
    values = lambda _: "".join(rng.choices(signs, k=rng.randint(0, 4)))
    line = re.sub(r"<\w+>", values, header)
    match, one = pattern.fullmatch(line), expected.fullmatch(line)
    assert (match and match.groupdict()) == (one and one.groupdict())
    fits += match is not None
  assert fits > 100


def test_json_lines_have_the_keys_that_fields_name(tmp_path, capfd):
  lines = [
    {"m": {"text": "on"}, "lv": "INFO", "at": "2026-11-25T12:00:01", "id": 7},
    {"m": {"text": "off 3"}, "lv": "WARN", "at": "x", "id": "b", "msg": "no"},
    {"m": {"text": "on"}, "at": "", "id": 7},
    {"m": {"text": "idle"}, "lv": "INFO"},
  ]
  fields = {"log_keys": "message=m.text, level=lv,time=at"}
  fields |= {"log_format": "json", "log_session": "key=id"}
  config = settings(tmp_path, "\n".join(map(json.dumps, lines)), **fields)
  assert read(config) == [
    ("7", ["INFO on", "on"], [1, 3]),
    ("b", ["WARN off <value>"], [2]),
  ]
  message = "a.log: 1 of 4 lines belong to no session; the first is line 4:"
  assert message in capfd.readouterr().err
  corpus = corpora.read_corpus(config.data)
  assert list(corpus.timestamps) == ["2026-11-25T12:00:01", "", "x"]


def test_traces_are_joined_and_colours_removed(tmp_path, capfd):
  text = (
    "\x1b[32m2026-11-25 12:00:01\x1b[0m on\n2026-11-25 12:00:02 failed\n"
    "java.lang.Error: x\n\tat a.B\nCaused by: y\n\n2026-11-25 12:00:03 off\n"
  )
  for name in ("time", "auto"):
    config = settings(tmp_path, text, log_format=name)
    assert read(config) == [("a.log", ["on", "failed", "off"], [1, 2, 7])]
    message = "a.log: 3 of 7 lines were joined to the line before; the"
    assert message in capfd.readouterr().err
  # A line without content is no event.
  text = "2026-11-25 12:00:01 \n1600000000 a"
  config = settings(tmp_path, text, log_format="time")
  assert read(config) == [("a.log", ["a"], [2])]


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_log_has_the_format_of_its_lines(tmp_path, suffix):
  pack = PACKERS[suffix]
  path = tmp_path / f"b.log.{suffix}"
  # Packed in two parts, as a program does that appends.
  lines = (b"2026-11-25 12:00:03 a\n", b"2026-11-25 12:00:03 b\n")
  path.write_bytes(b"".join(map(pack, lines)))
  config = settings(tmp_path, "", path=str(path), log_format="auto")
  assert read(config) == [(path.name, ["a", "b"], [1, 2])]
  path.write_bytes(path.read_bytes()[:-2])
  with pytest.raises(UserError, match=rf"^{path}: cannot be read: "):
    read(config)


def test_a_log_that_grows_is_read_up_to_where_it_was(tmp_path):
  path = tmp_path / "a.log"
  path.write_text("a\n" * reading.CHUNK)
  lines = reading.lines(reading.Source("a", path), "strict", may_grow=True)
  next(lines)
  with path.open("a") as file:
    file.write("new\n")
  assert len(list(lines)) == reading.CHUNK - 1


def test_a_run_keeps_the_format_that_it_has_found(tmp_path, capfd):
  line = "2026-11-25 12:00:01 on\n"
  config = settings(tmp_path, {"a.log": line, "b.log": ""}, log_format="auto")
  workdir = tmp_path / "run"
  workdir.mkdir()
  resolved = setup.check_owner(config, workdir)
  assert resolved.data.log_format == "time" and config.data.log_format == "auto"
  assert capfd.readouterr().err == (
    "a.log: data.log_format='time': fits 1 of the first 1 lines; line 1: time"
    " '2026-11-25 12:00:01', session 'a.log', template 'on'\n"
  )
  (workdir / "config.json").write_bytes(config_lib.encoded(resolved))
  # Whatever the file has become, and nobody looks at it.
  (tmp_path / "logs" / "a.log").write_text('{"msg": "on"}\n')
  assert setup.check_owner(config, workdir) == resolved
  assert not capfd.readouterr().err
  config.data.log_format = "json"
  with pytest.raises(UserError, match="data.log_format: 'time' -> 'json'"):
    setup.check_owner(config, workdir)
  with pytest.raises(UserError, match="fits no line of a.log"):
    corpora.read_corpus(resolved.data)


def test_files_of_different_formats_have_each_their_own(tmp_path, capfd):
  files = {"a.log": "2026-11-25 12:00:01 on\n", "b.log": '{"msg": "off"}\n'}
  config = settings(tmp_path, files, log_format="auto")
  assert [symbols for _, symbols, _ in read(config)] == [["on"], ["off"]]
  described = re.findall("log_format='(.*?)'", capfd.readouterr().err)
  assert described == ["time", "json"]
  assert corpora.settled(config, False).data.log_format == "auto"
  with pytest.raises(UserError, match="^--follow: data.log_format='auto': the"):
    follow.run(setup.check_owner, config, tmp_path)


def test_the_time_of_a_format_is_linear():
  """It would take minutes to look into a long line, which is read in part."""
  begins = {name: line for name, _, line in LINES}
  for part in ("[", " ", '"', "a] ", '"[a] "', "-", "<1>1 a b c d e ["):
    for name, pattern in formats._NAMED.items():
      for begin in ("", begins[name]):
        match = re.fullmatch(pattern, begin + part * 60_000)
        assert match is None or match["Content"]
      one = parser(Form("strict", log_format=name))(part * 100_000)
      assert one is None or len(one.content) <= 4096
