"""Anomalies in a calibration: left out where they stand apart, else not."""

import numpy as np
import pytest

from seqrnn.logs.detect.selection import clean


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


def left_out(scores, model, most=0.1, usable=None):
  every = np.ones(len(scores), int)
  usable = every > 0 if usable is None else usable
  return clean(scores, every, model, usable, most).left_out


@pytest.mark.parametrize("seed", range(5))
def test_a_second_mode_is_left_out(seed):
  scores, model, anomalous = scores_of(np.random.default_rng(seed), 20)
  found = left_out(scores, model)
  assert found[anomalous].mean() > 0.95 and found[~anomalous].mean() < 0.01
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
  every = np.ones(501, bool)
  found = clean(scores, counts, np.zeros(501, int), every, 0.2)
  assert not found.left_out.any()


def test_unusable_sessions_stay():
  rng = np.random.default_rng(0)
  scores = np.append(rng.gamma(3, 0.5, 500), np.full(30, 20.0))
  usable = scores < 20
  assert not left_out(scores, np.zeros(530, int), 0.1, usable).any()
  assert not left_out(scores, np.zeros(530, int), 0.1, scores > 99).any()
