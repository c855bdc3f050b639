"""benchmarks/system_calls.py: attacks have calls that no program makes."""

import numpy as np

from benchmarks import system_calls


def pairs(traces):
  """The pairs of neighbouring calls."""
  return {
    pair for calls in traces for pair in zip(calls, calls[1:], strict=False)
  }


def test_attacks_have_pairs_of_calls_that_programs_lack():
  machine = system_calls.Machine(np.random.default_rng(0))
  normal = [machine.trace(machine.usual, 500, 0.0).tolist() for _ in range(60)]
  assert all(len(calls) == 500 and max(calls) < 170 for calls in normal)
  known = pairs(normal)
  more = [machine.trace(machine.usual, 500, 0.0).tolist() for _ in range(20)]
  new = [len(pairs([calls]) - known) for calls in more]
  for kind in range(3):
    attacks = [machine.attack(kind).tolist() for _ in range(10)]
    odd = [len(pairs([calls]) - known) for calls in attacks]
    assert np.mean(odd) > 3 * np.mean(new) + 5
