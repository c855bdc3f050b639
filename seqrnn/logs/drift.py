"""Drift: whether new sessions still score as those of the calibration.

1. Three shares of sessions are watched: those that score higher than 80 %, and
   higher than 95 %, of the calibration (of several models, by the share of the
   models that say so), and those that have unknown events.
2. New sessions are counted in blocks, four times as long as the calibration
   sessions depend on each other in the order of their log.
3. A share is expected to be at most the upper end of its 95 % interval (Wilson
   1927) by the calibration, where sessions that depend count as fewer, plus
   TOLERATED, or TOLERATED_IN_FILES, because alarms are no drift.
4. A gambler bets that a share is higher: a block multiplies the capital by
   1 + bet (share / expected - 1), whose expectation is at most 1 without drift.
   So the capital, 1 at first, ever reaches 1 / ALPHA with a probability of at
   most ALPHA (Ville 1939; bets on means: Waudby-Smith and Ramdas 2024).
5. A small part of the capital starts to bet at each block, and most is saved:
   what bets lose before a change is little.
6. There is one warning. It advises to make another model, and the bets against
   the calibration of that one begin anew.
"""

import math
import zlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.data.logs import formats
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.logs.detect import deployed
from seqrnn.logs.detect.detector import Detector
from seqrnn.logs.detect.findings import Findings
from seqrnn.logs.detect.normal import NormalScores

TOLERATED = 0.05  # Share of anomalous sessions that is no drift.
TOLERATED_IN_FILES = 0.1  # The same of files, which one examines with a reason.
ALPHA = 0.01  # The probability of a false warning.
_TAILS = (0.2, 0.05)
_ERRORS = 1.96  # Standard errors of what is expected.
_BETS = np.array([0.1, 0.3, 0.9])[:, None]
_LEAST = 10  # Sessions of a block.
_APART = 4  # A block is so many times as long as its sessions depend.
_FEWEST = 5  # Blocks of which a variance is estimated.
_PATIENCE = 10  # Blocks after which the saved capital is 1 / sqrt(2).
_RECENT, _NAMED = 1000, 3  # Sessions whose events are known; named events.

# Number of a new session, from 0 -> its events as read.
Events = Callable[[int], Sequence[str]]
_WORDS = (
  *(f"score higher than {1 - t:.0%} of the calibration" for t in _TAILS),
  "have events that training has not seen",
)


class Training(NamedTuple):
  """What a warning is written with.

  Attributes:
    detector: whose sessions drift.
    shares_E: the share of the training sessions that have each event.
  """

  detector: Detector
  shares_E: np.ndarray

  def advice(
    self, last: Sequence[Sequence[str]], count: int, span: tuple[float, float]
  ) -> str:
    """What has changed, and whether the next model has enough to learn.

    Args:
      last: the events as read of the last new sessions.
      count: of all new sessions.
      span: the times of the first and the last one.
    """
    texts = [*set().union(*last)]
    names, config = self.detector.names, self.detector.config
    every = names.names(range(len(self.shares_E)))
    shares = dict(zip(every, self.shares_E, strict=True))
    ids = zip(texts, names.encode(texts), strict=True)
    name = {x: x if i == UNKNOWN else names.names([i])[0] for x, i in ids}
    counts = Counter(x for some in last for x in {name[y] for y in some})
    now = {x: counts[x] / max(len(last), 1) for x in {*counts, *shares}}
    order = sorted(now, key=lambda x: (-abs(now[x] - shares.get(x, 0)), x))
    masked = Redaction(config.detect.redact).text
    changed = "; ".join(
      f"{masked(x)!r}, in {now[x]:.0%} of the sessions, in training in"
      f" {shares.get(x, 0):.0%}"
      for x in order[:_NAMED]
    )
    rate, left_out = config.detect.rate, config.detect.contamination
    share = (1 - config.data.validation_fraction) * (1 - left_out)
    why = deployed.lacking(rate, int(count * share), span)
    why = f"; detect.rate={rate:g} {why}" * bool(why)
    return f"{why}. Most changed: {changed}"


class Drift:
  """The bets against a calibration.

  Attributes:
    key: tells calibrations apart.
    worth: sessions in a row that tell as much as an independent one.
    length: number of sessions of a block.
    sessions: number of sessions taken.
    warning: empty: there was none.
  """

  def __init__(
    self,
    scores_N: np.ndarray,
    model_N: np.ndarray,
    unknown_N: np.ndarray,
    tolerated: float = TOLERATED,
    training: Training | None = None,
  ):
    """Begins with the sessions of a calibration, in the order of their log.

    Args:
      scores_N: that they would get as new sessions, by a model each.
      model_N: the number of the model of each, from 0.
      unknown_N: whether they have events that this model has not seen.
      tolerated: the share of anomalous sessions that is no drift.
      training: names what has changed; None: it is not named.
    """
    self._tolerated, self._training = tolerated, training
    # The last sessions of this process.
    self._recent: deque[tuple[Events, int]] = deque(maxlen=_RECENT)
    self._models, sizes_K = np.unique(model_N, return_counts=True)
    self._weights_K = sizes_K / sizes_K.sum()
    ranks = 1 - np.array(_TAILS)
    self._highest_KS = np.stack(
      [
        np.quantile(scores_N[model_N == k], ranks, method="inverted_cdf")
        for k in self._models
      ]
    )
    highest_NS = self._highest_KS[np.searchsorted(self._models, model_N)]
    above_NS = np.column_stack([scores_N[:, None] > highest_NS, unknown_N])
    self.worth = dependence(above_NS)
    self.length = max(math.ceil(_APART * self.worth), _LEAST)
    self._expected_S = self._expected(above_NS.mean(axis=0), len(above_NS))
    self.key = zlib.crc32(
      np.append(self._highest_KS, self._expected_S).tobytes()
    )
    self.sessions, self.warning = 0, ""
    self._since = math.nan  # The time of the block's first session.
    self._sums_S = np.zeros(len(_WORDS))
    self._blocks = 0
    # The rows are the capital of each bet; the logarithm of what one unit has
    # become since the begin, and its minimum; and, of the blocks after this
    # minimum, their number, the sum of their shares, the number of sessions
    # before them, and the time of the first.
    self._bets = np.zeros((7, len(_BETS), len(_WORDS)))

  def take(
    self,
    scores_KN: np.ndarray,
    unknown_N: np.ndarray,
    times_N: np.ndarray,
    events: Events = lambda _: (),
  ) -> list[str]:
    """Takes new sessions; returns the warning, if they give one.

    Args:
      scores_KN: their combined scores by each model.
      unknown_N: whether they have unknown events.
      times_N: of the sessions, in seconds since 1970; NaN: unknown.
      events: of each.
    """
    above_KNS = scores_KN[self._models, :, None] > self._highest_KS[:, None]
    shares_NS = np.tensordot(self._weights_K, above_KNS, 1)
    above_NS = np.column_stack([shares_NS, unknown_N])
    begin, warnings = 0, []
    while begin < len(above_NS):
      taken = self.sessions % self.length
      if not taken:
        self._since = float(times_N[begin])
      some_NS = above_NS[begin : begin + self.length - taken]
      self._sums_S += some_NS.sum(axis=0)
      end = begin + len(some_NS)
      self._recent.extend((events, n) for n in range(begin, end))
      begin, now = end, float(times_N[end - 1])
      self.sessions += len(some_NS)
      if self.sessions % self.length == 0:
        warnings += self._end_block(self._sums_S / self.length, now)
        self._sums_S[:] = 0
    return warnings

  def _end_block(self, shares_S: np.ndarray, now: float) -> list[str]:
    """Bets on the shares of a block; returns the warning, if there is one."""
    if self.warning:
      return []
    capital, log, least, count, total, before, times = self._bets
    fresh = log == least
    for column in (count, total):
      column[fresh] = 0
    before[fresh] = self.sessions - self.length
    times[fresh] = self._since
    count += 1
    total += shares_S
    saved = _saved(self._blocks)
    self._blocks += 1
    capital += (saved - _saved(self._blocks)) / capital.size
    pays = 1 + _BETS * (shares_S / self._expected_S - 1)
    capital *= pays
    log += np.log(pays)
    np.minimum(least, log, out=least)
    if self.capital < 1 / ALPHA:
      return []
    best = np.unravel_index(np.argmax(capital), capital.shape)
    since, begin = f"session {int(before[best]) + 1:,}", float(times[best])
    if not math.isnan(begin):
      since = formats.in_words(begin)
    share, expected = total[best] / count[best], self._expected_S[best[1]]
    advice, number = "", self.sessions - int(before[best])
    if self._training:
      some = [events(n) for events, n in [*self._recent][-number:]]
      advice = self._training.advice(some, number, (begin, now))
    self.warning = (
      f"drift: since {since}, {share:.0%} of the sessions {_WORDS[best[1]]};"
      f" expected are at most {expected:.0%}. P-values and alarms are"
      " unreliable until a model learns the sessions since then, as by"
      f" --mode=refresh{advice}"
    )
    return [self.warning]

  def _expected(self, shares_S: np.ndarray, sessions: int) -> np.ndarray:
    """The shares up to which there is no drift, by those of sessions."""
    z, n = _ERRORS, sessions / self.worth
    # A quantile is of the n / K scores of a model: of n / K + 1 scores, the new
    # one included, one more may be above it.
    more_S = (1 - shares_S) / (n / len(self._models) + 1)
    more_S[len(_TAILS) :] = 0
    shares_S = shares_S + more_S
    error_S = np.sqrt(shares_S * (1 - shares_S) / n + (z / (2 * n)) ** 2)
    shares_S = (shares_S + z**2 / (2 * n) + z * error_S) / (1 + z**2 / n)
    return np.minimum(shares_S + self._tolerated, 1)

  @property
  def capital(self) -> float:
    """The capital of all bets, and what is saved: 1 at first."""
    return float(_saved(self._blocks) + self._bets[0].sum())

  def facts(self) -> dict[str, str | float | list]:
    """All that `restore` needs, as JSON."""
    return {name: np.asarray(getattr(self, name)).tolist() for name in _STORED}

  def restore(self, facts: Mapping[str, str | float | list]) -> bool:
    """Resumes from facts; False: they are of another calibration.

    Raises:
      LookupError, ValueError: a fact is of another type.
    """
    if facts["key"] != self.key:
      return False
    for name in _STORED:
      before, value = np.asarray(getattr(self, name)), np.asarray(facts[name])
      if (before.shape, before.dtype.kind) != (value.shape, value.dtype.kind):
        raise ValueError(f"drift: {name} is of another type")
      setattr(self, name, value if before.ndim else facts[name])
    return True


# Attributes that are stored.
_STORED = "key", "sessions", "warning", "_since", "_blocks", "_sums_S", "_bets"


def of_calibration(
  normal: NormalScores, training: Training | None, tolerated: float = TOLERATED
) -> Drift:
  """The bets against the calibration of a detection."""
  sessions, order = normal.sessions, normal.sessions.order
  scores_R = normal.combined(sessions, False)
  return Drift(
    *(scores_R[order], sessions.model[order], sessions.unknown[order]),
    *(tolerated, training),
  )


def of_findings(
  normal: NormalScores, findings: Findings, training: Training
) -> list[str]:
  """The warning that the examined sessions give in their order, if any."""
  drift = of_calibration(normal, training, TOLERATED_IN_FILES)
  sessions = findings.sessions
  short = findings.scored.short[findings.distinct.which]  # They have no p.
  every = np.flatnonzero(sessions.whole[0] & ~short)
  which, times_N = findings.distinct.which[every], np.full(len(every), math.nan)
  if sessions.seconds is not None:
    times_N = sessions.seconds[sessions.bounds[every]]
  decision = findings.decision
  unknown_N = decision.unknown_events[which] > 0
  texts, bounds = sessions.as_read, sessions.bounds
  assert texts is not None
  events = lambda n: [*texts[bounds[every[n]] : bounds[every[n] + 1]]]
  return drift.take(decision.combined_KD[:, which], unknown_N, times_N, events)


def dependence(above_NS: np.ndarray) -> float:
  """The sessions in a row that tell as much as an independent one, at least 1.

  It is the factor by which the variance of the mean of a block is higher than
  that of independent sessions, in blocks of a length for which it is highest.
  """
  worth, length = 1.0, 2
  while (blocks := len(above_NS) // length) >= _FEWEST:
    some_NS = above_NS[: blocks * length]
    means_BS = some_NS.reshape(blocks, length, -1).mean(axis=1)
    variance_S = np.maximum(some_NS.var(axis=0), 1 / len(some_NS))
    worth = max(
      worth, float(np.max(length * means_BS.var(axis=0) / variance_S))
    )
    length *= 2
  return worth


def _saved(blocks: int) -> float:
  """The capital that does not bet yet."""
  return 1 / math.sqrt(1 + blocks / _PATIENCE)
