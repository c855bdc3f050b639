"""Chooses the scores that are combined, without labels.

Anomalies of several kinds are injected into held-out sessions, and each
combination of scores is judged by how well it ranks them above the sessions as
they are. So a score is chosen for the log at hand: the largest surprisal finds
one wrong event of a short session, an n-gram a wrong order in a long one.

The best of many combinations is better than chance by chance alone. So half of
the sessions select it, and the other half must confirm that it is better.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.logs.detect.conformal import Calibration, combine

CANDIDATES = (
  *("max", "mean", "top_mean", "count_vector"),
  *("markov_2", "markov_3", "markov_5", "stide"),
)
_MOST = 3  # Scores of a combination.
# By which a combination must be better than the standard one: real anomalies
# differ from injected ones.
_FACTOR = 1.15
# The highest normal scores may be of anomalous sessions, and a score that ranks
# them high must not suffer for it.
_TRIMMED = 0.02
_SHARE = 0.05  # Of the sessions that are anomalous, for the precision.
_FEWEST = 20  # Sessions of a model that can judge.
_ERRORS = 2.0  # Standard errors by which a combination must be better.
_DRAWS = 100  # Of the bootstrap, for a standard error.


class Combination(NamedTuple):
  """Scores and how they are combined, as `detect.combine`."""

  names: tuple[str, ...]
  how: str


STANDARD = Combination(("max", "mean", "count_vector"), "fisher")


class Choice(NamedTuple):
  """A combination, and the average precision for which it was chosen.

  Attributes:
    combination: the chosen one.
    precision: its mean average precision over the kinds of injected anomalies,
      of the sessions that confirm; NaN if nothing was judged.
    standard: that of STANDARD.
    alone: that of each score alone, of the sessions that select.
    replaced: whether it replaces STANDARD. The sessions that chose it must not
      calibrate it.
  """

  combination: Combination
  precision: float = np.nan
  standard: float = np.nan
  alone: dict[str, float] = {}
  replaced: bool = False


class Judged(NamedTuple):
  """-log p of sessions by one model, for each score.

  Attributes:
    normal: name -> of its held-out sessions.
    counts: number of sessions equal to each of them.
    injected: name -> of the sessions with injected anomalies.
    kinds: number of the kind of each.
  """

  normal: dict[str, np.ndarray]
  counts: np.ndarray
  injected: dict[str, np.ndarray]
  kinds: np.ndarray


def choose(models: list[Judged]) -> Choice:
  """The combination that ranks injected anomalies best.

  It is STANDARD unless the best one is better than chance, and than STANDARD by
  a factor, by two standard errors. A model judges that has normal and injected
  sessions, not too few.

  Args:
    models: with sessions that do not calibrate the combination if it replaces
      STANDARD.
  """
  models = [m for m in models if min(m.counts.sum(), len(m.kinds)) >= _FEWEST]
  if not models:
    return Choice(STANDARD)
  rng = np.random.default_rng(0)
  select, confirm = zip(*(_halves(m, rng) for m in models), strict=True)
  precisions = {c: _mean_precision(select, c) for c in _combinations()}
  best = max(precisions, key=lambda combination: precisions[combination])
  alone = {c.names[0]: x for c, x in precisions.items() if len(c.names) == 1}
  precision, standard = (_mean_precision(confirm, c) for c in (best, STANDARD))
  chance = float(np.mean([_chance(int(m.counts.sum())) for m in confirm]))

  def gain(models: Sequence[Judged]) -> float:
    factored = _FACTOR * _mean_precision(models, STANDARD)
    return _mean_precision(models, best) - max(factored, chance)

  error = np.std(
    [gain([_resample(m, rng) for m in confirm]) for _ in range(_DRAWS)]
  )
  if gain(confirm) <= _ERRORS * error:
    return Choice(STANDARD, standard, standard, alone)
  return Choice(best, precision, standard, alone, replaced=True)


def _halves(model: Judged, rng: np.random.Generator) -> tuple[Judged, Judged]:
  """Random halves of the sessions of a model."""
  counts = model.counts.astype(np.int64)
  first = rng.multivariate_hypergeometric(
    counts, counts.sum() // 2, method="marginals"
  )
  order, half = rng.permutation(len(model.kinds)), len(model.kinds) // 2
  return (
    _take(model, first, order[:half]),
    _take(model, counts - first, order[half:]),
  )


def _resample(model: Judged, rng: np.random.Generator) -> Judged:
  """As many sessions of a model, drawn with replacement."""
  total, size = int(model.counts.sum()), len(model.kinds)
  counts = rng.multinomial(total, model.counts / total)
  return _take(model, counts, rng.integers(size, size=size))


def _take(model: Judged, counts: np.ndarray, injected: np.ndarray) -> Judged:
  """A model with other numbers of normal sessions, and some injected ones."""
  return Judged(
    model.normal,
    counts,
    {name: x[injected] for name, x in model.injected.items()},
    model.kinds[injected],
  )


def _combinations() -> list[Combination]:
  return [
    Combination(names, how)
    for count in range(1, _MOST + 1)
    for names in itertools.combinations(CANDIDATES, count)
    for how in (("fisher", "min") if count > 1 else ("fisher",))
  ]


def _mean_precision(
  models: Sequence[Judged], combination: Combination
) -> float:
  return float(np.mean([_precision(m, combination) for m in models]))


def _precision(model: Judged, combination: Combination) -> float:
  """The mean over the kinds of the average precision."""
  scores: Callable = lambda by_name: combine(
    [by_name[name] for name in combination.names], combination.how
  )
  normal = Calibration(scores(model.normal), model.counts)
  injected = scores(model.injected)
  by_kind = []
  for kind in np.unique(model.kinds):
    some = injected[model.kinds == kind]
    # Average precision is the mean, over the anomalies, of the precision at
    # the threshold that just flags each.
    true = Calibration(some).count_at_least(some) / len(some)
    higher = normal.count_at_least(some) / normal.n
    by_kind.append(np.mean(_precision_at(true, higher)))
  return float(np.mean(by_kind))


def _precision_at(true: np.ndarray, false: np.ndarray) -> np.ndarray:
  """The precision where a share of anomalies and of normal sessions is flagged.

  Both are flagged by the same thresholds.
  """
  flagged = (1 - _SHARE) * np.maximum(false - _TRIMMED, 0)
  return _SHARE * true / (_SHARE * true + flagged)


def _chance(n: int) -> float:
  """The average precision of a score that is noise, with n normal sessions."""
  higher = np.arange(n + 1)
  return float(np.mean(_precision_at((higher + 1) / (n + 1), higher / n)))
