"""Checks two time ratios against their bounds; exits with 1 if one fails.

  python benchmarks/ratios.py

fused: the time of nn.scan over that of the fused scan, for loss and gradients
of one layer; must be at least the bound. stack: for a scan that stacks its
outputs, the time of 8 times as many steps over the time of the steps, per step;
must be at most the bound. XLA may rewrite the whole stack at each step, which
takes quadratic time (jax-ml/jax#40101). The parts run in one process in turn,
and the minimum of the rounds counts. Run no other program at the same time.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from parts import works

# Measured on two cores of an AMD EPYC, jax 0.10.1: 1.3 to 1.6, 1.1 to 1.3.
FUSED = {"lstm": 1.2, "gru": 1.05}
STEPS, LINEAR = 20_000, 32


def least(parts: list[Callable[[], Any]], rounds: int) -> np.ndarray:
  """Returns the minimum seconds of each part."""
  times = np.full((rounds, len(parts)), np.inf)
  for part in parts:
    part()
  for row in times:
    for n, part in enumerate(parts):
      begin = time.perf_counter()
      part()
      row[n] = time.perf_counter() - begin
  return times.min(axis=0)


def fused(name: str, rounds: int) -> float:
  """Returns the time of nn.scan over that of the fused scan."""
  made = works(name, 128, 32, 50)
  plain, own = least(
    [made["gradient, nn.scan"], made["gradient, fused"]], rounds
  )
  return plain / own


def stacked(rounds: int) -> float:
  """Returns the time of 8 times as many steps over that of the steps."""
  import jax

  def scan(steps: int) -> Callable[[], Any]:
    @jax.jit
    def run(start):
      def step(carry, _):
        return carry * 3 + 1, carry  # Wraps around; no closed form.

      return jax.lax.scan(step, start, None, length=steps)

    return lambda: jax.block_until_ready(run(np.int32(1)))

  once, often = least([scan(STEPS), scan(8 * STEPS)], rounds)
  return often / once


def main():
  """Prints the table; returns 1 if a bound is broken, else 0."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--rounds", type=int, default=30)
  given = parser.parse_args()
  print("| ratio | measured | bound | |\n| --- | --- | --- | --- |")
  broken = False
  for name, bound in FUSED.items():
    ratio = fused(name, given.rounds)
    broken |= ratio < bound
    word = "broken" if ratio < bound else "holds"
    print(f"| fused, {name} | {ratio:.2f} | at least {bound} | {word} |")
  ratio = stacked(min(given.rounds, 5))
  broken |= ratio > LINEAR
  word = "broken" if ratio > LINEAR else "holds"
  print(f"| stack | {ratio:.1f} | at most {LINEAR} | {word} |")
  sys.exit(int(broken))


if __name__ == "__main__":
  main()
