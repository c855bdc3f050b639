"""Selects the sessions that calibrate, and the scores that are combined.

A log without labels has anomalous sessions, also among those that calibrate:
their scores are the highest, so new ones like them have no low p-value. Where
the scores have a second mode, its sessions are left out. Training is unchanged.

A person's answers overrule the cleaning: anomalous sessions are left out, and
normal ones stay. The answers do not change the second mode. Without the
sessions that are known to be anomalous, it may have too few sessions: a first
answer would then put the other sessions of the mode back into the calibration.

Scores are chosen without labels. Anomalies of several kinds are injected into
held-out sessions, and each combination of scores is judged by how well it ranks
them above the unchanged sessions. So a score is chosen for the log at hand: the
largest surprisal finds one wrong event of a short session, an n-gram a wrong
order in a long one.

The best of many combinations is better than chance by chance alone. So half of
the sessions select it, and the other half must confirm that it is better.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from seqrnn.errors import UserError
from seqrnn.logs.detect.conformal import Calibration, combine
from seqrnn.logs.detect.scores import CANDIDATES, STANDARD, Combination

UNANSWERED, NORMAL, ANOMALOUS = 0, 1, 2


class Selection(NamedTuple):
  """The sessions that calibrate, among the R rows of calibration.npz.

  Attributes:
    calibrates: bool [R], whether a session calibrates.
    counts: number of sessions equal to each [R].
    answers: NORMAL, ANOMALOUS or UNANSWERED [R].
  """

  calibrates: np.ndarray
  counts: np.ndarray
  answers: np.ndarray

  def answered(self, answer: int) -> int:
    """The number of sessions with an answer, equal ones included."""
    return int(self.counts[self.answers == answer].sum())

  @property
  def left_out(self) -> int:
    """The number of sessions that do not calibrate."""
    return int(self.counts[~self.calibrates].sum())

  @property
  def cleaned(self) -> int:
    """The number of sessions that cleaning leaves out."""
    return self.left_out - self.answered(ANOMALOUS)


def select(
  arrays: dict[str, np.ndarray],
  contamination: float,
  answers: np.ndarray | None,
) -> Selection:
  """Selects the sessions that calibrate.

  Args:
    arrays: of calibration.npz.
    contamination: as `detect.contamination`.
    answers: of the rows [R]; None: there are none.

  Raises:
    UserError: no session of a model is left.
  """
  counts, model = arrays["counts"], arrays["model"]
  if answers is None:
    answers = np.full(len(counts), UNANSWERED)
  cleaned = clean(
    arrays["score max"],
    counts,
    model,
    # The surprisal of an unknown event is a setting, not a measurement.
    arrays["score unknown"] == 0,
    contamination,
  )
  left_out = cleaned & (answers != NORMAL) | (answers == ANOMALOUS)
  if len(np.unique(model[~left_out])) < len(np.unique(model)):
    raise UserError(
      f"review.csv, detect.contamination={contamination:g}: leave no session of"
      " a fold for its calibration"
    )
  return Selection(~left_out, counts, answers)


# The evidence for a second mode: at least twenty distinct sessions above an
# empty valley. The least of 3,150 random sets with one mode, of seven densities
# and 300 to 5,000 scores, was -6.9; a rare branch of normal sessions has more.
_LOG_P = -14.0
_WIDTH = 1.0  # Nats of a valley, at least: a factor of e in probability.
_DEPTH = 0.2  # Sessions in a valley, at most, per session above it.
_EDGES = 300  # Candidates for each edge of a valley.


def clean(
  scores: np.ndarray,
  counts: np.ndarray,
  model: np.ndarray,
  usable: np.ndarray,
  contamination: float,
) -> np.ndarray:
  """Finds the second mode of the scores, if there is a clear one.

  Scores of different models are aligned by a quantile that is in the first mode
  of each: by chance, a model may have twice the share `contamination`. A valley
  is an interval of the tail with k distinct sessions, below an interval of the
  same width with u. If the density did not rise, k would have at least the
  binomial distribution of k + u draws of 1/2. Of the valleys that are a nat
  wide, with k at most u / 5 and, above them, at most the share `contamination`
  of the sessions, the one with the least p-value is taken, if the logarithm of
  this p-value is below -14.

  Args:
    scores: surprisals of distinct sessions in nats [D].
    counts: number of sessions equal to each [D].
    model: number of the model of each, from 0 [D].
    usable: whether a session has a score of the same kind as the others [D].
    contamination: the largest share of the sessions above the valley.

  Returns:
    whether each session is left out [D].
  """
  none = np.zeros(len(scores), bool)
  if not contamination or not usable.any():
    return none
  aligned = np.full(len(scores), -np.inf)
  for k in range(model.max() + 1):
    some = usable & (model == k)
    if some.any():
      aligned[some] = scores[some] - np.quantile(
        scores[some],
        max(1 - 2 * contamination, 0.5),
        weights=counts[some],
        method="inverted_cdf",
      )
  # Equal scores are one point, of as many distinct sessions.
  points, index = np.unique(aligned[usable], return_inverse=True)
  valley = _valley(
    points,
    np.bincount(index),
    np.bincount(index, counts[usable]),
    contamination * counts.sum(),
  )
  if valley is None:
    return none
  low, log_p = valley
  return (aligned > low) & (log_p < _LOG_P)


def _valley(
  points: np.ndarray, distinct: np.ndarray, sessions: np.ndarray, most: float
) -> tuple[float, float] | None:
  """The lower edge of the clearest valley, and the logarithm of its p-value.

  Args:
    points: the distinct scores, rising.
    distinct: number of distinct sessions at each.
    sessions: number of sessions at each.
    most: sessions above the valley, at most.
  """
  above = np.cumsum(sessions[::-1])[::-1]
  below = np.append(0, np.cumsum(distinct))
  lows = np.flatnonzero(above <= 2 * most)[:-1]
  highs = np.flatnonzero(above <= most)
  lows, highs = _some(lows), _some(highs)
  pairs = np.stack(np.meshgrid(lows, highs, indexing="ij")).reshape(2, -1)
  low, high = pairs[:, pairs[0] < pairs[1]]
  if not len(low):
    return None
  width = points[high] - points[low]
  inside = below[high] - below[low + 1]
  end = np.searchsorted(points, points[high] + width, side="right")
  over = below[end] - below[high]
  log_p = stats.binom.logcdf(inside, inside + over, 0.5)
  clear = (width >= _WIDTH) & (inside <= _DEPTH * over)
  log_p = np.where(clear, log_p, 0.0)
  best = int(np.argmin(log_p))
  return float(points[low[best]]), float(log_p[best])


def _some(indices: np.ndarray) -> np.ndarray:
  """At most `_EDGES` of the indices, evenly spaced."""
  if len(indices) <= _EDGES:
    return indices
  return indices[np.linspace(0, len(indices) - 1, _EDGES).astype(int)]


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


class Choice(NamedTuple):
  """A combination, and the average precision for which it was chosen.

  Attributes:
    combination: the chosen one.
    precision: its mean average precision over the kinds of injected anomalies,
      of the sessions that confirm; NaN if nothing was judged.
    standard: that of STANDARD.
    replaced: whether it replaces STANDARD. The sessions that chose it must not
      calibrate it.
  """

  combination: Combination
  precision: float = np.nan
  standard: float = np.nan
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
  precision, standard = (_mean_precision(confirm, c) for c in (best, STANDARD))
  chance = float(np.mean([_chance(int(m.counts.sum())) for m in confirm]))

  def gain(models: Sequence[Judged]) -> float:
    factored = _FACTOR * _mean_precision(models, STANDARD)
    return _mean_precision(models, best) - max(factored, chance)

  error = np.std(
    [gain([_resample(m, rng) for m in confirm]) for _ in range(_DRAWS)]
  )
  if gain(confirm) <= _ERRORS * error:
    return Choice(STANDARD, standard, standard)
  return Choice(best, precision, standard, replaced=True)


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
