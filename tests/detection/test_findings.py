"""Findings: the table that a terminal shows of them."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from seqrnn.data import sessions as data
from seqrnn.data.columns import Texts
from seqrnn.data.vocabulary import END, UNKNOWN, Vocabulary
from seqrnn.detection import findings, incidents, pictures, printing, tables
from seqrnn.detection.conformal import Calibration
from tests.conftest import tiny

LOG = ["unpack package" + 9 * " and so on", "configure it", "boom now"]


@pytest.fixture
def found(tmp_path):
  """Findings of two sessions of a log, the second with a line never seen."""
  (tmp_path / "a.log").write_text("\n".join([*LOG[:2], *LOG]))
  fields = {"unit": "log", "path": str(tmp_path / "a.log"), "log_lines": 2}
  config = tiny(tmp_path, {f"data.{name}": v for name, v in fields.items()})
  config.detect.idle = 0.0  # Else the last session is open.
  names = Vocabulary("log", tuple(LOG[:2]))
  read = data.read(config, names, config.data.path)
  sessions = read.take(np.array([0, 2]))
  distinct = sessions.distinct()
  targets = np.insert(sessions.ids, sessions.bounds[1:], END)
  nll = np.array([1.0, 1, 1, 9, 2])
  return findings.Findings(
    sessions=sessions,
    distinct=distinct,
    names=names,
    nll=nll,
    rank=np.ones(5, int),
    targets=targets,
    bounds=np.array([0, 3, 5]),
    offsets=np.zeros(2, int),
    event_p=np.ones(5),
    event_flags=nll > 5,
    scores={"combined": np.array([1.0, 9])},
    p=np.array([0.5, 0.01]),
    flags=np.array([False, True]),
    short=np.zeros(2, bool),
    seconds=1.0,
  )


def test_every_session_names_the_line_of_its_oddest_event(found, tmp_path):
  """Flagged or not; where its end is the oddest, the last line is named."""
  assert found.oddest().tolist() == [0, 0]
  found = found._replace(nll=np.array([1.0, 1, 3, 2, 9]))
  tables.write_sessions(found, tmp_path, "jsonl")
  rows = (tmp_path / "sessions.jsonl").read_text("utf-8").splitlines()
  told = [
    (row["line"], row.get("first_alarm")) for row in map(json.loads, rows)
  ]
  assert told == [(2, None), (5, 0)] and "file" not in rows[0]
  files = Texts(["a.log.1", "a.log"], np.array([0, 1, 1, 1]))
  sessions = found.sessions._replace(files=files[: len(found.sessions.ids)])
  tables.write_sessions(found._replace(sessions=sessions), tmp_path, "jsonl")
  rows = (tmp_path / "sessions.jsonl").read_text("utf-8").splitlines()
  assert [json.loads(row)["file"] for row in rows] == ["a.log", "a.log"]


def test_flagged_sessions_are_grouped_by_their_oddest_event(found):
  kinds = np.array([0, 1, 1, 0, 2, 3])  # Of the oddest events of six sessions.
  ids = np.repeat(kinds, 2) + UNKNOWN + 1
  names = Vocabulary("session", tuple("abcd"))
  bounds = np.arange(0, 13, 2)
  sessions = data.Sessions(
    ids.astype(np.int32), bounds, [f"s{n}" for n in range(6)]
  )
  p = np.array([0.04, 0.01, 0.02, 0.03, 0.5, np.nan])
  grouped = incidents.group(
    found._replace(
      sessions=sessions,
      distinct=data.Distinct(np.arange(6), kinds, np.array([1, 1, 4, 1, 1, 1])),
      names=names,
      targets=ids,
      nll=np.tile([1.0, 8.0], 6),
      bounds=bounds,
      offsets=np.zeros(6, int),
      scores={"combined": np.where(np.isnan(p), np.inf, -p)},
      event_flags=np.zeros(12, bool),
      flags=p != 0.5,
      short=np.isnan(p),
      p=p,
    )
  )
  told = [(x.event, x.count, x.session, x.position, x.before) for x in grouped]
  assert told == [
    ("b", 5, 1, 1, ["b"]),
    ("a", 2, 3, 1, ["a"]),
    ("<short>", 1, 5, 1, ["d"]),
  ]
  assert [x.p for x in grouped[:2]] == [0.01, 0.03]


def test_lines_of_a_log_stand_below_each_other(found):
  file = io.StringIO()
  console = Console(file=file, width=80)
  printing.print_sessions(console, found, 9)
  shown = [line.rstrip() for line in file.getvalue().split("\n")]
  assert max(map(len, shown)) <= 80
  first = next(n for n, line in enumerate(shown) if "a.log:5" in line)
  # What is unknown is told as it was read.
  assert shown[first : first + 3] == [
    "a.log:5, line 5: p 0.01, 13.0 bits",
    "   13.0 ? boom now",
    "    2.9 <end>",
  ]
  assert shown[first + 3] == "a.log:1, line 1: p 0.5, 1.4 bits"
  assert "unpack package" in shown[first + 4] and shown[first + 4][-1] == "…"
  assert shown[first + 5] == "    1.4 configure it"


def test_short_sessions_come_after_those_that_have_a_rank(found):
  short = found._replace(
    short=np.array([False, True]),
    scores={"combined": np.array([1.0, np.inf])},
    p=np.array([0.5, np.nan]),
  )
  file = io.StringIO()
  printing.print_sessions(Console(file=file, width=80), short, 9)
  lines = [line for line in file.getvalue().split("\n") if ", line " in line]
  assert [line.split(",")[0] for line in lines] == ["a.log:1", "a.log:5"]
  assert "line 5: flagged for its length, 13.0 bits" in lines[1]
  assert pictures._worst(short) == 0


@pytest.mark.parametrize("far", [900.0, np.inf])
def test_one_score_far_out_leaves_the_others_to_be_seen(found, far):
  found = found._replace(scores={"combined": np.array([1.0, far])})
  normal = Calibration(np.linspace(0, 5, 50))
  figure = pictures._scores(found, normal, 4.0)
  for axes in figure.axes:
    assert axes.get_xlim()[1] == pytest.approx(4 * 5, rel=0.02)
    assert "or more" in axes.get_xlabel()
  shares = dict(zip(*figure.axes[1].lines[1].get_data(), strict=True))
  assert shares == {0: 1, 1: 0.5, 20: 0}
