"""Chooses the scores that are combined, without labels.

Anomalies of several kinds are injected into held-out sessions, and each
combination of scores is judged by how well it ranks them above the sessions as
they are. So a score is chosen for the log at hand: the largest surprisal finds
one wrong event of a short session, an n-gram a wrong order in a long one.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from seqrnn.detection.conformal import Calibration, combine

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


class Combination(NamedTuple):
  """Scores and how they are combined, as `detect.combine`."""

  names: tuple[str, ...]
  how: str


STANDARD = Combination(("max", "mean", "count_vector"), "fisher")


class Choice(NamedTuple):
  """A combination, and the average precision for which it was chosen.

  Attributes:
    combination: the chosen one.
    precision: its mean average precision over the kinds of injected anomalies;
      NaN if the user has chosen it.
    standard: that of STANDARD.
    alone: that of each score alone.
  """

  combination: Combination
  precision: float = np.nan
  standard: float = np.nan
  alone: dict[str, float] = {}


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

  It is STANDARD unless another one is better by a factor, or if no model can
  judge: a model judges that has normal and injected sessions.
  """
  models = [m for m in models if len(m.counts) and len(m.kinds)]
  if not models:
    return Choice(STANDARD)
  found = {
    combination: float(np.mean([_precision(m, combination) for m in models]))
    for combination in _combinations()
  }
  best = max(found, key=lambda combination: found[combination])
  if found[best] < _FACTOR * found[STANDARD]:
    best = STANDARD
  alone = {c.names[0]: x for c, x in found.items() if len(c.names) == 1}
  return Choice(best, found[best], found[STANDARD], alone)


def _combinations() -> list[Combination]:
  return [
    Combination(names, how)
    for count in range(1, _MOST + 1)
    for names in itertools.combinations(CANDIDATES, count)
    for how in (("fisher", "min") if count > 1 else ("fisher",))
  ]


def _precision(model: Judged, combination: Combination) -> float:
  """The mean over the kinds of the average precision."""
  scores: Callable = lambda by_name: combine(
    [by_name[name] for name in combination.names], combination.how
  )
  normal = Calibration(scores(model.normal), model.counts)
  injected = scores(model.injected)
  found = []
  for kind in np.unique(model.kinds):
    some = injected[model.kinds == kind]
    # Average precision is the mean, over the anomalies, of the precision at
    # the threshold that just flags each.
    true = _SHARE * Calibration(some).count_at_least(some) / len(some)
    higher = normal.count_at_least(some) / normal.n
    false = (1 - _SHARE) * np.maximum(higher - _TRIMMED, 0)
    found.append(np.mean(true / (true + false)))
  return float(np.mean(found))
