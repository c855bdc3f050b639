"""Feedback: answers to kinds of alarms, for a follower and for a detection."""

import csv
import math

import pytest

from seqrnn.config.read import Config
from seqrnn.configs import base
from seqrnn.data.logs.secrets import Redaction
from seqrnn.logs.detect import answers
from seqrnn.logs.follow import alarms, feedback
from seqrnn.logs.follow.alarms import Alarms
from seqrnn.logs.follow.state import NAME, open_state
from seqrnn.logs.follow.verdicts import Verdict
from tests.logs.follow.test_state import Table

MASKS = Redaction("<secrets>")


def verdict(session, symbols, ended=True, event=None, **fields):
  """An alarm whose most surprising event is the last, or `event`."""
  event = event or symbols[-1]
  fields = {
    **{"p": 0.001, "flag": True, "severity": 2, "reason": "max", "now": None},
    **{
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
  (workdir / "follow" / NAME).unlink(missing_ok=True)
  with open_state(workdir / "follow", print) as state:
    facts = {"alarms": alerts.facts()}
    state.save([*alerts.changes(), ("meta", "facts", 0, facts)])


def table(workdir):
  with (workdir / "review.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def test_kinds_with_most_alarms_come_first_and_secrets_are_masked(
  tmp_path, config
):
  alerts = Alarms(0, MASKS)
  alerts.take(verdict("s1", ["a", "b", "lost of <masked>"]))
  for n in range(3):
    alerts.take(verdict(f"u{n}@y.zz", ["a", "rare"], line=None))
  alerts.take(verdict("n", ["a"], flag=False))
  save(tmp_path, alerts)
  examples = feedback.load_kinds(config, tmp_path)
  rows = [feedback.review_row(kind, {}) for kind in examples]
  answers.write_rows(tmp_path, rows)
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
  assert [one.symbols[-1] for one in examples] == ["rare", "lost of <masked>"]
  assert [one.share for one in examples] == [3 / 5, 1 / 5]


def test_answers_are_kept_when_the_follower_has_forgotten_the_kind(
  tmp_path, config
):
  alerts = Alarms(0, MASKS)
  alerts.take(verdict("s1", ["a", "rare"]))
  save(tmp_path, alerts)
  feedback.load_kinds(config, tmp_path)
  begun_anew = Alarms(0, MASKS)
  begun_anew.take(verdict("s9", ["a", "new"]))
  save(tmp_path, begun_anew)
  kinds = feedback.load_kinds(config, tmp_path)
  symbols = {kind.key: kind.symbols for kind in kinds}
  assert symbols == {(1, "s1"): ["a", "rare"], (1, "s9"): ["a", "new"]}
  # The answer is not for the new kind of this number.
  assert not begun_anew.answer({(1, "s1"): "normal"})
  assert begun_anew.kinds[1].answer == ""


def test_the_events_of_an_example_are_whole_when_it_has_ended():
  alerts = Alarms(math.inf, MASKS)
  alerts.take(verdict("s1", ["a", "rare"], ended=False))
  assert alerts.kinds[1].symbols == ["a", "rare"] and not alerts.kinds[1].whole
  again = Alarms(math.inf, MASKS)
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
  alerts = Alarms(0, MASKS)
  for n in range(3):
    alerts.take(verdict(f"s{n}", ["a", f"rare {n}"], ended=False))
  alerts.answer({(1, "s0"): "normal"})
  for n in range(3, 9):
    alerts.take(verdict(f"s{n}", ["a", f"rare {n}"]))
  assert [*alerts.kinds] == [1, 8, 9]
  assert alerts.facts()["incomplete"] == {"s0": 1}


def test_an_alarm_whose_severity_rises_is_one_alarm():
  alerts = Alarms(0, MASKS)
  rows = [
    alerts.take(verdict("x", ["a", "rare"], ended=False, severity=1)),
    alerts.take(verdict("x", ["a", "rare"], severity=3, again=True)),
  ]
  assert [row and row["severity"] for row in rows] == ["low", "high"]
  assert len({row and row["number"] for row in rows}) == 1
