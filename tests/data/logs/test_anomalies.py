"""Anomalies: each kind changes and marks events as its name promises."""

import numpy as np
import pytest

from seqrnn.data.logs.anomalies import KINDS, inject
from tests.logs.detect.test_baselines import random_sessions


def check(kind, before, after, marks):
  """Whether one is the other with that anomaly at the marks."""
  marked = np.flatnonzero(marks)
  assert (np.diff(marked) == 1).all()
  first, last = marked[0], marked[-1]
  match kind:
    case "swap":
      assert (after[first], after[last]) == (before[last], before[first])
      assert last == first + 1 and after[first] != after[last]
      same = [*range(first), *range(last + 1, len(before))]
      assert all(after[i] == before[i] for i in same)
    case "drop":
      assert first == last
      assert after[:first] + [before[first]] + after[first:] == before
    case "insert":
      assert first == last and after[:first] + after[first + 1 :] == before
    case "foreign":
      assert after[:first] + after[last + 1 :] == before and last - first < 8
    case "truncate":
      assert after == before[: len(after)] and first == last == len(after) - 1
      assert len(after) < len(before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_what_it_says(kind):
  rng = np.random.default_rng(0)
  normal = random_sessions(rng, 200, 5)
  injected = inject(np.random.default_rng(1), normal, kind)
  events = np.split(normal.ids, normal.bounds[1:-1])
  before = dict(zip(normal.names, (x.tolist() for x in events), strict=True))
  cut = injected.bounds[1:-1]
  parts = np.split(injected.ids, cut), np.split(injected.event_kinds, cut)
  for name, ids, marks in zip(injected.names, *parts, strict=True):
    check(kind, before[name], ids.tolist(), marks)
  assert injected.kinds.all() and len(injected.names) > 100
  # Only what cannot be changed is left out.
  left_out = set(before) - set(injected.names)
  assert all(len(set(before[name])) == 1 for name in left_out)
  assert bool(left_out) == (kind in ("swap", "drop", "truncate"))
