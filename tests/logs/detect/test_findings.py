"""Findings: their tables, their incidents, and the lines on a terminal."""

import numpy as np
import pytest

from seqrnn.data.logs import sessions as data
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.read.columns import Texts
from seqrnn.data.vocabulary import END, UNKNOWN, Vocabulary
from seqrnn.logs.detect import tables
from seqrnn.logs.detect.findings import (
  Decision,
  Findings,
  group_incidents,
  worst_positions,
)
from seqrnn.scoring.scorer import UNRANKED
from tests.logs.detect.test_decision import scores_of

LOG = ["unpack package" + 9 * " and so on", "configure it", "boom now"]


def findings_of(sessions, names, nll, bounds, **decided):
  """Findings of distinct sessions, of which those with a reason are flagged."""
  count = len(sessions.names)
  p, reasons = np.array(decided["p"]), decided["reasons"]
  short, none = np.isnan(p), np.zeros(count, int)
  lengths = np.diff(sessions.bounds)
  has_end = (np.diff(bounds) > lengths).nonzero()[0]
  targets = np.insert(sessions.ids, sessions.bounds[1:][has_end], END)
  ranks = np.where(targets == UNKNOWN, UNRANKED, 1)
  scored = scores_of(
    nll, ranks, bounds, -p, decided.get("counts"), short
  )._replace(targets=targets, lengths=lengths)
  decision = Decision(
    scores={"combined": np.where(short, np.inf, -p)},
    combined_KD=-p[None],
    p=p,
    flags=np.array([reason != "" for reason in reasons]),
    event_p=np.ones(len(nll)),
    event_flags=np.array(nll) > 10,
    flagged_events=none,
    unknown_events=none,
    models=none,
    severity=np.array(decided["severity"]),
    reasons=reasons,
  )
  every = np.arange(count)
  distinct = data.Distinct(every, every, scored.counts)
  worst = worst_positions(scored)
  return Findings(
    *(sessions, distinct, names, Redaction(""), scored, decision, worst)
  )


@pytest.fixture
def scored():
  """A function of surprisals to findings on two sessions of a log.

  The second has a line that was never seen, and is flagged.
  """
  texts = Texts([*LOG], np.array([0, 1, 2]))
  sessions = data.Sessions(
    np.array([UNKNOWN + 1, UNKNOWN + 2, UNKNOWN], np.int32),
    np.array([0, 2, 3]),
    ["a.log:1", "a.log:5"],
    lines=np.array([1, 2, 5]),
    as_read=texts,
  )
  names = Vocabulary("log", tuple(LOG[:2]))

  def make(nll, p=(0.5, 0.01), reasons=("", "max"), severity=(0, 2), **columns):
    decided = {"p": p, "reasons": list(reasons), "severity": severity}
    some = sessions._replace(**columns)
    return findings_of(some, names, nll, [0, 3, 5], **decided)

  return make


def test_every_session_names_the_line_of_its_worst_event(scored, tmp_path):
  """Where the end is the worst event, the last line is named."""
  findings = scored([1.0, 1, 1, 19, 2])
  assert [findings.position(d) for d in range(2)] == [0, 0]
  findings = scored([1.0, 1, 3, 2, 19])
  rows = tables.session_rows(findings, group_incidents(findings))
  tables.write_csv_table(tmp_path / "sessions.csv", rows)
  columns = ("line", "first_alarm", "incident")
  rows = list(tables.read_csv_table(tmp_path / "sessions.csv"))
  assert [tuple(map(row.get, columns)) for row in rows] == [
    ("2", "", ""),
    ("5", "1", "1"),
  ]
  assert "file" not in rows[0]
  files = Texts(["a.log.1", "a.log"], np.array([0, 1, 1]))
  rows = tables.session_rows(scored([1.0, 1, 3, 2, 9], files=files))
  assert [row["file"] for row in rows] == ["a.log", "a.log"]


def test_flagged_sessions_with_like_surprising_events_are_an_incident(tmp_path):
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
  ids = np.array(["abcd".index(e[0]) for e in flat], np.int32) + UNKNOWN + 1
  bounds = np.cumsum([0, *map(len, events)])
  findings = findings_of(
    data.Sessions(ids, bounds, list(sessions)),
    Vocabulary("session", tuple("abcd")),
    [float(event[1:]) for event in flat],
    bounds,
    p=[p for _, p in sessions.values()],
    reasons=[*["mean"] * 4, "", "short", "mean"],
    severity=[1, 2, 2, 1, 0, 1, 3],
    counts=[1, 1, 4, 1, 1, 1, 1],
  )
  grouped = group_incidents(findings)
  assert [one.members for one in grouped] == [[6], [1, 2], [3, 0], [5]]
  tables.write_incidents(findings, grouped, tmp_path)
  names = ("severity", "sessions", "p_value", "event", "example", "before")
  rows = tables.read_csv_table(tmp_path / "incidents.csv")
  assert [tuple(map(row.get, names)) for row in rows] == [
    ("high", "1", "0.04", "a", "t", ""),
    ("medium", "5", "0.01", "b", "o", ""),
    ("low", "2", "0.03", "c", "q", ""),
    ("low", "1", "", "<short>", "s", ""),
  ]
