"""The choice among scores: by average precision, as scikit-learn has it."""

import numpy as np
import pytest

from seqrnn.logs.detect import selection


def judged(rng, good, n=300, kinds=2):
  """A model for which the scores `good` find the anomalies, others do not."""
  normal = {name: rng.exponential(size=n) for name in selection.CANDIDATES}
  injected = {
    name: rng.exponential(size=40 * kinds) + 4 * (name in good)
    for name in selection.CANDIDATES
  }
  kind = np.repeat(np.arange(kinds), 40)
  return selection.Judged(normal, np.ones(n), injected, kind)


def test_the_score_that_finds_the_anomalies_is_chosen():
  rng = np.random.default_rng(0)
  models = [judged(rng, {"markov_5"}) for _ in range(3)]
  found = selection.choose(models)
  assert "markov_5" in found.combination.names
  assert found.precision > 1.15 * found.standard
  assert max(found.alone, key=lambda name: found.alone[name]) == "markov_5"


def test_without_a_better_one_it_is_the_standard():
  rng = np.random.default_rng(0)
  every = set(selection.STANDARD.names)
  assert (
    selection.choose([judged(rng, every)]).combination == selection.STANDARD
  )
  # Without any anomaly that could be told apart, too.
  same = judged(rng, set())
  zeros = {name: np.zeros(80) for name in selection.CANDIDATES}
  none = same._replace(normal=zeros, counts=np.ones(80), injected=zeros)
  assert selection.choose([none]).combination == selection.STANDARD


def test_noise_does_not_replace_the_standard():
  rng = np.random.default_rng(1)
  chosen = [selection.choose([judged(rng, set(), n=100)]) for _ in range(30)]
  assert sum(found.replaced for found in chosen) <= 2
  assert all(
    c.replaced == (c.combination != selection.STANDARD) for c in chosen
  )
  # Its precision is that of chance.
  level = [
    selection._precision(judged(rng, set()), selection.STANDARD) for _ in chosen
  ]
  assert selection._chance(300) == pytest.approx(np.mean(level), rel=0.1)


def test_the_highest_normal_scores_do_not_count(monkeypatch):
  """They may be of anomalous sessions, which a good score ranks high."""
  model = judged(np.random.default_rng(0), {"max"})
  model.normal["max"][:5] = 99.0  # Of 300.
  one = selection.Combination(("max",), "fisher")
  found = selection._precision(model, one)
  monkeypatch.setattr(selection, "_TRIMMED", 0.0)
  assert found > selection._precision(model, one) + 0.2


def test_without_a_model_that_can_judge_it_is_the_standard():
  nothing = np.zeros(0)
  assert selection.choose([]).combination == selection.STANDARD
  none = selection.Judged({}, nothing, {}, nothing)
  good = judged(np.random.default_rng(0), {"markov_5"})
  assert selection.choose([good, none]) == selection.choose([good])


def test_average_precision(monkeypatch):
  monkeypatch.setattr(selection, "_TRIMMED", 0.0)
  metrics = pytest.importorskip("sklearn.metrics")
  rng = np.random.default_rng(0)
  model = judged(rng, {"max"}, n=380, kinds=1)
  # 40 anomalies beside 380 sessions, weighted as 5 % of all.
  for name in ("max", "mean"):
    combination = selection.Combination((name,), "fisher")
    normal, injected = (
      model.normal[name].round(1),
      model.injected[name].round(1),
    )
    rounded = model._replace(normal={name: normal}, injected={name: injected})
    scores = np.append(normal, injected)
    labels = np.append(np.zeros(380), np.ones(40))
    weights = np.append(np.full(380, 0.95 / 380), np.full(40, 0.05 / 40))
    expected = metrics.average_precision_score(
      labels, scores, sample_weight=weights
    )
    found = selection._precision(rounded, combination)
    assert found == pytest.approx(expected)
