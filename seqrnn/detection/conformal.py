"""Error rates without labels: thresholds from scores of normal data.

A score is flagged where few of the normal ones are as high. That share is a
p-value (split conformal: Vovk et al. 2005; for outliers Bates et al. 2023): of
new normal data, no more than `rate` have p <= rate, whatever the model.
"""

import math

import numpy as np
from scipy import stats

_TAIL = 0.05  # Share of the normal scores that say how the others go on.
_FEWEST = 10  # Of them, at least.


class Calibration:
  """Scores of normal data, higher is odder.

  Attributes:
    n: how many there are.
    scores: the distinct ones, in order.
    above: float64 [distinct + 1]: how many scores are at least the i-th.
  """

  def __init__(self, scores: np.ndarray, counts: np.ndarray | None = None):
    """`counts`: how often each score comes; None: once."""
    self.scores, inverse = np.unique(scores, return_inverse=True)
    counts = np.bincount(inverse, counts, minlength=len(self.scores))
    self.above = np.append(np.cumsum(counts[::-1])[::-1], 0.0)
    self.n = int(self.above[0])

  @property
  def resolution(self) -> float:
    """The smallest p-value, and so the smallest rate that can be asked for."""
    return 1 / (self.n + 1)

  def p_values(self, scores: np.ndarray) -> np.ndarray:
    """How likely normal data score as high: (1 + #{normal >= s}) / (n + 1)."""
    return (1 + self._as_high(scores)) / (self.n + 1)

  def own_p_values(self, scores: np.ndarray) -> np.ndarray:
    """Those of the normal scores themselves, each against the others."""
    return self._as_high(scores) / self.n

  def _as_high(self, scores: np.ndarray) -> np.ndarray:
    return self.above[np.searchsorted(self.scores, scores)]

  def threshold(self, rate: float) -> float:
    """What a score must exceed to have p <= rate; infinity where none can."""
    most = math.floor(rate * (self.n + 1) * (1 + 1e-12)) - 1  # As high.
    if most < 0:
      return math.inf
    if most >= self.n:
      return -math.inf
    return float(self.scores[np.argmax(self.above[1:] <= most)])

  def interval(self, rate: float) -> tuple[float, float]:
    """Where the true rate is in 95 of 100 cases, for so many normal scores.

    By the Beta distribution of a conformal threshold's rate (Vovk 2012).
    """
    k = math.floor(rate * (self.n + 1) * (1 + 1e-12))
    if k < 1:
      return 0.0, 0.0
    if k > self.n:
      return 1.0, 1.0
    low, high = stats.beta.ppf([0.025, 0.975], k, self.n + 1 - k)
    return float(low), float(high)

  def neg_log_p(self, scores: np.ndarray, own: bool = False) -> np.ndarray:
    """-log p, told apart also beyond all normal scores.

    There p falls as an exponential distribution would, of the mean excess that
    the highest normal scores have over the lowest of them (peaks over a
    threshold: Pickands 1975).

    Args:
      scores: to look at.
      own: they are the normal ones themselves, each against the others.
    """
    if not own:
      return self._excess(scores) - np.log(self.p_values(scores))
    neg_log_p = -np.log(self.own_p_values(scores))
    if self.above[-2] == 1:  # The highest one is beyond all others, too.
      counts = -np.diff(self.above)
      others = Calibration(self.scores[:-1], counts[:-1])
      highest = scores == self.scores[-1]
      neg_log_p[highest] += others._excess(scores[highest])
    return neg_log_p

  def _excess(self, scores: np.ndarray) -> np.ndarray:
    """How far they are beyond all normal ones, in units of their tail."""
    finite = self.scores[np.isfinite(self.scores)]
    excess = np.zeros(len(scores))
    if len(finite):
      beyond = scores > self.scores[-1]
      excess[beyond] = scores[beyond] - self.scores[-1]
      excess /= self._scale(finite)
    return excess

  def _scale(self, finite: np.ndarray) -> float:
    counts = -np.diff(self.above)[: len(finite)]
    wanted = max(_TAIL * self.n, _FEWEST)
    inside = np.cumsum(counts[::-1])[::-1] <= wanted
    inside[-1] = True
    tail, weights = finite[inside], counts[inside]
    # Over the highest score that is not among them.
    below = finite[~inside][-1] if not inside.all() else tail[0]
    excess = np.average(tail - below, weights=weights)
    return float(excess) or float(np.std(finite)) or 1.0


def benjamini_hochberg(p: np.ndarray, rate: float) -> np.ndarray:
  """Which to flag so that at most `rate` of them, on average, are normal.

  Benjamini & Hochberg 1995; conformal p-values depend on each other in a way
  that it allows (Bates et al. 2023).
  """
  order = np.sort(p)
  under = np.flatnonzero(order <= rate * np.arange(1, len(p) + 1) / len(p))
  return p <= order[under[-1]] if len(under) else np.zeros(len(p), bool)


def combine(neg_log_p: list[np.ndarray], how: str) -> np.ndarray:
  """One score of several -log p of the same things.

  Args:
    neg_log_p: of each score.
    how: min, the least p-value; fisher, the product of all (Fisher 1925). No p
      of its own: it must be calibrated, too.
  """
  stacked = np.stack(neg_log_p)
  return stacked.max(axis=0) if how == "min" else stacked.sum(axis=0)
