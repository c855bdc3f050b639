"""Baselines against counting in dictionaries, one session after the other."""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.read import stored
from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.logs.detect.scores import (
  BASELINES,
  Chain,
  Learned,
  baselines,
  learn,
)


def random_sessions(rng, count, symbols):
  """Random sessions of 1 to 9 events, the ids from UNKNOWN on."""
  sizes = rng.integers(1, 10, count)
  ids = rng.choice(
    symbols,
    sizes.sum(),
    p=np.arange(1, symbols + 1) * 2 / (symbols * (symbols + 1)),
  )
  bounds = np.concatenate([[0], np.cumsum(sizes)])
  names = [str(n) for n in range(count)]
  return Sessions((ids + UNKNOWN).astype(np.int32), bounds, names)


def lists(sessions):
  parts = np.split(sessions.ids, sessions.bounds[1:-1])
  return [part.tolist() for part in parts]


def padded(session, order):
  return ["<"] * order + session + [">"]


def fit_baselines(train, names):
  return baselines(learn(train, names), names)


class Slow:
  """A chain by Witten and Bell, by its formula."""

  def __init__(self, train, order, cuts=None):
    self.order = order
    self.follow = defaultdict(Counter)
    for j, session in enumerate(train):
      symbols = padded(session, order)
      begins, ends = cuts[j] if cuts else (True, True)
      for t in range(order + (not begins), len(symbols) - (not ends)):
        for size in range(order + 1):
          self.follow[tuple(symbols[t - size : t])][symbols[t]] += 1

  def p(self, symbol, context):
    lower = (
      self.p(symbol, context[1:]) if context else 1 / (len(self.follow[()]) + 1)
    )
    n = self.follow.get(context)
    if n is None:
      return lower
    return (n[symbol] + len(n) * lower) / (n.total() + len(n))

  def __call__(self, session):
    symbols = padded(session, self.order)
    return [
      self.p(symbols[t], tuple(symbols[t - self.order : t]))
      for t in range(self.order, len(symbols))
    ]


@pytest.fixture
def data():
  """Sessions to learn from, and others with unknown events, and short ones."""
  rng = np.random.default_rng(0)
  train = random_sessions(rng, 80, 4)
  train = train._replace(ids=train.ids + 1)  # Without UNKNOWN.
  test = random_sessions(rng, 60, 6)
  return train, test._replace(ids=test.ids + test.ids % 2 * 90)


@pytest.mark.parametrize("order", range(6))
def test_a_chain_is_that_of_its_formula(data, order):
  train, test = data
  slow = Slow(lists(train), order)
  expected = [slow(session) for session in lists(test)]
  values = Chain(learn(train, []), order).probabilities(test)
  np.testing.assert_allclose(values, np.concatenate(expected), rtol=1e-12)
  name = f"markov_{order}" if order else "naive_bayes"
  np.testing.assert_allclose(
    fit_baselines(train, [name])[name](test),
    [-np.mean(np.log(p)) for p in expected],
    rtol=1e-12,
  )


def stide(train, session):
  runs = {
    tuple(padded(s, 5)[i : i + 6]) for s in train for i in range(len(s) + 1)
  }
  symbols = padded(session, 5)
  new = [tuple(symbols[i : i + 6]) not in runs for i in range(len(session) + 1)]
  return sum(new) / len(new)


def unknown(train, session):
  pairs = {pair for s in train for pair in pairwise(padded(s, 1))}
  known = {event for s in train for event in s}
  new = sum(pair not in pairs for pair in pairwise(padded(session, 1)))
  return np.log1p(new + sum(event not in known for event in session))


def counts(train, session):
  every, other = Counter(session), [Counter(s) for s in train]
  known = {event for s in train for event in s}
  unknown = sum(event not in known for event in session)
  total = np.log1p(unknown)
  for event in known:
    sizes = [s[event] for s in other]
    nearest = np.clip(every[event], min(sizes), max(sizes))
    total += abs(np.log1p(every[event]) - np.log1p(nearest))
  return total.round(4)


def length(train, session):
  sizes = [len(s) for s in train]
  return max(min(sizes) - len(session), len(session) - max(sizes), 0)


def count_vector(train, session):
  known = {event for s in train for event in s}

  def counts(events):
    return Counter(event if event in known else None for event in events)

  def distance(a, b):
    return sum(abs(a[x] - b[x]) for x in a | b) / (a.total() + b.total())

  return min(distance(counts(session), counts(s)) for s in train)


def union(train, session):
  known = {event for s in train for event in s}
  return (
    any(event not in known for event in session)
    + (length(train, session) > 0)
    + count_vector(train, session)
  )


@pytest.mark.parametrize(
  "oracle",
  [stide, unknown, counts, length, count_vector, union],
  ids=lambda f: f.__name__,
)
def test_a_baseline_is_what_it_says(data, oracle):
  train, test = data
  # Longer than any, as some here are shorter than any; and than a byte counts.
  long = [[4] * 12, [4] * 300 + [5]]
  short = np.diff(train.bounds) > 1
  train = train.take(np.flatnonzero(short))
  test = test._replace(
    ids=np.concatenate([test.ids, np.array(sum(long, []), np.int32)]),
    bounds=np.append(test.bounds, len(test.ids) + np.cumsum([12, 301])),
    names=[*test.names, "long", "longer"],
  )
  expected = [oracle(lists(train), session) for session in lists(test)]
  name = oracle.__name__
  values = fit_baselines(train, [name])[name](test)
  np.testing.assert_allclose(values, expected, rtol=1e-12)
  assert len(set(expected)) > 1


def cut(sessions, seed):
  """The sessions, some of them cut at the begin, at the end, or at both."""
  begins, ends = np.random.default_rng(seed).random((2, len(sessions.names)))
  return sessions._replace(begins=begins < 0.7, ends=ends < 0.7)


def test_what_a_log_cuts_is_not_scored(data):
  train, test = (cut(part, seed) for seed, part in enumerate(data))
  known = {x for session in lists(train) for x in session}
  whole = [Counter(s) for s in lists(train)]
  slow = Slow(lists(train), 2, list(zip(*train.whole, strict=True)))
  names = ("markov_2", "stide", "count_vector", "length", "counts")
  scores = fit_baselines(train, names).values()
  mean, novel, apart, size, beyond = (score(test) for score in scores)
  longest = max(map(len, lists(train)))
  for j, session in enumerate(lists(test)):
    begins, ends = bool(test.begins[j]), bool(test.ends[j])
    p = slow(session)[not begins : len(session) + ends]
    assert mean[j] == pytest.approx(-np.mean(np.log(p)) if p else 0)
    assert 0 <= novel[j] <= 1
    if not (begins and ends):
      counted = Counter(x if x in known else None for x in session)
      common = max((counted & other).total() for other in whole)
      distance = (counted.total() - common) / (counted.total() + common)
      assert apart[j] == pytest.approx(distance)
      assert size[j] == max(len(session) - longest, 0)
      high = {x: max(s[x] for s in whole) for x in known}
      more = ((1 + n) / (1 + high.get(x, 0)) for x, n in counted.items())
      expected = sum(np.log(ratio) for ratio in more if ratio > 1)
      assert beyond[j] == pytest.approx(expected, abs=1e-4)
  assert mean.min() == 0 and 0 < apart.max() <= 1


def test_all_that_is_learned_does_not_grow_with_equal_sessions(data, tmp_path):
  """deployed.npz has it in place of the sessions."""
  train, test = (cut(part, seed) for seed, part in enumerate(data))
  learned = learn(train, BASELINES)
  often = learn(train.take(np.repeat(np.arange(80), 30)), BASELINES)
  for name, x in learned._asdict().items():
    y = getattr(often, name)
    assert np.array_equal(30 * x if name == "times" else x, y), name
  stored.save_arrays(tmp_path / "x.npz", learned._asdict())
  again = stored.load_arrays(tmp_path / "x.npz")
  before = baselines(learned, BASELINES)
  for name, score in baselines(Learned.of_columns(again), BASELINES).items():
    assert np.array_equal(before[name](test), score(test)), name
  for name, x in again.items():
    with pytest.raises(ValueError, match="do not fit"):
      Learned.of_columns({**again, name: x[..., :-1]})


def test_a_session_that_counts_for_equal_ones_is_as_these(data):
  """Sessions are learned from once, with their counts."""
  once, test = (cut(part, seed) for seed, part in enumerate(data))
  counts = np.random.default_rng(3).integers(1, 30, len(once.names))
  repeated = once.take(np.repeat(np.arange(len(counts)), counts))
  counted, faults = once._replace(counts=counts), []
  of_repeated, of_counted, alone = (
    {name: fit(test) for name, fit in fit_baselines(x, BASELINES).items()}
    for x in (repeated, counted, once)
  )
  for name, expected in of_repeated.items():
    if not np.array_equal(of_counted[name], expected):
      faults.append(name)
  assert not faults
  assert not np.array_equal(alone["markov_2"], of_counted["markov_2"])
