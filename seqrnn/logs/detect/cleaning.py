"""Cleaning: the second mode of the scores of normal sessions.

Where anomalous sessions are among the normal ones, their scores may form a
second mode, above a valley with few sessions.
"""

import numpy as np

# The evidence for a second mode: at least thirty distinct sessions above an
# empty valley. The least of 3,150 random sets with one mode, of seven densities
# and 300 to 5,000 scores, was -6.9; a rare branch of normal sessions has more:
# on HDFS -14.1, for a model of a few steps.
_LOG_P = -20.0
_WIDTH = 1.0  # Nats of a valley, at least: a factor of e in probability.
_DEPTH = 0.2  # Sessions in a valley, at most, per session above it.
_EDGES = 300  # Candidates for each edge of a valley.


def clean(
  scores: np.ndarray,
  counts: np.ndarray,
  model: np.ndarray,
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
  this p-value is below -20.

  Args:
    scores: surprisals of distinct sessions in nats [D].
    counts: number of sessions equal to each [D].
    model: number of the model of each, from 0 [D].
    contamination: the largest share of the sessions above the valley, not 0.

  Returns:
    whether each session is left out [D].
  """
  aligned = np.full(len(scores), -np.inf)
  for k in range(model.max() + 1):
    some = model == k
    if some.any():
      aligned[some] = scores[some] - np.quantile(
        scores[some],
        max(1 - 2 * contamination, 0.5),
        weights=counts[some],
        method="inverted_cdf",
      )
  # Equal scores are one point, of as many distinct sessions.
  points, index = np.unique(aligned, return_inverse=True)
  valley = _valley(
    points,
    np.bincount(index),
    np.bincount(index, counts),
    contamination * counts.sum(),
  )
  if valley is None:
    return np.zeros(len(scores), bool)
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
  from scipy import stats  # A follower does without it, which takes a second.

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
