"""Importances: against Optuna's, and sums over a grid."""

import itertools

import numpy as np
import optuna
import pytest
from optuna.distributions import (
  CategoricalDistribution,
  FloatDistribution,
  IntDistribution,
)
from sklearn.ensemble import RandomForestRegressor

from seqrnn.searching import importance


def trials(space, loss, count=40):
  """Random ones."""
  sampler = optuna.samplers.RandomSampler(seed=0)
  study = optuna.create_study(sampler=sampler)
  for _ in range(count):
    trial = study.ask(space)
    study.tell(trial, loss(**trial.params))
  return study


def test_single_fields_are_as_optuna_has_them():
  """Which knows no logarithmic scale."""
  space = {name: FloatDistribution(-1.0, 2.0) for name in "abc"}
  study = trials(space, lambda a, b, c: a * b + c**2 + a)
  found = importance.shares(study.trials, space)
  evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
  for name, share in evaluator.evaluate(study).items():
    assert found[name,] == pytest.approx(share, rel=1e-6)


def test_shares_are_those_of_sums_over_a_grid(monkeypatch):
  monkeypatch.setattr(importance, "_TREES", 3)
  space = {
    "a": FloatDistribution(1e-3, 1.0, log=True),
    "b": CategoricalDistribution(["x", "y", "z"]),
    "c": IntDistribution(1, 8, log=True),
  }
  study = trials(
    space, lambda a, b, c: np.log(a) * (b == "y") + c * (b == "z"), 12
  )
  found = importance.shares(study.trials, space)
  assert list(found.values()) == sorted(found.values(), reverse=True)
  assert sum(found.values()) < 1 + 1e-9

  # The same trees, asked at the middle of each cell between their thresholds.
  x_ND = np.array(
    [
      [importance._place(space[n], t.params[n]) for n in space]
      for t in study.trials
    ]
  )
  forest = RandomForestRegressor(3, random_state=0)
  forest.fit(x_ND, [t.value for t in study.trials])
  expected = {key: [] for key in found}
  for model in forest.estimators_:
    tree = model.tree_
    cuts = [
      np.unique([0, 1, *tree.threshold[tree.feature == d]]) for d in range(3)
    ]
    middles = [(c[1:] + c[:-1]) / 2 for c in cuts]
    f = model.predict(np.array(list(itertools.product(*middles))))
    f = f.reshape([len(m) for m in middles])
    weights = [np.diff(c) for c in cuts]

    def variance(kept, f=f, weights=weights):
      for d in range(3):
        if d not in kept:
          shape = [-1 if d == e else 1 for e in range(3)]
          f = (f * weights[d].reshape(shape)).sum(d, keepdims=True)
      w = [weights[d] if d in kept else np.ones(1) for d in range(3)]
      W = np.einsum("a,b,c->abc", *w)
      return (W * f**2).sum() - (W * f).sum() ** 2

    for key in found:
      places = ["abc".index(name) for name in key]
      part = variance(places)
      if len(places) == 2:
        part -= sum(variance([place]) for place in places)
      expected[key].append(part / variance([0, 1, 2]))
  for key, parts in expected.items():
    assert found[key] == pytest.approx(np.mean(parts), abs=1e-9)


@pytest.mark.parametrize("log", [False, True])
def test_a_field_that_does_all_has_all(log):
  space = {name: FloatDistribution(1e-4, 1.0, log=log) for name in "ab"}
  study = trials(space, lambda a, b: np.log(a) + 0 * b, 200)
  found = importance.shares(study.trials, space)
  assert found["a",] > 0.9
  assert max(found["b",], found["a", "b"]) < 0.05
