"""Writes traces of system calls of invented programs, and of attacks on them.

  python benchmarks/system_calls.py FOLDER

A trace is a line of call numbers. A program repeats a few short idioms of calls
in an order of its own, with some random calls between them. FOLDER gets `train`
and `normal`, of the same programs with other shares, and `attack`: a third each
of traces in which foreign idioms are blended, of traces with one foreign
payload, and of idioms of any program in random order.
"""

import argparse
from pathlib import Path

import numpy as np

CALLS, IDIOMS, FOREIGN, PROGRAMS = 170, 160, 60, 24
TRACES = {"train": 830, "normal": 2500, "attack": 450}


class Machine:
  """Programs, and idioms that none of them has."""

  def __init__(self, rng: np.random.Generator):
    self._rng = rng
    self._calls = rng.permutation(CALLS)
    self._idioms = [self._idiom(1.1) for _ in range(IDIOMS)]
    self._foreign = [self._idiom(0.9) for _ in range(FOREIGN)]
    self._programs = []
    for _ in range(PROGRAMS):
      count = rng.integers(5, 16)
      idioms = rng.choice(IDIOMS, count, replace=False)
      follows = rng.dirichlet(np.full(count, 0.3), size=count)
      self._programs.append((idioms, follows, rng.uniform(1.5, 8)))
    self._usual = rng.dirichlet(np.full(PROGRAMS, 0.7))
    other = rng.dirichlet(np.full(PROGRAMS, 0.7))
    self._mixed = 0.8 * self._usual + 0.2 * other

  def _draw(self, size: int, exponent: float) -> np.ndarray:
    """Calls whose frequencies fall by a power."""
    p = 1 / np.arange(1, CALLS + 1) ** exponent
    return self._calls[self._rng.choice(CALLS, size, p=p / p.sum())]

  def _idiom(self, exponent: float) -> np.ndarray:
    return self._draw(self._rng.integers(2, 9), exponent)

  def _length(self) -> int:
    return int(np.clip(self._rng.lognormal(5.4, 0.8), 75, 2500))

  def _trace(self, shares, length, noise, foreign=None) -> np.ndarray:
    """The calls of a program; half of its idioms are `foreign`, if any."""
    rng = self._rng
    idioms, follows, repeats = self._programs[rng.choice(PROGRAMS, p=shares)]
    state, calls = rng.integers(len(idioms)), []
    while len(calls) < length:
      if foreign is not None and rng.random() < 0.5:
        calls += list(foreign[rng.integers(len(foreign))])
      else:
        count = rng.geometric(1 / repeats)
        calls += list(self._idioms[idioms[state]]) * count
      state = rng.choice(len(idioms), p=follows[state])
    trace = np.array(calls[:length])
    is_random = rng.random(length) < noise
    trace[is_random] = self._draw(is_random.sum(), 1.3)
    return trace

  def trace(self, kind: str, n: int) -> np.ndarray:
    """Trace n of train, normal or attack."""
    rng = self._rng
    if kind != "attack":
      shares = self._usual if kind == "train" else self._mixed
      length = self._length()
      noise = rng.choice((0.002, 0.01, 0.04), p=[0.5, 0.4, 0.1])
      return self._trace(shares, length, noise)
    foreign = [self._foreign[i] for i in rng.choice(FOREIGN, 6, replace=False)]
    match n % 3:
      case 0:
        return self._trace(self._usual, self._length(), 0.002, foreign)
      case 1:
        calls = self._trace(self._usual, self._length(), 0.005)
        payload = [foreign[rng.integers(6)] for _ in range(rng.integers(5, 20))]
        place = rng.integers(len(calls))
        return np.insert(calls, place, np.concatenate(payload))
      case _:
        parts = []
        for _ in range(self._length() // 5):
          idiom = self._idioms[rng.integers(IDIOMS)]
          parts.append(np.tile(idiom, rng.integers(1, 3)))
        return np.concatenate(parts)


def main(argv: list[str] | None = None):
  """Writes the traces."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("folder", type=Path)
  folder = parser.parse_args(argv).folder
  folder.mkdir(parents=True, exist_ok=True)
  machine = Machine(np.random.default_rng(0))
  for name, count in TRACES.items():
    lines = (" ".join(map(str, machine.trace(name, n))) for n in range(count))
    (folder / name).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
  main()
