"""review: the questions, and the changes of a calibration by answers."""

import csv
import json
import random
import re
import shutil
from collections import Counter
from typing import Any

import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.configs import base
from seqrnn.data import splits, vocabulary
from seqrnn.data.logs import sessions as data
from seqrnn.data.logs.secrets import Redaction
from seqrnn.errors import MachineError, UserError
from seqrnn.logs.detect import (
  answers,
  calibration,
  deployed,
  evaluation,
  selection,
)
from seqrnn.logs.detect.findings import find_anomalies
from seqrnn.logs.detect.selection import ANOMALOUS, NORMAL, UNANSWERED
from seqrnn.logs.follow import alarms
from seqrnn.modes import detect, review
from seqrnn.runtime import files
from seqrnn.training import train
from tests.conftest import tiny
from tests.logs.follow.test_feedback import save, verdict
from tests.modes.test_detect import FIELDS, walk

RARE = "d d d d"  # Some sessions in both folds.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run, reviewed before any detection: no answer is known."""
  folder = tmp_path_factory.mktemp("review")
  rng = random.Random(0)
  texts = [walk(rng) for _ in range(150)]
  for place in (3, 40, 41, 100):
    texts[place] = RARE
  (folder / "log.txt").write_text("\n".join(texts))
  fields = {
    "data.path": str(folder / "log.txt"),
    "detect.path": str(folder / "log.txt"),
    "detect.scores": "max",
    "detect.contamination": 0.0,
    "detect.bootstrap": 0,
    "detect.events": "none",
  }
  config = tiny(folder, {**FIELDS, **fields})
  train.fit(experiments.build, config, folder / "run")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(review, "_ASKED", 30)
    review.run(experiments.build, config, folder / "run")
  return folder, config


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
  """The workdir of a copy of the run, its config, and its training texts."""
  # Models are trained, and sessions scored, once.
  monkeypatch.setattr("seqrnn.training.train.fit", None)
  monkeypatch.setattr(calibration, "score_held_out", None)
  monkeypatch.setattr(review, "_ASKED", 30)
  monkeypatch.setattr(evaluation, "draw", lambda *_: None)
  shutil.copytree(trained[0] / "run", tmp_path / "run")
  config = trained[1].copy_and_resolve_references()
  train = splits.reader(config)("train")
  texts = {d.name: " ".join(d.symbols) for d in train.documents()}
  return tmp_path / "run", config, texts


def table(workdir):
  with (workdir / "review.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def answer(workdir, words, **kinds):
  """Writes answers, by session, as a user does."""
  lines = [f"{kinds.get(n, '')},{n},{word}" for n, word in words.items()]
  (workdir / "review.csv").write_text(
    "\n".join(["kind,session,answer", *lines])
  )


def arrays_of(workdir):
  with np.load(workdir / "calibration.npz") as file:
    return {name: file[name] for name in file.files if name != "rests_on"}


def rows_of(config, texts):
  """The text of each row of calibration.npz."""
  train = splits.reader(config)("train")
  rows = []
  for k in (1, 2):
    names = [d.name for d in splits.fold(train, f"{k}/2", True).documents()]
    rows += dict.fromkeys((k, texts[name]) for name in names)
  return rows


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
  rows, arrays = rows_of(config, texts), arrays_of(workdir)
  assert {k for k, text in rows if text == RARE} == {1, 2}
  p = {}
  for (_, text), share in zip(rows, shares_of(arrays), strict=True):
    p[text] = min(p.get(text, 1), share)
  asked = table(workdir)
  counts = Counter(texts.values())
  assert len(asked) == 30
  for row in asked:
    text = texts[row["session"]]
    assert int(row["count"]) == counts[text]
    assert float(row["p_value"]) == pytest.approx(p[text], rel=1e-5)
    assert int(row["line"]) == int(row["session"].partition(":")[2])
    # The end of a session is an event, too.
    assert row["event"] in (*text.split(), "<end>") and row["answer"] == ""
    around = row["context"].replace(" | ", " ")
    assert around in f"{text} <end>"
  shown = [texts[row["session"]] for row in asked]
  assert len(set(shown)) == 30 and RARE in shown
  ranks = [p[text] for text in shown]
  assert ranks == sorted(ranks)
  assert max(ranks) <= min(p[text] for text in set(p) - set(shown))


@pytest.mark.parametrize("contamination", [0.0, 0.2])
def test_anomalous_sessions_calibrate_as_if_they_were_not_there(contamination):
  settings = base.get_config().detect
  settings.contamination, settings.scores = contamination, "max,mean"
  rng = np.random.default_rng(0)
  arrays: dict[str, Any] = {
    "counts": rng.integers(1, 3, 300),
    "model": np.repeat([0, 1], 150),
    "sizes": rng.integers(0, 4, 300),
    "steps": np.array([1, 1]),
    "score max": rng.exponential(1, 300).round(2),
    "score mean": rng.exponential(1, 300).round(2),
    "score unknown": np.zeros(300),
    "injected kind": np.arange(20) % 2,
    "injected model": np.arange(20) // 10,
    "injected score max": rng.exponential(2, 20),
    "injected score mean": rng.exponential(2, 20),
    "injected score unknown": np.zeros(20),
  }
  events = np.repeat(arrays["counts"], arrays["sizes"])
  arrays |= {"nll": rng.exponential(1, len(events)), "event_counts": events}
  # A second mode, in both models.
  arrays["score max"][rng.permutation(300)[:40]] += 30
  answers_R = np.full(len(arrays["counts"]), UNANSWERED)
  answers_R[rng.random(len(answers_R)) < 0.2] = ANOMALOUS
  # Answers do not change what cleaning finds: the mode is left out, however
  # many of its sessions are known.
  mode = arrays["score max"] > 29
  answers_R[np.flatnonzero(mode)[:30]] = ANOMALOUS
  answers_R[np.flatnonzero(mode)[30:33]] = NORMAL
  normal = calibration.normal_scores(arrays, settings, answers_R)
  out = (answers_R == ANOMALOUS) | (
    mode & (answers_R != NORMAL) & bool(contamination)
  )
  here = ~out
  np.testing.assert_array_equal(normal.selection.calibrates, here)
  assert normal.selection.left_out == arrays["counts"][out].sum()
  cleaned = arrays["counts"][out & (answers_R != ANOMALOUS)].sum()
  assert normal.selection.cleaned == cleaned and bool(cleaned) == (
    contamination > 0
  )
  assert (
    normal.selection.answered(NORMAL)
    == arrays["counts"][answers_R == NORMAL].sum()
  )
  without = dict(arrays)
  for name in arrays:
    if name in ("nll", "event_counts"):
      without[name] = arrays[name][np.repeat(here, arrays["sizes"])]
    elif name != "steps" and "injected" not in name:
      without[name] = arrays[name][here]
  settings.contamination = 0.0
  expected = calibration.normal_scores(without, settings)
  pairs = [(normal.events, expected.events)]
  pairs += [(normal.scores[n], expected.scores[n]) for n in expected.scores]
  for one, other in pairs:
    for group, same in zip(one.groups, other.groups, strict=True):
      np.testing.assert_array_equal(group.scores, same.scores)
      np.testing.assert_array_equal(group.above, same.above)
  np.testing.assert_array_equal(
    normal.leave_one_out.scores, expected.leave_one_out.scores
  )


def test_no_fold_is_left_without_sessions(run):
  arrays = arrays_of(run[0])
  with pytest.raises(
    UserError, match=r"^review.csv, detect.contamination=0: leave"
  ):
    selection.select(arrays, 0.0, np.where(arrays["model"] == 1, ANOMALOUS, 0))


def test_an_answer_is_for_all_equal_sessions_and_for_following(run, capsys):
  workdir, config, texts = run
  named = {text: name for name, text in texts.items()}
  usual = Counter(texts.values()).most_common(1)[0][0]
  answer(workdir, {named[RARE]: "anomalous", named[usual]: " Normal"})
  detect.run(experiments.build, config, workdir)
  said = " ".join(capsys.readouterr().out.split())
  rare, equal = (list(texts.values()).count(text) for text in (RARE, usual))
  assert (
    f"of {len(texts)} sessions, {rare} are left out, because answers call"
    f" them anomalous, and {equal} stay as normal" in said
  )
  report = json.loads((workdir / "detect/report.json").read_text())
  record = report["calibration"]
  assert (record["answered_anomalous"], record["left_out"]) == (
    rare,
    rare,
  )
  assert record["answered_normal"] == equal
  assert report["thresholds"]["sessions"]["calibration"] == len(texts) - rare
  arrays, rows = arrays_of(workdir), rows_of(config, texts)
  out = np.array([text == RARE for _, text in rows])
  assert arrays["counts"][out].sum() == rare
  kept = ~np.repeat(out, arrays["sizes"])
  model = np.repeat(arrays["model"], arrays["sizes"])
  events = deployed.restore(experiments.build, config, workdir).normal.events
  for k, group in enumerate(events.groups):
    some = kept & (model == k)
    nll = arrays["nll"].astype(float)[some]
    nll = np.repeat(nll, arrays["event_counts"][some])
    np.testing.assert_array_equal(group.scores, np.unique(nll.round(4)))
    assert group.n == len(nll)


def test_answers_in_the_file_are_kept_and_not_asked_again(run, capsys):
  workdir, config, texts = run
  asked = table(workdir)
  words = {asked[0]["session"]: "anomalous", asked[5]["session"]: "normal"}
  with (workdir / "review.csv").open("w") as file:
    writer = csv.DictWriter(file, [*asked[0], "note"], "")
    writer.writeheader()
    for row in asked:
      writer.writerow({**row, "answer": words.get(row["session"], "")})
  capsys.readouterr()
  review.run(experiments.build, config, workdir)
  said = capsys.readouterr().out
  again = table(workdir)
  assert {r["session"]: r["answer"] for r in again if r["answer"]} == words
  counts = Counter(texts.values())
  assert sum(row["answer"] == "" for row in again) == min(30, len(counts) - 2)
  first, *_ = [row for row in again if row["answer"]]
  assert first["context"] == asked[0]["context"] and "note" in first
  rare, good = (counts[texts[name]] for name in words)
  assert f"answers: {good} sessions are normal and {rare} anomalous" in said
  assert f"{rare} of {len(texts)} sessions by their answers" in said
  rows, shares = rows_of(config, texts), shares_of(arrays_of(workdir))
  flagged = [
    text == texts[asked[0]["session"]] and share <= 0.02
    for (_, text), share in zip(rows, shares, strict=True)
  ]
  then = arrays_of(workdir)["counts"][flagged].sum()
  assert then and re.search(
    rf"rate=0.02 flags \d+ of {rare} calibration sessions that are anomalous;"
    rf" without answers {then}\n",
    said,
  )
  assert f"{workdir}/review.csv: write normal or anomalous, or nothing" in said


def terminal(monkeypatch, keys, seen):
  """A terminal on which the keys are typed; an exception is raised."""
  left = iter(keys)

  def typed(_):
    seen()
    key = next(left, EOFError())
    if isinstance(key, BaseException):
      raise key
    return key

  monkeypatch.setattr("builtins.input", typed)
  for stream in (review.sys.stdin, review.sys.stdout):
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)


def test_a_dialogue(run, monkeypatch, capsys):
  workdir, config, texts = run
  asked = [row["session"] for row in table(workdir)]
  keys = [
    "x",
    "",
    "b",
    "n",
    "a",
    "s",
    "A",
    "b",
    "b",
    "anomalous",
    KeyboardInterrupt(),
  ]
  # After each key: the answers to the sessions, in order.
  after = ["", "", "", "", "n", "na", "na", "na-a", "na-a", "na-a", "naaa"]
  states = iter(after)

  def seen():
    words = [row["answer"] for row in table(workdir)]
    state = next(states)
    known = "".join(word[:1] or "-" for word in words).rstrip("-")
    assert known == state

  terminal(monkeypatch, keys, seen)
  capsys.readouterr()
  review.run(experiments.build, config, workdir)
  assert next(states, None) is None
  said = re.sub("\x1b.*?m", "", capsys.readouterr().out)  # Without styles.
  for n, name in enumerate(asked[:5], 1):
    assert re.search(rf"\n{n} of 30\n.*\n  {name}[,\n]", said)
  assert "6 of 30" not in said and "answered: anomalous" in said
  counts = Counter(texts.values())
  rare = sum(counts[texts[name]] for name in asked[1:4])
  assert f"and {rare} anomalous, equal sessions included" in said
  assert said.endswith(
    "review.csv: --mode=detect and --follow use these answers\n"
  )
  # The next dialogue begins with the first that has no answer.
  terminal(monkeypatch, [], lambda: None)
  review.run(experiments.build, config, workdir)
  said = re.sub("\x1b.*?m", "", capsys.readouterr().out)
  assert re.findall(r"\n1 of 30\n.*\n  ([^,\n]+)", said)[0] not in asked[:4]


def test_one_review_at_a_time(run):
  workdir, config, _ = run
  with (
    files.locked(workdir / ".review.lock", "reviewed"),
    pytest.raises(MachineError, match="run: is being reviewed by"),
  ):
    review.run(experiments.build, config, workdir)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("session,p\nA,1", ":1: has no column 'answer'"),
    ("name,answer\nA,", ":1: has no column 'session'"),
    ("session,answer\nA,normal\nB,maybe", ":3: answer='maybe': must be normal"),
    (
      "session,answer\nlog.txt:999,",
      ":2: session='log.txt:999': is no session",
    ),
    ("session,answer\nA,normal\nA,", ":3: session 'A' is also in line 2"),
    (f"kind,session,answer\n{'9' * 99},A,", f":2: kind='{'9' * 20}': must be"),
    ("session,answer\nA,normal\nB,anomalous", ":3: session 'B' equals 'A' of"),
    ("session,answer\nA,normal,1", ":2: has more columns than the header"),
    ('session,answer\n"A', ":2: unexpected end of data"),
    (b"session,answer\n\xff,", ": byte 15 is not UTF-8"),
  ],
)
def test_a_wrong_file_is_refused_with_its_line(run, content, message):
  workdir, config, texts = run
  first, second, *_ = (name for name, text in texts.items() if text == RARE)
  if isinstance(content, str):
    content = content.replace("A", first).replace("B", second).encode()
  message = message.replace("'A'", repr(first)).replace("'B'", repr(second))
  (workdir / "review.csv").write_bytes(content)
  names = vocabulary.load(workdir / "vocabulary.json")["symbols"]
  read = splits.reader(config)
  with pytest.raises(UserError) as caught:
    answers.load_answers(workdir, names, read, config)
  said = str(caught.value)
  assert said.startswith(f"{workdir}/review.csv{message}") and "\n" not in said


STRANGE = ["e", "b", "e", "b", "e", "b"]  # In no session that a model has seen.


def raise_alarms(workdir):
  """A follower's state: of 12 sessions 3 of a kind, and one that is RARE."""
  alerts = alarms.Alarms(0, Redaction("<secrets>"))
  for n in range(3):
    alerts.take(verdict(f"strange{n or ''}", STRANGE))
  alerts.take(verdict("rare", RARE.split(), event="rare"))
  for n in range(8):
    alerts.take(verdict(f"usual-{n}", ["a"], flag=False))
  save(workdir, alerts)


def test_answers_to_alarms_change_the_calibration(run, capsys):
  workdir, config, texts = run
  raise_alarms(workdir)
  capsys.readouterr()
  review.run(experiments.build, config, workdir)
  path, said = workdir / "review.csv", capsys.readouterr().out
  assert f"{path}: write normal or anomalous" in said and " of 32 rows" in said
  words = {"strange": "normal", "rare": "anomalous"}
  answer(workdir, words, strange=1, rare=2)
  preview = review.run(experiments.build, config, workdir)
  assert "that are anomalous: 1, and" in capsys.readouterr().out
  usual = detect.run(experiments.build, config, workdir)
  said = " ".join(capsys.readouterr().out.split())
  rare = list(texts.values()).count(RARE)
  joined = round(len(texts) * 3 / 12)
  assert (
    "calibration: kinds of alarms that are normal by review.csv: 1, which join"
    f" it as {joined} sessions; that are anomalous: 1, and" in said
  )
  report = json.loads((workdir / "detect/report.json").read_text())
  assert report["calibration"]["answered_anomalous"] == rare
  count = report["thresholds"]["sessions"]["calibration"]
  assert count == len(texts) - rare + joined
  assert preview.scores["combined"].n == count
  # calibration.npz is as before; a follower has the same sessions.
  assert arrays_of(workdir)["counts"].sum() == len(texts)
  restored = deployed.restore(experiments.build, config, workdir)
  again = restored.normal.scores["combined"]
  strange = data.Sessions(
    restored.detector.names.encode(STRANGE),
    np.array([0, len(STRANGE)]),
    ["new"],
  )
  findings = find_anomalies(restored.detector, restored.normal, strange)
  # The session is as unlikely as a sixth of the calibration at most.
  assert again.n == count and findings.decision.p[0] >= (joined + 1) / (
    count + 1
  )
  assert not usual.decision.flags.all() and not findings.decision.flags.any()
  # Without the answers it is flagged again.
  path.unlink()
  (workdir / "alarms.json").unlink()
  shutil.rmtree(workdir / "follow")
  detect.run(experiments.build, config, workdir)
  restored = deployed.restore(experiments.build, config, workdir)
  findings = find_anomalies(restored.detector, restored.normal, strange)
  assert findings.decision.flags.all()


def test_a_review_has_the_settings_of_the_last_detection(run):
  """Four folds would be trained."""
  workdir, config, _ = run
  detect.run(experiments.build, config, workdir)
  asked = table(workdir)
  fields = {"folds": 4, "scores": None, "contamination": 0.1}
  config.detect.update(fields)
  review.run(experiments.build, config, workdir)
  assert table(workdir) == asked
  assert {name: config.detect[name] for name in fields} == fields
  path = workdir / "detect/report.json"
  record = json.loads(path.read_text())
  for folds in ("2", -1):
    record["config"]["detect"]["folds"] = folds
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="run --mode=detect again") as caught:
      review.run(experiments.build, config, workdir)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "changes",
  [
    {"rate": "0.01"},
    {"rate": 2.0},
    {"members": [["../other", 1]] * 2},
    {"members": []},
    None,
  ],
)
def test_a_detector_that_was_changed_is_refused(run, changes):
  workdir, config, _ = run
  detect.run(experiments.build, config, workdir)
  path = workdir / "detect/deployed.npz"
  with np.load(path) as file:
    arrays = dict(file)
  record = json.loads(str(arrays["record"]))
  if changes is None:
    arrays["calibration nll"] = arrays["calibration nll"][1:]
  elif "rate" in changes:
    record["settings"] |= changes
  else:
    record |= changes
  np.savez(path, **{**arrays, "record": json.dumps(record)})
  with pytest.raises(UserError, match="run --mode=detect again") as caught:
    deployed.restore(experiments.build, config, workdir)
  assert "\n" not in str(caught.value)


def test_alarms_and_reviewed_sessions_with_other_answers_are_refused(run):
  workdir, config, texts = run
  raise_alarms(workdir)
  names = {text: name for name, text in texts.items()}
  words = {"rare": "anomalous", names[RARE]: "normal"}
  answer(workdir, words, rare=2)
  with pytest.raises(UserError, match=r"^review.csv: kind 2 is anomalous, but"):
    detect.run(experiments.build, config, workdir)


def test_alarms_are_asked_about_first(run, monkeypatch, capsys):
  workdir, config, _ = run
  raise_alarms(workdir)
  terminal(monkeypatch, ["n", "b", "a", "s", "n", "q"], lambda: None)
  capsys.readouterr()
  review.run(experiments.build, config, workdir)
  said = re.sub("\x1b.*?m", "", capsys.readouterr().out)
  place = ", line 7, 2027-01-15T08:00:00"
  heads = re.findall(r"\n(\d) of 32\n(.*)\n  (.*)\n", said)
  first, second, again, *_ = heads
  assert first == again == ("1", "medium, 3 alarms", f"strange{place}")
  assert second == ("2", "medium, 1 alarm", f"rare{place}")
  assert "\n4 of 32\n" in said and "\n5 of 32\n" not in said
  words = {(row["kind"], row["answer"]) for row in table(workdir)[:4]}
  assert words == {("1", "anomalous"), ("2", ""), ("", "normal"), ("", "")}
