"""Logs and tables of events: their sessions, templates and refusals."""

import dataclasses
import itertools
import json
import lzma
import math
import random
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrnn.config import read as config_lib
from seqrnn.data import vocabulary
from seqrnn.data.logs import entries, formats, sessions, tail, templates
from seqrnn.data.logs.entries import LineContext
from seqrnn.data.logs.templates import BLANK, VALUE, matcher, mine
from seqrnn.data.read import reading
from seqrnn.data.read.reading import Source
from seqrnn.data.sources import corpora
from seqrnn.data.sources.corpora import from_text
from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.errors import UserError
from seqrnn.experiments import language_model
from seqrnn.logs.follow import lines as lines_lib
from seqrnn.logs.follow.state import as_type
from tests.conftest import tiny

HEADER = "<Date> <Time> <Pid> <Component>: <Content>"


def settings(folder, files, **fields):
  """The config of a log of that content, or of several."""
  path = folder / "logs"
  path.mkdir(exist_ok=True)
  files = {"a.log": files} if isinstance(files, str) else files
  for name, text in files.items():
    content = text.encode()
    packed = lzma.compress(content) if name.endswith(".xz") else content
    (path / name).write_bytes(packed)
  fields = {"unit": "log", "path": str(path)} | fields
  config = tiny(folder, {f"data.{k}": value for k, value in fields.items()})
  config_lib.check(config)
  return config


def read(config):
  """Each session's name, symbols and lines."""
  corpus = corpora.read_corpus(config.data)
  return [
    (name, corpus.text(start, stop), corpus.lines[start:stop].tolist())
    for name, (start, stop) in zip(
      corpus.names, itertools.pairwise(corpus.bounds.tolist()), strict=True
    )
  ]


def test_lines_are_of_the_sessions_that_they_name(tmp_path):
  rng = random.Random(0)
  texts, expected, times = [], {}, {}
  for number in range(1, 401):
    if rng.random() < 0.05:
      texts.append(" ")
      continue
    ids = rng.sample(range(40), rng.choice((0, 1, 1, 1, 2)))
    verb = rng.choice(("opened", "closed"))
    times[number] = f"0811{rng.randint(10, 30)} 2036{rng.randint(10, 59)}"
    named = ", ".join(f"req_{i}" for i in ids)
    took = f"took={number}ms" if number % 9 else ""
    texts.append(f"{times[number]}  {number} net.Node: {verb} {named} {took}")
    for i in ids:
      events, lines = expected.setdefault(f"req_{i}", ([], []))
      events.append(f"{verb} <session>" + " took=<value>" * bool(took))
      lines.append(number)
  fields = {"log_header": HEADER, "log_session": r"(req_\d+)"}
  config = settings(tmp_path, "\n".join(texts), **fields)
  assert read(config) == [(key, *both) for key, both in expected.items()]
  corpus = corpora.read_corpus(config.data)
  lines = corpus.lines.tolist()
  assert list(corpus.timestamps) == [times[n] for n in lines]
  seconds = [formats.seconds((times[n],)) for n in lines]
  assert corpus.seconds.tolist() == seconds
  took = [[n / 1000 if n % 9 else math.nan] for n in lines]
  np.testing.assert_array_equal(corpus.values[:, :1], np.float32(took))
  assert np.isnan(corpus.values[:, 1:]).all()


def test_the_numbers_of_a_line_are_in_one_unit():
  line = "took 900 ms, 1.5 s and 3,000 KiB: n=7, 9 of 10.0.0.1:80"
  assert templates.parse(line)[1] == (0.9, 1.5, 3000 * 1024.0, 7.0)
  for text in ("2026-03-02 10:20:30.5", "blk_-17 part-0003 v1.2.3", "0x1f a/5"):
    assert np.isnan(templates.parse(text)[1]).all(), text
  numbers = templates.parse('{"ms":1e3,"n":[-50%]} took=1m30.5s 1e999')[1]
  assert numbers == (1000.0, -50.0, 90.5, 1e30)


def test_a_unit_beside_signs_is_read():
  """Alone in its line, so that no other word makes it known."""
  faults, signs = [], ["", *",.;:!?)]}>|\"'", "...", ", 3 rows"]
  for unit, one in {"ms": 0.001, "s": 1.0, "KB": 1e3, "min": 60.0}.items():
    for sign, begin in itertools.product(signs, ("", "(", "took ", "<", '"')):
      for rate in ("", "/s", "/op"):
        text = f"{begin}900 {unit}{rate}{sign}"
        number = templates.parse(text)[1][0]
        if not math.isclose(number, 900 * one):
          faults.append((text, number))
  assert not faults
  for text in ("900  ms", "900\tms", "took\t 900 \u00a0ms"):
    assert math.isclose(templates.parse(text)[1][0], 0.9), text
  for text in ("5 K-means", "5 m-1", "5 MB.2", "5 s@x"):  # No units.
    assert templates.parse(text)[1][0] == 5, text
  for text in ("a/5 KB/s", "user/12m/abc", "3f/ab"):  # No numbers.
    assert math.isnan(templates.parse(text)[1][0]), text


def test_a_session_is_of_one_file(tmp_path):
  files = {"a.log": "x 1: go\nx 2: go\n", "b.log": "\nx 1: stop"}
  config = settings(tmp_path, files, log_session=r"x (\d+):")
  assert read(config) == [
    ("a.log:1", ["x <session>: go"], [1]),
    ("a.log:2", ["x <session>: go"], [2]),
    ("b.log:1", ["x <session>: stop"], [2]),
  ]
  events = read(settings(tmp_path, files, log_session="lines=2"))
  sessions = {name: lines for name, _, lines in events}
  assert sessions == {"a.log:1": [1, 2], "b.log:2": [2]}


def test_a_late_line_does_not_cut_a_session(tmp_path):
  now = 1_600_000_000

  def sessions(steps):
    texts = [f"{now + step} said" for step in steps]
    events = read(settings(tmp_path, "\n".join(texts), log_session="gap=30"))
    return [[steps[n - 1] for n in lines] for _, _, lines in events]

  for late in (40, 75, 100, 101):  # Of any distance; alone, or several.
    for steps in ([100, late, 101], [100, late, late, 120], [100, late, 130]):
      assert sessions(steps) == [steps]
  assert sessions([100, 40, 131]) == [[100, 40], [131]]
  # Neither a single wrong time nor a clock that is set back lasts.
  behind = [*range(10, 20)]
  assert sessions([100, 9000, *behind, 60, 70]) == [
    [100],
    [9000, *behind],
    [60, 70],
  ]


YEARS = (  # The day on which a log is read, and that of each line, by files.
  ("2027-01-05", ["2026-12-30", "2027-01-01", "2027-01-05"]),
  ("2027-01-05", ["2026-12-30", "2026-12-31"], ["2027-01-01", "2027-01-02"]),
  ("2027-01-05", ["2026-02-01", "2026-08-01", "2026-12-31"]),
  # Not the present year, as it would end in the future.
  ("2026-12-01", ["2025-11-25", "2025-12-24", "2026-01-02"]),
  ("2026-12-01", ["2025-11-25", "2025-12-07"], ["2025-12-08", "2025-12-24"]),
  ("2026-12-01", ["2025-06-01", "2025-11-01", "2026-03-01", "2026-08-01"]),
  ("2028-03-01", ["2028-02-28", "2028-02-29", "2028-03-01"]),
  ("2026-12-01", ["2024-02-28", "2024-02-29", "2024-03-01"]),
)


@pytest.mark.parametrize(
  ("log_format", "written"),
  [
    ("syslog", "%b %d 10:20:30 host su: in"),
    ("logcat", "%m-%d 10:20:30.250 1 2 D a: in"),
    ("klog", "I%m%d 10:20:30.123456 1 a.go:1] in"),
  ],
)
def test_times_without_a_year_run_forward_to_the_present(
  tmp_path, monkeypatch, capsys, log_format, written
):
  for day, *parts in YEARS:
    now = datetime.fromisoformat(f"{day}T10:20:30+00:00").timestamp()
    monkeypatch.setattr(formats.time, "time", lambda now=now: now)
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    times = [[datetime.fromisoformat(day) for day in part] for part in parts]
    names = ["a.log.1", "a.log"][-len(parts) :]
    logs = {
      name: "\n".join(f"{time:{written}} x1" for time in part)
      for name, part in zip(names, times, strict=True)
    }
    data = settings(
      folder, logs, log_format=log_format, log_session=r"(x\d)"
    ).data
    corpus = corpora.read_corpus(data)
    dates = [str(datetime.fromtimestamp(x, UTC))[:10] for x in corpus.seconds]
    assert dates == list(itertools.chain(*parts)), day
    # A follower reads it as it was written, and resumes in the middle.
    parser = lines_lib.Parser(data, "a.log")
    for second, line in zip(
      corpus.seconds, "\n".join(logs.values()).split("\n"), strict=True
    ):
      monkeypatch.setattr(formats.time, "time", lambda now=second: now)
      context = json.loads(json.dumps(dataclasses.asdict(parser.context)))
      parser = lines_lib.Parser(data, "a.log")
      parser.restore(as_type(LineContext, context))
      chunk = tail.Chunk([line.encode()], 1, 0, tail.LogPosition())
      [event] = parser.events(chunk)
      assert event.time == second, (day, line)
  source = Source("a.log", folder / "logs" / "a.log")
  entries.describe(source, formats.Form("strict", log_format=log_format), "")
  assert "have no year: the log ends in the last" in capsys.readouterr().err
  near = datetime(2100, 3, 1, tzinfo=UTC).timestamp()
  days = formats.dated(("Feb 29 10:20:30",), near) - near
  assert 0 < days < 86400  # There was none in this year.
  for near in ("0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z"):
    for day in ("Jan  1", "Feb 29", "Dec 31"):  # No year is out of range.
      formats.dated((f"{day} 10:20:30",), formats.seconds((near,)))


TIMES = {
  "%Y-%m-%d %H:%M:%S,250": None,
  "EPOCH": None,
  "%y%m%d %H%M%S": "<Date> <Time> <Content>",
  "[%d/%b/%Y:%H:%M:%S +0000]": "[<Time>] <Content>",
}


@pytest.mark.parametrize(("form", "header"), TIMES.items())
def test_a_session_ends_where_a_log_is_silent(tmp_path, form, header):
  rng = random.Random(1)
  now = 1_600_000_000
  texts, expected = [], []
  for number in range(1, 200):
    step = rng.choice((0, 1, 30, 31, 1000))
    now += step
    if rng.random() < 0.1 and texts:  # A part of the line before.
      texts.append("\tat that place")
      now -= step
    else:
      if not texts or step > 30:
        expected.append((f"a.log:{number}", []))
      time = datetime.fromtimestamp(now, UTC).strftime(form)
      texts.append(f"{time.replace('EPOCH', str(now))} said")
    expected[-1][1].append(number)
  config = settings(
    tmp_path, "\n".join(texts), log_session="gap=30", log_header=header
  )
  assert [(name, lines) for name, _, lines in read(config)] == expected
  assert len(expected) > 20


MASKED = """
from /10.250.1.2:50010. -> from <value>.
mac 00:1b:44:11:3a:b7 up -> mac <value> up
at 2026-11-25T20:14:35.5Z ok -> at <value> ok
free 0x1fF, 3.5 of -12% (x=0a) -> free <value> of <value> (x=<value>)
id 123e4567-e89b-12d3-a456-426614174000! -> id <value>!
abseiled deadbeef cafe -> abseiled deadbeef cafe
task_01_m_-5 eth0/-3 MSRA-39.corp.x:12 -> <value>
read 1 2, 3 of  4  -> read <value> of <value>
open /etc/passwd: C:\\a.txt and/or ./x -> open <value>: <value> and/or <value>
run org.apache.Tool in main.py -> run org.apache.Tool in main.py
x "GET /a/b HTTP/1.1" 404 612 -> x "GET <value> HTTP/<value>" 404 <value>
{"statusCode":503} status: 404 -> {"statusCode":<value>} status: <value>
sent 7 bytes (1.5 KB) of 3 B, 20 ms, <1 sec -> sent <value> of <value>, <<value>
from 1.2.3.4 () and a (5) 6 blobs -> from <value> and a (<value>) <value> blobs
"""


def test_values_are_masked():
  mask = lambda line: templates.parse(line)[0]
  for case in MASKED.strip().splitlines():
    line, expected = case.split(" -> ")
    assert mask(line) == mask(line) == mask(expected) == expected


def request(path, status=200):
  return f'"GET {path} HTTP/1.1" {status}'


def test_paths_keep_frequent_segments_and_the_keys_of_queries(tmp_path):
  counts = {
    "/shop/item/7": 30,
    "/shop/item/8/a1?sort=up&&q=tea,&q": 20,
    "/shop/cup": 9,
    "/old/shop": 10,
    "/": 1,
  }
  masked = {templates.parse(request(x), True)[0]: n for x, n in counts.items()}
  mined = mine(masked)
  match = matcher(mined)
  assert [match(line) for line in masked] == [0, 1, 2, 3, 4]
  paths = {
    "/shop/item/none": 0,
    "/shop/item/9?q=1&sort": 1,
    "/shop/old-cup": 2,
    "/shop/item": None,
    "/none": None,
  }
  lines = [templates.parse(request(path), True)[0] for path in paths]
  assert [match(line) for line in lines] == [*paths.values()]
  assert match(templates.parse(request("/", 404), True)[0]) is None
  assert mined[1:3] == [
    '"GET /shop/item/<value>?q&sort HTTP/<value>" 200',
    '"GET /shop/<value> HTTP/<value>" 200',
  ]
  log = f"1.2.3.4 - - [25/Nov/2026:12:00:01 +0000] {request('/a?b=1')} 5"
  for fields, event in (
    ({}, "GET /a?b"),
    ({"log_paths": "off"}, f"GET {VALUE}"),
    ({"log_mask": "GET"}, f"{VALUE} /a?b"),
    ({"log_mask": "G(.T) "}, f"G{VALUE} /a?b"),
  ):
    config = settings(tmp_path, log, log_format="access", **fields)
    assert read(config)[0][1] == [f'"{event} HTTP/<value>" 200']
  assert templates.alike(["a b c", "b", "a x c"]) == ["a b c", "a x c"]
  paths = [f"GET /{name} 200" for name in "xyz"]  # These are no values.
  assert templates.alike([*paths, "a b c", "a b d"]) == ["a b c", "a b d"]


def test_the_time_of_a_mask_is_linear_in_the_length_of_a_word():
  """It would take minutes at the square of the length."""
  for part in ("a.", "-a", "-.a", "a+", "$a", "com.", "/.", "ab:", '"200'):
    word = part * (60_000 // len(part))
    masked = templates._line(templates._word(word)[0])
    assert VALUE in masked or masked == word
  for part in ("1 (", "1 B ", "1, 2..", "1 (2 "):
    assert VALUE in templates.parse(part * 15_000)[0]


def test_a_line_is_of_the_closest_template_that_it_fits():
  rng = random.Random(2)

  def drawn(words, count):
    return [rng.choices(words, k=rng.randint(1, 4)) for _ in range(count)]

  known = drawn(["a", "b", "a", "b", BLANK], 20)
  known = list(dict.fromkeys(" ".join(words) for words in known))
  match, several = matcher(known), 0
  for words in drawn("abc", 300):
    # Of those that fit, one with the fewest blanks.
    fits = [
      (template.count(BLANK), n)
      for n, template in enumerate(map(str.split, known))
      if len(template) == len(words)
      and all(a in (b, BLANK) for a, b in zip(template, words, strict=True))
    ]
    several += len(fits) > 1
    place = match(" ".join(words))
    assert fits or place is None
    assert not fits or (min(fits)[0], place) in fits
  assert several > 20
  assert [match(template) for template in known] == [*range(len(known))]


def test_templates_are_of_the_training_split_alone(tmp_path):
  rng, lines = random.Random(3), []
  for n in range(100):
    user = "".join(rng.choices("abcdefg", k=3))
    lines.append(f"{n} login of {user}")
    lines += [f"{n} read {rng.randint(0, 9)} pages"] * rng.randint(1, 3)
    lines.append(f"{n} disk {'broken' if n > 90 else 'fine'}")
  fields = {"log_session": r"^(\d+)", "split": "last_documents"}
  config = settings(tmp_path, "\n".join(lines), **fields)
  [symbols] = language_model.prepare(config).values()
  assert symbols.unit == "log"
  assert set(symbols.symbols) == {
    "<session> login of <*>",
    "<session> read <value> pages",
    "<session> disk fine",
  }
  path = tmp_path / "vocabulary.json"
  path.write_bytes(vocabulary.encoded({"symbols": symbols}))
  loaded = sessions.event_vocabulary(vocabulary.load(path)["symbols"], "")
  events = sessions.read_sessions(config, loaded, config.data.path)
  # The template of all lines together would have a blank there.
  broken = [n for n, text in enumerate(lines, 1) if "broken" in text]
  assert events.lines[events.ids == UNKNOWN].tolist() == broken
  [document] = from_text("7 login of mallory\n7 jump", "log", config.data)
  assert loaded.unknown(document.symbols) == ["<session> jump"]


# The lines of each event, with the number of each line.
EVENTS = {
  "user <*> logged in from <value>": [
    (f"user {name} logged in from <value>", 500 if name == "root" else 3)
    for name in ("root", "ann", "bob", "eve", "kim", "max", "<value>")
  ],
  "<*> <*> of the <value> th frame is late": [
    (f"{a}{b} {b}{a} of the <value> th frame is late", 1000)
    for a in "abcdefgh"
    for b in "abcdefgh"
  ],
  "free <*> of <*> pages": [
    ("free mask=<value> of <value> pages", 60),
    ("free mask=ffff of <value> pages", 50),
    ("free mask=<value> of LOCAL(<value>) pages", 70),
    ("free mask=<value> of all pages", 4),
  ],
  # A few words, or frequent ones, or values alone: no place for any word.
  **{
    line: [(line, count)]
    for line, count in (
      *((f"vm {state} (event)", 2) for state in ("on", "off", "up", "down")),
      *((f"package is {'x' * n}", 90) for n in range(1, 9)),
      *((f"{'x' * n} <value>", 1) for n in range(1, 9)),
      *((f"read {x} of a file", n) for x, n in (("all", 9), (VALUE, 80))),
      *((f"{'x' * n} {'y' * n}", 1) for n in range(1, 6)),
    )
  },
}


def test_a_place_for_any_word_is_a_blank():
  lines = [line for event in EVENTS.values() for line in event]
  mined = mine(dict(lines))
  assert mined == list(EVENTS)
  match = matcher(mined)
  for number, event in enumerate(EVENTS.values()):
    assert {match(line) for line, _ in event} == {number}
  random.Random(4).shuffle(lines)
  assert set(mine(dict(lines))) == set(EVENTS)


@hypothesis.settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.text("az1.:/<>-= 4H\\", max_size=12), max_size=12))
def test_any_line_has_a_template_of_masked_words(texts):
  mask = lambda line: templates.parse(line)[0]
  masked = [mask(text) for text in texts]
  assert masked == [mask(line) for line in masked]
  match = matcher(mine(dict.fromkeys(masked, 1)))
  assert all(match(line) is not None for line in masked if line)


def test_a_mistake_is_refused_in_one_line(tmp_path):
  for fields, message in (
    ({"log_header": "[<Time>] <Content>"}, "fits no line of a.log; line 2 is"),
    ({"log_session": "gap=1.0"}, "a.log:2: '': is no time that data.log_ses"),
  ):
    with pytest.raises(UserError) as error:
      read(settings(tmp_path, "\n12 hello\n13 you\n", **fields))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_line_that_is_too_long_is_left_out(tmp_path, capfd):
  longest = "é" * reading.LINE
  lines = ["a", longest + "b", "c" * 3_000_000, longest, "d"]
  config = settings(tmp_path, "\n".join(lines))
  assert read(config) == [("a.log", ["a", VALUE, "d"], [1, 4, 5])]
  message = "2 of 5 lines have more than 65,536 characters"
  assert message in capfd.readouterr().err
  # The same events arrive, however long the line is.
  parser = lines_lib.Parser(config.data, "a.log")
  chunk = [line.encode()[: tail.LONGEST + 1] for line in lines]
  events = parser.events(tail.Chunk(chunk, 1, 0, tail.LogPosition()))
  expected = [("a", 1), (VALUE, 4), ("d", 5)]
  assert [(event[1], event.line) for event in events] == expected
  assert parser.skipped == 2


# The expression of sessions, a line, and the events by session; by its format.
NAMES = {
  # The address of the client is no part of the content.
  "access": (
    r"^(\S+)",
    'a.b - - [25/Nov/2026:12:00:01 +0000] "GET /x HTTP/1.1" 200 5',
    {"a.b": f'"GET /x HTTP/{VALUE}" 200'},
  ),
  # The text before the content counts, as it does for the session.
  "time": (
    r"(?<=01 )(?=(job\w+))",
    "2026-11-25 12:00:01 joba of jobb",
    {"joba": "<session> of jobb"},
  ),
}


def test_a_name_is_masked_where_it_stands(tmp_path):
  for form, (session, line, expected) in NAMES.items():
    config = settings(tmp_path, line, log_format=form, log_session=session)
    events = {name: symbols for name, symbols, _ in read(config)}
    assert events == {name: [event] for name, event in expected.items()}


TABLE = """session,event,timestamp,line,label
x,E1,10:00,7,0
y,E2,10:01,9,
x,"E 3",10:02,10,0
y,E1,,11,fault
"""


def test_a_table_has_an_event_a_row(tmp_path):
  config = settings(tmp_path, TABLE, unit="session", format="csv")
  known = vocabulary.Vocabulary("session", ("E1", "E 3"))
  events = sessions.read_sessions(config, known, config.data.path)
  assert events.names == ["x", "y"]
  assert events.ids.tolist() == [4, 5, UNKNOWN, 4]
  assert list(events.as_read) == ["E1", "E 3", "E2", "E1"]
  assert events.bounds.tolist() == [0, 2, 4]
  assert events.lines.tolist() == [7, 10, 9, 11]
  assert list(events.timestamps) == ["10:00", "10:02", "10:01", ""]
  assert events.labels.tolist() == [0, 1]


def test_rows_without_events_are_refused(tmp_path):
  content = "session,event\nx,E\nx\n"
  config = settings(tmp_path, content, unit="session", format="csv")
  with pytest.raises(UserError, match="a.log:3: has no event; data.format=csv"):
    corpora.read_corpus(config.data)
