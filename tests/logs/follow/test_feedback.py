"""Feedback: answers to kinds of alarms, for a follower and for a detection."""

import csv
import math

import pytest

from seqrnn.config.read import Config
from seqrnn.configs import base
from seqrnn.data.logs.secrets import Redaction
from seqrnn.errors import UserError
from seqrnn.logs.detect import answers
from seqrnn.logs.detect.selection import NORMAL, UNANSWERED
from seqrnn.logs.follow import alarms, feedback
from seqrnn.logs.follow.alarms import Alarms
from seqrnn.logs.follow.state import State
from seqrnn.logs.follow.verdicts import Verdict
from tests.logs.follow.test_state import Table


def verdict(session, symbols, ended=True, event=None, **fields):
  """An alarm whose most surprising event is the last, or `event`."""
  event = event or symbols[-1]
  fields = {
    **{"p": 0.001, "flag": True, "severity": 2, "reason": "max", "now": None},
    **{
      "models": 4,
      "unknown_events": 0,
      "flagged_events": 1,
      "scores_K": (),
      "begins": True,
    },
    **{"line": 7, "time": 1.8e9, "position": 0},
    **fields,
  }
  return Verdict(
    session=session,
    ended=ended,
    events=len(symbols),
    event=event,
    before=symbols[:-1][-3:],
    after=[],
    surprising=frozenset([event]),
    symbols=symbols,
    **fields,
  )


@pytest.fixture
def config() -> Config:
  return base.get_config()


def save(workdir, alerts: Alarms):
  """A follower's state with these alarms."""
  with State(workdir / "follow", print) as state:
    changes = [("kinds", None, 0, None), *alerts.changes()]
    assert state.save(changes, {"alarms": alerts.facts()})


def table(workdir):
  with (workdir / "review.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def test_kinds_with_most_alarms_come_first_and_secrets_are_masked(
  tmp_path, config
):
  alerts = Alarms(0)
  alerts.take(verdict("s1", ["a", "b", "lost of x@y.zz"]))
  for n in range(3):
    alerts.take(verdict(f"u{n}@y.zz", ["a", "rare"], line=None))
  alerts.take(verdict("n", ["a"], flag=False))
  save(tmp_path, alerts)
  examples = feedback.load_examples(config, tmp_path, {})
  answers.write_rows(tmp_path, [one.row for one in examples])
  rows = table(tmp_path)
  assert [*rows[0]] == [
    *("kind", "session", "count", "severity", "line", "timestamp", "event"),
    *("context", "answer"),
  ]
  assert [(row["kind"], row["count"]) for row in rows] == [
    *(("2", "3"), ("1", "1"))
  ]
  assert rows[0]["session"] == Redaction("<secrets>").name("u0@y.zz")
  assert rows[1]["event"] == "lost of <masked>" and rows[1]["line"] == "7"
  assert rows[1]["context"] == "a | b | lost of <masked>"
  assert rows[1]["timestamp"] == "2027-01-15T08:00:00"
  assert [one.symbols[-1] for one in examples] == ["rare", "lost of x@y.zz"]
  assert [one.share for one in examples] == [3 / 5, 1 / 5]


def test_answers_are_kept_when_the_follower_has_forgotten_the_kind(
  tmp_path, config
):
  alerts = Alarms(0)
  alerts.take(verdict("s1", ["a", "rare"]))
  save(tmp_path, alerts)
  known: answers.ByKind = {(1, "s1"): "anomalous"}
  feedback.load_examples(config, tmp_path, known)
  begun_anew = Alarms(0)
  begun_anew.take(verdict("s9", ["a", "new"]))
  save(tmp_path, begun_anew)
  by_key = {
    one.key: one for one in feedback.load_examples(config, tmp_path, known)
  }
  assert {key: one.row["answer"] for key, one in by_key.items()} == {
    (1, "s9"): "",
    **known,
  }
  assert by_key[1, "s1"].symbols == ["a", "rare"]
  # The answer is not for the new kind of this number.
  assert not feedback.apply(begun_anew, {(1, "s1"): "normal"}, None)
  assert begun_anew.kinds[1].answer == UNANSWERED


def test_an_inbox_gives_answers_when_the_file_changes(tmp_path):
  inbox = feedback.Inbox(tmp_path, "strict")
  path = tmp_path / "review.csv"
  assert inbox.poll() is None
  path.write_text("kind,session,answer\n,a,normal\n1,s,normal\n2,t,\n")
  assert inbox.poll() == {(1, "s"): "normal", (2, "t"): ""}
  assert inbox.poll() is None
  path.write_text("kind,session,answer\n1,s,maybe\n")
  with pytest.raises(UserError, match="answer='maybe'"):
    inbox.poll()
  assert inbox.poll() is None  # It is reported once.
  path.write_text("session,kind,answer,note\ns,1,NORMAL ,x\n")
  assert inbox.poll() == {(1, "s"): "normal"}


def test_the_events_of_an_example_are_whole_when_it_has_ended():
  alerts = Alarms(math.inf)
  alerts.take(verdict("s1", ["a", "rare"], ended=False))
  assert alerts.kinds[1].symbols == ["a", "rare"] and not alerts.kinds[1].whole
  again = Alarms(math.inf)
  Table().move(alerts, again)
  for one in (alerts, again):
    one.take(verdict("s2", ["b"], flag=False))
    one.take(verdict("s1", ["a", "rare", "c"], event="rare", raised=False))
    kind = one.kinds[1]
    assert kind.symbols == ["a", "rare", "c"] and kind.whole
    assert one.sessions == 2 and kind.count == 1
  # A more severe alarm of a session that had one is not counted again.
  alerts.take(verdict("s1", ["a"], event="rare", severity=3, again=True))
  assert alerts.kinds[1].count == 1
  long = ["a"] * 2000
  alerts.take(verdict("s5", long, event="long"))
  assert len(alerts.kinds[2].symbols) == 1000 and not alerts.kinds[2].whole


def test_kinds_with_answers_are_forgotten_last(monkeypatch):
  monkeypatch.setattr(alarms, "_KINDS", 3)
  alerts = Alarms(0)
  for n in range(3):
    alerts.take(verdict(f"s{n}", ["a", f"rare {n}"], ended=False))
  alerts.answer(1, NORMAL)
  for n in range(3, 9):
    alerts.take(verdict(f"s{n}", ["a", f"rare {n}"]))
  assert [*alerts.kinds] == [1, 8, 9]
  assert alerts.facts()["incomplete"] == {"s0": 1}


def test_an_alarm_whose_severity_rises_is_one_alarm():
  alerts = Alarms(0.0)
  rows = [
    alerts.take(verdict("x", ["a", "rare"], ended=False, severity=1)),
    alerts.take(verdict("x", ["a", "rare"], severity=3, again=True)),
  ]
  assert [row and row["severity"] for row in rows] == ["low", "high"]
  assert len({row and row["number"] for row in rows}) == 1
