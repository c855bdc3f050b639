"""Cleaning: the second mode of the scores of normal sessions."""

import numpy as np
import pytest

from seqrnn.logs.detect.cleaning import clean


def scores_of(rng, anomalies, models=5, n=400):
  """Scores by models of different scales; the last of each are anomalies."""
  parts, anomalous = [], []
  for _ in range(models):
    scale, shift = rng.uniform(0.8, 1.25), rng.uniform(0, 3)
    high = rng.normal(14, 2, anomalies)
    scores = np.append(rng.gamma(3, 0.5, n - anomalies), high)
    parts.append(shift + scale * scores)
    anomalous.append(np.arange(n) >= n - anomalies)
  model = np.repeat(np.arange(models), n)
  return np.concatenate(parts), model, np.concatenate(anomalous)


def left_out(scores, model, most=0.1):
  return clean(scores, np.ones(len(scores), int), model, most)


@pytest.mark.parametrize("seed", range(5))
def test_a_second_mode_is_left_out(seed):
  scores, model, anomalous = scores_of(np.random.default_rng(seed), 20)
  out = left_out(scores, model)
  assert out[anomalous].mean() > 0.95 and out[~anomalous].mean() < 0.01
  assert not left_out(scores, model, most=0.0).any()


@pytest.mark.parametrize("draw", ["gamma", "normal", "pareto"])
def test_one_mode_is_left_as_it_is(draw):
  for seed in range(20):
    rng = np.random.default_rng(seed)
    args = {"gamma": (3,), "normal": (0,), "pareto": (2,)}[draw]
    scores = getattr(rng, draw)(*args, size=2000)
    assert not left_out(scores, np.repeat(np.arange(5), 400)).any()


def test_a_mode_larger_than_the_bound_is_left_as_it_is():
  scores, model, anomalous = scores_of(np.random.default_rng(0), 80)
  assert not left_out(scores, model, most=0.1).any()
  assert left_out(scores, model, most=0.3)[anomalous].mean() > 0.95


def test_equal_sessions_are_no_evidence():
  rng = np.random.default_rng(0)
  scores = np.append(rng.gamma(3, 0.5, 500), 9.0)
  counts = np.append(np.ones(500, int), 40)  # One rare kind of session.
  out = clean(scores, counts, np.zeros(501, int), 0.2)
  assert not out.any()
