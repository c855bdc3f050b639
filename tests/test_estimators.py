"""Estimators: scikit-learn's checks, and the same figures as through files."""

import csv
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import (
  base,
  calibration,
  ensemble,
  frozen,
  model_selection,
  pipeline,
)
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import seqrnn
from seqrnn import api
from seqrnn.runtime import launch, private

ROOT = Path(__file__).parents[1]
CLASSES = [getattr(seqrnn, name) for name in seqrnn.ESTIMATORS]
SMALL = {"hidden_size": 4, "max_steps": 3, "window": 8, "batch_size": 8}
# What is traced and compiled in the least time.
PLAIN = {"model.bidirectional": False, "model.scan": "plain"}
ONE_WAY = SMALL | {"settings": PLAIN}
RNG = np.random.default_rng(0)
KINDS = RNG.integers(3, size=60)
WORDS = [[f"W{RNG.integers(5) + 3 * k}," for _ in range(6)] for k in KINDS]
TEXTS = [" ".join(words) for words in WORDS]
LABELS = np.array(["a b", 'c,\n"d"', "é"])[KINDS]
NUMBERS = np.stack([KINDS * 1.5, RNG.normal(size=60)], axis=1)
SESSIONS = [[f"e {n % 3}" for n in range(k, k + 4 + k)] for k in KINDS]


@pytest.fixture(scope="module")
def classifier():
  # A regression of the terms would make no mistake.
  settings = PLAIN | {"model.wide": False}
  some = seqrnn.TextClassifier(**SMALL, settings=settings)
  return some.fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def detector():
  odd = seqrnn.SessionDetector(
    rate=0.1, folds=0, validation_fraction=0.4, **ONE_WAY
  )
  return odd.fit(SESSIONS)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
  """The folder of temporary folders."""
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
  return tmp_path


# Those of scikit-learn's checks of any estimator that fit no numbers.
CHECKS = (
  *("estimator_cloneable", "estimator_tags_renamed", "valid_tag_types"),
  *("estimator_repr", "no_attributes_set_in_init", "estimators_unfitted"),
  *("do_not_raise_errors_in_init_or_set_params", "mixin_order"),
  *("get_params_invariance", "set_params", "parameters_default_constructible"),
)


def test_checks_of_scikit_learn_without_data():
  for estimator in CLASSES:
    for name in CHECKS:
      check = getattr(estimator_checks, f"check_{name}")
      check(estimator.__name__, estimator())
    again = base.clone(estimator(settings={"data.window": 3}, cell="gru"))
    assert again.get_params()["settings"] == {"data.window": 3}
    with pytest.raises(NotFittedError):
      again.report()
    assert not hasattr(again, "history_")
  assert base.is_classifier(seqrnn.TextClassifier())
  assert base.is_regressor(seqrnn.TextRegressor())
  assert base.is_outlier_detector(seqrnn.SessionDetector())


def test_a_missing_package_is_one_line(monkeypatch):
  monkeypatch.delitem(sys.modules, "seqrnn.estimators")
  monkeypatch.setitem(sys.modules, "sklearn", None)
  with pytest.raises(seqrnn.UserError, match=r"'seqrnn\[sklearn\]'"):
    seqrnn.Tagger  # noqa: B018


class Column(Sequence):
  """As polars and Hugging Face's datasets have them."""

  def __init__(self, values):
    self._values = values

  def __len__(self):
    return len(self._values)

  def __getitem__(self, n):
    return self._values[n]


def test_fits_of_a_grid_have_programs_in_common(classifier):
  """Vocabularies and texts are others, and so are rates and steps."""
  compiled, other = [], base.clone(classifier)
  classifier.predict(TEXTS)
  private.on_compilation(compiled.append)
  other.set_params(learning_rate=3e-3, dropout=0.4, random_state=5, max_steps=2)
  some = ["W10" not in text for text in TEXTS]
  other.fit(np.array(TEXTS)[some], LABELS[some]).predict(TEXTS)
  assert not compiled
  names = other.run_.experiment.vocabularies["symbols"]
  assert len(names) > len(names.symbols) + 4


def test_columns_of_any_kind_are_read_alike(classifier):
  expected = classifier.predict_proba(TEXTS)
  np.testing.assert_allclose(expected.sum(1), 1, atol=1e-12)
  before = list(TEXTS)
  single = lambda texts: pd.DataFrame({"text": texts})
  kinds = tuple, np.array, pd.Series, iter, Column, single
  for kind in (*kinds, lambda texts: np.array(texts)[:, None]):
    np.testing.assert_array_equal(
      classifier.predict_proba(kind(TEXTS)), expected
    )
  frame = pd.DataFrame({"text": TEXTS}, index=range(60, 0, -1))
  frame[classifier.classes_] = classifier.predict_proba(frame.text)
  np.testing.assert_array_equal(frame[classifier.classes_], expected)
  assert before == TEXTS
  # A subset, another order, one row.
  order = RNG.permutation(60)[:20]
  some = classifier.predict_proba([TEXTS[n] for n in order])
  np.testing.assert_allclose(some, expected[order], atol=1e-6)
  # An empty text is one unknown word.
  new = classifier.predict_proba(["", TEXTS[0], " "])
  np.testing.assert_allclose(new.sum(1), 1)
  np.testing.assert_allclose(new[1], expected[0], atol=1e-6)
  np.testing.assert_array_equal(new[0], new[2])
  one = classifier.predict_proba(TEXTS[:1])
  np.testing.assert_allclose(one, expected[:1], atol=1e-6)
  logs = classifier.predict_log_proba(TEXTS)
  np.testing.assert_allclose(np.exp(logs), expected, atol=1e-12)
  best = classifier.classes_[expected.argmax(1)]
  np.testing.assert_array_equal(classifier.predict(TEXTS), best)
  assert classifier.score(TEXTS, LABELS) == accuracy_score(LABELS, best)


def test_a_fit_is_a_run(classifier, tmp_path):
  run, labels = classifier.run_, {*LABELS}
  assert {*classifier.classes_} == labels and run.step == 3
  assert classifier.history_.equals(run.metrics)
  page = classifier.report()
  assert page.path == run.workdir / "report.html" and page.path.exists()
  assert page._repr_html_().startswith("<iframe srcdoc=")
  frame = pd.DataFrame({"text": ["", *TEXTS], "n": 1})
  frame.to_csv(tmp_path / "new.csv", index=False)
  asked = {"predict.path": tmp_path / "new.csv", "predict.top_k": 9}
  rows = api.call("predict", None, run.workdir, asked, False)[0]
  found = run.predict_proba(["", *TEXTS])
  for one, p_V in zip(rows, found, strict=True):
    by_label = dict(zip(one.likely[0], one.probabilities[0], strict=True))
    shown = run.experiment.labels.names(range(4, 7))
    assert [by_label[name] for name in shown] == p_V.tolist()
  table = run.confusion("validation")
  assert table.columns.tolist() == run.labels and table.index.name == "truth"
  texts = run.experiment.facts("validation")["documents"]
  assert table.to_numpy().sum() == texts
  wrong = run.mistakes("train", 4)
  assert (wrong.truth != wrong.prediction).all()
  falling = sorted(wrong.surprisal, reverse=True)
  assert [*wrong.surprisal] == falling and len(wrong) == 4


def test_folds_score_as_through_files(classifier, temporary):
  order = RNG.permutation(60)
  train, test = order[:40], order[40:]
  found = model_selection.cross_validate(
    classifier,
    *(pd.Series(TEXTS), pd.Series(LABELS)),
    cv=[(train, test)],
    return_estimator=True,
  )
  fitted = found.pop("estimator")
  p = fitted[0].predict_proba([TEXTS[n] for n in test])
  del fitted
  assert not [*temporary.iterdir()]
  numbers = dict(zip(classifier.classes_, range(3), strict=True))
  labels = [numbers[LABELS[n]] for n in train]
  frame = pd.DataFrame({"text": [TEXTS[n] for n in train], "label": labels})
  frame.to_csv(temporary / "a.csv", index=False)
  fields = {name: x for name, x in ONE_WAY.items() if name != "settings"}
  fields |= PLAIN | {
    "data.source": "files",
    "data.path": str(temporary / "a.csv"),
    "data.format": "csv",
    "data.lowercase": True,
    "data.punctuation": True,
    "data.test_fraction": 0.0,
    "model.wide": False,
  }
  run = seqrnn.train("sentences", temporary / "run", verbose=False, **fields)
  best = [one.best[0] for one in run.predict([TEXTS[n] for n in test])]
  true = [str(numbers[LABELS[n]]) for n in test]
  assert found["test_score"].tolist() == [accuracy_score(true, best)]
  in_order = [run.labels.index(str(numbers[x])) for x in classifier.classes_]
  other = run.predict_proba([TEXTS[n] for n in test])
  other = other / other.sum(1, keepdims=True, dtype=float)
  np.testing.assert_array_equal(p, other[:, in_order])


def test_a_fit_is_repeated_and_a_workdir_is_resumed(classifier, tmp_path):
  again = base.clone(classifier).set_params(workdir=tmp_path / "run")
  again.fit(np.array(TEXTS), pd.Series(LABELS, dtype="category"))
  expected = classifier.predict_proba(TEXTS)
  np.testing.assert_array_equal(again.predict_proba(TEXTS), expected)
  again.fit(TEXTS, LABELS[:, None])  # It is finished.
  assert again.run_.workdir == tmp_path / "run"
  with pytest.raises(seqrnn.UserError, match="has other data, of a run; name"):
    again.fit(TEXTS[1:], LABELS[1:])


def test_a_pickle_has_all_but_the_data(classifier, detector, temporary):
  for fitted, X in ((classifier, TEXTS), (detector, SESSIONS)):
    content = pickle.dumps(fitted)
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    assert again.history_.equals(fitted.history_)
    assert [*temporary.iterdir()] == [again.run_.workdir]
    assert not (again.run_.workdir / "data").exists()
    del again
    assert not [*temporary.iterdir()]
    assert TEXTS[0].encode() not in content


def test_threads_take_turns(monkeypatch):
  def wait(*_):
    assert isinstance(sys.stdout, api._Quiet)
    time.sleep(0.02)

  monkeypatch.setattr("seqrnn.modes.config.run", wait)
  stdout = sys.stdout
  arguments = ("config", "rnn", None, {}, False)
  threads = [threading.Thread(target=api.call, args=arguments) for _ in "abcd"]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sys.stdout is stdout


def test_a_fork_is_refused(classifier, monkeypatch):
  content = pickle.dumps(classifier.run_)
  monkeypatch.setattr(launch, "_PROCESS", os.getpid() + 1)
  run = pickle.loads(content)
  for call in (
    *(lambda: classifier.predict(TEXTS), lambda: run.predict(TEXTS)),
    *(lambda: classifier.fit(TEXTS, LABELS), lambda: run.evaluate("train")),
    *(lambda: run.score("a"), lambda: seqrnn.load(run.workdir)),
  ):
    with pytest.raises(seqrnn.UserError, match="forked .* loky"):
      call()


def test_settings_of_a_training_and_its_interruption(monkeypatch):
  def interrupt(config, _, **settings):
    trained.append((config, settings))
    raise seqrnn.Interrupted(2)

  trained = []
  monkeypatch.setattr(api, "train", interrupt)
  clf = seqrnn.TextClassifier(
    epochs=9, early_stopping=True, n_iter_no_change=3, unit="char"
  )
  # An Exception would be a fit that failed, and the next one would begin.
  with pytest.raises(KeyboardInterrupt):
    model_selection.cross_val_score(clf, TEXTS, LABELS)
  [(config, settings)] = trained
  expected = {
    **{"train.epochs": 9, "train.patience": 3, "train.eval_every": None},
    **{"data.unit": "char", "data.lowercase": False, "verbose": False},
    **{"data.test_fraction": 0.0, "data.validation_fraction": 0.1, "seed": 0},
  }
  assert config == "sentences" and expected.items() <= settings.items()
  assert "model.cell" not in settings


def test_other_estimators_wrap_them(classifier):
  linear = pipeline.make_pipeline(TfidfVectorizer(), LogisticRegression())
  fitted = frozen.FrozenEstimator(classifier)
  named = [("linear", linear), ("network", fitted)]
  both = ensemble.VotingClassifier(named, voting="soft").fit(TEXTS, KINDS)
  two = [one.predict_proba(TEXTS) for one in both.estimators_]
  np.testing.assert_allclose(both.predict_proba(TEXTS), np.mean(two, 0))
  assert both.predict(TEXTS).dtype == KINDS.dtype
  lower = FunctionTransformer(lambda X: [text.lower() for text in X])
  whole = pipeline.make_pipeline(lower, fitted)
  calibrated = calibration.CalibratedClassifierCV(whole)
  found = calibrated.fit(TEXTS, LABELS).predict_proba(TEXTS)
  np.testing.assert_allclose(found.sum(1), 1)


def test_numbers(capsys):
  frame = pd.DataFrame(NUMBERS, columns=["depth", "stars"])
  stars = seqrnn.TextRegressor(**ONE_WAY, random_state=np.random.RandomState(3))
  found = stars.fit(TEXTS, frame).predict(TEXTS)
  assert found.shape == (60, 2) and stars.score(TEXTS, frame) == r2_score(
    frame, found
  )
  run = stars.run_
  np.testing.assert_array_equal(found[0], run.predict(TEXTS[:1])[0].numbers[0])
  distances = [*run.mistakes("validation").distance]
  assert distances == sorted(distances, reverse=True)
  with pytest.raises(seqrnn.UserError, match="predicts no labels"):
    run.predict_proba(TEXTS)
  # Other numbers need no other program, and a fit prints one line.
  compiled = []
  private.on_compilation(compiled.append)
  stars.set_params(max_steps=1, verbose=1).fit(TEXTS, 9 * frame + 4)
  loss = stars.history_.validation_loss[0]
  begin = f"TextRegressor: step 1, validation loss {loss:.4g}, r_squared_depth "
  assert capsys.readouterr().out.startswith(begin) and not compiled


def test_tags():
  tags = [
    ["B-x" if "1" in w else "I-x" if "2" in w else "O" for w in words]
    for words in WORDS
  ]
  words = [[f"{word} {word}" for word in sentence] for sentence in WORDS]
  plain = PLAIN | {"model.crf": False, "model.affixes": None}
  tagger = seqrnn.Tagger(**SMALL, settings=plain).fit(words, tags)
  found = tagger.predict(words)
  assert [*map(len, found)] == [*map(len, words)] and tagger.metric_ == "f1"
  assert {*sum(found, [])} <= {*tagger.classes_}
  true = [tag for one in tags for tag in one]
  assert 0 <= tagger.score(words, tags) <= 1
  tagger.metric_ = "accuracy"
  assert tagger.score(words, tags) == accuracy_score(true, sum(found, []))


def test_a_language_model():
  lm = seqrnn.LanguageModel(**ONE_WAY).fit(TEXTS[:12])
  each = [lm.run_.score(text) for text in TEXTS]
  found = lm.score_samples(TEXTS)
  np.testing.assert_allclose(found, [-nll.sum() for nll in each], rtol=1e-5)
  bits = np.concatenate(each).mean() / np.log(2)
  assert lm.score(TEXTS) == pytest.approx(-bits, rel=1e-5)
  [text] = lm.sample("W1", length=3)
  assert text.startswith("W1") and len(text) == 5


@pytest.mark.parametrize("folds", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_sessions(detector, tmp_path, folds):
  if folds:
    detector = base.clone(detector).set_params(folds=folds).fit(SESSIONS)
    again = pickle.loads(pickle.dumps(detector))
    both = (one.predict(SESSIONS) for one in (again, detector))
    np.testing.assert_array_equal(*both)
  new = [*SESSIONS[:9], ["e 2", "e 0", "never"]]
  flags, p = detector.predict(new), detector.p_values(new)
  scores = detector.score_samples(new)
  np.testing.assert_array_equal(
    flags == -1, detector.decision_function(new) < 0
  )
  assert flags[-1] == -1 and scores.argmin() == 9
  rows = [(n, event) for n, events in enumerate(new) for event in events]
  path = tmp_path / "new.csv"
  pd.DataFrame(rows, columns=["session", "event"]).to_csv(path, index=False)
  fields = {"workdir": detector.run_.workdir, "detect.path": path}
  found = seqrnn.detect(**fields, verbose=False)
  np.testing.assert_array_equal(found.sessions["flag"] == 1, flags == -1)
  np.testing.assert_allclose(found.sessions["p_value"], p, rtol=1e-4)
  flagged = (flags == -1).sum()
  assert f"{flagged} of {len(new)} sessions" in repr(found)
  assert found.incidents["sessions"].sum() == flagged
  assert {*found.events["session"]} == {*found.sessions["session"][flags == -1]}
  assert found.report["config"]["data"]["unit"] == "session"


def test_mistakes_are_one_line_with_the_position(tmp_path):
  label, number, tag, odd = (
    getattr(seqrnn, name)(**SMALL).fit
    for name in ("TextClassifier", "TextRegressor", "Tagger", "SessionDetector")
  )
  text, some = TEXTS[:4], LABELS[:4]
  frame = pd.DataFrame({"session": ["a", "b"], "event": ["x", None]})
  wrong = []
  for call, rule in (
    (lambda: label(LABELS, TEXTS), "X, y: 3 distinct texts have "),
    (lambda: label(text, ["a"] * 4), "y: has the labels ['a']; two must"),
    (lambda: label(text, some[1:]), "Found input variables with inconsistent"),
    (lambda: label(text, ["a", "b", None, "a"]), "y[2]=None: is missing"),
    (lambda: label(text, ["a", "b", ("a",), "a"]), "y[2]=('a',): is mis"),
    (lambda: label([*text, np.nan], KINDS), "X[4]=nan: every text must be a"),
    (lambda: label(["a", " "], some[:2]), "X[1]=' ': every text must have"),
    (lambda: label(["\ud800"], some[:1]), "X[0]='\\ud800': every text must be"),
    (lambda: label("a text", some), "X='a text': must be a column of values"),
    (lambda: label(frame, some), "X=session event 0 a x 1 b NaN: must be a"),
    (lambda: label([], []), "X: has no text"),
    (lambda: number(text, iter([1, 2, np.inf, 3])), "y[2]=inf: must be"),
    (lambda: number(text, some), "could not convert string to float"),
    (lambda: tag([["a", "b"]], [["x"]]), "y[0]: has 1 tag, where X[0] has 2"),
    (lambda: tag([["a", ""]], [["x", "y"]]), "X[0][1]='': every word must"),
    (lambda: tag([["a\t", "b"]], [["x", "y"]]), "X[0][0]='a\\t': has a tab"),
    (lambda: odd([["a"], []]), "X[1]: has no event"),
    (lambda: odd([["a", np.nan]]), "X[0][1]=nan: every event must be a str"),
    (lambda: odd(frame), "X['event'][1]="),
    (lambda: odd(frame[["event"]]), "X: has the columns 'event'; it needs"),
    (lambda: seqrnn.train("rnn", data=frame), "data=, validation=, test=: mu"),
    (
      lambda: seqrnn.train("rnn", tmp_path, data=frame, test=frame),
      "data=, validation=, test=: must",
    ),
    (lambda: seqrnn.train("rnn", tmp_path, data=3), "train frame=3: must be a"),
  ):
    with pytest.raises((seqrnn.UserError, ValueError)) as failed:
      call()
    said = str(failed.value)
    if not said.startswith(rule) or "\n" in said:
      wrong.append((said, rule))
    assert isinstance(failed.value, ValueError), said
  assert not wrong, wrong


def test_a_frame_of_rows_is_split_by_session(detector):
  rows = [(n, event) for n, events in enumerate(SESSIONS) for event in events]
  frame = pd.DataFrame(rows, columns=["session", "event"])
  of_datasets = Column(frame)
  of_datasets.column_names = [*frame.columns]
  for table in (frame, of_datasets):
    np.testing.assert_array_equal(
      detector.predict(table), detector.predict(SESSIONS)
    )
  whole = {**vars(detector), "_names": {"0", "1"}, "_rows": frame.index[::2]}
  cut = seqrnn.SessionDetector()
  vars(cut).update(whole)
  with pytest.raises(ValueError, match="X: has other rows of the session '0' "):
    cut.predict(frame[1::2])


def test_a_frame_is_written_into_the_workdir(tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(api, "call", lambda *args: [calls.append(args)] * 3)
  monkeypatch.setattr(api, "load_run", lambda _: None)
  texts = ['a "b"\r\nc', "é\0\r", None]
  frame = pd.DataFrame({"text": texts, "label": [1, np.nan, pd.NaT]})
  for _ in range(2):  # The second resumes it.
    seqrnn.train("sentences", tmp_path, data=frame, epochs=2)
  mode, config, workdir, fields, _ = calls[0]
  assert (mode, config, workdir) == ("train", "sentences", tmp_path)
  path = tmp_path / "data" / "train.csv"
  assert fields == {
    "epochs": 2,
    "data.source": "files",
    "data.format": "csv",
    "data.path": str(path),
  }
  with path.open(newline="") as file:
    read = [*csv.reader(file, strict=True)]
  cells = [[texts[0], "1"], [texts[1], ""], ["", ""]]
  assert [[a, b.removesuffix(".0")] for a, b in read[1:]] == cells
  with pytest.raises(ValueError, match="has other data, of a run; name"):
    seqrnn.train("sentences", tmp_path, data=frame[:1])


PROCESSES = """
import multiprocessing, sys
import joblib, numpy as np
import seqrnn
from sklearn.model_selection import cross_val_score
from tests.test_estimators import LABELS, ONE_WAY, TEXTS

if __name__ == "__main__":
  clf = seqrnn.TextClassifier(**ONE_WAY)
  two = cross_val_score(clf, TEXTS, LABELS, cv=2, n_jobs=2)
  one = cross_val_score(clf, TEXTS, LABELS, cv=2)
  assert one.tolist() == two.tolist(), (one, two)
  run = clf.fit(TEXTS, LABELS).run_
  expected = run.predict_proba(TEXTS)
  with multiprocessing.get_context("spawn").Pool(1) as pool:
    assert (pool.apply(run.predict_proba, (TEXTS,)) == expected).all()
  with multiprocessing.get_context("fork").Pool(1) as pool:
    try:
      pool.apply(run.predict_proba, (TEXTS,))
    except seqrnn.UserError as error:
      print(error)
"""


@pytest.mark.slow
def test_processes(tmp_path):
  path = tmp_path / "processes.py"
  path.write_text(PROCESSES)
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  done = subprocess.run(
    [sys.executable, "-W", "ignore", path],
    env=environment,
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert "forked from one that has imported JAX" in done.stdout, done.stderr
