"""review: the questions, and the changes of a calibration by answers."""

import csv
import json
import shutil
from collections import Counter

import numpy as np
import pytest

from seqrnn.data import splits, vocabulary
from seqrnn.data.logs import sessions as data
from seqrnn.data.logs.secrets import Redaction
from seqrnn.errors import UserError
from seqrnn.logs.detect import answers, calibration, deployed
from seqrnn.logs.detect.findings import find_anomalies
from seqrnn.logs.follow import alarms
from seqrnn.logs.follow.follower import Event, Follower
from seqrnn.modes import detect, review
from tests.conftest import message_of, read_csv
from tests.logs.follow.test_feedback import save, verdict
from tests.modes.conftest import RARE, build, texts_of


@pytest.fixture(scope="module")
def reviewed(detected, tmp_path_factory):
  """The run, reviewed before any answer is known; and its config."""
  folder = tmp_path_factory.mktemp("review") / "run"
  shutil.copytree(detected.folder / "first", folder)
  shutil.rmtree(folder / "detect")
  config = detected.config.copy_and_resolve_references()
  fields = {"scores": "max", "contamination": 0.0}
  fields |= {"path": config.data.path, "anomalous_path": None}
  config.detect.update({**fields, "events": "none"})
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(review, "_ASKED", 30)
    review.run(build, config, folder)
  return folder, config


@pytest.fixture
def run(reviewed, tmp_path, monkeypatch):
  """The workdir of a copy of the run, its config, and its training texts."""
  # Models are trained, and sessions scored, once.
  monkeypatch.setattr(calibration, "fit_folds", None)
  monkeypatch.setattr(calibration, "score_held_out", None)
  monkeypatch.setattr(review, "_ASKED", 30)
  shutil.copytree(reviewed[0], tmp_path / "run")
  config = reviewed[1].copy_and_resolve_references()
  return tmp_path / "run", config, texts_of(config)


def table(workdir):
  return read_csv(workdir / "review.csv")


def answer(workdir, words, **kinds):
  """Writes answers, by session, as a user does."""
  lines = [f"{kinds.get(n, '')},{n},{word}" for n, word in words.items()]
  (workdir / "review.csv").write_text(
    "\n".join(["kind,session,answer", *lines])
  )


def arrays_of(workdir):
  with np.load(workdir / "calibration.npz") as file:
    return {name: file[name] for name in file.files if name != "rests_on"}


def rows_of(config):
  """The text of each row of calibration.npz."""
  pairs = ((k, text) for k in (1, 2) for text in texts_of(config, k).values())
  return list(dict.fromkeys(pairs))


def shares_of(arrays):
  """The share of a model's sessions whose score is at least that of a row."""
  shares = []
  for k, score in zip(arrays["model"], arrays["score max"], strict=True):
    of_model = arrays["model"] == k
    scores, counts = arrays["score max"][of_model], arrays["counts"][of_model]
    shares.append(counts[scores >= score].sum() / counts.sum())
  return np.array(shares)


def test_distinct_sessions_of_all_folds_are_asked_about(run):
  workdir, config, texts = run
  rows, p, least = rows_of(config), {}, {}
  assert {k for k, text in rows if text == RARE} == {1, 2}
  for (k, text), share in zip(rows, shares_of(arrays_of(workdir)), strict=True):
    p[text], least[k] = min(p.get(text, 1), share), min(least.get(k, 1), share)
  asked, counts = table(workdir), Counter(texts.values())
  for row in asked:
    text = texts[row["session"]]
    assert int(row["count"]) == counts[text]
    assert float(row["p_value"]) == pytest.approx(p[text], rel=1e-5)
    assert int(row["line"]) == int(row["session"].partition(":")[2])
    # The end of a session is an event, too.
    assert row["event"] in (*text.split(), "<end>") and row["answer"] == ""
    assert row["context"].replace(" | ", " ") in f"{text} <end>"
  shown = [texts[row["session"]] for row in asked]
  assert len(asked) == len(set(shown)) == 30 and RARE in shown
  # Of the highest score of a fold, the p-value that ranks is extrapolated.
  ranks = [max(p[text], *least.values()) for text in shown]
  assert ranks == sorted(ranks)
  assert max(ranks) <= min(p[text] for text in set(p) - set(shown))


def test_an_answer_is_for_all_equal_sessions_and_for_following(run, capsys):
  workdir, config, texts = run
  named = {text: name for name, text in texts.items()}
  usual = Counter(texts.values()).most_common(1)[0][0]
  answer(workdir, {named[RARE]: "anomalous", named[usual]: " Normal"})
  detect.run(build, config, workdir)
  lines = " ".join(capsys.readouterr().out.split())
  rare, equal = (list(texts.values()).count(text) for text in (RARE, usual))
  assert (
    f"of {len(texts)} sessions, {rare} are left out, because answers call"
    f" them anomalous, and {equal} stay as normal" in lines
  )
  report = json.loads((workdir / "detect/report.json").read_text())
  record = report["calibration"]
  assert record["answered_anomalous"] == record["left_out"] == rare
  assert record["answered_normal"] == equal
  assert report["thresholds"]["sessions"]["calibration"] == len(texts) - rare
  events = deployed.restore(build, config, workdir).normal.events
  arrays = arrays_of(workdir)
  out = np.array([text == RARE for _, text in rows_of(config)])
  sizes = arrays["counts"] * arrays["sizes"]
  assert events.n == sizes[~out].sum() < sizes.sum()


def test_answers_in_the_file_stay_and_are_not_asked_again(run, capsys):
  workdir, config, texts = run
  asked, counts = table(workdir), Counter(texts.values())
  words = {asked[0]["session"]: "anomalous", asked[5]["session"]: "normal"}
  with (workdir / "review.csv").open("w") as file:
    writer = csv.DictWriter(file, [*asked[0], "note"], "")
    writer.writeheader()
    for row in asked:
      writer.writerow({**row, "answer": words.get(row["session"], "")})
  review.run(build, config, workdir)
  lines, again = capsys.readouterr().out, table(workdir)
  answered = {r["session"]: r["answer"] for r in again if r["answer"]}
  assert answered == words and len(again) == min(32, len(counts))
  assert "note" in again[0]
  rare, good = (counts[texts[name]] for name in words)
  assert f" {rare} are left out, because answers call them" in lines
  assert f"anomalous, and {good} stay as normal\n" in lines
  assert f"{workdir}/review.csv: write normal or anomalous, or nothing" in lines


def test_a_wrong_file_is_refused_with_its_line(run):
  workdir, config, texts = run
  first, second, *_ = (name for name, text in texts.items() if text == RARE)
  names = vocabulary.load(workdir / "vocabulary.json")["symbols"]
  read, path = splits.reader(config), workdir / "review.csv"
  for content, message in (
    ("session,answer\nA,normal\nB,maybe", ":3: answer='maybe': must be normal"),
    ("session,answer\nlog:999,", ":2: session='log:999': is no session"),
    (
      "session,answer\nA,normal\nB,anomalous",
      f":3: session {second!r} equals {first!r} of line 2",
    ),
  ):
    path.write_text(content.replace("A", first).replace("B", second))
    line = message_of(answers.load_answers, workdir, names, read, config)
    assert line.startswith(f"{path}{message}")


STRANGE = ["e", "b", "e", "b", "e", "b"]  # In no session that a model has seen.


def raise_alarms(workdir):
  """A follower's state: of 12 sessions 3 of a kind, and one that is RARE."""
  alerts = alarms.Alarms(0, Redaction("<secrets>"))
  for n in range(3):
    alerts.take(verdict(f"strange{n or ''}", STRANGE))
  alerts.take(verdict("rare", RARE.split(), event="rare"))
  for n in range(8):
    alerts.take(verdict(f"usual-{n}", ["a"], severity=0))
  save(workdir, alerts)


def test_answers_to_alarms_change_the_calibration(run, capsys):
  workdir, config, texts = run
  raise_alarms(workdir)
  review.run(build, config, workdir)
  assert " of 32 rows" in capsys.readouterr().out
  kinds = [(row["kind"], row["session"]) for row in table(workdir)[:3]]
  assert kinds[:2] == [("1", "strange"), ("2", "rare")] and not kinds[2][0]
  answer(workdir, {"strange": "normal", "rare": "anomalous"}, strange=1, rare=2)
  preview = review.run(build, config, workdir)
  assert "that are anomalous: 1, and" in capsys.readouterr().out
  detect.run(build, config, workdir)
  lines = " ".join(capsys.readouterr().out.split())
  rare = list(texts.values()).count(RARE)
  joined = round(len(texts) * 3 / 12)
  assert (
    "calibration: kinds of alarms that are normal by review.csv: 1, which join"
    f" it as {joined} sessions; that are anomalous: 1, and" in lines
  )
  report = json.loads((workdir / "detect/report.json").read_text())
  assert report["calibration"]["answered_anomalous"] == rare
  count = report["thresholds"]["sessions"]["calibration"]
  assert count == len(texts) - rare + joined
  assert preview.scores["combined"].n == count
  # calibration.npz is as before; a follower has the same sessions.
  assert arrays_of(workdir)["counts"].sum() == len(texts)

  restored = deployed.restore(build, config, workdir)
  ids = restored.detector.names.encode(STRANGE)
  strange = data.Sessions(ids, np.array([0, len(ids)]), ["new"])
  one = find_anomalies(restored.detector, restored.normal, strange).decision
  assert restored.normal.scores["combined"].n == count
  # The session is as unlikely as a sixth of the calibration at most.
  assert one.p[0] >= (joined + 1) / (count + 1) and not one.flags.any()


def test_an_accepted_event_is_left_out_of_sessions(run, tmp_path, capsys):
  workdir, config, _ = run
  alerts = alarms.Alarms(0.0, Redaction("(?!)"))
  alerts.take(verdict("s1", ["x"], score="new"))
  # An alarm before it was common, in a session with nothing else.
  alerts.take(verdict("s2", ["x", "x"], score="unknown"))
  save(workdir, alerts)
  config.detect.path = str(tmp_path / "new.txt")
  (tmp_path / "new.txt").write_text("a c x d e\na c d e\na x e\nx\n")
  p = lambda: detect.run(build, config, workdir).decision.p.tolist()
  with_it = p()
  review.run(build, config, workdir)
  [row, other, *_] = [row for row in table(workdir) if row["kind"]]
  assert (row["event"], row["session"]) == ("x", "s1")
  assert other["session"] == "s2"
  answer(workdir, {"s1": "normal", "s2": "normal"}, s1=1, s2=2)
  capsys.readouterr()
  # The first two are equal now, and nothing is left of the last.
  assert len(with_it) == 4 and with_it[1] == p()[0]
  lines = capsys.readouterr().out
  assert "1 more have only events that are normal by review.csv" in lines
  assert "review.csv: 0, which join it as 0 sessions" in " ".join(lines.split())
  model = deployed.restore(build, config, workdir)
  assert model.accepted == {"x": None}
  follower = Follower(model._replace(config=config))
  follower.feed_many([Event("y", symbol) for symbol in "acxde"])
  assert follower.end("y")[-1].p == with_it[1]
  answer(workdir, {"s1": "anomalous", "s2": ""}, s1=1, s2=2)
  assert p() == with_it


def test_a_review_has_the_settings_of_the_last_detection(run):
  """Four folds would be trained."""
  workdir, config, _ = run
  detect.run(build, config, workdir)
  asked = table(workdir)
  fields = {"folds": 4, "scores": None, "contamination": 0.1}
  config.detect.update(fields)
  review.run(build, config, workdir)
  assert table(workdir) == asked
  assert {name: config.detect[name] for name in fields} == fields


def test_a_detection_and_a_review_do_not_need_the_log_of_the_training(
  run, tmp_path
):
  workdir, config, _ = run
  answer(workdir, {})
  review.run(build, config, workdir)
  expected, asked = detect.run(build, config, workdir), table(workdir)
  gone = config.copy_and_resolve_references()
  gone.data.path = str(tmp_path / "gone" / "normal.txt")
  found = detect.run(build, gone, workdir)
  assert np.array_equal(found.decision.p, expected.decision.p)
  answer(workdir, {})
  review.run(build, gone, workdir)
  assert table(workdir) == asked
  # The sessions of the training's log are read from it.
  gone.detect.path = None
  with pytest.raises(UserError, match="no such file.*; only the log of"):
    detect.run(build, gone, workdir)
  (workdir / "splits.npz").unlink()
  with pytest.raises(UserError, match="no such file.*; a first detection"):
    detect.run(build, gone, workdir)
  # A damaged file is written again. Another log has no test split.
  (workdir / "splits.npz").write_bytes(b"x")
  review.run(build, config, workdir)
  (tmp_path / "other.txt").write_text("\n".join(["a b d e"] * 30))
  gone.data.update(path=str(tmp_path / "other.txt"), test_fraction=0.0)
  with pytest.raises(
    UserError, match="the log of the training has changed, and"
  ):
    detect.run(build, gone, workdir)
