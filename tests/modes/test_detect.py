"""detect: against one session after another; labels change no flag."""

import contextlib
import csv
import io
import json
import math
import random
import re
import shutil
from collections import Counter
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import seqrnn
from benchmarks import detection
from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from seqrnn.data import splits
from seqrnn.data.logs import sessions as data
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN
from seqrnn.errors import MachineError, UserError
from seqrnn.experiments import language_model
from seqrnn.logs.detect import (
  calibration,
  detector,
  evaluation,
  inputs,
)
from seqrnn.logs.detect.conformal import Calibration, CrossCalibration
from seqrnn.logs.detect.detector import UNKNOWN_NATS
from seqrnn.logs.detect.findings import decide, find_anomalies
from seqrnn.logs.detect.scores import WORDS
from seqrnn.modes import detect
from seqrnn.reporting import alarms
from seqrnn.scoring.scoring import UNRANKED
from seqrnn.training import train
from tests.conftest import tiny

FIELDS = {
  "data.unit": "session",
  "data.split": "documents",
  "data.validation_fraction": 0.2,
  "data.test_fraction": 0.0,
  "data.window": 8,
  "data.repeats": "weight",
  "model.hidden_size": 16,
  "optimizer.learning_rate": 0.02,
  "train.batch_size": 16,
  "train.epochs": 5,
  "detect.folds": 2,
  "detect.rate": 0.02,
  "detect.top_k": 2,
  "detect.bootstrap": 10,
}


_OWN = ("session", "line", "label")  # Columns in which equal sessions differ.


def walk(rng):
  """A session of a small machine, whose events follow each other by rules."""
  after = {"a": "bc", "b": "cd", "c": "d", "d": "ae"}
  events = ["a"]
  while events[-1] != "e" and len(events) < 15:
    events.append(rng.choice(after[events[-1]]))
  return " ".join(events)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
  """A run of such sessions, detected once; other sessions, some anomalous."""
  folder = tmp_path_factory.mktemp("detect")
  rng = random.Random(0)
  normal = [walk(rng) for _ in range(400)]
  (folder / "normal.txt").write_text("\n".join(normal))
  good = [walk(rng) for _ in range(300)]
  (folder / "good.txt").write_text("\n".join(good))
  bad = ["a b a e", "d d d d", "a c d x e", "e", "a b d"] * 2
  (folder / "bad.txt").write_text("\n".join(bad))
  config = tiny(folder, {**FIELDS, "data.path": str(folder / "normal.txt")})
  train.fit(experiments.build, config, folder / "run")
  config.detect.path = str(folder / "good.txt")
  config.detect.anomalous_path = str(folder / "bad.txt")
  with contextlib.redirect_stdout(io.StringIO()) as out:
    findings = detect.run(experiments.build, config, folder / "run")
  lines = out.getvalue().splitlines()
  assert lines[1].startswith("detect.folds=2: trains 2 models")
  last = [line[:11] for line in lines if line.startswith("fold ")]
  assert last[0] == "fold 1 of 2" and last[-1] == "fold 2 of 2"
  shutil.copytree(folder / "run/detect", folder / "first")
  shutil.copy(folder / "run/calibration.npz", folder / "first")
  return folder, config, findings


def oracle(workdir, names=None):
  """A function from the text of a session to the surprisals of its events.

  Events that are not among the `names` are read as unknown, and are as
  surprising as UNKNOWN_NATS.
  """
  run = experiments.load(workdir)
  symbols = run.experiment.vocabularies["symbols"]
  predict = jax.jit(run.experiment.predict)

  def surprisal(text, begins=True, ends=True):
    events = [x if names is None or x in names else "?" for x in text.split()]
    ids = [BEGIN, *symbols.encode(events), END]
    ids = np.array(ids[not begins : len(ids) - (not ends)])
    inputs_1T = np.full((1, 20), PAD, np.int32)
    inputs_1T[0, : len(ids) - 1] = ids[:-1]
    batch = {"inputs": inputs_1T, "reset": np.ones(1, bool)}
    logits_TV = np.asarray(predict(run.params, (), batch)[1][0], np.float64)
    chosen_T = logits_TV[np.arange(len(ids) - 1), ids[1:]]
    nll_T = np.log(np.exp(logits_TV).sum(-1))[: len(ids) - 1] - chosen_T
    return np.where(ids[1:] == UNKNOWN, 20, nll_T)

  return surprisal


def members(folder, config):
  """For each fold, its surprisal, and the texts that are held out."""
  train = splits.reader(config)("train")
  oracles = []
  for k in (1, 2):
    seen, held_out = (
      splits.fold(train, f"{k}/2", out) for out in (False, True)
    )
    names = {x for document in seen.documents() for x in document.symbols}
    texts = [" ".join(document.symbols) for document in held_out.documents()]
    oracles.append((oracle(folder / f"run/folds/{k}-of-2", names), texts))
  return oracles


def table(path):
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


def test_p_values_are_shares_of_the_sessions_held_out_from_each_model(home):
  folder, config, _ = home
  texts = [
    line
    for name in ("good.txt", "bad.txt")
    for line in (folder / name).read_text().split("\n")
  ]
  rows = table(folder / "first/sessions.csv")
  assert len(rows) == len(texts)
  some = [*range(0, 300, 29), *range(300, 310)]
  aggregates = {
    "max": np.max,
    "mean": np.mean,
    "top_mean": lambda nll: np.sort(nll)[-5:].mean(),
  }
  for name, aggregate in aggregates.items():
    count, total = np.zeros(len(some)), 0
    for surprisal, held_out in members(folder, config):
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
    assert (written[lowest] <= p[lowest] * 1.01).all() and lowest.any()
  for j in some:
    assert int(rows[j]["events"]) == len(texts[j].split())
    assert int(rows[j]["label"]) == (j >= 300)
  # Sessions with forbidden transitions are flagged.
  anomalous = {
    t for t, row in zip(texts, rows, strict=True) if row["flag"] == "1"
  }
  assert {"a b a e", "d d d d", "a c d x e"} <= anomalous
  # Equal sessions are scored, and told, the same.
  same = {}
  for text, row in zip(texts, rows, strict=True):
    told = [v for k, v in row.items() if k not in _OWN]
    assert same.setdefault(text, told) == told


def test_events_are_told_with_their_place_and_what_is_likelier(home):
  folder, config, findings = home
  rows = table(folder / "first/events.csv")
  names = findings.sessions.names
  flagged = findings.decision.flags[findings.distinct.which]
  assert {row["session"] for row in rows} == {
    name for name, flag in zip(names, flagged, strict=True) if flag
  }
  session = [row for row in rows if row["session"] == "bad.txt:3"]
  assert [row["event"] for row in session] == [
    *"acdxe",
    "<end>",
  ]
  assert [row["position"] for row in session] == list("012345")
  unknown = session[3]
  assert unknown["rank"] == "" and unknown["in_top_k"] == "0"
  assert float(unknown["nats"]) == UNKNOWN_NATS
  assert unknown["event_1"] in ("a", "e") and unknown["flag"] == "1"
  for row in rows:
    nats, chance = float(row["nats"]), float(row["probability"])
    assert 0 <= nats < math.inf
    assert chance == pytest.approx(math.exp(-nats), rel=1e-4)
    assert float(row["bits"]) == pytest.approx(nats / math.log(2), rel=1e-4)
    near = row["rank"] != "" and int(row["rank"]) <= 2
    assert (row["in_top_k"] == "1") == near
    assert float(row["lifted_probability"]) == (1 if near else chance)
    if row["rank"] == "1":
      assert row["event"] == row["event_1"]
    assert float(row["probability_1"]) >= float(row["probability_2"])
  by_model = members(folder, config)
  file = np.load(folder / "first/calibration.npz")
  model = np.repeat(file["model"], file["sizes"])
  nll = file["nll"].astype(float).round(4)
  normal = [
    np.repeat(nll, file["event_counts"] * (model == k)) for k in range(2)
  ]
  total = sum(map(len, normal))
  for text in ("a c d x e", "a b a e"):
    nlls = [surprisal(text).round(4) for surprisal, _ in by_model]
    name = "bad.txt:3" if "x" in text else "bad.txt:1"
    own = [row for row in rows if row["session"] == name]
    mean = -np.log(np.mean([np.exp(-nll) for nll in nlls], axis=0))
    known = [row["event"] != "x" for row in own]
    written = np.array([float(row["nats"]) for row in own])
    np.testing.assert_allclose(written[known], mean[known], 1e-3, 1e-3)
    p = [
      (1 + sum((n >= x).sum() for n, x in zip(normal, pair, strict=True)))
      / (total + 1)
      for pair in zip(*nlls, strict=True)
    ]
    told = [float(row["p_value"]) for row in own]
    np.testing.assert_allclose(told, p, atol=5 / total)


def test_each_normal_session_is_scored_by_a_model_that_has_not_seen_it(home):
  folder, config, _ = home
  read = splits.reader(config)
  file = np.load(folder / "first/calibration.npz")
  assert file["counts"].sum() == len(read("train"))
  for k, (surprisal, texts) in enumerate(members(folder, config)):
    highest = {text: surprisal(text).max() for text in set(texts)}
    own = file["model"] == k
    scores = np.repeat(file["score max"][own], file["counts"][own])
    expected = np.sort([highest[text] for text in texts])
    np.testing.assert_allclose(np.sort(scores), expected, rtol=1e-3, atol=1e-3)
    path = folder / f"run/folds/{k + 1}-of-2/config.json"
    fold = config_lib.read_config(path)
    part, held_out = (splits.reader(fold)(name) for name in ("train", "test"))
    trained_on = {document.name for document in part.documents()}
    assert not trained_on & {document.name for document in held_out.documents()}
    assert len(part) + len(held_out) == len(read("train"))
    assert len(held_out) == len(texts)


def test_sessions_whose_logits_fill_the_memory_are_scored_whole(
  home, again, monkeypatch
):
  _, _, findings = home
  # A batch has one to 8 rows, by the length of its sessions.
  monkeypatch.setattr(detector, "_LOGITS", 9 * 32)
  few = again(events="none")
  np.testing.assert_array_equal(few.scored.bounds, findings.scored.bounds)
  np.testing.assert_array_equal(few.scored.targets, findings.scored.targets)
  np.testing.assert_allclose(few.scored.nll, findings.scored.nll, 1e-4, 1e-5)
  np.testing.assert_array_equal(few.decision.flags, findings.decision.flags)


def test_labels_change_nothing_but_figures(home, again, tmp_path):
  folder, _, findings = home
  texts = [(folder / name).read_text() for name in ("good.txt", "bad.txt")]
  (tmp_path / "all.txt").write_text("\n".join(texts))
  report = json.loads((folder / "first/report.json").read_text())
  assert "f1" in report["figures"]["combined"]
  bare = again(path=str(tmp_path / "all.txt"), anomalous_path=None)
  for name in findings.decision.scores:
    np.testing.assert_array_equal(
      findings.decision.scores[name][findings.distinct.which],
      bare.decision.scores[name][bare.distinct.which],
    )
  np.testing.assert_array_equal(
    findings.decision.flags[findings.distinct.which],
    bare.decision.flags[bare.distinct.which],
  )
  report = json.loads((folder / "run/detect/report.json").read_text())
  assert "f1" not in report["figures"]["combined"]


@pytest.fixture
def again(home, monkeypatch):
  """A function to the findings of the same run with other settings."""
  monkeypatch.setattr(evaluation, "draw", lambda *_: None)  # They take long.
  return lambda **changes: repeat(home, changes)


def repeat(home, changes):
  folder, config, _ = home
  config = config.copy_and_resolve_references()
  for name, value in changes.items():
    config.detect[name] = value
  return detect.run(experiments.build, config, folder / "run")


def test_severity_follows_from_the_columns_of_a_session(home, again):
  folder, config, _ = home
  findings = again(rate=0.06)
  rows = table(folder / "run/detect/sessions.csv")
  unknown, flagged = Counter(), Counter()
  for row in table(folder / "run/detect/events.csv"):
    unknown[row["session"]] += int(row["unknown"])
    flagged[row["session"]] += int(row["flag"])
  report = json.loads((folder / "run/detect/report.json").read_text())
  combined = report["calibration"]["scores"]["names"]
  told = set()
  for row in rows:
    if row["flag"] == "0":
      assert row["severity"] == row["reason"] == row["score"] == ""
      continue
    assert row["line"]
    assert int(row["unknown_events"]) == unknown[row["session"]]
    assert int(row["flagged_events"]) == flagged[row["session"]]
    signs = float(row["p_value"]) <= 0.03
    signs = int(signs and 2 * int(row["models"]) >= config.detect.folds)
    signs += row["unknown_events"] != "0"
    signs += int(row["flagged_events"]) >= max(int(row["events"]) / 4, 1)
    assert row["severity"] == ("low", "medium", "high", "high")[signs]
    scores = {name: float(row[name]) for name in combined}
    assert scores[row["score"]] == max(scores.values())
    assert row["reason"] == WORDS[row["score"]]
    told.add(row["severity"])
  assert told == {"low", "medium", "high"}
  total = np.load(folder / "run/calibration.npz")["counts"].sum()
  lowest = np.isclose(findings.decision.p, 1 / (total + 1), rtol=0.05)
  assert ((findings.decision.models == 2) == lowest).all() and lowest.any()


def test_what_a_log_cuts_of_a_session_is_not_scored(home, again, monkeypatch):
  folder, config, _ = home
  texts = (folder / "good.txt").read_text().split("\n")
  begins, ends = np.random.default_rng(0).random((2, len(texts))) < 0.7

  def read(*args, **kwargs):
    return whole(*args, **kwargs)._replace(begins=begins, ends=ends)

  whole = data.read_sessions
  monkeypatch.setattr(data, "read_sessions", read)
  stdout = io.StringIO()
  with contextlib.redirect_stdout(stdout):
    findings = again(anomalous_path=None, idle=7.0)
  with np.load(folder / "run/calibration.npz") as file:
    assert '"detect.idle": 7.0' in str(file["rests_on"])
  monkeypatch.undo()
  by_model = [surprisal for surprisal, _ in members(folder, config)]
  rows = table(folder / "run/detect/sessions.csv")
  for j, d in enumerate(findings.distinct.which.tolist()):
    assert (int(rows[j]["open"]), int(rows[j]["cut"])) == (
      not ends[j],
      not begins[j],
    )
    nlls = [surprisal(texts[j], begins[j], ends[j]) for surprisal in by_model]
    nll = -np.log(np.mean([np.exp(-nll) for nll in nlls], axis=0))
    scored = findings.scored.nll[slice(*findings.scored.bounds[d : d + 2])]
    np.testing.assert_allclose(scored, nll, rtol=1e-3, atol=1e-3)
    assert findings.scored.offset(d) == (not begins[j]) or not len(nll)
  shown = " ".join(stdout.getvalue().split())
  shown = shown.partition("most anomalous sessions")[2]
  for name, is_open in re.findall(r"(good.txt:\d+), line \d+(, open)?", shown):
    assert bool(is_open) == (not ends[findings.sessions.names.index(name)])
  assert ", open" in shown and ", cut at its begin" in shown
  [page] = alarms.sections(folder / "run")
  assert {"open", "cut"} <= set(page["head"])


def scores_of(nll, rank, bounds, scores, counts=None, short=None):
  """What a model says of sessions; `scores` are the highest surprisals."""
  count = len(scores)
  return detector.SessionScores(
    nll=nll,
    rank=rank,
    member_nll=nll[None],
    targets=rank,
    bounds=np.asarray(bounds),
    scores={"max": scores[None], "unknown": np.zeros((1, count))},
    counts=np.ones(count, int) if counts is None else counts,
    short=np.zeros(count, bool) if short is None else short,
    lengths=np.diff(bounds),
    seconds=1.0,
  )


def normal_of(scores, nll, settings):
  """Normal sessions with one event each, the last with the rest."""
  sizes = np.ones(len(scores), int)
  sizes[-1] += len(nll) - sizes.sum()
  bounds = np.concatenate([[0], np.cumsum(sizes)])
  part = scores_of(nll, np.ones(len(nll), int), bounds, scores)
  arrays = calibration.calibration_arrays([part])
  for name in ("score max", "score unknown", "kind", "model"):
    arrays[f"injected {name}"] = np.zeros(0, int)
  arrays["steps"] = np.array([1])
  settings.update({"scores": "max", "contamination": 0.0})
  return calibration.normal_scores(arrays, settings)


def test_an_event_never_seen_is_flagged_whatever_its_surprisal():
  settings = base.get_config().detect
  nll, rank = np.array([1.0, 20.0, 2.0]), np.array([1, UNRANKED, 3])
  scored = scores_of(nll, rank, [0, 2, 3], np.zeros(2))
  # Calibration met unknown events itself: no surprisal is above the threshold.
  normal = normal_of(np.zeros(9), np.full(2000, 20.0), settings)
  anomalous = decide(scored, normal, settings).event_flags
  assert anomalous.tolist() == [False, True, False]


@pytest.mark.parametrize("rule", ["rate", "events", "budget", "bh", "topk"])
def test_rules(rule):
  rng = np.random.default_rng(0)
  settings = base.get_config().detect
  settings.update({"rule": rule, "budget": 7, "top_k": 3, "rate": 0.1})
  sizes = rng.integers(0, 6, 80)
  bounds = np.concatenate([[0], np.cumsum(sizes)])
  nll, rank = rng.exponential(2, sizes.sum()), rng.integers(1, 5, sizes.sum())
  combined = rng.exponential(2, 80)
  counts = rng.integers(1, 3, 80)
  short = np.arange(80) == 4
  scored = scores_of(nll, rank, bounds, combined, counts, short)
  own, own_nll = rng.exponential(1, 200), rng.exponential(1, 1000)
  normal = normal_of(own, own_nll, settings)
  decided = decide(scored, normal, settings)
  flags, anomalous = decided.flags, decided.event_flags
  p = (1 + (own >= combined[:, None]).sum(axis=1)) / 201
  # Beyond all normal ones p is that of the highest, or the next.
  assert (np.abs(decided.p - p)[~short] < 1.01 / 201).all()
  p = np.where(short, p, decided.p)
  event_p = (1 + (own_nll.round(4) >= nll.round(4)[:, None]).sum(axis=1)) / 1001
  expected = event_p <= (0.1 if rule == "events" else 0.001)
  assert (
    anomalous.tolist() == (rank > 3 if rule == "topk" else expected).tolist()
  )
  in_order = np.sort(np.repeat(p[~short], counts[~short]))
  under = in_order <= 0.1 * np.arange(1, len(in_order) + 1) / len(in_order)
  for d in range(80):
    expected = {
      "rate": p[d] <= 0.1,
      "events": anomalous[bounds[d] : bounds[d + 1]].any(),
      "budget": (combined[~short] > combined[d]).sum() < 7,
      "bh": p[d] <= in_order[under].max(),
      "topk": anomalous[bounds[d] : bounds[d + 1]].any(),
    }[rule]
    assert flags[d] == (expected or d == 4)
  assert 3 < flags.sum() < 77


def test_short_normal_sessions_have_no_part_in_a_calibration():
  nll, bounds = np.arange(5.0), np.array([0, 2, 3, 5])
  short, counts = np.array([False, True, False]), np.array([2, 9, 1])
  scores = np.array([1.0, np.inf, 4.0])
  part = scores_of(nll, nll, bounds, scores, counts, short)
  arrays = calibration.calibration_arrays([part, part])
  assert arrays["score max"].tolist() == [1, 4] * 2
  assert arrays["counts"].tolist() == [2, 1] * 2
  assert arrays["model"].tolist() == [0, 0, 1, 1]
  assert arrays["nll"].tolist() == [0, 1, 3, 4] * 2
  assert arrays["event_counts"].tolist() == [2, 2, 1, 1] * 2


def test_anomalies_put_in_are_found_by_kind(home, again):
  folder, _, _ = home
  again(path=str(folder / "good.txt"), anomalous_path=None, inject=0.2)
  report = json.loads((folder / "run/detect/report.json").read_text())
  by_kind = report["average_precision_by_kind"]
  assert set(by_kind["combined"]) == {
    "swap",
    "drop",
    "insert",
    "foreign",
    "truncate",
  }
  assert by_kind["combined"]["swap"] > 0.5 > by_kind["unseen"]["swap"]
  assert report["events"]["auroc"] > 0.6
  # Of 300 sessions 2 become anomalous, in two ways.
  again(path=str(folder / "good.txt"), anomalous_path=None, inject=0.007)
  report = json.loads((folder / "run/detect/report.json").read_text())
  by_kind = report["average_precision_by_kind"]
  assert list(by_kind["combined"]) == ["swap", "drop"]


def results(folder):
  """The files of detect/, by name."""
  return {p.name: p.read_bytes() for p in (folder / "run/detect").iterdir()}


def test_a_detection_that_fails_leaves_the_older_result(
  home, again, monkeypatch
):
  """And its calibration, with other fields, serves the next detection."""
  folder, _, _ = home
  again(events="all")
  (folder / "run/detect/notes.txt").write_text("of the user")
  before = results(folder)

  def full(*_):
    raise MachineError("detect: cannot be written: No space left on device")

  monkeypatch.setattr(evaluation, "draw", full)
  with pytest.raises(MachineError, match="No space left on device"):
    again(events="none", short="flag")
  assert results(folder) == before
  monkeypatch.setattr(evaluation, "draw", lambda *_: None)
  monkeypatch.setattr(calibration, "score_held_out", None)
  again(events="none", short="flag")
  # Files of the older detection go, those of others stay.
  assert before.keys() - results(folder).keys() == {"events.csv"}


def test_a_benchmark_reads_figures_at_any_rate(home, again, monkeypatch):
  folder, _, _ = home
  monkeypatch.setattr(detection, "RATES", (0.02, 0.05))
  again(rate=0.05)
  texts = [folder / "good.txt", folder / "bad.txt"]
  figures = detection.by_rate(folder / "run", detection.equal(texts))
  report = json.loads((folder / "run/detect/report.json").read_text())
  named = figures["rates"]
  for name, row in report["figures"].items():
    for inside in ((), ("distinct",)):
      said, told = row, named[name]["0.05"]
      for key in inside:
        said, told = said[key], told[key]
      for key in ("f1", "false_alarm_rate", "average_precision", "oracle_f1"):
        assert told[key] == pytest.approx(said[key], abs=1e-6), (name, key)
  assert (
    figures["calibration"] == report["thresholds"]["sessions"]["calibration"]
  )


def test_an_unattainable_rate_is_reported(again, capsys):
  findings = again(rate=1e-4, events="none")
  assert not findings.decision.flags.any()
  out, error = capsys.readouterr()
  assert "95% interval" not in out  # No session is flagged at all.
  rule = "detect.rate=0.0001: below 0.0031, so this rate flags no session;"
  assert error.startswith(rule)


def test_the_examined_sessions_are_named(home, again, capsys):
  folder, config, _ = home
  again(events="none")
  paths = "detect.path={}, detect.anomalous_path={}".format(
    folder / "good.txt", folder / "bad.txt"
  )
  words = f"all 310 sessions of {paths.replace(',', ' and')}"
  assert capsys.readouterr().out.splitlines()[0] == f"examined: {words}"
  [page] = alarms.sections(folder / "run")
  assert f"examined: {words}" in page["basis"]
  settings = base.get_config().detect
  assert inputs.examined(settings, 1) == (
    "the 1 session of the test split; detect.path examines others"
  )


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"head": "joint"}, "config.detect.head='joint': .* has the heads forward"),
    ({"scores": "max,men"}, "config.detect.scores='max,men': must be some of"),
    ({"scores": "max,max"}, "config.detect.scores='max,max': .*, each once"),
    ({"inject": 0.1}, "config.detect.inject=0.1: must be 0, because"),
    ({"path": "none.txt"}, "detect.path='none.txt': no such file"),
    ({"path": None}, "config.detect.anomalous_path=.*: needs detect.path"),
  ],
)
def test_what_cannot_be_is_refused_before_folds_are_trained(
  home, again, changes, message
):
  with pytest.raises(UserError, match=f"^{message}"):
    again(**changes, folds=3)
  assert not (home[0] / "run/folds/1-of-3").exists()


def test_a_detection_from_python(home, capsys):
  pandas = pytest.importorskip("pandas")
  folder, config, findings = home
  settings = {
    f"detect.{n}": config.detect[n] for n in ("path", "anomalous_path")
  }
  one = seqrnn.detect(workdir=folder / "run", verbose=False, **settings)
  assert capsys.readouterr().out == ""
  which = findings.distinct.which
  assert (
    f"{findings.decision.flags[which].sum()} of {len(which)} sessions"
    in repr(one)
  )
  for name in ("sessions", "incidents", "events"):
    rows, frame = table(folder / f"first/{name}.csv"), getattr(one, name)
    assert frame.columns.tolist() == [*rows[0]] and len(frame) == len(rows)
  assert one.sessions["severity"].dropna().isin(["low", "medium", "high"]).all()
  pandas.testing.assert_series_equal(
    one.sessions["p_value"],
    pandas.Series(findings.decision.p[which], name="p_value"),
    rtol=1e-5,
  )
  assert one.report["config"]["detect"]["rate"] == config.detect.rate


def test_the_protocol_of_deeplog(tmp_path):
  rng = random.Random(1)
  (tmp_path / "normal.txt").write_text("\n".join(walk(rng) for _ in range(200)))
  texts = [walk(rng) for _ in range(60)] + ["a b a c d e", "a b", "x"]
  (tmp_path / "new.txt").write_text("\n".join(texts))
  config = tiny(
    tmp_path,
    {
      **FIELDS,
      "data.path": str(tmp_path / "normal.txt"),
      "data.mapping": "many_to_one",
      "data.boundaries": False,
      "data.window": 3,
      "data.step": 1,
      "train.epochs": 2,
      "detect.rule": "topk",
      "detect.short": "flag",
      "detect.folds": 0,
      "detect.path": str(tmp_path / "new.txt"),
    },
  )
  train.fit(experiments.build, config, tmp_path / "run")
  findings = detect.run(experiments.build, config, tmp_path / "run")
  run = experiments.load(tmp_path / "run")
  symbols = run.experiment.vocabularies["symbols"]
  predict = jax.jit(run.experiment.predict)
  for text, d in zip(texts, findings.distinct.which, strict=True):
    ids = symbols.encode(text.split())
    anomalous = len(ids) <= 3
    for place in range(3, len(ids)):
      batch = {
        "inputs": ids[None, place - 3 : place],
        "reset": np.ones(1, bool),
      }
      logits_V = np.asarray(predict(run.params, (), batch)[1])[0, 0]
      anomalous |= ids[place] not in np.argsort(-logits_V)[:2]
    assert findings.decision.flags[d] == anomalous
    if len(ids) > 3:
      assert findings.scored.offset(d) == 3
  # All that is flagged is too short for an event to be scored.
  (tmp_path / "new.txt").write_text("a b c d e\na")
  config.detect.update({"rule": "rate", "rate": 1e-4})
  findings = detect.run(experiments.build, config, tmp_path / "run")
  assert findings.decision.flags.tolist() == [False, True]
  report = json.loads((tmp_path / "run/detect/report.json").read_text())
  assert report["figures"]["combined"]["flagged"] == 1
  assert report["data"]["examined"]["flagged_for_their_length"] == 1
  rows = table(tmp_path / "run/detect/sessions.csv")
  assert [row["p_value"] == "" for row in rows] == [False, True]
  # Whatever decides about the others.
  config.detect.update({"rule": "events"})
  detect.run(experiments.build, config, tmp_path / "run")
  report = json.loads((tmp_path / "run/detect/report.json").read_text())
  assert report["figures"]["combined"]["flagged"] == 1
  config.data.step = 2
  with pytest.raises(UserError, match="^data.step=2 with data.mapping"):
    detect.check(run.experiment, config)


def test_a_gap_model_is_asked_for_events_and_ends(tmp_path):
  rng = random.Random(2)
  texts = [walk(rng) for _ in range(40)] + ["a"]
  (tmp_path / "normal.txt").write_text("\n".join(texts))
  fields = {"task": "gap_model", "model.heads": "all", "detect.head": "joint"}
  fields |= {"data.path": str(tmp_path / "normal.txt")}
  config = tiny(tmp_path, {**FIELDS, **fields, "detect.scores": "max"})
  vocabularies = language_model.prepare(config)
  experiment = experiments.build(
    detector.whole_sessions(config, vocabularies), vocabularies
  )
  params = jax.jit(experiment.init)(jax.random.key(0))
  seen = np.ones((1, len(vocabularies["symbols"])), bool)
  models = detector.Ensemble(jax.tree.map(lambda x: x[None], params), seen)
  one = detector.Detector(config, experiment, [], [0], models, [{}])
  sessions = data.read_sessions(config, one.names, config.data.path)
  same = sessions.distinct()
  scored = one.score(sessions.take(same.first), same.counts)
  arrays = calibration.calibration_arrays([scored])
  for name in [name for name in arrays if name.startswith("score ")]:
    arrays[f"injected {name}"] = np.zeros(0)
  nothing = np.zeros(0, int)
  arrays |= {"injected kind": nothing, "injected model": nothing}
  arrays["steps"] = np.array([0])
  config.detect.contamination = 0.0
  normal = calibration.normal_scores(arrays, config.detect)
  [as_new] = normal.as_new.groups
  assert set(as_new.scores) == set(normal.combined(scored.scores)[0])
  assert as_new.n == len(texts)
  findings = find_anomalies(one, normal, sessions)
  for text, d in zip(texts, findings.distinct.which, strict=True):
    said = findings.scored.targets[slice(*findings.scored.bounds[d : d + 2])]
    assert one.names.names(said) == [*text.split(), "<end>"]
  offsets = [findings.scored.offset(d) for d in range(len(same.first))]
  assert not any(offsets)
  # Each against the others and itself: the most anomalous is one of all.
  assert findings.decision.p.min() == pytest.approx(
    2 / (len(texts) + 1), abs=0.03
  )


def test_figures_are_of_the_sessions_that_have_a_label():
  settings = base.get_config().detect
  settings.rate = 0.3
  rng = np.random.default_rng(0)
  scores = {"combined": rng.exponential(1, 60)}
  labels = rng.random(60) < 0.3
  labelled = rng.random(60) < 0.7
  own = CrossCalibration([Calibration(rng.exponential(1, 200))])
  normal = SimpleNamespace(scores={"combined": own})

  def table(some, labelled):
    number = int(some.sum())
    empty = np.zeros(0, np.int32)
    findings = SimpleNamespace(
      decision=SimpleNamespace(
        scores={"combined": scores["combined"][some]},
        flags=scores["combined"][some] > 2,
      ),
      distinct=SimpleNamespace(which=np.arange(number)),
      sessions=data.Sessions(
        empty,
        np.zeros(number + 1, int),
        [""] * number,
        labels=labels[some],
        labelled=labelled,
      ),
    )
    return evaluation.metrics_by_score(findings, normal, settings)["combined"]

  every = np.ones(60, bool)
  mixed, alone = table(every, labelled), table(labelled, None)
  flagged = mixed.pop("flagged"), alone.pop("flagged")
  assert flagged[0] > flagged[1]  # All that are flagged are counted.
  assert mixed == alone != table(every, None)
  assert 0 < alone["average_precision"] < 1


def test_a_fold_that_was_trained_with_other_settings_is_refused(home):
  folder, config, _ = home
  config = config.copy_and_resolve_references()
  config.train.label_smoothing = 0.1
  with pytest.raises(UserError, match="1-of-2: holds another run, .*smoothing"):
    detect.run(experiments.build, config, folder / "run")
