"""Formats of logs: what each finds in a line, and which one is detected."""

import gzip
import json
import lzma
import sys
import threading
from datetime import UTC, datetime

import pytest

from seqrnn.data import corpora, formats, reading
from seqrnn.data.formats import FORMATS, Form, parser, seconds
from seqrnn.errors import UserError
from tests.data.test_logs import read, settings

if sys.version_info >= (3, 14):
  from compression import zstd
else:
  from backports import zstd

PACKERS = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstd.compress}
NOON = datetime(2026, 11, 25, 12, 0, 1, tzinfo=UTC).timestamp()

# Of each format a line, its content, and its time where it has a year.
LINES = [
  (
    "access",
    '1.2.3.4 - ann [25/Nov/2026:12:00:01 +0000] "GET /a HTTP/1.1" 404 99 "-" x',
    '"GET /a HTTP/1.1" 404',
    NOON,
  ),
  (
    "access",
    'x.org 1.2.3.4 - - [25/Nov/2026:14:00:01 +0200] "-" 408 -',
    '"-" 408',
    NOON,
  ),
  (
    "syslog5424",
    "<34>1 2026-11-25T12:00:01.003Z host su 77 ID47 [a@1 b='c]'] failed for x",
    "su 77 ID47 [a@1 b='c]'] failed for x",
    NOON + 0.003,
  ),
  ("syslog5424", "<3>1 2026-11-25T12:00:01Z h a - - -", "a - - -", NOON),
  ("syslog", "<34>Nov  5 12:00:01 host su[77]: failed", "su[77]: failed", None),
  ("syslog", "Nov 25 12:00:01 host kernel: [1.5] up", "kernel: [1.5] up", None),
  ("syslog", "2026-11-25T12:00:01+00:00 host cron: x", "cron: x", NOON),
  ("time", "2026-11-25 12:00:01,250 INFO a.b: on", "INFO a.b: on", NOON + 0.25),
  ("time", "2026-11-25T13:00:01.5+01:00 stdout F x", "stdout F x", NOON + 0.5),
  ("time", "[Wed Nov 25 12:00:01 2026] [error] off", "[error] off", NOON),
  ("time", "2026/11/25 12:00:01 [warn] 12#1: *1 x", "[warn] 12#1: *1 x", NOON),
  ("time", "11/25/2026 12:00:01 PM on", "on", NOON),
  ("time", "11/25/26, 12:00:01 on", "on", NOON),
  ("time", f"{NOON:.0f} on", "on", NOON),
  ("time", f"{NOON:.0f}250: on", "on", NOON + 0.25),
  ("json", json.dumps({"ts": NOON + 0.5, "msg": "on"}), "on", NOON + 0.5),
  (
    "json",
    json.dumps({"__REALTIME_TIMESTAMP": f"{NOON:.0f}000250", "MESSAGE": "on"}),
    "on",
    NOON + 0.00025,
  ),
  (
    "json",
    json.dumps({"log": "on\n", "time": "2026-11-25T12:00:01.000000000Z"}),
    "on",
    NOON,
  ),
  ("json", json.dumps({"body": {"a": [1]}}), '{"a": [1]}', None),
]


@pytest.mark.parametrize(("name", "line", "content", "time"), LINES)
def test_a_line_has_content_and_a_time(name, line, content, time):
  parts = parser(Form("strict", log_format=name))(line)
  assert parts is not None and parts.content == content
  found = seconds(parts.times)
  if time is None:
    year_2000 = datetime(2000, 11, 1, tzinfo=UTC).timestamp()
    assert (found is None) == (name == "json")
    assert found is None or 0 < found - year_2000 < 30 * 86400
  else:
    assert found == pytest.approx(time, abs=1e-6)

  form = Form("strict", log_format="auto")
  trace = ["\tat a.B.c(B.java:1)", "Caused by: a.E", "  in d"]
  sample = [line] * 20 + trace
  said: list[str] = []
  found = formats.detected(form, sample, "a.log", said.append)
  assert found.log_format == name
  assert said == [
    f"a.log: data.log_format=auto: 23 of the first 23 lines are {name};"
    f" --config.data.log_format={name} says so"
  ]


def test_the_rule_knows_all_formats(tmp_path):
  for name in FORMATS:
    settings(tmp_path, "a", log_format=name)
  with pytest.raises(UserError, match=f"must be one of {', '.join(FORMATS)}"):
    settings(tmp_path, "a", log_format="xml")


@pytest.mark.parametrize(
  ("header", "line"),
  [
    (
      "<Label> <Timestamp> <Date> <Node> <Time> <Content>",
      f"- {NOON:.0f} 2026.11.25 R02 2026-11-25-12.00.01.675872 on",
    ),
    ("<Date> <Node> <Time> <Content>", "x R02 2026-11-25-12.00.01.675872 on"),
    ("<Time>|<Content>", "20261125-12:00:01:606|on"),
    ("<Date> <Time> <Content>", "20261125 12:00:01 on"),
    ("<Date> <Time> <Content>", "2026-11-25 12:00:01.606 on"),
  ],
)
def test_fields_of_a_time_are_it_together_or_alone(header, line):
  parts = parser(Form("strict", log_header=header))(line)
  assert parts is not None and parts.content == "on"
  assert seconds(parts.times) == pytest.approx(NOON, abs=1)


def test_json_lines_have_the_keys_that_fields_name(tmp_path, capfd):
  lines = [
    {"m": {"text": "on"}, "lv": "INFO", "at": "2026-11-25T12:00:01", "id": 7},
    {"m": {"text": "off 3"}, "lv": "WARN", "at": "x", "id": "b", "msg": "no"},
    {"m": {"text": "on"}, "at": "", "id": 7},
    {"m": {"text": "idle"}, "lv": "INFO"},
  ]
  config = settings(
    tmp_path,
    "\n".join(map(json.dumps, lines)),
    log_format="json",
    log_message="m.text",
    log_level="lv",
    log_time="at",
    log_session_key="id",
  )
  assert read(config) == [
    ("7", ["INFO on", "on"], [1, 3]),
    ("b", ["WARN off <value>"], [2]),
  ]
  assert "a.log: 1 of 4 lines belong to no session\n" in capfd.readouterr().err
  corpus = corpora.read(config.data)
  assert list(corpus.timestamps) == ["2026-11-25T12:00:01", "", "x"]


def test_traces_are_joined_and_colours_removed(tmp_path, capfd):
  text = (
    "\x1b[32m2026-11-25 12:00:01\x1b[0m on\n"
    "2026-11-25 12:00:02 failed\n"
    "java.lang.Error: x\n\tat a.B\nCaused by: y\n\n"
    "2026-11-25 12:00:03 off\n"
  )
  for name in ("time", "auto"):
    config = settings(tmp_path, text, log_format=name)
    assert read(config) == [("a.log", ["on", "failed", "off"], [1, 2, 7])]
    said = capfd.readouterr().err
    assert "a.log: 3 lines were joined to the line before\n" in said
  config = settings(tmp_path, "a b\n  c\nd\n", log_format="plain")
  assert read(config) == [("a.log", ["a b", "d"], [1, 3])]
  header = {"log_header": "<Time> <Content>", "log_format": "plain"}
  config = settings(tmp_path, "a b\nc\nd e\n", **header)
  assert read(config) == [("a.log", ["b", "e"], [1, 3])]
  # As before these settings.
  config = settings(tmp_path, "a b\n  c\nd\n")
  assert read(config)[0][2] == [1, 2, 3]


def test_rotated_files_are_in_the_order_of_time(tmp_path):
  files = {
    "a.log": "2026-11-25 12:00:03 c",
    "a.log.1": "2026-11-25 12:00:02 b",
    "a.log.10": " \n\n2026-11-24 12:00:01 a",
    "none.log": "2026",
  }
  names = ["a.log.10", "a.log.1", "a.log", "none.log"]
  config = settings(tmp_path, files, log_format="plain")
  assert [name for name, *_ in read(config)] == names
  config = settings(tmp_path, files)
  assert [name for name, *_ in read(config)] == sorted(names)


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_log_has_the_format_of_its_lines(tmp_path, suffix):
  pack = PACKERS[suffix]
  path = tmp_path / f"b.log.{suffix}"
  path.write_bytes(pack(b"2026-11-25 12:00:03 a\n"))
  config = settings(tmp_path, "", path=str(path), log_format="auto")
  assert read(config) == [(path.name, ["a"], [1])]
  # Packed in two parts, as a program does that appends.
  path.write_bytes(path.read_bytes() + pack(b"2026-11-25 12:00:03 b\n"))
  assert read(config) == [(path.name, ["a", "b"], [1, 2])]
  packed = path.read_bytes()
  for damaged in (packed[:-2], b"x" + packed, b""):
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=rf"^{path}: cannot be read: ") as error:
      read(config)
    assert "\n" not in str(error.value)


def test_a_log_that_grows_is_read_up_to_where_it_was(tmp_path):
  path = tmp_path / "logs" / "a.log"
  text = "a long line of a log\n" * 100_000
  config = settings(tmp_path, text)
  stop = threading.Event()

  def write():
    with path.open("a") as file:
      while not stop.is_set():
        file.write("new\n")
        file.flush()

  writer = threading.Thread(target=write)
  writer.start()
  try:
    found = corpora.read(config.data)
  finally:
    stop.set()
    writer.join()
  assert found.symbols[0] == "a long line of a log"
  assert len(found.ids) >= 100_000
  path.write_text(text)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (
      {"log_format": "auto"},
      "a.log: data.log_format=auto: knows no format of lines such as 'ok 12'"
      " and 'ok 13'; data.log_header describes a line, data.log_format=plain",
    ),
    (
      {"log_format": "syslog"},
      "data.log_format='syslog': fits no line of a.log; line 2 is 'ok 12', line"
      " 3 is 'ok 13'",
    ),
    (
      {"log_format": "json", "log_header": "<Content>"},
      "config.data.log_header='<Content>', config.data.log_format='json': a"
      " header is itself the format of a line",
    ),
    (
      {"log_format": "json", "unit": "word"},
      "config.data.unit='word', config.data.log_format='json': the field is",
    ),
    (
      {"log_session_key": "id", "log_lines": 3},
      "set only one way to cut a log into sessions",
    ),
    (
      {"log_session_key": "id", "log_format": "plain"},
      "data.log_session_key='id': fits no line of a.log; line 2 is 'ok 12'",
    ),
  ],
)
def test_a_format_that_fits_no_line_is_refused(tmp_path, fields, message):
  with pytest.raises(UserError) as error:
    read(settings(tmp_path, "\nok 12\nok 13\nok 14", **fields))
  assert message in str(error.value) and "\n" not in str(error.value)


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
  config = settings(tmp_path, {"a.log.zst": "a"})

  def fail(name):
    raise ImportError(name)

  monkeypatch.setattr(reading.importlib, "import_module", fail)
  with pytest.raises(UserError) as error:
    corpora.read(config.data)
  assert str(error.value) == (
    f"{tmp_path / 'logs' / 'a.log.zst'}: cannot be read: it needs the package"
    " backports.zstd: pip install 'seqrnn[zstd]'"
  )


@pytest.mark.parametrize("part", ["[", "a ", "<1>1 a b c d e [", '"['])
def test_a_long_line_is_read_in_part(part):
  """It would take minutes to look into it."""
  for name in ("access", "syslog5424", "syslog", "time"):
    parts = parser(Form("strict", log_format=name))(part * 100_000)
    assert parts is None or len(parts.content) <= 4096
