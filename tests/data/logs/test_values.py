"""Values and times: densities against exact ones, scores, what is left out."""

import math

import numpy as np
import pytest
from scipy import stats

from seqrnn.data.logs import values
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.logs.values import GAP, VALUE, fit, most_unusual, with_unusual

A, B, C, D = range(4, 8)  # Events.
EVERY = [A, B, C, B, D]


def drawn(rng, count, scale=1.0):
  """Sessions of the events EVERY; A has a size, B its duration, C a counter."""
  n = count * len(EVERY)
  ids = np.tile(EVERY, count)
  numbers = np.full((n, 4), np.nan, np.float32)
  size, duration = rng.integers(1, 4, n), rng.exponential(2, n) * scale
  numbers[ids == A, 0] = size[ids == A]
  numbers[ids == B, 0] = duration[ids == B]
  numbers[ids == C, 0] = np.arange(count)
  some = (ids == D) & (rng.random(n) < 0.9)
  numbers[some, 0] = 1
  gaps = rng.exponential(np.where(ids == B, 10, 1)) * scale
  seconds = 1e9 + np.cumsum(gaps)
  bounds = np.arange(0, n + 1, len(EVERY))
  names = list(map(str, range(count)))
  return Sessions(ids, bounds, names, seconds=seconds, values=numbers)


@pytest.fixture(scope="module")
def normal():
  return drawn(np.random.default_rng(0), 4000)


@pytest.fixture(scope="module")
def tails(normal):
  return fit(normal)


def nats_of(tails, kind, keys, numbers):
  """-log p of values of a distribution."""
  keys, numbers = np.full(len(numbers), keys), np.array(numbers, float)
  place = np.zeros(len(numbers), int)
  observed = values._Observed(keys, keys, numbers, place, place)
  return values._nats(tails, observed, kind)


def test_p_values_are_those_of_the_distribution(tails):
  numbers = 2 * np.array([0.02, 0.5, 1, 2.5, 4, 5.5])
  p = np.minimum(2 * stats.expon.sf(numbers / 2), 1)
  p = np.minimum(p, 2 * stats.expon.cdf(numbers / 2))
  nats = nats_of(tails, VALUE, B * 5, numbers)
  assert nats[1:4].tolist() == [0, 0, 0]  # Within nine of ten.
  np.testing.assert_allclose(nats[[0, 4, 5]], -np.log(p[[0, 4, 5]]), rtol=0.15)
  pair = -(A << 32 | B)
  silences = 10 * np.array([1, 3.5, 4.5])
  p = stats.expon.sf(silences / 10)
  nats = nats_of(tails, GAP, pair, silences)
  assert nats[0] == 0 and (np.diff(nats) > 0).all()
  np.testing.assert_allclose(nats[1:], -np.log(p[1:]), rtol=0.3)
  # Far beyond all training values, evidence rises with the distance.
  assert nats_of(tails, GAP, pair, [1000])[0] > 2 * nats[-1]


def test_counters_and_places_with_other_words_are_left_out(tails):
  assert {A * 5, B * 5} <= {*tails.keys.tolist()}
  assert not {C * 5, D * 5} & {*tails.keys.tolist()}


def test_a_rare_pair_backs_off_to_its_event(normal, tails):
  rare = normal._replace(
    ids=np.array([D, B]),
    bounds=np.array([0, 2]),
    seconds=np.array([0.0, 300.0]),
    values=np.full((2, 4), np.nan, np.float32),
  )
  unusual = most_unusual(rare, tails, GAP)
  assert unusual.scores[0] > 1.5 and unusual.positions.tolist() == [1]
  assert unusual.words(0, GAP).startswith("a silence of 300 s, usually ")
  low, high = unusual.usual[:, 0]
  np.testing.assert_allclose([low, high], [0.5, 30], rtol=0.15)


def test_evidence_is_of_the_least_p_values():
  """Against Berk and Jones's statistic, session by session."""
  rng = np.random.default_rng(1)
  train, test = drawn(rng, 3000), drawn(rng, 60, scale=3.0)
  tails = fit(train)
  for kind in values.MEASURES:
    unusual = most_unusual(test, tails, kind)
    observed = values._observe(test, kind)
    nats = values._nats(tails, observed, kind)
    slower = values._slower(tails, observed, 60) * (kind == GAP)
    for j in range(60):
      some = (observed.sessions == j) & ~np.isnan(nats)
      n, least = some.sum(), {}
      for number, value in zip(observed.numbers[some], nats[some], strict=True):
        least[number] = max(least.get(number, 0), value)
      best = 0
      for k, value in enumerate(sorted(least.values(), reverse=True), 1):
        p, share = math.exp(-value), k / n
        if p < share:
          other = (1 - share) * math.log((1 - share) / (1 - p)) if k < n else 0
          best = max(best, n * (share * math.log(share / p) + other))
      if any(least.values()):
        best += max(slower[j], -3)
      score = math.log1p(max(best - 3, 0))
      assert unusual.scores[j] == pytest.approx(score, abs=0.051)


def test_times_that_are_all_long_are_evidence(tails):
  usual, slow = (
    values._slower(tails, values._observe(test, GAP), 1000)
    for test in (drawn(np.random.default_rng(5), 1000, x) for x in (1.0, 10.0))
  )
  for nats in (1, 2, 3):  # By Markov's inequality, of a ratio of likelihoods.
    assert (usual >= nats).mean() <= math.exp(-nats)
  assert np.median(usual) < -1 and np.median(slow) > 3


def test_few_normal_sessions_have_a_score_and_slow_ones_do(tails):
  rng = np.random.default_rng(2)
  usual, slow = drawn(rng, 500), drawn(rng, 500, scale=10.0)
  for number in range(2):
    scores = with_unusual(usual, [tails], [VALUE, GAP]).unusual[:, number, 0]
    assert (scores > 0).mean() < 0.1
    assert scores.tolist() == np.float32(scores.round(1)).tolist()
    scores = with_unusual(slow, [tails], [VALUE, GAP]).unusual[:, number, 0]
    assert np.median(scores) > 1


def test_a_value_of_a_chance_just_below_1_is_usual(tails, monkeypatch):
  nats = lambda _, observed, __: np.full(len(observed.numbers), 1e-18)
  monkeypatch.setattr(values, "_nats", nats)
  with np.errstate(divide="raise", invalid="raise"):
    test = drawn(np.random.default_rng(4), 9)
    assert not with_unusual(test, [tails], [VALUE]).unusual.any()


def test_sessions_in_parts_have_the_same_scores(tails, monkeypatch):
  test = drawn(np.random.default_rng(3), 100, scale=3.0)
  both = [with_unusual(test, [tails] * 2, values.MEASURES)]
  monkeypatch.setattr(values, "_EVENTS", 13)
  both += [with_unusual(test, [tails] * 2, values.MEASURES)]
  np.testing.assert_array_equal(both[0].unusual, both[1].unusual)
  assert both[0].unusual.any() and both[0].unusual.shape == (100, 2, 2)
  # Sessions without a score stay equal.
  same = both[0]._replace(seconds=None)
  distinct = same.distinct()
  usual = ~same.unusual.any(axis=(1, 2))
  assert len(set(distinct.which[usual].tolist())) == 1
  assert len(distinct.first) > 40


def test_a_few_anomalous_sessions_do_not_hide_others():
  rng = np.random.default_rng(4)
  train, slow = drawn(rng, 3000), drawn(rng, 3000, scale=10.0)
  some = np.repeat(rng.random(3000) < 0.03, len(EVERY))
  gaps = [np.diff(x.seconds, prepend=1e9) for x in (train, slow)]
  mixed = np.where(some, gaps[1], gaps[0])
  tails = fit(train._replace(seconds=np.cumsum(mixed)))
  scores = [most_unusual(x, tails, GAP).scores for x in (train, slow)]
  assert np.mean(scores[1] > np.quantile(scores[0], 0.99)) > 0.8
