"""Drift: whether new sessions still score as those of the calibration.

Each new session is assigned to one model at random, and its score by that model
is ranked among the calibration scores of the model and all new scores before it
(transductive conformal p-values: Vovk et al. 2005). If new sessions are like
those of the calibration, the p-values are independent and uniform. A fixed
calibration would not do: its p-values share its chance, and 30,000 of them show
that 1,000 scores are no whole distribution.

A martingale bets against uniformity: its capital, 1 at first, stays below
1 / alpha for ever with a probability of at least 1 - alpha (Ville 1939), and
grows exponentially when the p-values become small or large (conformal test
martingales for "Retrain or not retrain", Vovk et al. 2021). Instead of their
Simple Jumper, whose capital melts away while nothing happens, a small part of
the capital starts to bet at each session, and most is saved.

Alarms are no drift: a bet pays so little that its expectation is at most 1 even
if a share TOLERATED of the sessions has any p-values.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from seqrnn.logs.follow.state import Change

TOLERATED = 0.05  # Share of anomalous sessions that is no drift.
ALPHA = 0.01  # The probability that there is ever a false warning.
_BETS = np.array([-1.9, -1, -0.5, -0.25, 0.25, 0.5, 1, 1.9])
# Sessions after which the saved capital has fallen to 1 / sqrt(2).
_PATIENCE = 100
# Scores are ranked in cells that depend on no data, so that memory is bounded
# and ranks stay valid; scores of a cell are ties.
_CELLS, _CELLS_OF_A_NAT = 4096, 200


class Drift:
  """The test martingale of a calibration.

  Attributes:
    key: tells calibrations apart.
    sessions: number of sessions taken.
    warning: that new sessions are no longer like those of the calibration;
      empty: there was none.
  """

  def __init__(
    self, groups: Sequence[tuple[ArrayLike, ArrayLike]], seed: int = 0
  ):
    """Begins with a calibration.

    Args:
      groups: for each model the scores of its calibration sessions, as they
        would get them as new sessions, and the number of sessions of each.
      seed: of the assignment to models and of the ranks of ties.
    """
    self._counts = np.zeros((len(groups), _CELLS), np.int64)
    for row, (scores, counts) in zip(self._counts, groups, strict=True):
      np.add.at(row, _cells(scores), np.asarray(counts, np.int64))
    sizes = self._counts.sum(axis=1)
    self._shares = np.cumsum(sizes) / sizes.sum()
    self._new = np.zeros_like(self._counts)  # Of new sessions alone.
    self._stored = -1  # Number of sessions of the state that is stored.
    self._seed = seed
    self.key = zlib.crc32(self._counts.tobytes(), seed)
    self.sessions, self.warning = 0, ""
    # Of each bet: its capital; its capital since the begin, as a logarithm, and
    # the minimum of that; the sessions before the minimum, and their time.
    self._bets = np.zeros((5, len(_BETS)))

  def take(
    self, scores_K: np.ndarray, number: int, time: float | None = None
  ) -> str:
    """Takes a new session; returns the warning, once, and then does nothing.

    Args:
      scores_K: its combined score by each model.
      number: a number of its own, for the random choices.
      time: of the session, in seconds since 1970.
    """
    if self.warning:
      return ""
    capital, log, least, began, times = self._bets
    p = self.p_value(scores_K, number)
    # At the session after a minimum a change may have begun.
    fresh = log == least
    began[fresh] = self.sessions
    times[fresh] = math.nan if time is None else time
    saved = _saved(self.sessions)
    self.sessions += 1
    capital += (saved - _saved(self.sessions)) / len(_BETS)
    pays = payoffs(p)
    capital *= pays
    log += np.log(pays)
    np.minimum(least, log, out=least)
    if self.capital >= 1 / ALPHA:
      best = int(np.argmax(capital))
      when = f"session {int(began[best]) + 1:,} since the model was taken up"
      if not math.isnan(times[best]):
        when = f"{datetime.fromtimestamp(times[best], UTC):%Y-%m-%d %H:%M:%S}"
      self.warning = (
        f"drift: since {when}, sessions score"
        f" {'higher' if _BETS[best] > 0 else 'lower'} than those of the"
        " calibration, so p-values and alarms are unreliable; train and detect"
        " in a new --workdir, on a log that has the new sessions"
      )
    return self.warning

  @property
  def capital(self) -> float:
    """The martingale: 1 at first, large if the p-values are not uniform."""
    return float(_saved(self.sessions) + self._bets[0].sum())

  def p_value(self, scores_K: np.ndarray, number: int) -> float:
    """The smoothed p-value of a new session, whose score it takes."""
    pick, tie = np.random.default_rng([self._seed, number]).random(2)
    k = min(
      int(np.searchsorted(self._shares, pick, "right")), len(scores_K) - 1
    )
    row, cell = self._counts[k], int(_cells(scores_K[k]))
    row[cell] += 1
    self._new[k, cell] += 1
    return float((row[cell + 1 :].sum() + tie * row[cell]) / row.sum())

  def changes(self) -> Iterator[Change]:
    """The state for `restore`, if it has changed since the last call."""
    if self._stored != self.sessions:
      k, cells = np.nonzero(self._new)
      counts = k, cells, self._new[k, cells]
      state = {
        "key": self.key,
        "sessions": self.sessions,
        "counts": [column.tolist() for column in counts],
        "bets": self._bets.tolist(),
        "warning": self.warning,
      }
      yield "meta", "drift", 0, state
    self._stored = self.sessions

  def restore(self, state: dict[str, Any]) -> bool:
    """Resumes from a state; False: it is of another calibration."""
    if state["key"] != self.key:
      return False
    self._stored = self.sessions = state["sessions"]
    k, cells, counts = state["counts"]
    self._new[k, cells] = counts
    self._counts += self._new
    self._bets = np.array(state["bets"])
    self.warning = state["warning"]
    return True


def payoffs(p: float) -> np.ndarray:
  """The factor by which the capital of each bet grows."""
  # The expectation is highest if the tolerated share has a p of 0 or of 1.
  return (1 + _BETS * (0.5 - p)) / (1 + TOLERATED * np.abs(_BETS) / 2)


def _cells(scores: Any) -> np.ndarray:
  """The cell of each score, which is not negative and may be infinite."""
  cells = _CELLS_OF_A_NAT * np.log1p(np.maximum(scores, 0))
  return np.minimum(cells, _CELLS - 1).astype(int)


def _saved(sessions: int) -> float:
  """The capital that does not bet yet."""
  return 1 / math.sqrt(1 + sessions / _PATIENCE)
