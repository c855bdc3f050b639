"""Conformal thresholds against counting, rankings against scikit-learn."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seqrnn.configs import base
from seqrnn.data.logs.sessions import UNLABELLED, Sessions
from seqrnn.logs.detect import evaluation
from seqrnn.logs.detect.conformal import (
  Calibration,
  CrossCalibration,
  benjamini_hochberg,
  beta_interval,
  is_flagged,
)

SEEDS = range(5)


def draw(seed, n=40):
  """Scores with ties, how often each comes, and scores to judge."""
  rng = np.random.default_rng(seed)
  normal = rng.integers(0, 12, n) / 4
  counts = rng.integers(1, 4, n)
  return normal, counts, np.append(rng.integers(-2, 16, 30) / 4, np.inf)


def test_the_body_tells_the_tail_whatever_is_in_it():
  rng = np.random.default_rng(0)
  normal, new = 4 * rng.exponential(size=5000), np.array([2.0, 12, 20, 60])
  clean = Calibration(normal).by_body(new)
  np.testing.assert_allclose(clean, new / 4, rtol=0.1)
  dirty = Calibration(np.append(normal, np.full(150, 50.0)))
  np.testing.assert_allclose(dirty.by_body(new), clean, rtol=0.3)
  assert dirty.neg_log_p(new[2:3])[0] < 3.6 < clean[2]
  cross = CrossCalibration([Calibration(normal), dirty])
  own = cross.own_by_body(new, np.array([0, 1, 1, 0]))
  np.testing.assert_array_equal(
    own, cross.each(Calibration.by_body, [new] * 2)[[0, 1, 1, 0], range(4)]
  )
  # Scores steeper than -log p are taken as -log p, and equal ones as usual.
  assert Calibration(np.zeros(50)).by_body(np.array([0.0, 5])).tolist() == [
    0,
    5 + np.log(20),
  ]


@pytest.mark.parametrize("seed", SEEDS)
def test_p_values_count_what_scores_as_high(seed):
  normal, counts, scores = draw(seed)
  calibration = Calibration(normal, counts)
  every = np.repeat(normal, counts)
  n = len(every)
  assert calibration.n == n
  p = [(1 + sum(c >= s for c in every)) / (n + 1) for s in scores]
  np.testing.assert_allclose(calibration.p_values(scores), p)
  # Of a normal one: against all others, as if it were new.
  p = [
    (1 + sum(c >= s for c in np.delete(every, np.argmax(every == s)))) / n
    for s in normal
  ]
  np.testing.assert_allclose(
    np.exp(-calibration.neg_log_p(normal, leave_one_out=True)), p
  )
  for rate in (1e-4, 1 / (n + 1), 3 / (n + 1), 0.05, 0.3, n / (n + 1), 0.9999):
    flags = is_flagged(calibration.p_values(scores), rate)
    exact = [1 + sum(c >= s for c in every) for s in scores]
    assert flags.tolist() == [e <= rate * (n + 1) + 1e-9 for e in exact]


def test_new_normal_data_are_flagged_at_the_rate():
  rng = np.random.default_rng(0)
  n, rate = 199, 0.05
  rates, inside = [], []
  for _ in range(400):
    scores = rng.exponential(size=n)
    p = Calibration(scores).p_values(np.sort(scores))
    lowest = np.sort(scores)[~is_flagged(p, rate)].max()
    rates.append(math.exp(-lowest))  # The true one.
    low, high = beta_interval(rate, n)
    inside.append(low <= rates[-1] <= high)
  assert np.mean(rates) == pytest.approx(rate, rel=0.05)
  assert np.mean(inside) == pytest.approx(0.95, abs=0.03)
  assert beta_interval(0.01, 9) == (0, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_neg_log_p_goes_on_beyond_all_normal_scores(seed):
  normal, counts, scores = draw(seed)
  calibration = Calibration(normal, counts)
  scores = np.sort(scores)
  neg_log_p = calibration.neg_log_p(scores)
  p = calibration.p_values(scores)
  inside = scores <= normal.max()
  np.testing.assert_allclose(neg_log_p[inside], -np.log(p[inside]))
  beyond = scores[~inside]
  assert np.all(np.diff(neg_log_p[~inside])[np.diff(beyond) > 0] > 0)
  assert neg_log_p[-1] == np.inf and not np.isnan(neg_log_p).any()
  # A normal one scores as if it were new to the others, beyond them too.
  every = np.append(np.repeat(normal, counts), 5.0)
  expected = [
    Calibration(np.delete(every, i)).neg_log_p(every[i : i + 1])[0]
    for i in range(len(every))
  ]
  neg_log_p = Calibration(every).neg_log_p(every, leave_one_out=True)
  np.testing.assert_allclose(neg_log_p, expected)
  assert neg_log_p.argmax() == len(every) - 1


def test_what_is_combined_is_flagged_at_the_rate():
  """Also at the smallest rate, where a new one is beyond all normal ones."""
  rng = np.random.default_rng(0)
  n, rates = 49, []
  for _ in range(300):
    normal, new = rng.exponential(size=(3, n)), rng.exponential(size=(3, 200))
    parts = [Calibration(scores) for scores in normal]

    def combined(all_scores, is_normal, parts=parts):
      neg_log_p = [
        part.neg_log_p(scores, is_normal)
        for part, scores in zip(parts, all_scores, strict=True)
      ]
      return np.sum(neg_log_p, axis=0)

    calibration = Calibration(combined(normal, True))
    flags = is_flagged(calibration.p_values(combined(new, False)), 1 / (n + 1))
    rates.append(flags.mean())
  assert 0.75 < (n + 1) * np.mean(rates) < 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_of_several_models_are_compared_with_those_of_each(seed):
  parts = [draw(seed + 10 * k, 20 + k) for k in range(3)]
  cross = CrossCalibration([Calibration(s, c) for s, c, _ in parts])
  scores_KD = np.stack([scores for *_, scores in parts])
  every = [np.repeat(s, c) for s, c, _ in parts]
  n = sum(map(len, every))
  count = [
    sum((x >= s).sum() for x, s in zip(every, column, strict=True))
    for column in scores_KD.T
  ]
  p = cross.p_values(scores_KD)
  np.testing.assert_allclose(p, (1 + np.array(count)) / (n + 1))
  neg_log_p = cross.neg_log_p(scores_KD)
  inside = np.array(count) > 0
  np.testing.assert_allclose(neg_log_p[inside], -np.log(p[inside]))
  assert neg_log_p[-1] == np.inf
  # Above all scores of all models: extrapolated, in the order of the scores.
  high = np.stack([x.max() + np.array([0.1, 1.0, 3.0]) for x in every])
  assert (np.diff(cross.neg_log_p(high)) > 0).all()
  assert cross.neg_log_p(high)[0] > -np.log(cross.resolution)


@pytest.mark.parametrize(
  "normal", [[], [2.0], [0.0, 0, 0], [np.inf, np.inf], [1, np.inf], [np.inf]]
)
def test_scores_without_a_spread_have_an_neg_log_p(normal):
  calibration = Calibration(np.array(normal, float))
  neg_log_p = calibration.neg_log_p(np.array([-1.0, 0.5, np.inf]))
  assert not np.isnan(neg_log_p).any() and np.all(np.diff(neg_log_p) >= 0)
  neg_log_p = calibration.neg_log_p(np.array(normal, float), leave_one_out=True)
  assert not np.isnan(neg_log_p).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_benjamini_and_hochberg(seed):
  rng = np.random.default_rng(seed)
  p = np.append(rng.uniform(size=50), rng.uniform(0, 0.01, 10)).round(3)
  for rate in (0.001, 0.1, 0.5):
    best = max(
      (k for k in range(61) if sum(p <= rate * k / 60) >= k), default=0
    )
    expected = p <= rate * best / 60
    assert benjamini_hochberg(p, rate).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_figures_are_those_of_scikit_learn(seed):
  sklearn = pytest.importorskip("sklearn.metrics")
  rng = np.random.default_rng(seed)
  labels = rng.random(300) < 0.2
  scores = np.round(rng.normal(size=300) + labels, 1)  # With ties.
  flags = (scores > 1) ^ (rng.random(300) < 0.05)
  metrics = evaluation.metrics(scores, flags, labels)
  precision, recall, _ = sklearn.precision_recall_curve(labels, scores)
  best = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
  expected = {
    "precision": sklearn.precision_score(labels, flags),
    "recall": sklearn.recall_score(labels, flags),
    "f1": sklearn.f1_score(labels, flags),
    "false_alarm_rate": flags[~labels].mean(),
    "auroc": sklearn.roc_auc_score(labels, scores),
    "average_precision": sklearn.average_precision_score(labels, scores),
    "oracle_f1": best.max(),
  }
  assert metrics == pytest.approx(expected)
  none = np.zeros(300, bool)
  metrics = evaluation.metrics(np.zeros(300), none, labels)
  assert metrics["f1"] == metrics["precision"] == 0
  assert metrics["auroc"] == 0.5


def test_metrics_are_of_the_sessions_that_have_a_label():
  settings = base.get_config().detect
  settings.rate = 0.3
  rng = np.random.default_rng(0)
  scores = rng.exponential(1, 60)
  kinds, labelled = rng.random((2, 60)) < [[0.3], [0.7]]
  calibration = CrossCalibration([Calibration(rng.exponential(1, 200))])
  normal: Any = SimpleNamespace(scores={"combined": calibration})

  def table(some, kinds):
    number = int(some.sum())
    findings: Any = SimpleNamespace(
      decision=SimpleNamespace(scores={"combined": scores[some]}),
      distinct=SimpleNamespace(which=np.arange(number)),
      sessions=Sessions(
        np.zeros(0, np.int32),
        np.zeros(number + 1, int),
        [""] * number,
        labels=kinds[some],
      ),
    )
    return evaluation.metrics_by_score(findings, normal, settings)["combined"]

  every = np.ones(60, bool)
  mixed = table(every, np.where(labelled, kinds, UNLABELLED))
  alone = table(labelled, kinds)
  flagged = mixed.pop("flagged"), alone.pop("flagged")
  assert flagged[0] > flagged[1]  # All that are flagged are counted.
  assert mixed == alone != table(every, kinds)
  assert 0 < alone["average_precision"] < 1
