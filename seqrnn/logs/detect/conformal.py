"""Error rates without labels: thresholds from scores of normal data.

The p-value of a score is the share of normal scores that are at least as high
(split conformal: Vovk et al. 2005; for outliers Bates et al. 2023). For every
model, at most a share `rate` of new normal data has p <= rate.

With several models, each with normal data of its own that it has not seen, a
new score of each model is compared with the normal scores of that model alone,
and the counts are added (cross-conformal: Vovk 2015). Then at most a share of
about twice `rate` is guaranteed (Barber et al. 2021, for any models); the share
is near `rate` where the models agree.
"""

import functools
import math
from collections.abc import Callable, Iterable

import numpy as np

from seqrnn.config.field import Config

Marks = np.ndarray | bool  # Of each, or of all.
_EVENT_RATE = 0.001  # The false-alarm rate of events; see `event_rate`.
_TAIL = 0.05  # The share of the normal scores that is the tail.
_MIN_TAIL = 10  # Scores in the tail, at least.
_SHAPE = 0.5  # Of the tail beyond them; that of an exponential tail is 0.
_HALF = 0.5  # Of the highest scores; those that are not in the tail: the body.


class Calibration:
  """Scores of normal data; higher is more anomalous.

  Attributes:
    n: number of scores.
    scores: the distinct scores, sorted.
    above: float64 [distinct + 1]: number of scores that are at least the i-th.
  """

  def __init__(self, scores: np.ndarray, counts: np.ndarray | None = None):
    """`counts`: number of occurrences of each score; None: 1 for each."""
    self.scores, inverse = np.unique(scores, return_inverse=True)
    counts = np.bincount(inverse, counts, minlength=len(self.scores))
    self.above = np.append(np.cumsum(counts[::-1])[::-1], 0.0)
    self.n = int(self.above[0])

  def p_values(self, scores: np.ndarray) -> np.ndarray:
    """(1 + #{normal >= s}) / (n + 1) for each score s."""
    return (1 + self.count_at_least(scores)) / (self.n + 1)

  def count_at_least(self, scores: np.ndarray) -> np.ndarray:
    """#{normal >= s} for each score s."""
    return self.above[np.searchsorted(self.scores, scores)]

  def neg_log_p(
    self, scores: np.ndarray, leave_one_out: bool = False
  ) -> np.ndarray:
    """-log p, extrapolated above the highest normal score.

    The extrapolation makes scores above all normal scores differ. Its p decays
    with their excess, in units of the mean excess of the tail of the normal
    scores (peaks over a threshold: Pickands 1975). This tail is heavier than an
    exponential one, so that in a sum no score outweighs all others.

    Args:
      scores: to convert.
      leave_one_out: whether these are the normal scores, each against all
        others.
    """
    if not leave_one_out:
      return self.excess(scores) - np.log(self.p_values(scores))
    neg_log_p = -np.log(self.count_at_least(scores) / self.n)
    # Whether the highest score is above all others.
    if len(self.scores) and self.above[-2] == 1:
      counts = -np.diff(self.above)
      others = Calibration(self.scores[:-1], counts[:-1])
      highest = scores == self.scores[-1]
      neg_log_p[highest] += others.excess(scores[highest])
    return neg_log_p

  def by_body(self, scores: np.ndarray) -> np.ndarray:
    """-log p, in the tail of an exponential distribution as steep as the body.

    Anomalous scores among the normal ones are in the tail, so they change this
    p little. The sum of values of -log p is at least as steep as one.
    """
    if not self.n:
      return np.zeros(scores.shape)
    index = np.searchsorted(-self.above, [-_HALF * self.n, -_TAIL * self.n])
    half, edge = self.scores[np.minimum(index, len(self.scores) - 1)]
    mean = max((edge - half) / np.log(_HALF / _TAIL), 1.0)
    beyond = (scores - edge) / mean - np.log(_TAIL)
    neg_log_p = np.minimum(-np.log(self.p_values(scores)), -np.log(_TAIL))
    return np.where(scores > edge, beyond, neg_log_p)

  def excess(self, scores: np.ndarray) -> np.ndarray:
    """-log of p beyond all normal scores, by a generalized Pareto tail."""
    excess = np.zeros(len(scores))
    if self._scale:
      beyond = scores > self.scores[-1]
      excess[beyond] = scores[beyond] - self.scores[-1]
      excess = np.log1p(_SHAPE * excess / self._scale) / _SHAPE
    return excess

  @functools.cached_property
  def _scale(self) -> float:
    """Mean excess of the tail over the highest score below it; 0: no tail."""
    finite = self.scores[np.isfinite(self.scores)]
    if not len(finite):
      return 0.0
    counts = -np.diff(self.above)[: len(finite)]
    wanted = max(_TAIL * self.n, _MIN_TAIL)
    inside = np.cumsum(counts[::-1])[::-1] <= wanted
    inside[-1] = True
    tail, weights = finite[inside], counts[inside]
    below = finite[~inside][-1] if not inside.all() else tail[0]
    excess = np.average(tail - below, weights=weights)
    return float(excess) or float(np.std(finite)) or 1.0


Convert = Callable[[Calibration, np.ndarray], np.ndarray]


class CrossCalibration:
  """Scores of normal data by K models; each scores data that it has not seen.

  Attributes:
    groups: the normal scores by each model.
    n: number of all scores.
  """

  def __init__(self, groups: list[Calibration]):
    self.groups = groups
    self.n = sum(group.n for group in groups)

  @classmethod
  def by_model(
    cls, scores: np.ndarray, counts: np.ndarray, model: np.ndarray, models: int
  ) -> "CrossCalibration":
    """The calibration of scores, each by the model of a number from 0."""
    some = (model == k for k in range(models))
    return cls([Calibration(scores[s], counts[s]) for s in some])

  @property
  def resolution(self) -> float:
    """The smallest p-value, hence the smallest attainable rate."""
    return 1 / (self.n + 1)

  def p_values(self, scores_KD: Iterable[np.ndarray]) -> np.ndarray:
    """(1 + sum over k of #{normal by k >= score by k}) / (n + 1), [D]."""
    count_KD = self.each(Calibration.count_at_least, scores_KD)
    return (1 + count_KD.sum(axis=0)) / (self.n + 1)

  def flags(self, neg_log_p_D: np.ndarray, rate: float) -> np.ndarray:
    """Whether p <= rate, given -log p, which may be extrapolated [D]."""
    return is_flagged(np.maximum(np.exp(-neg_log_p_D), self.resolution), rate)

  def own_neg_log_p(
    self, scores_R: np.ndarray, model_R: np.ndarray, is_normal: Marks
  ) -> np.ndarray:
    """-log p of scores by one model each, by its normal scores alone [R].

    Args:
      scores_R: to convert.
      model_R: the number of the model of each.
      is_normal: whether each, or every one, is among the normal scores of its
        model, of which it is then left out.
    """
    neg_log_p = np.zeros(len(scores_R))
    for k, group in enumerate(self.groups):
      for leave_one_out in (True, False):
        some = (model_R == k) & (is_normal == leave_one_out)
        neg_log_p[some] = group.neg_log_p(scores_R[some], leave_one_out)
    return neg_log_p

  def beyond(self, scores_KD: np.ndarray) -> tuple[np.ndarray, int]:
    """How many models, of how many, score above all their normal scores [D]."""
    has_normal_K = np.array([group.n > 0 for group in self.groups])
    above_KD = self.each(Calibration.count_at_least, scores_KD) == 0
    return above_KD[has_normal_K].sum(axis=0), int(has_normal_K.sum())

  def each(
    self, function: Convert, scores_KD: Iterable[np.ndarray]
  ) -> np.ndarray:
    """The scores, each converted by the normal ones of its model [K, D]."""
    pairs = zip(self.groups, scores_KD, strict=True)
    return np.stack([function(group, scores_D) for group, scores_D in pairs])

  def own_by_body(
    self, scores_R: np.ndarray, model_R: np.ndarray
  ) -> np.ndarray:
    """-log p by one model each [R], as `Calibration.by_body`."""
    every = self.each(Calibration.by_body, [scores_R] * len(self.groups))
    return every[model_R, np.arange(len(model_R))]

  def neg_log_p(self, scores_KD: np.ndarray) -> np.ndarray:
    """-log p [D], extrapolated where every model's score is above its own.

    The extrapolation is the mean of those of the models.
    """
    p_D = self.p_values(scores_KD)
    excess_D = self.each(Calibration.excess, scores_KD).mean(axis=0)
    return np.where(p_D > self.resolution, 0, excess_D) - np.log(p_D)


def is_flagged(p: np.ndarray, rate: float) -> np.ndarray:
  """Whether p <= rate, whatever the rounding of both."""
  return p <= rate * (1 + 1e-12)


def beta_interval(rate: float, n: int) -> tuple[float, float]:
  """A 95% interval of the true false-alarm rate of one model.

  The rate of a conformal threshold of n independent scores has a Beta
  distribution (Vovk 2012). That of several models, each with scores of its own,
  may be far outside: where they disagree, it is lower.
  """
  k = math.floor(rate * (n + 1) * (1 + 1e-12))
  if k < 1:
    return 0.0, 0.0
  if k > n:
    return 1.0, 1.0
  from scipy import special

  low, high = special.betaincinv(k, n + 1 - k, [0.025, 0.975])
  return float(low), float(high)


def benjamini_hochberg(p: np.ndarray, rate: float) -> np.ndarray:
  """Rejections whose false discovery rate is at most `rate`.

  Benjamini & Hochberg 1995; valid for conformal p-values, whose dependence is
  positive (Bates et al. 2023).
  """
  from scipy import stats

  return stats.false_discovery_control(p) <= rate


def event_rate(settings: Config) -> float:
  """The false-alarm rate of events, by `config.detect`."""
  return settings.rate if settings.rule == "events" else _EVENT_RATE
