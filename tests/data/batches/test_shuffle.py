"""The order of windows: each once, none more likely, the same everywhere."""

import hashlib
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrnn.data.batches.shuffle import shuffle

examples = settings(deadline=None, database=None, max_examples=100)


@pytest.mark.parametrize(
  "n", [*range(1, 70), 99, 100, 101, 1023, 1024, 1025, 10_007, 65_536, 65_537]
)
def test_each_comes_once(n):
  for key in ((0, 0, 0), (1, 2, 3)):
    found = shuffle(np.arange(n), n, key)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(np.sort(found), np.arange(n))


@examples
@given(st.integers(1, 2**53), st.tuples(st.integers(0, 2**32 - 1)), st.data())
def test_parts_of_an_order_are_those_of_the_whole(n, key, data):
  places = st.lists(st.integers(0, n - 1), min_size=1, max_size=50, unique=True)
  some = np.array(data.draw(places))
  found = shuffle(some, n, key)
  assert len(set(found.tolist())) == len(some)
  assert found.min() >= 0 and found.max() < n
  for place, expected in zip(some, found, strict=True):
    assert shuffle(np.array([place]), n, key) == [expected]


def test_it_is_the_same_on_every_machine():
  # Written down once: a run goes on with the order that it began with.
  assert shuffle(np.arange(10), 10, (0, 0, 0)).tolist() == [
    6,
    7,
    9,
    4,
    0,
    3,
    2,
    8,
    1,
    5,
  ]
  places = np.array([0, 1, 10**9, 10**12 - 1])
  assert shuffle(places, 10**12, (7, 3, 1)).tolist() == [
    272741485704,
    113729321680,
    850124346221,
    961324969233,
  ]


def oracle(place, n, key):
  """The same in whole numbers of Python's, one by one."""
  digest = hashlib.shake_256(" ".join(map(str, key)).encode()).digest(128)
  keys = [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 128, 8)]
  columns = next(c for c in itertools.count(math.isqrt(n)) if c * c >= n)
  sides = columns, next(r for r in itertools.count(1) if r * columns >= n)
  while True:
    left, right = place % columns, place // columns
    for number, part in enumerate(keys):
      x = ((right if number % 2 == 0 else left) + part) % 2**64
      x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
      x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
      x = (x ^ (x >> 31)) >> 32
      if number % 2 == 0:
        left = (left + x) % sides[0]
      else:
        right = (right + x) % sides[1]
    place = right * columns + left
    if place < n:
      return place


@pytest.mark.parametrize("n", [1, 2, 3, 7, 30, 1000])
def test_it_is_a_feistel_network(n):
  found = shuffle(np.arange(n), n, (5, 6, 7))
  assert found.tolist() == [oracle(place, n, (5, 6, 7)) for place in range(n)]


def excess(counts, cells):
  """How many standard deviations chi square is above what chance gives."""
  expected = sum(counts.values()) / cells
  chi = sum((count - expected) ** 2 for count in counts.values()) / expected
  chi += expected * (cells - len(counts))
  return (chi - (cells - 1)) / math.sqrt(2 * (cells - 1))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_order_of_a_few_is_as_likely(n):
  counts = Counter(
    tuple(shuffle(np.arange(n), n, (seed, 0, 0)).tolist())
    for seed in range(2000)
  )
  assert abs(excess(counts, math.factorial(n))) < 5


@pytest.mark.parametrize("n", [40, 1000])
def test_every_thing_is_as_likely_at_every_place(n):
  orders = np.stack([shuffle(np.arange(n), n, (s, 1, 0)) for s in range(1500)])
  places = (0, 1, n // 2, n - 1)
  for place in places:
    assert abs(excess(Counter(orders[:, place].tolist()), n)) < 5
  # Two neighbours are as far apart as any two, and no two epochs alike.
  steps = (orders[:, 1:] - orders[:, :-1]) % n
  assert abs(excess(Counter(steps[:, :20].ravel().tolist()), n - 1)) < 5
  assert abs(np.corrcoef(orders[0], orders[1])[0, 1]) < 5 / math.sqrt(n)
  # It keeps no run together: about one neighbour stays one.
  assert 0.5 < np.mean(np.sum(steps == 1, axis=1)) < 1.5
