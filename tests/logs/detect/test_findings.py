"""Findings: the table that a terminal shows of them."""

import io

import numpy as np
import pytest
from rich.console import Console

from seqrnn.data.logs import sessions as data
from seqrnn.data.read.columns import Texts
from seqrnn.data.vocabulary import END, UNKNOWN, Vocabulary
from seqrnn.logs.detect import findings, printing, tables
from seqrnn.logs.detect.findings import group_incidents
from tests.conftest import tiny

LOG = ["unpack package" + 9 * " and so on", "configure it", "boom now"]


def explained(reasons, severities):
  zeros = np.zeros(len(reasons), int)
  return {
    "flagged_events": zeros,
    "unknown_events": zeros,
    "models": zeros,
    "severity": np.array(severities),
    "reasons": reasons,
  }


@pytest.fixture
def scored(tmp_path):
  """Findings of two sessions of a log, the second with a line never seen."""
  (tmp_path / "a.log").write_text("\n".join([*LOG[:2], *LOG]))
  fields = {
    "unit": "log",
    "path": str(tmp_path / "a.log"),
    "log_session": "lines=2",
  }
  config = tiny(tmp_path, {f"data.{name}": v for name, v in fields.items()})
  config.detect.idle = 0.0  # Else the last session is open.
  names = Vocabulary("log", tuple(LOG[:2]))
  read = data.read_sessions(config, names, config.data.path)
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
    combined_KD=np.array([[1.0, 9]]),
    p=np.array([0.5, 0.01]),
    flags=np.array([False, True]),
    short=np.zeros(2, bool),
    **explained(["", "max"], [0, 2]),
    seconds=1.0,
  )


def test_every_session_names_the_line_of_its_worst_event(scored, tmp_path):
  """Where the end is the worst event, the last line is named."""
  assert scored.worst_events().tolist() == [0, 0]
  scored = scored._replace(nll=np.array([1.0, 1, 3, 2, 9]))
  tables.write_sessions(scored, group_incidents(scored), tmp_path)
  columns = ("line", "first_alarm", "incident")
  rows = list(tables.read_csv_table(tmp_path / "sessions.csv"))
  assert [tuple(map(row.get, columns)) for row in rows] == [
    ("2", "", ""),
    ("5", "0", "1"),
  ]
  assert "file" not in rows[0]
  files = Texts(["a.log.1", "a.log"], np.array([0, 1, 1, 1]))
  sessions = scored.sessions._replace(files=files[: len(scored.sessions.ids)])
  tables.write_sessions(scored._replace(sessions=sessions), [], tmp_path)
  rows = tables.read_csv_table(tmp_path / "sessions.csv")
  assert [row["file"] for row in rows] == ["a.log", "a.log"]


def test_flagged_sessions_with_like_surprising_events_are_an_incident(scored):
  sessions = {  # Events with their nats, and p-values.
    "n": ("a1 b8 c9", 0.04),  # Surprising: b and c.
    "o": ("b9 d8 c2", 0.01),  # b and d: a third of three is common with n.
    "p": ("b9 a9 d9 c1", 0.02),  # Two thirds of three are common with o.
    "q": ("c9 b5 d1", 0.03),  # As n, whose most surprising event it has.
    "r": ("d9", 0.5),  # Not flagged.
    "s": ("d1 d1", np.nan),  # Short.
    "t": ("a9", 0.04),  # Rarest last, but severe.
  }
  events = [text.split() for text, _ in sessions.values()]
  flat = [event for one in events for event in one]
  ids = np.array(["abcd".index(e[0]) for e in flat]) + UNKNOWN + 1
  p = np.array([p for _, p in sessions.values()])
  bounds = np.cumsum([0, *map(len, events)])
  grouped = group_incidents(
    scored._replace(
      sessions=data.Sessions(ids.astype(np.int32), bounds, list(sessions)),
      distinct=data.Distinct(
        np.arange(7), np.arange(7), np.array([1, 1, 4, 1, 1, 1, 1])
      ),
      names=Vocabulary("session", tuple("abcd")),
      targets=ids,
      nll=np.array([float(e[1:]) for e in flat]),
      bounds=bounds,
      offsets=np.zeros(7, int),
      scores={"combined": np.where(np.isnan(p), np.inf, -p)},
      event_flags=np.zeros(len(ids), bool),
      flags=p != 0.5,
      short=np.isnan(p),
      **explained(["mean"] * 7, [1, 2, 2, 1, 0, 1, 3]),
      p=p,
    )
  )
  told = [(x.event, x.count, "nopqrst"[x.session], x.before) for x in grouped]
  assert told == [
    ("a", 1, "t", []),
    ("b", 5, "o", []),
    ("c", 2, "q", []),
    ("<short>", 1, "s", []),
  ]
  assert [x.p for x in grouped[:3]] == [0.04, 0.01, 0.03]
  assert [x.severity for x in grouped] == [3, 2, 1, 1]
  assert [x.members for x in grouped] == [[6], [1, 2], [3, 0], [5]]


def test_incidents_and_metrics_are_whole_in_80_columns(scored):
  file = io.StringIO()
  console = Console(file=file, width=80)
  printing.print_incidents(console, scored, group_incidents(scored))
  shown = [line.rstrip() for line in file.getvalue().split("\n")]
  assert shown[3:-1] == [
    "medium, one improbable event, p 0.01, 1 session",
    "  a.log:5, line 5",
    "  ? boom now",
  ]
  row = {"flagged": 123456, **dict.fromkeys(printing._COLUMNS, 0.5)}
  metrics = {
    "figures": {n: row for n in ("combined", "count_vector", "union")},
    "average_precision_by_kind": None,
  }
  file = io.StringIO()
  console = Console(file=file, width=80)
  printing.print_metrics(console, metrics, ["count_vector"], 0.005)
  assert "\u2026" not in file.getvalue() and "union" not in file.getvalue()
  assert file.getvalue().count("0.500") == 2 * len(printing._COLUMNS)
  for name in ("oracle F1", "123,456", "AUROC", "flagged"):
    assert name in file.getvalue()
  metrics["figures"] = {"combined": {"flagged": 3}}
  file = io.StringIO()
  printing.print_metrics(Console(file=file), metrics, ["max"], 0.005)
  assert not file.getvalue()
  metrics["figures"]["combined"]["f1"] = 0.5
  metrics["average_precision_by_kind"] = {"combined": {"a": 0.5}}
  printing.print_metrics(Console(file=file), metrics, ["max"], 0.005)
  lines = file.getvalue().split("\n")  # The tables are narrower.
  assert "metrics with the threshold for a false-alarm rate of 0.005" in lines
  assert "average precision by kind of anomaly" in lines


def test_lines_of_a_log_stand_below_each_other(scored):
  file = io.StringIO()
  console = Console(file=file, width=80)
  printing.print_sessions(console, scored, 9)
  shown = [line.rstrip() for line in file.getvalue().split("\n")]
  assert max(map(len, shown)) <= 80
  first = next(n for n, line in enumerate(shown) if "a.log:5" in line)
  # Unknown events are printed as they were read.
  assert shown[first : first + 3] == [
    "a.log:5, line 5: medium, one improbable event, p 0.01, 13.0 bits",
    "   13.0 ? boom now",
    "    2.9 <end>",
  ]
  assert shown[first + 3] == "a.log:1, line 1: p 0.5, 1.4 bits"
  assert "unpack package" in shown[first + 4] and shown[first + 4][-1] == "…"
  assert shown[first + 5] == "    1.4 configure it"


def test_short_sessions_come_after_those_that_have_a_rank(scored):
  short = scored._replace(
    short=np.array([False, True]),
    scores={"combined": np.array([1.0, np.inf])},
    p=np.array([0.5, np.nan]),
    **explained(["", "short"], [0, 1]),
  )
  file = io.StringIO()
  printing.print_sessions(Console(file=file, width=80), short, 9)
  lines = [line for line in file.getvalue().split("\n") if ", line " in line]
  assert [line.split(",")[0] for line in lines] == ["a.log:1", "a.log:5"]
  assert "line 5: low, few events, 13.0 bits" in lines[1]
