"""Sessions that choose the scores do not calibrate them."""

import numpy as np
import pytest

from seqrnn.configs import base
from seqrnn.logs.detect import calibration, deployed
from seqrnn.logs.detect.scores import CANDIDATES, COMBINED, STANDARD

NAMES = (*CANDIDATES, "unknown")


@pytest.fixture
def settings():
  settings = base.get_config().detect
  settings.contamination = 0.0
  return settings


def rows(rng, sizes, start="", gain=0.0):
  """Random scores of the sessions of each model; `gain` is that of markov_5."""
  count = sum(sizes)
  columns = {f"{start}score {n}": rng.exponential(size=count) for n in NAMES}
  columns[f"{start}score markov_5"] += gain
  columns[f"{start}score unknown"] *= 0
  return {**columns, f"{start}model": np.repeat(np.arange(len(sizes)), sizes)}


def arrays_of(rng, sizes=(80, 90), gain=4.0):
  """The arrays of calibration.npz of sessions with an event each."""
  count = sum(sizes)
  counts = rng.integers(1, 4, count)
  return {
    **rows(rng, sizes),
    "counts": counts,
    "choosing": counts // 2,
    "sizes": np.ones(count, np.int64),
    "nll": rng.exponential(size=count).astype(np.float32),
    "event_counts": counts,
    "steps": np.arange(len(sizes)),
    **rows(rng, [60] * len(sizes), "injected ", gain),
    "injected kind": np.tile([0, 1], 30 * len(sizes)),
  }


def test_half_of_the_sessions_choose_and_the_other_half_calibrates(settings):
  arrays = arrays_of(np.random.default_rng(0))
  normal = calibration.normal_scores(arrays, settings)
  assert "markov_5" in normal.choice.combination.names
  half = arrays["counts"] - arrays["choosing"]
  assert normal.scores[COMBINED].n == normal.leave_one_out.n == half.sum()
  assert normal.events.n == arrays["counts"].sum()
  # The scores of the other sessions, and no others, calibrate.
  for k, group in enumerate(normal.scores["max"].groups):
    some = (arrays["model"] == k) & (half > 0)
    assert group.scores.tolist() == sorted(arrays["score max"][some])


@pytest.mark.parametrize("given", [None, "max, markov_5"])
def test_where_nothing_is_chosen_all_sessions_calibrate(settings, given):
  settings.scores = given
  arrays = arrays_of(np.random.default_rng(0), gain=4.0 if given else 0.0)
  normal = calibration.normal_scores(arrays, settings)
  names = STANDARD.names if given is None else ("max", "markov_5")
  assert normal.choice.combination.names == names
  assert normal.scores[COMBINED].n == arrays["counts"].sum()


@pytest.mark.parametrize("gain", [0.0, 4.0])
def test_a_deployed_calibration_is_that_of_the_detection(settings, gain):
  rng = np.random.default_rng(1)
  arrays, false = arrays_of(rng, gain=gain), arrays_of(rng, (3, 5))
  names = ("counts", "sizes", "nll", "event_counts", "model")
  false = {
    name: array
    for name, array in false.items()
    if name in names or name.startswith("score ")
  }
  batch = calibration.normal_scores(arrays, settings, further=false)
  # False alarms choose nothing, and all of them calibrate.
  used = arrays["counts"] - (arrays["choosing"] if gain else 0)
  assert batch.scores[COMBINED].n == used.sum() + false["counts"].sum()
  stored = {f"calibration {name}": x for name, x in batch.arrays.items()}
  normal = deployed._normal_scores(stored, batch.choice)
  new = {name: rng.exponential(size=(2, 50)) for name in NAMES}
  p = [n.scores[COMBINED].p_values(n.combined(new)) for n in (batch, normal)]
  np.testing.assert_array_equal(*p)
