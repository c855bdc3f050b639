"""The distribution of samples under a pattern, against enumerations."""

import itertools
import re

import jax
import numpy as np
import pytest
from scipy import stats

import experiments
from seqrnn.data.vocabulary import BEGIN, END, RESERVED, Vocabulary
from seqrnn.sampling import sampler
from seqrnn.sampling.patterns.constraint import constraint
from seqrnn.sampling.patterns.table import compile_pattern
from tests.conftest import tiny

LETTERS = "abc"
SYMBOLS = Vocabulary("char", tuple(LETTERS))
PATTERN = "(a|b)*c?a|cb+|b"
LENGTH = 4
SAMPLES = 1000


def temperature(boundaries):
  return 1.0 if boundaries else 0.7


class Oracle:
  """Probabilities of a model by enumeration, in Python's own terms."""

  def __init__(self, experiment, params, boundaries, length=LENGTH):
    self.length = length
    self.matches = {
      text
      for n in range(length + 1)
      for text in map("".join, itertools.product(LETTERS, repeat=n))
      if re.fullmatch(PATTERN, text)
    }
    self.prefixes = {m[:n] for m in self.matches for n in range(len(m) + 1)}
    texts = [*map("".join, itertools.product(LETTERS, repeat=length))]
    ids_BT = np.stack([SYMBOLS.encode(text) for text in texts])
    carry = experiment.decoder.start(len(texts))
    symbol_B = np.full(len(texts), BEGIN)
    self.next = {}  # The model's probabilities after a text.
    for n in range(length):
      carry, logits_BV = experiment.decoder.step(params, carry, symbol_B)
      logits_BV = np.array(logits_BV, np.float64) / temperature(boundaries)
      logits_BV[:, [i for i in range(len(RESERVED)) if i != END]] = -np.inf
      if not boundaries:
        logits_BV[:, END] = -np.inf
      p_BV = np.exp(logits_BV - logits_BV.max(axis=1, keepdims=True))
      p_BV /= p_BV.sum(axis=1, keepdims=True)
      for text, p_V in zip(texts, p_BV, strict=True):
        ways = dict(zip(LETTERS, p_V[len(RESERVED) :], strict=True))
        self.next[text[:n]] = ways | {"": p_V[END]}
      symbol_B = ids_BT[:, n]

  def ways(self, text):
    """What may follow a text, "" for its end, with the probabilities."""
    found = {
      c: p
      for c, p in self.next[text].items()
      if c and text + c in self.prefixes
    }
    if text in self.matches:  # Or it leaves the pattern.
      found[""] = 1 - sum(found.values())
    return found

  def of(self, local):
    """Text -> probability: renormalized at each symbol, or given a match."""
    found = {}
    for match in self.matches:
      p, end = 1.0, [""] * (len(match) < self.length)
      for n, symbol in enumerate([*match, *end]):
        ways = self.ways(match[:n])
        p *= ways[symbol] / (sum(ways.values()) if local else 1)
      found[match] = p
    total = sum(found.values())
    assert not local or total == pytest.approx(1)
    return {match: p / total for match, p in found.items()}


@pytest.fixture(params=[True, False], ids=["boundaries", "none"])
def case(request, tmp_path):
  config = tiny(tmp_path, {"data.boundaries": request.param})
  experiment = experiments.build(config, {"symbols": SYMBOLS})
  params = jax.jit(experiment.init)(jax.random.key(5))
  params = jax.tree.map(lambda leaf: 3 * leaf, params)  # Far from uniform.
  return experiment, params, request.param


def p_value(found, expected):
  """Of the chi-square test; rare texts are counted together."""
  found = [found.count(text) for text in expected]
  chances = np.array([*expected.values()]) * sum(found)
  rare = chances < 5
  fold = lambda values: [*np.array(values)[~rare], np.array(values)[rare].sum()]
  found, chances = fold(found), fold(chances)
  if not chances[-1]:
    del found[-1], chances[-1]
  return stats.chisquare(found, chances).pvalue


def drawn(experiment, params, boundaries, one):
  draw = sampler.generator(experiment.decoder, length=LENGTH, applied=[one])
  prime_BP = np.full((SAMPLES, 1), BEGIN, np.int32)
  ids_BT = np.concatenate(
    [*draw(params, prime_BP, 7, temperature(boundaries))], axis=1
  )
  return [SYMBOLS.text(ids) for ids in ids_BT]


def test_samples_follow_the_distribution(case):
  boundaries = case[2]
  oracle = Oracle(*case)
  table = compile_pattern(PATTERN, SYMBOLS, LENGTH)
  one = constraint(table, LENGTH, temperature(boundaries), boundaries)
  local, given = oracle.of(local=True), oracle.of(local=False)
  found = drawn(*case, one)
  assert p_value(found, local) > 0.01
  assert p_value(found, given) < 1e-9  # They differ.


@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_a_likely_symbol_that_is_never_drawn_hides_no_end(temperature):
  vocabulary = Vocabulary("char", ("a", "b"))
  table = compile_pattern("a", vocabulary)
  one = constraint(table, 9, temperature, boundaries=False)
  state_B = one.processor.advance(
    one.arrays, one.start(np.ones((1, 1))), np.array([4]), 0
  )
  logits_BV = np.array([[0, 0, 0, 500, -5, -5]], np.float32)  # Unknown.
  [after_V] = one.processor.apply(one.arrays, state_B, logits_BV, 1)
  assert np.flatnonzero(after_V > -np.inf).tolist() == [END]
  end = -5 + temperature * np.log(2)
  np.testing.assert_allclose(after_V[END], end, rtol=1e-6)
