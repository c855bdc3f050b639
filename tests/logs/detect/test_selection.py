"""Selection: the sessions that calibrate, and the scores that are combined."""

import numpy as np
import pytest

from seqrnn.logs.detect import selection
from seqrnn.logs.detect.scores import CANDIDATES, STANDARD, Combination
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
  return clean(scores, every, model, usable, most)


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
  every = np.ones(501, bool)
  out = clean(scores, counts, np.zeros(501, int), every, 0.2)
  assert not out.any()


def judged(rng, good, n=300, kinds=2):
  """A model for which the scores `good` find the anomalies, others do not."""
  normal = {name: rng.exponential(size=n) for name in CANDIDATES}
  injected = {
    name: rng.exponential(size=40 * kinds) + 4 * (name in good)
    for name in CANDIDATES
  }
  kind = np.repeat(np.arange(kinds), 40)
  return selection.Judged(normal, np.ones(n), injected, kind)


def test_the_score_that_finds_the_anomalies_is_chosen():
  rng = np.random.default_rng(0)
  models = [judged(rng, {"markov_5"}) for _ in range(3)]
  choice = selection.choose(models)
  assert "markov_5" in choice.combination.names
  assert choice.precision > 1.15 * choice.standard


def test_without_a_better_one_it_is_the_standard():
  rng = np.random.default_rng(0)
  every = set(STANDARD.names)
  assert selection.choose([judged(rng, every)]).combination == STANDARD
  # Without any anomaly that could be told apart, too.
  same = judged(rng, set())
  zeros = {name: np.zeros(80) for name in CANDIDATES}
  none = same._replace(normal=zeros, counts=np.ones(80), injected=zeros)
  assert selection.choose([none]).combination == STANDARD


def test_noise_does_not_replace_the_standard():
  rng = np.random.default_rng(1)
  chosen = [selection.choose([judged(rng, set(), n=100)]) for _ in range(30)]
  assert sum(choice.replaced for choice in chosen) <= 2
  assert all(c.replaced == (c.combination != STANDARD) for c in chosen)
  # Its precision is that of chance.
  level = [selection._precision(judged(rng, set()), STANDARD) for _ in chosen]
  assert selection._chance(300) == pytest.approx(np.mean(level), rel=0.1)


def test_average_precision(monkeypatch):
  monkeypatch.setattr(selection, "_TRIMMED", 0.0)
  metrics = pytest.importorskip("sklearn.metrics")
  rng = np.random.default_rng(0)
  model = judged(rng, {"max"}, n=380, kinds=1)
  # 40 anomalies beside 380 sessions, weighted as 5 % of all.
  labels = np.arange(420) >= 380
  weights = np.where(labels, 0.05 / 40, 0.95 / 380)
  for name in ("max", "mean"):
    pair = [x[name].round(1) for x in (model.normal, model.injected)]
    normal, injected = ({name: scores} for scores in pair)
    rounded = model._replace(normal=normal, injected=injected)
    expected = metrics.average_precision_score(
      labels, np.concatenate(pair), sample_weight=weights
    )
    precision = selection._precision(rounded, Combination((name,), "fisher"))
    assert precision == pytest.approx(expected)
