"""A random order of n numbers in constant memory, since n may be billions."""

import hashlib
import math

import numpy as np

_ROUNDS = 16  # With fewer, some orders of 6 numbers are rarer than others.


def shuffle(places: np.ndarray, n: int, key: tuple[int, ...]) -> np.ndarray:
  """The numbers of 0..n-1 at `places` of the random order of a key; int64.

  A Feistel network (Luby and Rackoff 1988) on pairs of numbers. A round adds a
  hash of one half to the other half. That can be undone, so that no two pairs
  give the same pair. There are about n + sqrt(n) pairs; a result of n or more
  goes through the network again (cycle walking, Black and Rogaway 2002).

  The order depends on `key` and n only, not on the machine or NumPy's version.
  """
  text = " ".join(map(str, key)).encode()
  keys = np.frombuffer(hashlib.shake_256(text).digest(8 * _ROUNDS), "<u8")
  columns = math.isqrt(n - 1) + 1
  sides = np.array([columns, -(-n // columns)], np.uint64)
  found = _network(places.astype(np.uint64), sides, keys)
  while len(beyond := np.flatnonzero(found >= n)):
    found[beyond] = _network(found[beyond], sides, keys)
  return found.astype(np.int64)


def _network(x: np.ndarray, sides: np.ndarray, keys: np.ndarray) -> np.ndarray:
  """A bijection of 0..sides[0] * sides[1] - 1."""
  halves = [x % sides[0], x // sides[0]]
  for turn, key in enumerate(keys):
    here, there = turn % 2, 1 - turn % 2
    # 32 bits of the hash, so that the sum does not wrap at 2**64.
    hashed = _mix(halves[there] + key) >> 32
    halves[here] = (halves[here] + hashed) % sides[here]
  return halves[1] * sides[0] + halves[0]


def _mix(x: np.ndarray) -> np.ndarray:
  """The finalizer of SplitMix64 (Steele et al. 2014), modulo 2**64."""
  x = (x ^ (x >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> 27)) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> 31)
