"""Error rates without labels: thresholds from scores of normal data.

The p-value of a score is the share of normal scores that are at least as high
(split conformal: Vovk et al. 2005; for outliers Bates et al. 2023). For every
model, at most a share `rate` of new normal data has p <= rate.
"""

import math

import numpy as np
from scipy import stats

_TAIL = 0.05  # The share of the normal scores that is the tail.
_MIN_TAIL = 10  # Scores in the tail, at least.


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

  @property
  def resolution(self) -> float:
    """The smallest p-value, hence the smallest attainable rate."""
    return 1 / (self.n + 1)

  def p_values(self, scores: np.ndarray) -> np.ndarray:
    """(1 + #{normal >= s}) / (n + 1) for each score s."""
    return (1 + self._count_at_least(scores)) / (self.n + 1)

  def own_p_values(self, scores: np.ndarray) -> np.ndarray:
    """p-values of the normal scores, each against all other normal scores."""
    return self._count_at_least(scores) / self.n

  def _count_at_least(self, scores: np.ndarray) -> np.ndarray:
    """#{normal >= s} for each score s."""
    return self.above[np.searchsorted(self.scores, scores)]

  def threshold(self, rate: float) -> float:
    """Scores above it have p <= rate; infinity if no score can have that p."""
    # The number of normal scores that may be at least as high.
    most = math.floor(rate * (self.n + 1) * (1 + 1e-12)) - 1
    if most < 0:
      return math.inf
    if most >= self.n:
      return -math.inf
    return float(self.scores[np.argmax(self.above[1:] <= most)])

  def interval(self, rate: float) -> tuple[float, float]:
    """A 95% interval of the true false-alarm rate at a nominal rate.

    The rate of a conformal threshold has a Beta distribution (Vovk 2012).
    """
    k = math.floor(rate * (self.n + 1) * (1 + 1e-12))
    if k < 1:
      return 0.0, 0.0
    if k > self.n:
      return 1.0, 1.0
    low, high = stats.beta.ppf([0.025, 0.975], k, self.n + 1 - k)
    return float(low), float(high)

  def neg_log_p(self, scores: np.ndarray, own: bool = False) -> np.ndarray:
    """-log p, extrapolated above the highest normal score.

    The extrapolation makes scores above all normal scores differ. Its p decays
    exponentially with the mean excess of the tail of the normal scores (peaks
    over a threshold: Pickands 1975).

    Args:
      scores: to convert.
      own: whether these are the normal scores, each against all others.
    """
    if not own:
      return self._excess(scores) - np.log(self.p_values(scores))
    neg_log_p = -np.log(self.own_p_values(scores))
    if self.above[-2] == 1:  # The highest score is above all others.
      counts = -np.diff(self.above)
      others = Calibration(self.scores[:-1], counts[:-1])
      highest = scores == self.scores[-1]
      neg_log_p[highest] += others._excess(scores[highest])
    return neg_log_p

  def _excess(self, scores: np.ndarray) -> np.ndarray:
    """The excess over all normal scores, in units of the tail's mean excess."""
    finite = self.scores[np.isfinite(self.scores)]
    excess = np.zeros(len(scores))
    if len(finite):
      beyond = scores > self.scores[-1]
      excess[beyond] = scores[beyond] - self.scores[-1]
      excess /= self._scale(finite)
    return excess

  def _scale(self, finite: np.ndarray) -> float:
    """Mean excess of the tail over the highest score below it."""
    counts = -np.diff(self.above)[: len(finite)]
    wanted = max(_TAIL * self.n, _MIN_TAIL)
    inside = np.cumsum(counts[::-1])[::-1] <= wanted
    inside[-1] = True
    tail, weights = finite[inside], counts[inside]
    below = finite[~inside][-1] if not inside.all() else tail[0]
    excess = np.average(tail - below, weights=weights)
    return float(excess) or float(np.std(finite)) or 1.0


def benjamini_hochberg(p: np.ndarray, rate: float) -> np.ndarray:
  """Rejections whose false discovery rate is at most `rate`.

  Benjamini & Hochberg 1995; valid for conformal p-values, whose dependence is
  positive (Bates et al. 2023).
  """
  return stats.false_discovery_control(p) <= rate


def combine(neg_log_p: list[np.ndarray], how: str) -> np.ndarray:
  """Combines several -log p of the same items into one score.

  The result is not a -log p: it must be calibrated again.

  Args:
    neg_log_p: -log p of each score.
    how: min, the least p-value; fisher, the product of all p-values (Fisher
      1925).
  """
  stacked = np.stack(neg_log_p)
  return stacked.max(axis=0) if how == "min" else stacked.sum(axis=0)
