"""Drift: p-values that need no fixed calibration, and bets against them."""

import json

import numpy as np
import pytest

from seqrnn.logs.follow.drift import Drift


def calibration(rng, draw):
  """Scores of three models with 20 to 60 sessions, some several times."""
  return [(draw(rng, n), rng.integers(1, 4, n)) for n in (20, 40, 60)]


def continuous(rng, *shape):
  return rng.gamma(3, 1, shape)


def tied(rng, *shape):
  return rng.choice([0.5, 1.5, 2.0, 7.0], shape, p=[0.6, 0.2, 0.15, 0.05])


@pytest.mark.parametrize("draw", [continuous, tied])
def test_capital_is_that_of_bets_on_ranks_among_all_scores_before(draw):
  rng = np.random.default_rng(0)
  groups = calibration(rng, draw)
  drifting, seed, count = Drift(groups, 7), 7, 150
  cell = lambda x: int(200 * np.log1p(x))
  before = [np.repeat([cell(s) for s in x], n).tolist() for x, n in groups]
  sizes = [len(scores) for scores in before]
  p = []
  for number, scores_K in enumerate(draw(rng, count, 3)):
    pick, tie = np.random.default_rng([seed, number]).random(2)
    k = int(sum(pick >= np.cumsum(sizes) / sum(sizes)))
    score = cell(scores_K[k])
    before[k].append(score)
    higher = sum(s > score for s in before[k])
    p.append((higher + tie * before[k].count(score)) / len(before[k]))
    drifting.take(scores_K, number)
  saved = 1 / np.sqrt(1 + np.arange(count + 1) / 100)
  expected = saved[-1]
  for bet in (-1.9, -1, -0.5, -0.25, 0.25, 0.5, 1, 1.9):
    pays = (1 + bet * (0.5 - np.array(p))) / (1 + 0.05 * abs(bet) / 2)
    for start in range(count):
      expected += (saved[start] - saved[start + 1]) / 8 * pays[start:].prod()
  assert drifting.capital == pytest.approx(expected)


@pytest.mark.parametrize(("shift", "word"), [(4.0, "higher"), (0.02, "lower")])
def test_change_is_noticed_once_with_the_day_it_began(shift, word):
  rng = np.random.default_rng(2)
  drifting, untimed = (Drift(calibration(rng, continuous), 0) for _ in range(2))
  # 3 % are anomalies; all sessions after 1,000 have other scores.
  scores = continuous(rng, 1600, 3) + 20 * (rng.random((1600, 1)) < 0.03)
  scores[1000:] = shift * np.minimum(scores[1000:], 8)
  warnings = [drifting.take(x, n, 1.8e9 + 60 * n) for n, x in enumerate(scores)]
  [warning] = filter(None, warnings)
  assert warning == drifting.warning and 1000 < drifting.sessions < 1100
  # The 1,000th session was at 00:40.
  assert "since 2027-01-16 00:" in warning and f"score {word} than" in warning
  [warning] = filter(None, (untimed.take(x, n) for n, x in enumerate(scores)))
  assert "since session 1," in warning or "since session 9" in warning


def test_restored_drift_goes_on_as_if_it_had_not_stopped():
  rng = np.random.default_rng(3)
  groups = calibration(rng, continuous)
  scores = continuous(rng, 400, 3)
  scores[200:] += 3
  whole, first = Drift(groups, 0), Drift(groups, 0)
  expected = [whole.take(x, n, float(n)) for n, x in enumerate(scores)]
  drifting, stored = [], ""
  for n, scores_K in enumerate(scores):
    if n % 70 == 0:
      for *_, value in first.changes():
        stored = json.dumps(value)
      assert not [*first.changes()]
      first = Drift(groups, 0)
      assert first.restore(json.loads(stored))
    drifting.append(first.take(scores_K, n, float(n)))
  assert drifting == expected and any(drifting)
  assert first.warning == whole.warning and first.capital == whole.capital
  # A new model begins anew.
  other = Drift([groups[0], groups[1], groups[0]], 0)
  assert not other.restore(json.loads(stored)) and other.sessions == 0
