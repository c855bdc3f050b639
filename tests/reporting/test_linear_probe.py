"""The linear probe: a logistic regression, and its section of the report."""

import numpy as np
import pytest

import experiments
from seqrnn.data.corpora import SPLITS
from seqrnn.reporting import linear_probe
from seqrnn.reporting.linear_probe import Labelled
from seqrnn.reporting.subject import open_run
from tests.modes.test_report import begun


def drawn(seed, count, labels=3, noise=1.0):
  """Vectors around a centre for each label."""
  rng = np.random.default_rng(seed)
  centres = np.random.default_rng(0).normal(size=(labels, 5))
  label_N = rng.integers(labels, size=count)
  x_ND = centres[label_N] + noise * rng.normal(size=(count, 5))
  return Labelled(x_ND, label_N)


@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_the_weights_are_those_of_scikit_learn(penalty):
  module = pytest.importorskip("sklearn.linear_model")
  train, test = drawn(1, 200), drawn(2, 50)
  weights = linear_probe.logistic(train, 3, penalty, np.zeros((6, 3)))
  other = module.LogisticRegression(C=1 / (penalty * 200), tol=1e-8)
  other.fit(train.x_ND, train.label_N)
  logits = test.x_ND @ weights[:-1] + weights[-1]
  chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  expected = other.predict_proba(test.x_ND)
  np.testing.assert_allclose(chances, expected, atol=1e-3)
  reached = linear_probe.accuracy(weights, test)
  assert reached == other.score(test.x_ND, test.label_N)


def test_the_penalty_is_that_of_the_best_validation():
  """The test texts choose nothing; a label that was not trained is wrong."""
  train, validation, test = (drawn(n, 60, noise=3.0) for n in range(3))
  each, weights = [], np.zeros((6, 3))
  mean_D, scale_D = train.x_ND.mean(0), train.x_ND.std(0)
  scaled = [
    texts._replace(x_ND=(texts.x_ND - mean_D) / scale_D)
    for texts in (train, validation, test)
  ]
  for penalty in linear_probe._PENALTIES:
    weights = linear_probe.logistic(scaled[0], 3, penalty, weights)
    each.append([linear_probe.accuracy(weights, x) for x in scaled[1:]])
  best = int(np.argmax([reached for reached, _ in each]))
  found = linear_probe.probe(train, validation, test, 3)
  assert found == each[best][1]
  assert len({reached for _, reached in each}) > 1
  gone = test._replace(label_N=np.full(60, -1))
  assert linear_probe.probe(train, validation, gone, 3) == 0


def test_states_of_a_language_model_tell_labels_apart(tmp_path):
  """Where the texts have labels, which the model never reads."""
  lines = [f"{'xy'[n % 2]}\t{'ab'[n % 2] * (n % 5 + 3)}" for n in range(90)]
  (tmp_path / "lines.txt").write_text("\n".join(lines))
  fields = {
    "data.format": "tab",
    "data.path": str(tmp_path / "lines.txt"),
    "data.validation_fraction": 0.2,
    "data.test_fraction": 0.2,
  }
  config, workdir = begun(tmp_path, fields)
  subject = open_run(experiments.build, config, workdir)
  [found] = linear_probe.sections(subject)
  text = "".join(found.itertext())
  assert "a probe of this network" in text and "100.0%" in text
  assert "this network itself" not in text
  read = [linear_probe._some(subject, split) for split in SPLITS]
  assert f"on {len(read[2]):,} texts" in text
  # Texts without labels have no section.
  plain, other = begun_without_labels(tmp_path / "other")
  assert linear_probe.sections(open_run(experiments.build, plain, other)) == []


def begun_without_labels(folder):
  folder.mkdir()
  return begun(folder, {})
