"""Feedback: answers to kinds of alarms, for a follower and for a detection."""

import csv
import math

import pytest

from seqrnn.config.read import Config
from seqrnn.configs import base
from seqrnn.data.logs.secrets import Redaction
from seqrnn.errors import UserError
from seqrnn.logs.follow import alarms, feedback
from seqrnn.logs.follow.alarms import FALSE, TRUE, Alarms
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


def save(workdir, found: Alarms):
  """A follower's state with these alarms."""
  with State(workdir / "follow", print) as state:
    changes = [("kinds", None, 0, None), *found.changes()]
    assert state.save(changes, {"alarms": found.facts()})


def table(workdir):
  with (workdir / "alarms.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def test_kinds_with_most_alarms_come_first_and_secrets_are_masked(
  tmp_path, config
):
  found = Alarms(0)
  found.take(verdict("s1", ["a", "b", "lost of x@y.zz"]))
  for n in range(3):
    found.take(verdict(f"u{n}@y.zz", ["a", "rare"], line=None))
  found.take(verdict("n", ["a"], flag=False))
  save(tmp_path, found)
  examples = feedback.update(config, tmp_path)
  feedback.write_answers(tmp_path, [one.row for one in examples])
  rows = table(tmp_path)
  assert [*rows[0]] == [
    *("kind", "count", "severity", "session", "line", "time", "event"),
    *("context", "answer"),
  ]
  assert [(row["kind"], row["count"]) for row in rows] == [
    *(("2", "3"), ("1", "1"))
  ]
  assert rows[0]["session"] == Redaction("<secrets>").name("u0@y.zz")
  assert rows[1]["event"] == "lost of <masked>" and rows[1]["line"] == "7"
  assert rows[1]["context"] == "a | b | lost of <masked>"
  assert rows[1]["time"] == "2027-01-15T08:00:00"
  assert [one.symbols[-1] for one in examples] == ["rare", "lost of x@y.zz"]
  assert [one.share for one in examples] == [3 / 5, 1 / 5]


def test_answers_are_kept_when_the_follower_has_forgotten_the_kind(
  tmp_path, config
):
  found = Alarms(0)
  found.take(verdict("s1", ["a", "rare"]))
  save(tmp_path, found)
  rows = [one.row for one in feedback.update(config, tmp_path)]
  rows[0]["answer"] = TRUE
  feedback.write_answers(tmp_path, rows)
  begun_anew = Alarms(0)
  begun_anew.take(verdict("s9", ["a", "new"]))
  save(tmp_path, begun_anew)
  new, old = feedback.update(config, tmp_path)
  assert (new.key, new.row["answer"]) == ((1, "s9"), "")
  assert (old.key, old.row["answer"]) == ((1, "s1"), TRUE)
  assert old.symbols == ["a", "rare"]
  # The answer is not for the new kind of this number.
  answers = feedback.Inbox(tmp_path, "strict").poll()
  assert answers == {(1, "s1"): TRUE}
  assert not feedback.apply(begun_anew, {(1, "s1"): FALSE}, None)
  assert begun_anew.kinds[1].answer == ""


def test_an_inbox_gives_answers_when_the_file_changes(tmp_path):
  inbox = feedback.Inbox(tmp_path, "strict")
  path = tmp_path / "alarms.csv"
  assert inbox.poll() is None
  path.write_text("kind,session,answer\n1,s,false\n2,t,\n")
  assert inbox.poll() == {(1, "s"): FALSE, (2, "t"): ""}
  assert inbox.poll() is None
  path.write_text("kind,session,answer\n1,s,maybe\n")
  with pytest.raises(UserError, match="answer='maybe'"):
    inbox.poll()
  assert inbox.poll() is None  # It is reported once.
  path.write_text("session,kind,answer,note\ns,1,TRUE ,x\n")
  assert inbox.poll() == {(1, "s"): TRUE}


def test_a_wrong_file_is_refused_with_its_line(tmp_path):
  columns, rule = "kind,session,answer", "must be a number of a kind, and false"
  for text, message in (
    ("kind,session\n1,s", "1: has no column 'answer'"),
    (f"{columns}\n1,s,no", f"2: kind='1', answer='no': {rule}"),
    (f"{columns}\n{'9' * 5000},s,true", f"2: kind='{'9' * 20}', answer='true'"),
    (f"{columns}\n1,s,true\n1,s,false", "3: kind 1 of session 's' has another"),
  ):
    (tmp_path / "alarms.csv").write_text(text)
    with pytest.raises(UserError) as error:
      feedback.read_answers(tmp_path, "strict")
    assert str(error.value).startswith(f"{tmp_path}/alarms.csv:{message}")


def test_the_events_of_an_example_are_whole_when_it_has_ended():
  found = Alarms(math.inf)
  found.take(verdict("s1", ["a", "rare"], ended=False))
  assert found.kinds[1].symbols == ["a", "rare"] and not found.kinds[1].whole
  again = Alarms(math.inf)
  Table().move(found, again)
  for one in (found, again):
    one.take(verdict("s2", ["b"], flag=False))
    one.take(verdict("s1", ["a", "rare", "c"], event="rare", raised=False))
    kind = one.kinds[1]
    assert kind.symbols == ["a", "rare", "c"] and kind.whole
    assert one.sessions == 2 and kind.count == 1
  # A more severe alarm of a session that had one is not counted again.
  found.take(verdict("s1", ["a"], event="rare", severity=3, again=True))
  assert found.kinds[1].count == 1
  long = ["a"] * 2000
  found.take(verdict("s5", long, event="long"))
  assert len(found.kinds[2].symbols) == 1000 and not found.kinds[2].whole


def test_kinds_with_answers_are_forgotten_last(monkeypatch):
  monkeypatch.setattr(alarms, "_KINDS", 3)
  found = Alarms(0)
  for n in range(3):
    found.take(verdict(f"s{n}", ["a", f"rare {n}"], ended=False))
  found.answer(1, FALSE)
  for n in range(3, 9):
    found.take(verdict(f"s{n}", ["a", f"rare {n}"]))
  assert [*found.kinds] == [1, 8, 9]
  assert found.facts()["incomplete"] == {"s0": 1}


def test_an_alarm_whose_severity_rises_is_one_alarm():
  found = Alarms(0.0)
  rows = [
    found.take(verdict("x", ["a", "rare"], ended=False, severity=1)),
    found.take(verdict("x", ["a", "rare"], severity=3, again=True)),
  ]
  assert [row and row["severity"] for row in rows] == ["low", "high"]
  assert len({row and row["number"] for row in rows}) == 1
