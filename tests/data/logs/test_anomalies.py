"""Anomalies: each kind changes events as its name promises."""

import numpy as np
import pytest

from seqrnn.data.logs.anomalies import CHANGES, change
from tests.logs.detect.test_baselines import random_sessions


def is_within(some, more):
  """Whether events are others without a run of them."""
  size = len(more) - len(some)
  runs = range(len(some) + 1)
  return size > 0 and any(more[:n] + more[n + size :] == some for n in runs)


def check(kind, before, after):
  """Whether one is the other with that anomaly."""
  more = len(after) - len(before)
  match kind:
    case "swap":
      first, last = (n for n, x in enumerate(before) if after[n] != x)
      assert last == first + 1 and more == 0
      assert (after[first], after[last]) == (before[last], before[first])
    case "drop":
      assert is_within(after, before) and more == -1
    case "insert":
      assert is_within(before, after) and more == 1
    case "foreign":
      assert is_within(before, after) and more < 9
    case "truncate":
      assert after == before[: len(after)] and more < 0


@pytest.mark.parametrize("kind", CHANGES)
def test_a_kind_is_what_it_says(kind):
  rng = np.random.default_rng(0)
  normal = random_sessions(rng, 200, 5)
  injected = change(np.random.default_rng(1), normal, kind)
  events = np.split(normal.ids, normal.bounds[1:-1])
  before = dict(zip(normal.names, (x.tolist() for x in events), strict=True))
  parts = np.split(injected.ids, injected.bounds[1:-1])
  for name, ids in zip(injected.names, parts, strict=True):
    check(kind, before[name], ids.tolist())
  assert injected.labels.all() and len(injected.names) > 100
  # Only what cannot be changed is left out.
  left_out = set(before) - set(injected.names)
  assert all(len(set(before[name])) == 1 for name in left_out)
  assert bool(left_out) == (kind in ("swap", "drop", "truncate"))
