"""Sessions: read flat, each event with its place; equal ones; back to batches.

With unknown ids, short sessions and several files.
"""

import random
import re

import numpy as np
import pytest

from seqrnn.data.batches.segments import Segments
from seqrnn.data.logs import sessions
from seqrnn.data.read.columns import Texts
from seqrnn.data.read.reading import NOT_UTF8
from seqrnn.data.vocabulary import BEGIN, END, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from tests.conftest import tiny

KNOWN = Vocabulary("session", ("a", "b", "c"))


def settings(tmp_path, **fields):
  fields = {f"data.{name}": value for name, value in fields.items()}
  return tiny(tmp_path, {"data.unit": "session", **fields})


def ids(corpus):
  return np.split(corpus.ids, corpus.bounds[1:-1])


def written(folder, seed):
  """Three files of random sessions, some of one event, with blank lines."""
  rng = random.Random(seed)
  expected = []
  for name in ("a.log", "b.log", "c.log"):
    lines = [
      " ".join(rng.choices("abcd!", k=rng.randint(0, 4))) for _ in range(60)
    ]
    (folder / name).write_text("\n".join(lines))
    expected += [
      (f"{name}:{number}", number, line.split())
      for number, line in enumerate(lines, 1)
      if line
    ]
  return expected


def test_sessions_are_read_flat_and_no_file_is_joined_to_another(tmp_path):
  folder = tmp_path / "logs"
  folder.mkdir()
  expected = written(folder, 0)
  corpus = sessions.read_sessions(settings(tmp_path), KNOWN, str(folder))
  assert corpus.names == [name for name, _, _ in expected]
  known = {"a": 4, "b": 5, "c": 6}
  for got, (_, _, events) in zip(ids(corpus), expected, strict=True):
    assert got.tolist() == [known.get(event, UNKNOWN) for event in events]
  lines = np.split(corpus.lines, corpus.bounds[1:-1])
  for got, (_, line, events) in zip(lines, expected, strict=True):
    assert got.tolist() == [line] * len(events)
  assert corpus.ids.dtype == np.int32 and (np.diff(corpus.bounds) == 1).any()


def test_one_id_a_line_is_a_session_a_file(tmp_path):
  (tmp_path / "x").write_text("a\n\nb\n")
  (tmp_path / "y").write_text("\n\nd\nc\na")
  config = settings(tmp_path, unit="id")
  corpus = sessions.read_sessions(config, KNOWN, str(tmp_path / "[xy]"))
  assert corpus.names == ["x", "y"]
  assert [got.tolist() for got in ids(corpus)] == [[4, 5], [UNKNOWN, 6, 4]]
  assert corpus.lines.tolist() == [1, 3, 3, 4, 5]


def test_equal_sessions_are_found_and_taken(tmp_path):
  folder = tmp_path / "logs"
  folder.mkdir()
  expected = written(folder, 1)
  corpus = sessions.read_sessions(settings(tmp_path), KNOWN, str(folder))
  each = [tuple(part.tolist()) for part in ids(corpus)]
  once = list(dict.fromkeys(each))
  distinct = corpus.distinct()
  assert [each[j] for j in distinct.first] == once
  assert [once[n] for n in distinct.which] == each
  assert distinct.counts.tolist() == [each.count(one) for one in once]
  index = np.array([7, 3, 3, 0])
  assert (
    list(corpus.as_read[:9])
    == [event for _, _, events in expected for event in events][:9]
  )
  n = len(corpus.ids)
  few = corpus._replace(
    timestamps=Texts(["", *map(str, range(n))], 1 + np.arange(n)),
    labels=np.arange(len(each)) % 2 == 0,
  ).take(index)
  assert [tuple(part.tolist()) for part in ids(few)] == [each[j] for j in index]
  assert few.names == [corpus.names[j] for j in index]
  assert few.timestamps[0] == str(corpus.bounds[7])
  assert few.labels.tolist() == [False, False, False, True]
  assert few.lines[-1] == corpus.lines[corpus.bounds[1] - 1]
  assert few.as_read[0] == expected[7][2][0]


def test_batches_have_the_events_between_begin_and_end(tmp_path):
  folder = tmp_path / "logs"
  folder.mkdir()
  written(folder, 2)
  config = settings(tmp_path, repeats="weight", buckets=3)
  corpus = sessions.read_sessions(config, KNOWN, str(folder))
  segments = Segments(config, KNOWN, length=8, minimum=2)
  batches = segments.batches(corpus.pieces(KNOWN), 0, batch_size=16)
  rows = {
    int(number): segment[segment > 0].tolist()
    for batch in batches
    for number, segment in zip(batch["document"], batch["segment"], strict=True)
    if segment.any()
  }
  for number, part in zip(batches.distinct, ids(corpus), strict=True):
    assert rows[number] == [BEGIN, *part.tolist(), END]


LABELS = {
  "session,anomaly\nx:2,0\nx:1,bad\nx:9,1\n": [True, False],
  's,l\n"x:1",FALSE\n\nx:2,1\n': [False, True],
  "s,l\nx:1,0\0\nx:2,0\n": [True, False],  # No label of a normal session.
  "s,s\nx:1,0\n": "labels.csv: has 2 columns 's'; names of",
  "s,l\nx:1,1\n": "labels.csv: has no label for session 'x:2'",
  "s,l\nx:1\n": "labels.csv:2: must have two columns, a session and its",
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
      assert labelled.with_label().tolist() == [0, 1]


NORMAL = ["0", "0.0", "-0", "0e3", "-", "False", "no", "NORMAL", " benign"]
NORMAL += ["Success", "ok", "Negative"]
ANOMALOUS = ["1", "1.0", "TRUE", "Anomaly"]
NONE = ["", " ", "nan", "NaN", "None"]


def test_names_of_normal_sessions_are_no_anomalies(tmp_path, capsys):
  names = NORMAL + ANOMALOUS + NONE
  lines = [f"s{n},a,{label}" for n, label in enumerate(names)]
  (tmp_path / "f").write_text("session,event,label\n" + "\n".join(lines))
  config = settings(tmp_path, format="csv")
  corpus = sessions.read_sessions(config, KNOWN, str(tmp_path / "f"))
  known = len(NORMAL + ANOMALOUS)
  expected = [n >= len(NORMAL) for n in range(known)]
  assert corpus.with_label().tolist() == list(range(known))
  assert corpus.labels[:known].tolist() == expected
  assert corpus.lines_labelled.tolist() == corpus.labelled.tolist()
  assert not capsys.readouterr().err
  rows = [f"s{n},{label}" for n, label in enumerate(names)]
  (tmp_path / "labels").write_text("\n".join(["s,l", *rows]))
  again = sessions.with_labels(corpus, str(tmp_path / "labels"), config)
  assert again.labels.tolist() == corpus.labels.tolist()
  assert again.labelled.tolist() == corpus.labelled.tolist()
  some = corpus.take(np.array([0, len(names) - 1, known - 1]))
  assert some.with_label().tolist() == [0, 2]


def test_labels_that_no_list_has_are_counted_on_stderr(tmp_path, capsys):
  (tmp_path / "f").write_text(
    "session,event,label\nx,a,fine\nx,a,fine\ny,a,0\ny,b,KERNEL\nz,b,\n"
  )
  config = settings(tmp_path, format="csv")
  corpus = sessions.read_sessions(config, KNOWN, str(tmp_path / "f"))
  assert corpus.labels.tolist() == [True, True, False]
  assert capsys.readouterr().err == (
    "labels: 'fine' (2), 'KERNEL' (1): not in detect.normal_labels, so"
    " anomalous\n"
  )
  config.detect.normal_labels = "0, Fine"
  corpus = sessions.read_sessions(config, KNOWN, str(tmp_path / "f"))
  assert corpus.labels.tolist() == [False, True, False]


@pytest.mark.parametrize("reader", ["labels", "table", "log", "lines"])
def test_every_reader_refuses_wrong_bytes_with_a_remedy(tmp_path, reader):
  (tmp_path / "good").write_text("a\n")
  (tmp_path / "f").write_bytes(b"session,event\nf:1,caf\xe9\n")
  fields = {"table": {"format": "csv"}, "log": {"unit": "log"}}
  config = settings(tmp_path, **fields.get(reader, {}))

  def read():
    if reader != "labels":
      return sessions.read_sessions(config, KNOWN, str(tmp_path / "f"))
    good = sessions.read_sessions(config, KNOWN, str(tmp_path / "good"))
    renamed = good._replace(names=["f:1"])
    return sessions.with_labels(renamed, str(tmp_path / "f"), config)

  with pytest.raises(UserError, match=rf"f: byte 21 {re.escape(NOT_UTF8)}$"):
    read()
  config.data.errors = "latin-1"
  assert len(read().names)
