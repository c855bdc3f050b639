"""Sessions: read flat, each event with its place; equal ones; back to batches.

With unknown ids, short sessions and several files.
"""

import random
import re

import numpy as np
import pytest

from seqrnn.data.logs import sessions
from seqrnn.data.read.columns import Texts
from seqrnn.data.vocabulary import RESERVED, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from tests.conftest import tiny

KNOWN = Vocabulary("session", ("a", "b", "c"))


def settings(tmp_path, **fields):
  fields = {f"data.{name}": value for name, value in fields.items()}
  return tiny(tmp_path, {"data.unit": "session", **fields})


def ids(corpus):
  return [part.tolist() for part in np.split(corpus.ids, corpus.bounds[1:-1])]


@pytest.fixture
def three(tmp_path):
  """Sessions of three files, some of one event, and name, line and events."""
  rng, expected = random.Random(0), []
  (tmp_path / "logs").mkdir()
  for name in ("a.log", "b.log", "c.log"):
    lines = [
      " ".join(rng.choices("abcd!", k=rng.randint(0, 4))) for _ in range(60)
    ]
    (tmp_path / "logs" / name).write_text("\n".join(lines))
    expected += [
      (f"{name}:{number}", number, line.split())
      for number, line in enumerate(lines, 1)
      if line
    ]
  path = str(tmp_path / "logs")
  return sessions.read_sessions(settings(tmp_path), KNOWN, path), expected


def test_sessions_are_read_flat_and_no_file_is_joined_to_another(three):
  read, expected = three
  assert read.names == [name for name, _, _ in expected]
  known = {"a": 4, "b": 5, "c": 6}
  assert ids(read) == [
    [known.get(event, UNKNOWN) for event in events] for *_, events in expected
  ]
  assert read.lines.tolist() == sum(
    ([line] * len(events) for _, line, events in expected), []
  )
  assert [*read.as_read] == sum((events for *_, events in expected), [])
  assert read.ids.dtype == np.int32 and (np.diff(read.bounds) == 1).any()


def test_one_id_a_line_is_a_session_a_file(tmp_path):
  (tmp_path / "x").write_text("a\n\nb\n")
  (tmp_path / "y").write_text("\n\nd\nc\na")
  config = settings(tmp_path, unit="id")
  read = sessions.read_sessions(config, KNOWN, str(tmp_path / "[xy]"))
  assert read.names == ["x", "y"]
  assert ids(read) == [[4, 5], [UNKNOWN, 6, 4]]


def test_equal_sessions_are_found_and_taken(three):
  read, expected = three
  each = list(map(tuple, ids(read)))
  once = list(dict.fromkeys(each))
  distinct = read.distinct()
  assert [each[j] for j in distinct.first] == once
  assert [once[n] for n in distinct.which] == each
  assert distinct.counts.tolist() == [each.count(one) for one in once]
  counted = read.once()
  assert ids(counted) == [*map(list, once)] and counted.lines is None
  for one in (counted, counted.once()):
    assert one.counts.tolist() == distinct.counts.tolist()
  index, n = np.array([7, 3, 3, 0]), len(read.ids)
  few = read._replace(
    timestamps=Texts(["", *map(str, range(n))], 1 + np.arange(n)),
    labels=np.arange(len(each)) % 2,
  ).take(index)
  assert ids(few) == [list(each[j]) for j in index]
  assert few.names == [read.names[j] for j in index]
  assert few.timestamps[0] == str(read.bounds[7])
  assert few.labels.tolist() == [1, 1, 1, 0]
  assert few.lines[-1] == read.lines[read.bounds[1] - 1]
  assert few.as_read[0] == expected[7][2][0]


LABELS = {
  "session,anomaly\nx:2,0\nx:1,bad\nx:9,1\n": [True, False],
  's,l\n"x:1",FALSE\n\nx:2,1\n': [False, True],
  "s,l\nx:1,1\n": "labels.csv: has no label for session 'x:2'",
  "s,l\nx:1,1\nx:1,0\n": "labels.csv:3: session 'x:1' has another label",
}


def test_labels_come_from_a_table(tmp_path):
  (tmp_path / "x").write_text("a\nb b\n")
  config, path = settings(tmp_path), tmp_path / "labels.csv"
  corpus = sessions.read_sessions(config, KNOWN, str(tmp_path / "x"))
  for content, expected in LABELS.items():
    path.write_text(content)
    if isinstance(expected, str):
      with pytest.raises(UserError, match=re.escape(expected)):
        sessions.with_labels(corpus, str(path), config)
    else:
      labelled = sessions.with_labels(corpus, str(path), config)
      assert labelled.labels.tolist() == expected


NORMAL = ["0", "0.0", "-0", "0e3", "-", "False", "NORMAL", " benign", "ok"]
ANOMALOUS = ["1", "1.0", "TRUE", "Anomaly"]
NONE = ["", " ", "nan", "NaN", "None"]


def test_names_of_normal_sessions_are_no_anomalies(tmp_path, capsys):
  names = NORMAL + ANOMALOUS + NONE
  path, labels = tmp_path / "f", tmp_path / "labels"
  lines = [f"s{n},a,{label}" for n, label in enumerate(names)]
  path.write_text("\n".join(["session,event,label", *lines]))
  labels.write_text("\n".join(["s,l", *lines]).replace(",a,", ","))
  config = settings(tmp_path, format="csv")
  read = sessions.read_sessions(config, KNOWN, str(path))
  again = sessions.with_labels(read, str(labels), config)
  kinds = [0] * len(NORMAL) + [1] * len(ANOMALOUS) + [-1] * len(NONE)
  for one in (read, again):
    assert one.labels.tolist() == kinds
  assert not capsys.readouterr().err


def test_labels_that_no_list_has_are_reported_on_stderr(tmp_path, capsys):
  path = tmp_path / "f"
  path.write_text("session,event,label\nx,a,fine\ny,a,0\ny,b,0_0\nz,b,\n")
  config = settings(tmp_path, format="csv")
  read = sessions.read_sessions(config, KNOWN, str(path))
  assert read.labels.tolist() == [1, 1, -1]
  assert capsys.readouterr().err == (
    "labels: 'fine' '0_0': not in detect.normal_labels, so anomalous\n"
  )
  config.detect.normal_labels = "0, Fine"
  read = sessions.read_sessions(config, KNOWN, str(path))
  assert not read.labels[0]


def test_the_time_before_an_event_that_is_left_out_goes_with_it():
  names = Vocabulary("events", ("a", "b", "c", "d"))
  events = ["a", "x", "b", "y", "x", "c", "x", "a", "b", "x"]
  times = np.array([0, 5, 7, 8, 20, 21, 100, 105, 106, np.nan])
  whole = sessions.Sessions.of_events(
    names,
    Texts(events, np.arange(10)),
    np.array([0, 6, 9, 10]),
    ["long", "short", "gone"],
    seconds=times,
  )
  less = whole.without({"x": None, "y": "d"}, names)
  symbols = [names.symbols[n - len(RESERVED)] for n in less.ids]
  assert symbols == [*"abdcab"]
  assert (less.names, less.bounds.tolist()) == (["long", "short"], [0, 4, 6])
  assert less.seconds.tolist() == [0, 2, 3, 4, 105, 106]
  assert whole.without({}, names) is whole
