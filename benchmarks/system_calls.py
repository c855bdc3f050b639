r"""Writes traces of system calls of invented programs, and of attacks on them.

  python benchmarks/system_calls.py FOLDER

A trace is a line of call numbers. A program repeats a few short idioms of calls
in an order of its own, with some random calls between them. FOLDER gets `train`
and `normal`, of the same programs with other shares, and `attack`: a third each
of traces in which foreign idioms are blended, of traces with one foreign
payload, and of idioms of any program in random order. They are as long as those
of public sets of such traces, and no single call tells an attack. The same seed
gives the same files. To train and detect:

  python run.py --config=configs/sessions.py --workdir=runs/calls \
    --config.data.source=files --config.data.path=FOLDER/train \
    --config.data.validation_fraction=0.1 --config.data.test_fraction=0.0 \
    --config.model.symbol_dropout=0.01 --config.train.epochs=20
  python run.py --workdir=runs/calls --mode=detect \
    --config.detect.path=FOLDER/normal \
    --config.detect.anomalous_path=FOLDER/attack
"""

import argparse
from pathlib import Path

import numpy as np

_CALLS = 170
_IDIOMS, _FOREIGN, _PROGRAMS = 160, 60, 24
_TRAIN, _NORMAL, _ATTACKS = 830, 2500, 450
_NOISE = (0.002, 0.01, 0.04)  # Shares of random calls in a trace.


class Machine:
  """Programs, and idioms that none of them has."""

  def __init__(self, rng: np.random.Generator):
    self._rng = rng
    self._calls = rng.permutation(_CALLS)
    self._noise = _weights(1.3)
    self._idioms = [self._idiom(1.1) for _ in range(_IDIOMS)]
    self._foreign = [self._idiom(0.9) for _ in range(_FOREIGN)]
    self._programs = []
    for _ in range(_PROGRAMS):
      count = rng.integers(5, 16)
      own = rng.choice(_IDIOMS, count, replace=False)
      follows = rng.dirichlet(np.full(count, 0.3), size=count)
      self._programs.append((own, follows, rng.uniform(1.5, 8)))
    self.usual = rng.dirichlet(np.full(_PROGRAMS, 0.7))
    self.mixed = 0.8 * self.usual + 0.2 * rng.dirichlet(np.full(_PROGRAMS, 0.7))

  def _idiom(self, exponent: float) -> np.ndarray:
    size = self._rng.integers(2, 9)
    return self._calls[self._rng.choice(_CALLS, size, p=_weights(exponent))]

  def length(self) -> int:
    """A random number of calls."""
    return int(np.clip(self._rng.lognormal(5.4, 0.8), 75, 2500))

  def noise(self) -> float:
    """A random share of random calls."""
    return self._rng.choice(_NOISE, p=[0.5, 0.4, 0.1])

  def foreign(self) -> list[np.ndarray]:
    """Six foreign idioms."""
    some = self._rng.choice(_FOREIGN, 6, replace=False)
    return [self._foreign[i] for i in some]

  def trace(
    self,
    shares: np.ndarray,
    length: int,
    noise: float,
    foreign: list[np.ndarray] | None = None,
  ) -> np.ndarray:
    """The calls of a program; half of its idioms are `foreign`, if given."""
    rng = self._rng
    own, follows, repeats = self._programs[rng.choice(_PROGRAMS, p=shares)]
    state = rng.integers(len(own))
    found: list[int] = []
    while len(found) < length:
      if foreign is not None and rng.random() < 0.5:
        found += list(foreign[rng.integers(len(foreign))])
      else:
        found += list(self._idioms[own[state]]) * rng.geometric(1 / repeats)
      state = rng.choice(len(own), p=follows[state])
    calls = np.array(found[:length])
    random = rng.random(length) < noise
    calls[random] = self._calls[rng.choice(_CALLS, random.sum(), p=self._noise)]
    return calls

  def attack(self, kind: int) -> np.ndarray:
    """An attack: 0 blended, 1 a payload in one place, 2 mimicry."""
    rng, foreign = self._rng, self.foreign()
    if kind == 0:
      return self.trace(self.usual, self.length(), 0.002, foreign)
    if kind == 1:
      calls = self.trace(self.usual, self.length(), 0.005)
      count = rng.integers(5, 20)
      payload = np.concatenate([foreign[rng.integers(6)] for _ in range(count)])
      return np.insert(calls, rng.integers(len(calls)), payload)
    return np.concatenate(
      [
        np.tile(self._idioms[rng.integers(_IDIOMS)], rng.integers(1, 3))
        for _ in range(self.length() // 5)
      ]
    )


def _weights(exponent: float) -> np.ndarray:
  weights = 1 / np.arange(1, _CALLS + 1) ** exponent
  return weights / weights.sum()


def main(argv: list[str] | None = None):
  """Writes the traces."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("folder", type=Path)
  parser.add_argument("--seed", type=int, default=0)
  given = parser.parse_args(argv)
  machine = Machine(np.random.default_rng(given.seed))
  one = lambda shares: machine.trace(shares, machine.length(), machine.noise())
  traces = {
    "train": [one(machine.usual) for _ in range(_TRAIN)],
    "normal": [one(machine.mixed) for _ in range(_NORMAL)],
    "attack": [machine.attack(n % 3) for n in range(_ATTACKS)],
  }
  given.folder.mkdir(parents=True, exist_ok=True)
  for name, some in traces.items():
    lines = "\n".join(" ".join(map(str, calls)) for calls in some)
    (given.folder / name).write_text(lines + "\n")


if __name__ == "__main__":
  main()
