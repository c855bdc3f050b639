"""Feedback: answers to kinds of alarms, for a follower and for a detection."""

import json
import math

import pytest

from seqrnn.config.read import Config
from seqrnn.configs import base
from seqrnn.data.logs.secrets import Redaction
from seqrnn.errors import UserError
from seqrnn.logs.detect import answers
from seqrnn.logs.follow import alarms, feedback
from seqrnn.logs.follow.state import NAME, StateRow, open_state
from seqrnn.logs.follow.verdicts import Verdict
from tests.conftest import read_csv

MASKS = Redaction("<secrets>")


def verdict(session, symbols, event=None, **fields):
  """An alarm whose most surprising event is the last, or `event`."""
  event = event or symbols[-1]
  values = {"ended": True, "severity": 2, "score": "max", "p": 0.001}
  values |= {"line": 7, "time": 1.8e9, "before": symbols[:-1][-3:], "after": []}
  values |= {"reason": "", "unknown_events": 0}
  values |= {"flagged_events": 1, "position": 0}
  values |= {"surprising": frozenset([event]), "scores_K": (), "begins": True}
  values |= {"session": session, "event": event, "events": len(symbols)}
  return Verdict(**{**values, "symbols": symbols, **fields})


@pytest.fixture
def config() -> Config:
  return base.get_config()


def alarms_of(*verdicts, quiet=0.0):
  """Alarms, and the rows of verdicts."""
  alerts = alarms.Alarms(quiet, MASKS)
  return alerts, [alerts.take(one) for one in verdicts]


def save(workdir, alerts: alarms.Alarms):
  """A follower's state with these alarms alone."""
  (workdir / "follow" / NAME).unlink(missing_ok=True)
  with open_state(workdir / "follow", print) as state:
    facts = {"alarms": alerts.facts()}
    state.save([*alerts.changes(), StateRow("meta", "facts", 0, facts)])


def test_kinds_with_most_alarms_come_first_and_secrets_are_masked(
  tmp_path, config
):
  kinds = [verdict(f"u{n}@y.zz", ["a", "rare"], line=None) for n in range(3)]
  first = verdict("s1", ["a", "b", "lost"])
  save(tmp_path, alarms_of(first, *kinds, verdict("n", ["a"], severity=0))[0])
  kinds = feedback.record_kinds(config, tmp_path)
  words: answers.ByKind = {(1, "s1"): "normal"}
  rows = [feedback.review_row(kind, words) for kind in kinds]
  answers.write_rows(tmp_path, rows)
  rare, lost = read_csv(tmp_path / "review.csv")
  assert rare == {
    **{"kind": "2", "session": MASKS.name("u0@y.zz"), "count": "3"},
    **{"severity": "medium", "line": "", "timestamp": "2027-01-15T08:00:00"},
    **{"event": "rare", "context": "a | rare", "answer": ""},
  }
  assert (lost["line"], lost["context"]) == ("7", "a | b | lost")
  assert lost["answer"] == "normal"
  assert [kind.symbols[-1] for kind in kinds] == ["rare", "lost"]
  assert [kind.share for kind in kinds] == [3 / 5, 1 / 5]


def test_examples_stay_when_the_follower_has_forgotten_the_kind(
  tmp_path, config
):
  save(tmp_path, alarms_of(verdict("s1", ["a", "rare"]))[0])
  feedback.record_kinds(config, tmp_path)
  begun_anew, _ = alarms_of(verdict("s9", ["a", "new"]))
  save(tmp_path, begun_anew)
  kinds = feedback.record_kinds(config, tmp_path)
  symbols = {kind.key: kind.symbols for kind in kinds}
  assert symbols == {(1, "s1"): ["a", "rare"], (1, "s9"): ["a", "new"]}
  # The answer is not for the new kind of this number.
  assert not begun_anew.answer({(1, "s1"): "normal"})
  assert begun_anew.kinds[1].answer == ""


def test_edited_examples_are_refused(tmp_path, config):
  save(tmp_path, alarms_of(verdict("s1", ["a", "rare"]))[0])
  feedback.record_kinds(config, tmp_path)
  path = tmp_path / feedback.EXAMPLES
  [good] = json.loads(path.read_text())["kinds"]
  example = good["example"]
  edits = [{"count": x} for x in (None, "3", -1, [])]
  edits += [{"share": x} for x in (None, "a", 2, math.nan)]
  edits += [{"symbols": x} for x in (None, [1], 5)]
  edits += [{"number": []}, {"example": {}}, {"example": None}, {"other": 1}]
  edits += [{"example": {**example, "before": [1]}}]
  for fields in ({**good, **edit} for edit in edits):
    path.write_text(json.dumps({"kinds": [fields]}))
    with pytest.raises(
      UserError, match=f"^{path}: must be as .*; remove it, [^\\n]*$"
    ):
      feedback.record_kinds(config, tmp_path)
  for text in ("{", "[]", '{"kinds": 5}', "{}"):
    path.write_text(text)
    with pytest.raises(UserError, match=f"^{path}: .*remove it, [^;]*$"):
      feedback.record_kinds(config, tmp_path)


def test_the_events_of_an_example_are_whole_when_it_has_ended():
  alerts, _ = alarms_of(
    verdict("s1", ["a", "rare"], ended=False), quiet=math.inf
  )
  assert alerts.kinds[1].symbols == ["a", "rare"] and not alerts.kinds[1].whole
  [(_, _, _, value)] = alerts.changes()
  again = alarms.Alarms(math.inf, MASKS)
  again.restore(alerts.facts(), [(1, 0, json.loads(json.dumps(value)))])
  for one in (alerts, again):
    one.take(verdict("s2", ["b"], severity=0))
    one.take(verdict("s1", ["a", "rare", "c"], event="rare", earlier=2))
    kind = one.kinds[1]
    assert kind.symbols == ["a", "rare", "c"] and kind.whole
    assert one.sessions == 2 and kind.count == 1
  # A more severe alarm of a session that had one is not counted again.
  alerts.take(verdict("s1", ["a"], event="rare", severity=3, earlier=2))
  assert alerts.kinds[1].count == 1
  alerts.take(verdict("s5", ["a"] * 2000, event="long"))
  assert len(alerts.kinds[2].symbols) == 1000 and not alerts.kinds[2].whole


def test_kinds_differ_by_their_reason():
  lost = verdict("s1", ["a", "pay"], score="max", now=0.0)
  slow = verdict("s2", ["a", "pay"], score="gap", now=180.0)
  alerts, rows = alarms_of(
    lost,
    slow,
    slow._replace(session="s3"),
    lost._replace(session="s4"),
    # The severity of a session rises for another reason: it is one alarm.
    lost._replace(severity=3, score="mean", earlier=2),
    quiet=3600,
  )
  shown = [row and (row["kind"], row["number"]) for row in rows]
  assert shown == [(1, 1), (2, 2), None, None, (1, 1)]
  assert [kind.count for kind in alerts.kinds.values()] == [2, 2]


def test_a_silence_has_an_alarm_though_one_of_another_kind_was_held_back():
  """It shows at the end of a session that seemed to have ended before."""
  lost = verdict("s1", ["a", "<end>"], severity=3, now=0.0)
  slow = verdict("s2", ["a", "b"], score="gap", earlier=3, now=190.0)
  alerts, rows = alarms_of(
    lost,
    lost._replace(session="s2", now=180.0),
    slow,
    slow._replace(session="s1"),  # It has an alarm.
    slow._replace(session="s3", score="mean"),
    lost._replace(session="s4", now=3000.0),
    slow._replace(session="s4", now=4000.0),
    quiet=3600,
  )
  shown = [row and (row["session"], row["number"]) for row in rows]
  assert shown == [("s1", 1), None, ("s2", 2), *[None] * 3, ("s4", 3)]
  assert [kind.count for kind in alerts.kinds.values()] == [3, 2]
  # Nor has it two when the kind of the first one is forgotten, or if a session
  # before had its name.
  for n in range(alarms._KINDS):
    alerts.take(verdict(f"t{n}", ["a", f"rare {n}"]))
  held, late = lost._replace(session="t5", now=60.0), slow._replace(now=9000.0)
  late = [late._replace(session=name) for name in ("s1", "t5")]
  rows = map(alerts.take, (late[0], lost, held, late[1]))
  assert [row and row["session"] for row in rows] == [None, "s1", None, "t5"]
