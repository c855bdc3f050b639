"""detect: against one session after another; labels change no flag."""

import contextlib
import io
import json
import math
import os
import random
import re
import shutil
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.configs import base
from seqrnn.data.logs import sessions as data
from seqrnn.data.read import stored
from seqrnn.data.vocabulary import BEGIN, END, PAD
from seqrnn.errors import MachineError, UserError
from seqrnn.experiments import language_model
from seqrnn.logs.detect import calibration, deployed, detector
from seqrnn.logs.detect.findings import find_anomalies
from seqrnn.logs.detect.normal import NormalSessions, normal_scores
from seqrnn.logs.detect.scores import BASELINES, STANDARD
from seqrnn.modes import detect
from seqrnn.run import load_run
from seqrnn.runtime import files
from seqrnn.training import checkpoint
from tests.conftest import random_params, read_csv, save_run, tiny
from tests.modes.conftest import BAD, FIELDS, build, texts_of, walk


def oracle(workdir, seen):
  """A function from the text of a session to the surprisals of its events.

  Events that are not `seen` are read and scored as unknown.
  """
  run = load_run(workdir)
  symbols = run.experiment.vocabularies["symbols"]
  predict = jax.jit(run.experiment.predict)

  @cache
  def surprisal(text, begins=True, ends=True):
    events = [x if x in seen else "?" for x in text.split()]
    ids = [BEGIN, *symbols.encode(events), END]
    ids = np.array(ids[not begins : len(ids) - (not ends)])
    inputs_1T = np.full((1, 20), PAD, np.int32)
    inputs_1T[0, : len(ids) - 1] = ids[:-1]
    batch = {"inputs": inputs_1T, "reset": np.ones(1, bool)}
    logits_TV = np.asarray(predict(run.params, (), batch)[1][0], np.float64)
    chosen_T = logits_TV[np.arange(len(ids) - 1), ids[1:]]
    return np.log(np.exp(logits_TV).sum(-1))[: len(ids) - 1] - chosen_T

  return surprisal


@pytest.fixture(scope="module")
def members(detected):
  """For each fold, its surprisal, and the texts that are held out."""
  every, oracles = set(texts_of(detected.config)), []
  for k in (1, 2):
    held_out = texts_of(detected.config, k)
    seen = [texts_of(detected.config)[n] for n in every - set(held_out)]
    [path] = detected.folder.glob(f"first/folds/*-{k}")
    events = {event for text in seen for event in text.split()}
    oracles.append((oracle(path, events), [*held_out.values()]))
  return oracles


def report_of(folder):
  return json.loads((folder / "run/detect/report.json").read_text())


def test_equal_sessions_are_computed_once(detected):
  """And counted once where a training tells its speed."""
  texts = {*texts_of(detected.config).values()}
  symbols = sum(len(text.split()) + 1 for text in texts)
  rows = read_csv(detected.folder / "first/timing.csv")
  assert [int(row["symbols"]) for row in rows] == [symbols] * 4


def test_p_values_are_shares_of_the_sessions_held_out_from_each_model(
  detected, members
):
  texts = [
    line
    for name in ("good.txt", "bad.txt")
    for line in (detected.folder / name).read_text().split("\n")
  ]
  rows = read_csv(detected.folder / "first/detect/sessions.csv")
  assert len(rows) == len(texts)
  some = [*range(0, 200, 19), *range(200, 205)]
  for name, aggregate in (
    ("max", np.max),
    ("mean", np.mean),
    ("top_mean", lambda nll: np.sort(nll)[-5:].mean()),
  ):
    count, total = np.zeros(len(some)), 0
    for surprisal, held_out in members:
      value = {
        text: np.round(aggregate(surprisal(text)), 4)
        for text in {*held_out, *(texts[j] for j in some)}
      }
      normal = np.array([value[text] for text in held_out])
      total += len(normal)
      count += [(normal >= value[texts[j]]).sum() for j in some]
    p = (1 + count) / (total + 1)
    written = np.exp([-float(rows[j][name]) for j in some])
    # Scores at the edge of rounding may change their places with one other.
    lowest = p == 1 / (total + 1)
    np.testing.assert_allclose(written[~lowest], p[~lowest], atol=3 / total)
    assert (written[lowest] <= p[lowest] * 1.01).all()
  # Sessions with forbidden transitions are flagged.
  pairs = [*zip(texts, rows, strict=True)]
  assert {*BAD[:3]} <= {text for text, row in pairs if row["flag"] == "1"}
  # Equal sessions are scored, and described, the same.
  same = {}
  for j, (text, row) in enumerate(pairs):
    assert int(row.pop("label")) == (j >= 200)
    assert int(row["events"]) == len(text.split())
    del row["session"], row["line"]
    assert same.setdefault(text, row) == row


def test_events_have_their_place_and_the_likelier_ones(detected):
  findings, folder = detected.findings, detected.folder / "first"
  rows = read_csv(folder / "detect/events.csv")
  flagged = findings.decision.flags[findings.distinct.which]
  assert {row["session"] for row in rows} == {
    *np.array(findings.sessions.names)[flagged]
  }
  session = [row for row in rows if row["session"] == "bad.txt:3"]
  assert [row["event"] for row in session] == [*"acdxe", "<end>"]
  assert [row["position"] for row in session] == [*"012345"]
  unknown = session[3]
  assert unknown["rank"] == "" and unknown["unknown"] == unknown["flag"] == "1"
  for row in rows:
    nats, chance = float(row["nats"]), float(row["probability"])
    assert chance == pytest.approx(math.exp(-nats), rel=1e-4)
    assert float(row["bits"]) == pytest.approx(nats / math.log(2), rel=1e-4)
    if row["rank"] == "1":
      assert row["event"] == row["event_1"]
    assert float(row["probability_1"]) >= float(row["probability_2"])


def test_each_normal_session_is_scored_by_a_model_that_has_not_seen_it(
  detected, members
):
  folder = detected.folder / "first"
  file, count = np.load(folder / "calibration.npz"), 0
  for k, (surprisal, texts) in enumerate(members):
    of_model = file["model"] == k
    scores = np.repeat(file["score max"][of_model], file["counts"][of_model])
    expected = np.sort([surprisal(text).max() for text in texts])
    np.testing.assert_allclose(np.sort(scores), expected, rtol=1e-3, atol=1e-3)
    count += len(texts)
  assert count == file["counts"].sum() == len(texts_of(detected.config))


def test_folds_are_any_assignment_of_the_training_sessions(again, monkeypatch):
  """Each of another assignment, or of another step, has a folder of its own."""
  workdir, calls = again.folder / "run", []
  prepared = detect.prepare(build, again.config, workdir)
  monkeypatch.setattr(
    calibration, "fit_folds", lambda *args: calls.append(args)
  )
  names = [document.name for document in prepared.read("train").documents()]
  fold_of = np.random.default_rng(0).integers(-1, 3, len(names))
  for order in (fold_of, fold_of[::-1]):
    members = calibration.train_members(prepared, order)
    *_, folders, trains_KD, last = calls.pop()
    assert len({*folders}) == 3 and last == members[0].step
    assert last == checkpoint.select(workdir / "checkpoints", None)
    for k, member in enumerate(members):
      trains, held_out = (
        [document.name for document in pieces.documents()]
        for pieces in (member.train, member.held_out)
      )
      fold = dict(zip(names, order.tolist(), strict=True))
      assert trains == [x for x in names if fold[x] not in (-1, k)]
      assert held_out == [x for x in names if fold[x] == k]
      assert trains == [names[i] for i in np.flatnonzero(trains_KD[k])]
    assert not {*folders} & {*(workdir / "folds").iterdir()}


def test_a_workdir_of_an_older_version_follows_and_is_calibrated_again(
  again, tmp_path, monkeypatch, capsys
):
  """Its folds are in folders 1-of-2 and 2-of-2."""
  workdir = tmp_path / "run"
  shutil.copytree(again.folder / "first", workdir)
  path = workdir / "detect/deployed.npz"
  arrays = stored.load_arrays(path)
  record = str(arrays["record"])
  for folder in (workdir / "folds").iterdir():
    name = f"{folder.name[-1]}-of-2"
    record = record.replace(folder.name, name)
    folder.rename(folder.with_name(name))
  stored.save_arrays(path, arrays | {"record": record})
  one, older = (
    deployed.restore(build, again.config, x).detector.models
    for x in (again.folder / "first", workdir)
  )
  jax.tree.map(np.testing.assert_array_equal, one, older)
  stored.save_arrays(path, arrays | {"record": record, "ids": np.zeros(1)})
  with pytest.raises(UserError, match="earlier version .*run --mode=detect ag"):
    deployed.restore(build, again.config, workdir)
  with monkeypatch.context() as patch:
    patch.setattr(calibration, "fit_folds", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      detect.run(build, again.config, workdir)
  assert "trains 2 models" in capsys.readouterr().out


def test_labels_change_nothing_but_metrics(again, tmp_path):
  folder, one = again.folder, again.findings
  texts = [(folder / name).read_text() for name in ("good.txt", "bad.txt")]
  (tmp_path / "all.txt").write_text("\n".join(texts))
  bare = again.detect(path=str(tmp_path / "all.txt"), anomalous_path=None)
  # Baselines that do not decide are scored to be compared by labels.
  labelled, scores = one.decision.scores, bare.decision.scores
  assert labelled.keys() - scores.keys() == BASELINES.keys() - {*STANDARD}
  for name, values in scores.items():
    np.testing.assert_array_equal(
      labelled[name][one.distinct.which], values[bare.distinct.which]
    )
  flags = [x.decision.flags[x.distinct.which] for x in (one, bare)]
  np.testing.assert_array_equal(*flags)
  first = json.loads((folder / "first/detect/report.json").read_text())
  assert "f1" in first["figures"]["combined"]
  assert "f1" not in report_of(folder)["figures"]["combined"]


def test_what_a_log_cuts_of_a_session_is_not_scored(
  again, members, monkeypatch
):
  texts = (again.folder / "good.txt").read_text().split("\n")
  begins, ends = np.random.default_rng(0).random((2, len(texts))) < 0.7
  whole = data.read_sessions
  monkeypatch.setattr(
    data,
    "read_sessions",
    lambda *args, **kwargs: whole(*args, **kwargs)._replace(
      begins=begins, ends=ends
    ),
  )
  stdout = io.StringIO()
  with contextlib.redirect_stdout(stdout):
    findings = again.detect(anomalous_path=None, idle=7.0)
  with np.load(again.folder / "run/calibration.npz") as file:
    assert '"detect.idle": 7.0' in str(file["rests_on"])
  rows = read_csv(again.folder / "run/detect/sessions.csv")
  for j, d in enumerate(findings.distinct.which.tolist()):
    cuts = int(rows[j]["open"]), int(rows[j]["cut"])
    assert cuts == (not ends[j], not begins[j])
    nlls = [one(texts[j], begins[j], ends[j]) for one, _ in members]
    nll = -np.log(np.mean([np.exp(-nll) for nll in nlls], axis=0))
    scored = findings.scored.nll[findings.scored.events(d)]
    np.testing.assert_allclose(scored, nll, rtol=1e-3, atol=1e-3)
    assert findings.scored.offset(d) == (not begins[j]) or not len(nll)
  lines = stdout.getvalue().partition("most anomalous sessions")[2]
  for name, marks in re.findall(r"(good.txt:\d+), line \d+(.*)", lines):
    j = findings.sessions.names.index(name)
    assert (", open" in marks) == (not ends[j])
    assert (", cut at its begin" in marks) == (not begins[j])
  assert ", open" in lines and ", cut at its begin" in lines


def test_injected_anomalies_are_detected_by_kind(again):
  path = str(again.folder / "good.txt")
  again.detect(path=path, anomalous_path=None, inject=0.2)
  report = report_of(again.folder)
  by_kind = report["average_precision_by_kind"]
  assert by_kind["combined"]["swap"] > 0.5 > by_kind["length"]["swap"]


def results(folder):
  """The files of detect/, by name."""
  return {p.name: p.read_bytes() for p in (folder / "run/detect").iterdir()}


def test_a_detection_that_fails_leaves_the_older_result(again, monkeypatch):
  """And its calibration, with other fields, serves the next detection."""
  again.detect(events="all")
  (again.folder / "run/detect/notes.txt").write_text("of the user")
  before = results(again.folder)

  def full(*_):
    raise MachineError("detect: cannot be written: No space left on device")

  write = deployed.write_deployed
  monkeypatch.setattr(deployed, "write_deployed", full)
  with pytest.raises(MachineError, match="No space left on device"):
    again.detect(events="none", short="flag")
  assert results(again.folder) == before
  monkeypatch.setattr(deployed, "write_deployed", write)
  monkeypatch.setattr(calibration, "score_held_out", None)
  again.detect(events="none", short="flag")
  # Files of the older detection go, those of others stay.
  assert before.keys() - results(again.folder).keys() == {"events.csv"}

  def kill(*_):
    raise KeyboardInterrupt

  # A kill may leave none of the tables, but always a detector for followers.
  monkeypatch.setattr(Path, "rename", kill)
  with pytest.raises(KeyboardInterrupt):
    again.detect(events="none", short="flag")
  assert results(again.folder).keys() == {"notes.txt", deployed.DEPLOYED}


def test_a_detector_is_read_while_no_detection_runs(tmp_path, monkeypatch):
  """A detection may replace the models to which deployed.npz refers."""
  lock = lambda *_: files.lock(tmp_path / ".detect.lock")
  monkeypatch.setattr(deployed, "_restore", lock)
  monkeypatch.setattr(detect, "_run", lock)
  config = base.get_config()
  for run in (deployed.restore, detect.run):
    assert run(build, config, tmp_path) is None
  # No detection writes to a folder that cannot be written.
  monkeypatch.setattr(os, "access", lambda *_: False)
  with deployed.restore(build, config, tmp_path):
    pass


def test_an_unattainable_rate_and_the_examined_sessions_are_reported(
  again, capsys
):
  findings = again.detect(rate=1e-4, events="none")
  assert not findings.decision.flags.any()
  out = capsys.readouterr().out
  assert "true rate" not in out  # No session is flagged at all.
  printed = " ".join(out.split())
  assert "nothing is flagged: " in printed and "--mode=review" in printed
  assert "unknown events: 2 of 210 sessions have" in printed
  assert "since bad.txt:3, line 3" in printed
  assert re.search(r"below 0.00\d+, so this rate flags no session", printed)
  paths = " and ".join(
    f"detect.{field}={again.folder / name}"
    for field, name in (("path", "good.txt"), ("anomalous_path", "bad.txt"))
  )
  first = f"examined: all 210 sessions of {paths}"
  assert out.splitlines()[0] == first
  # A follower would never raise an alarm.
  path = again.folder / "run/detect/deployed.npz"
  before = path.read_bytes()
  with pytest.raises(UserError, match="rate=0.0001: needs 9,999 normal sess"):
    again.detect(rate=1e-4, input="app.log")
  assert path.read_bytes() == before


def test_what_cannot_be_is_refused_before_folds_are_trained(again):
  for changes, message in (
    ({"head": "joint"}, "config.detect.head='joint': .* has the heads forward"),
    ({"scores": "max,men"}, "config.detect.scores='max,men': must be some of"),
    ({"inject": 0.1}, "config.detect.inject=0.1: must be 0, because"),
  ):
    with pytest.raises(UserError, match=f"^{message}"):
      again.detect(**changes, folds=3)
  assert len([*again.folder.glob("run/folds/*")]) == 2
  config = again.config.copy_and_resolve_references()
  config.train.label_smoothing = 0.1
  with pytest.raises(UserError, match="run: holds another run, .*smoothing"):
    detect.run(build, config, again.folder / "run")


def test_the_protocol_of_deeplog(tmp_path):
  rng = random.Random(1)
  (tmp_path / "normal.txt").write_text("\n".join(walk(rng) for _ in range(60)))
  texts = [walk(rng) for _ in range(40)] + ["a b a c d e", "a b", "x"]
  (tmp_path / "new.txt").write_text("\n".join(texts))
  fields = {
    "data.path": str(tmp_path / "normal.txt"),
    "data.mapping": "many_to_one",
    "data.boundaries": False,
    "data.window": 3,
    "data.step": 1,
    "train.epochs": 1,
    "detect.rule": "topk",
    "detect.short": "flag",
    "detect.folds": 0,
    "detect.path": str(tmp_path / "new.txt"),
  }
  config = tiny(tmp_path, {**FIELDS, **fields})
  workdir = tmp_path / "run"
  save_run(config, workdir)
  findings = detect.run(build, config, workdir)
  run = load_run(workdir)
  symbols = run.experiment.vocabularies["symbols"]
  predict = jax.jit(run.experiment.predict)
  for text, d in zip(texts, findings.distinct.which, strict=True):
    ids = symbols.encode(text.split())
    anomalous = len(ids) <= 3
    for place in range(3, len(ids)):
      inputs_1T = ids[None, place - 3 : place]
      batch = {"inputs": inputs_1T, "reset": np.ones(1, bool)}
      logits_V = np.asarray(predict(run.params, (), batch)[1])[0, 0]
      anomalous |= ids[place] not in np.argsort(-logits_V)[:2]
    assert findings.decision.flags[d] == anomalous
    assert len(ids) <= 3 or findings.scored.offset(d) == 3
  config.data.step = 2
  with pytest.raises(
    UserError, match="^config.data.mapping=.* config.data.step=2"
  ):
    detect.check(run.experiment, config)


def test_a_gap_model_is_asked_for_events_and_ends(tmp_path):
  rng = random.Random(2)
  texts = [walk(rng) for _ in range(40)] + ["a"]
  (tmp_path / "normal.txt").write_text("\n".join(texts))
  fields = {"task": "gap_model", "model.heads": "all", "detect.head": "joint"}
  fields |= {"data.path": str(tmp_path / "normal.txt")}
  config = tiny(tmp_path, {**FIELDS, **fields, "detect.scores": "max"})
  vocabularies = language_model.prepare(config)
  whole = detector.whole_sessions(config, vocabularies)
  experiment = experiments.build(whole, vocabularies)
  params = random_params(experiment, 0, 0.3)
  seen = np.ones((1, len(vocabularies["symbols"])), bool)
  models = detector.Ensemble(jax.tree.map(lambda x: x[None], params), seen)
  one = detector.Detector(config, experiment, [], [0], models, [{}])
  sessions = data.read_sessions(config, one.names, config.data.path)
  same = sessions.distinct()
  scored = one.score(sessions.take(same.first), same.counts)
  known = NormalSessions.of_scores(scored, 0, [0], same.which)
  config.detect.contamination = 0.0
  normal = normal_scores(known, config.detect)
  findings = find_anomalies(one, normal, sessions)
  for text, d in zip(texts, findings.distinct.which.tolist(), strict=True):
    events = findings.scored.targets[findings.scored.events(d)]
    assert one.names.names(events) == [*text.split(), "<end>"]
    assert findings.scored.offset(d) == 0
  # Each against the others and itself: the most anomalous is one of all.
  p = findings.decision.p.min()
  assert p == pytest.approx(2 / (len(texts) + 1), abs=0.03)
