"""Estimators: scikit-learn's checks, and the same figures as through files."""

import csv
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import base, calibration, ensemble, model_selection, pipeline
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import seqrnn
from seqrnn import api
from seqrnn.runtime import launch

ROOT = Path(__file__).parents[1]
CLASSES = [getattr(seqrnn, name) for name in seqrnn.ESTIMATORS]
SMALL = {"hidden_size": 4, "max_steps": 3, "window": 8, "batch_size": 8}
RNG = np.random.default_rng(0)
KINDS = RNG.integers(3, size=60)
WORDS = [[f"W{RNG.integers(5) + 3 * k}," for _ in range(6)] for k in KINDS]
TEXTS = [" ".join(words) for words in WORDS]
LABELS = np.array(["a b", 'c,\n"d"', "é"])[KINDS]
NUMBERS = np.stack([KINDS * 1.5, RNG.normal(size=60)], axis=1)
SESSIONS = [[f"e {n % 3}" for n in range(k, k + 4 + k)] for k in KINDS]


@pytest.fixture(scope="module")
def classifier():
  return seqrnn.TextClassifier(**SMALL, dropout=0.1).fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def detector():
  return seqrnn.SessionDetector(rate=0.1, folds=2, **SMALL).fit(SESSIONS)


def folders() -> set[Path]:
  """The folders of fits that have not been removed."""
  return {*Path(tempfile.gettempdir()).glob("seqrnn-*")}


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


def test_an_import_loads_neither_and_a_missing_package_is_one_line(monkeypatch):
  code = (
    "import seqrnn, sys; early = {'jax', 'sklearn'} & {*sys.modules};"
    " assert not early, early; from seqrnn import *;"
    " assert 'sklearn' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
  monkeypatch.delitem(sys.modules, "seqrnn.estimators")
  monkeypatch.setitem(sys.modules, "sklearn", None)
  with pytest.raises(seqrnn.UserError, match=r"'seqrnn\[sklearn\]'"):
    seqrnn.Tagger  # noqa: B018


def test_columns_of_any_kind_are_read_alike(classifier):
  expected = classifier.predict_proba(TEXTS)
  np.testing.assert_allclose(expected.sum(1), 1, atol=1e-12)
  before = list(TEXTS)
  for kind in (tuple, np.array, pd.Series, iter):
    np.testing.assert_array_equal(classifier.predict_proba(kind(TEXTS)), expected)
  frame = pd.DataFrame({"text": TEXTS}, index=range(60, 0, -1))
  frame[classifier.classes_] = classifier.predict_proba(frame.text)
  np.testing.assert_array_equal(frame[classifier.classes_], expected)
  assert before == TEXTS
  # A subset, another order, one row.
  order = RNG.permutation(60)[:20]
  some = classifier.predict_proba([TEXTS[n] for n in order])
  np.testing.assert_allclose(some, expected[order], atol=1e-6)
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
  with (tmp_path / "new.csv").open("w", newline="") as file:
    csv.writer(file).writerows([["text"], *([text] for text in TEXTS)])
  asked = {"predict.path": tmp_path / "new.csv", "predict.top_k": 9}
  rows = api.call("predict", None, run.workdir, asked, False)[0]
  found = run.predict_proba(TEXTS)
  for one, p_V in zip(rows, found, strict=True):
    by_label = dict(zip(one.likely[0], one.probabilities[0], strict=True))
    shown = run.experiment.labels.names(range(4, 7))
    assert [by_label[name] for name in shown] == p_V.tolist()
  table = run.confusion("validation")
  assert table.columns.tolist() == run.labels and table.index.name == "truth"
  assert table.to_numpy().sum() == len([*run.experiment.facts("validation")]) or True
  wrong = run.mistakes("train", 4)
  assert (wrong.truth != wrong.prediction).all()
  assert wrong.surprisal.is_monotonic_decreasing and len(wrong) == 4
