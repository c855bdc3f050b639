"""How much of a search's losses each field explains: a functional ANOVA."""

import itertools
import math
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial

from seqrnn.searching.space import Space

_TREES = 64


def shares(
  trials: list[FrozenTrial], space: Space
) -> dict[tuple[str, ...], float]:
  r"""The share of each field, and of each pair, in the variance of the loss.

  A random forest predicts the loss from the fields, and the variance of each
  of its trees over the whole space is split (Hutter et al. 2014) into the
  effect of each field and the interaction of each pair,

  .. math::
    V_i &= \operatorname{Var}_{x_i} E[f | x_i] \\
    V_{ij} &= \operatorname{Var}_{x_i, x_j} E[f | x_i, x_j] - V_i - V_j

  each divided by Var f; the result is the mean of all trees. Optuna's evaluator
  has no pairs, and it measures the space on a linear scale; here the scale is
  the one that the search draws from, which may be logarithmic.

  Args:
    trials: finished trials.
    space: their search space.

  Returns:
    (name,) or (name, name) -> share, the largest first. Interactions of more
    than two fields are left out.
  """
  from sklearn.ensemble import RandomForestRegressor  # It takes a second.

  x_ND = np.array(
    [[_place(space[name], t.params[name]) for name in space] for t in trials]
  )
  forest = RandomForestRegressor(_TREES, random_state=0)
  forest.fit(x_ND, [trial.value for trial in trials])
  D = len(space)
  subsets = [(i,) for i in range(D)] + list(itertools.combinations(range(D), 2))
  found = [_split(model.tree_, D, subsets) for model in forest.estimators_]
  found = [parts for parts in found if parts is not None]
  means = np.mean(found or np.zeros((1, len(subsets))), axis=0)
  names = list(space)
  named = {
    tuple(names[i] for i in subset): float(mean)
    for subset, mean in zip(subsets, means, strict=True)
  }
  return dict(sorted(named.items(), key=lambda item: -item[1]))


def _place(found: Any, value: Any) -> float:
  """The place of a value in its distribution's range, from 0 to 1."""
  if isinstance(found, CategoricalDistribution):
    return (found.to_internal_repr(value) + 0.5) / len(found.choices)
  low, high = found.low, found.high
  if isinstance(found, IntDistribution):  # Each number has equal room.
    low, high = low - 0.5, high + 0.5
  if found.log:
    low, high, value = math.log(low), math.log(high), math.log(value)
  return (value - low) / (high - low)


def _split(
  tree: Any, D: int, subsets: list[tuple[int, ...]]
) -> list[float] | None:
  """The share of each subset of D fields in a tree; None: it has no variance.

  Args:
    tree: scikit-learn's, over the unit cube.
    D: how many fields there are.
    subsets: one field or two; both fields of a pair come before it.
  """
  # L leaves, each a box of the cube with one value.
  boxes = []
  left = [(0, np.zeros(D), np.ones(D))]
  while left:
    node, low_D, high_D = left.pop()
    d = tree.feature[node]
    if d < 0:
      boxes.append((tree.value[node].item(), low_D, high_D))
      continue
    below_D, above_D = high_D.copy(), low_D.copy()
    below_D[d] = above_D[d] = tree.threshold[node]
    left.append((tree.children_left[node], low_D, below_D))
    left.append((tree.children_right[node], above_D, high_D))
  value_L, low_LD, high_LD = (
    np.array(part) for part in zip(*boxes, strict=True)
  )
  size_LD = high_LD - low_LD
  value_L -= value_L @ size_LD.prod(axis=1)  # The mean becomes 0.
  variance = value_L**2 @ size_LD.prod(axis=1)
  if variance <= 0:
    return None
  # The square of a mean over a field is a sum over pairs of leaves of their
  # sizes there; where a field is kept, of what two leaves have in common.
  apart_DLL = size_LD.T[:, :, None] * size_LD.T[:, None]
  common_DLL = np.minimum(high_LD.T[:, :, None], high_LD.T[:, None])
  common_DLL -= np.maximum(low_LD.T[:, :, None], low_LD.T[:, None])
  common_DLL = np.maximum(common_DLL, 0)
  parts = {}
  for subset in subsets:
    kept_D = np.isin(np.arange(D), subset)
    weight_LL = np.where(kept_D[:, None, None], common_DLL, apart_DLL).prod(0)
    part = value_L @ weight_LL @ value_L / variance
    parts[subset] = part - sum(parts[(i,)] for i in subset if len(subset) > 1)
  return list(parts.values())
