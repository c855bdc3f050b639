"""Drift: bets on blocks, against sessions that depend on each other."""

import json
import re
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seqrnn.configs import base
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.logs.detect import deployed
from seqrnn.logs.drift import TOLERATED_IN_FILES, Drift, Training


def calibration(rng, count=600):
  """Scores of three models, two of which are asked for half of the sessions."""
  model = np.repeat([0, 1, 2], [count // 4, count // 4, count // 2])
  return rng.gamma(3, 1, count), model, rng.random(count) < 0.02


def test_capital_is_that_of_bets_on_the_shares_of_blocks():
  rng = np.random.default_rng(0)
  scores, model, unknown = calibration(rng)
  drifting = Drift(scores, model, unknown)
  assert drifting.length == 10
  new, new_unknown = rng.gamma(4, 1, (150, 3)), rng.random(150) < 0.1
  assert not drifting.take(new.T, new_unknown, np.full(150, np.nan))
  shares, expected = [], []
  for tail in (0.2, 0.05):
    highest = [
      np.sort(scores[model == k])[
        int(np.ceil((1 - tail) * sum(model == k) - 1e-6)) - 1
      ]
      for k in range(3)
    ]
    shares.append((new > highest) @ [0.25, 0.25, 0.5])
    expected.append(np.mean(scores > np.array(highest)[model]))
  shares = np.array([*shares, new_unknown]).reshape(3, 15, 10).mean(axis=2)
  z, n = 1.96, 600 / drifting.worth
  assert 1 <= drifting.worth < 2
  saved, capital = 1 / np.sqrt(1 + np.arange(16) / 10), 0
  m = n / 3  # Of each model.
  expected = [*((m * np.array(expected) + 1) / (m + 1)), unknown.mean()]
  for x, p in zip(shares, expected, strict=True):
    # The end of Wilson's interval: whose z is that of the share itself.
    high = max(np.roots([n + z * z, -2 * n * p - z * z, n * p * p])) + 0.05
    for bet in (0.1, 0.3, 0.9):
      pays = 1 + bet * (x / high - 1)
      for start in range(15):
        part = (saved[start] - saved[start + 1]) / 9
        capital += part * pays[start:].prod()
  assert drifting.capital == pytest.approx(capital + saved[-1])


@pytest.mark.parametrize("how", ["scores", "events"])
def test_a_change_is_noticed_once_with_its_time(how):
  rng = np.random.default_rng(2)
  scores, model, unknown = calibration(rng)
  timed, untimed = (Drift(scores, model, unknown) for _ in range(2))
  # 3 % are anomalies; 30 % of all after 1,000 are new, of all after 2,000 90 %.
  new = rng.gamma(3, 1, (3000, 3)) + 20 * (rng.random((3000, 1)) < 0.03)
  is_new = rng.random(3000) < np.repeat([0, 0.3, 0.9], 1000)
  if how == "scores":
    new[is_new] *= 4
    is_new[:] = False
  warnings = {}
  times = 1.8e9 + 60 * np.arange(3000)
  for n in range(3000):
    one = slice(n, n + 1)
    for warning in timed.take(new[one].T, is_new[one], times[one]):
      warnings[n] = warning
      assert warning == timed.warning
  (first,) = warnings
  assert 1000 < first < 1300
  # The 1,000th session was at 00:40.
  assert re.search("since 2027-01-16 00:[34]", warnings[first])
  words = {"scores": "score higher than", "events": "have events that"}
  assert words[how] in warnings[first]
  # Also of all at once.
  (warning,) = untimed.take(new.T, is_new, np.full(3000, np.nan))
  assert "since session 1,0" in warning or "since session 9" in warning


def test_a_warning_names_the_events_and_when_there_are_enough_sessions():
  rng, config = np.random.default_rng(4), base.get_config()
  config.detect.update(rate=0.002, contamination=0.0, redact="<secrets>")
  config.data.validation_fraction = 0.5
  names = Vocabulary("id", ("a", "b", "c"))
  sessions = Sessions(
    names.encode("abcabac"), np.array([0, 3, 5, 7]), ["x"] * 3
  )
  shares = deployed.event_shares(sessions)
  np.testing.assert_allclose(shares[-3:], [1, 2 / 3, 2 / 3])
  detector: Any = SimpleNamespace(config=config, names=names)
  training = Training(detector, shares)
  drifting = Drift(*calibration(rng), training=training)
  new, is_new = rng.gamma(3, 1, (3, 400)), np.arange(400) >= 200
  times = 1.8e9 + 60.0 * np.arange(400)
  events = lambda n: ["a", "d", "token=s3cr3t" if n >= 200 else "b"]
  warning, *_ = drifting.take(new, is_new, times, events)
  start, then = re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", warning)
  begin, end = map(datetime.fromisoformat, (start, then))
  (has,) = re.findall(r"needs 499 .* and has (\d+);", warning)
  assert 10 < int(has) < 100
  # A session a minute, of which half trains.
  assert (end - begin).total_seconds() == pytest.approx(60 * 998, rel=0.05)
  assert re.search(
    r"Most changed: 'd', in 100% of the sessions, in training in 0%;"
    r" 'token=<masked>', in (9\d|100)% .*; 'b', in \d%",
    warning,
  )


def test_a_tenth_of_anomalous_sessions_in_a_file_is_no_drift():
  warned = []
  for seed in range(10):
    rng = np.random.default_rng(seed)
    new = rng.gamma(3, 1, (2000, 3))
    is_odd = rng.random(2000) < 0.1
    new[is_odd] *= 10
    for share in (0, 0.3):  # Of a new version, with an event of its own.
      unknown = is_odd | (rng.random(2000) < share)
      drifting = Drift(*calibration(rng), TOLERATED_IN_FILES)
      warnings = drifting.take(new.T, unknown, np.full(2000, np.nan))
      warned.append(bool(warnings) == bool(share))
  assert all(warned)


def test_sessions_that_depend_on_each_other_are_no_drift():
  lengths = []
  for seed in range(8):
    rng = np.random.default_rng(seed)
    noise, scores = rng.normal(size=5000), np.zeros(5000)
    for n in range(1, 5000):
      scores[n] = 0.9 * scores[n - 1] + noise[n]
    old, new = np.split(np.exp(scores), [1500])
    drifting = Drift(old, np.zeros(1500, int), np.zeros(1500, bool))
    lengths.append(drifting.length)
    assert not drifting.take(new[None], new < 0, np.full(3500, np.nan))
  assert min(lengths) > 12


def test_restored_drift_goes_on_as_if_it_had_not_stopped():
  rng = np.random.default_rng(3)
  old = calibration(rng)
  scores = rng.gamma(3, 1, (900, 3))
  scores[200:] += 3
  whole, first = Drift(*old), Drift(*old)
  expected = whole.take(scores.T, scores[:, 0] < 0, np.arange(900.0))
  drifting, stored = [], ""
  for n, scores_K in enumerate(scores):
    if n % 73 == 0:
      stored = json.dumps(first.facts())
      first = Drift(*old)
      assert first.restore(json.loads(stored))
    at = np.array([float(n)])
    drifting += first.take(scores_K[:, None], at < 0, at)
  assert drifting == expected and len(drifting) == 1
  assert first.warning == whole.warning and first.capital == whole.capital
  # A new model begins anew.
  other = Drift(old[0] + 1, *old[1:])
  assert not other.restore(json.loads(stored)) and other.sessions == 0
