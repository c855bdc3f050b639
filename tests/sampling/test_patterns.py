"""Patterns: tables against Python's re, and samples under them."""

import importlib.util
import itertools
import random
import re

import jax
import numpy as np
import pytest
from scipy import stats

from seqrnn import experiments
from seqrnn.data.vocabulary import BEGIN, END, RESERVED, Vocabulary
from seqrnn.sampling import automaton, patterns, sampler, texts
from seqrnn.sampling.automaton import PatternError
from seqrnn.sampling.patterns import START, compile_pattern, constraint
from tests.conftest import message_of, random_params, tiny
from tests.sampling.test_infill import merged

ATOMS = [
  *("a", "b", "é", "_", " ", r"\n", r"\.", r"\d", r"\w", r"\W", r"\s", r"\S"),
  *(".", "[ab]", "[^a]", r"[^\w]", "[b-é]", "[^é\n]", r"[\d.]", "(?i:B)"),
  *("(?s:.)", "(?i:a)", "(?i:[^A])", "", "\\x61", "(?:)"),
]
REPEATS = ["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?"]
UNITS = {
  "char": tuple("aAb.é_ \n1٣"),
  "byte": (*"ab._ \n1", "\xc3", "\xa9", "\xd9", "\xa3"),
  "word": ("a", "ab", "\n", "é1", ".", "b"),
  "session": ("a", "ab", "é1", "."),
}
ABC = Vocabulary("char", tuple("abc"))


def expression(rng, depth=3):
  """A random regular expression."""
  kind = rng.random()
  if depth == 0 or kind < 0.25:
    return rng.choice(ATOMS)
  if kind < 0.6:
    return "".join(expression(rng, depth - 1) for _ in range(rng.randint(1, 3)))
  inner = expression(rng, depth - 1)
  if kind < 0.8:
    return f"(?:{inner}|{expression(rng, depth - 1)})"
  return f"({inner}){rng.choice(REPEATS)}"


def state_after(table, ids):
  state = START
  for i in ids:
    state = table.next_SV[state, i]
  return state


@pytest.mark.parametrize("unit", UNITS)
def test_a_table_accepts_the_matches_of_python(unit, monkeypatch):
  # Without the start of a process for each pattern.
  in_process = lambda _, text: automaton.byte_automaton(text)
  monkeypatch.setattr(patterns, "bounded", in_process)
  vocabulary = Vocabulary(unit, UNITS[unit])
  ids = range(len(RESERVED), len(vocabulary))
  rows = [r for n in range(4) for r in itertools.product(ids, repeat=n)]
  if unit == "byte":  # Those in UTF-8.
    rows = [r for r in rows if "\ufffd" not in vocabulary.text(r)]
  matched = [vocabulary.text(row) for row in rows]
  rng, tables = random.Random(4), 0
  for _ in range(25):
    pattern = expression(rng)
    true = [bool(re.fullmatch(pattern, text)) for text in matched]
    try:
      table = compile_pattern(pattern, vocabulary)
    except PatternError as error:
      assert str(error).startswith("no text") and not any(true), pattern
      continue
    tables += 1
    states = np.array([state_after(table, row) for row in rows])
    wrong = np.flatnonzero((table.need_SV[states, END] == 0) != true)
    assert not len(wrong), (pattern, matched[wrong[0]])
    if any(true) and unit != "byte":
      lengths = [
        len(row) for row, is_match in zip(rows, true, strict=True) if is_match
      ]
      assert table.shortest == min(lengths)
  assert tables > 12


PATTERN, LENGTH, SAMPLES = "(a|b)*c?a|cb+|b", 4, 1000


def chances_of_texts(experiment, params, boundaries, temperature):
  """Text -> probability, renormalized at each symbol, by enumeration."""
  every = [
    text
    for n in range(LENGTH + 1)
    for text in map("".join, itertools.product("abc", repeat=n))
  ]
  matches = {text for text in every if re.fullmatch(PATTERN, text)}
  prefixes = {m[:n] for m in matches for n in range(len(m) + 1)}
  step, following = jax.jit(experiment.decoder.step), {}
  for text in prefixes:
    carry = experiment.decoder.start(1)
    for i in [BEGIN, *ABC.encode(text)]:
      carry, logits_BV = step(params, carry, np.array([i], np.int32))
    logits_V = np.array(logits_BV[0], np.float64)[[END, *ABC.encode("abc")]]
    logits_V[0] = logits_V[0] if boundaries else -np.inf
    p_V = np.exp((logits_V - logits_V.max()) / temperature)
    following[text] = dict(zip(["", *"abc"], p_V / p_V.sum(), strict=True))

  def ways(text):
    some = {
      c: p for c, p in following[text].items() if c and text + c in prefixes
    }
    if text in matches:  # Or it leaves the pattern.
      some[""] = 1 - sum(some.values())
    return some

  chances = {}
  for match in matches:
    chances[match] = 1.0
    for n, symbol in enumerate([*match, *[""] * (len(match) < LENGTH)]):
      some = ways(match[:n])
      chances[match] *= some[symbol] / sum(some.values())
  assert sum(chances.values()) == pytest.approx(1)
  return chances


def test_samples_follow_the_distribution(tmp_path):
  config = tiny(tmp_path)
  experiment = experiments.build(config, {"symbols": ABC})
  params = random_params(experiment, 5)
  boundaries, temperature = True, 0.7
  chances = chances_of_texts(experiment, params, boundaries, temperature)
  table = compile_pattern(PATTERN, ABC)
  one = constraint(table, LENGTH, temperature, boundaries)
  draw = sampler.generator(experiment.decoder, length=LENGTH, applied=[one])
  prime_BP = np.full((SAMPLES, 1), BEGIN, np.int32)
  ids_BT = np.concatenate([*draw(params, prime_BP, 7, temperature)], axis=1)
  drawn = [ABC.text(ids) for ids in ids_BT]
  counts = np.array([drawn.count(text) for text in chances])
  means = np.array([*chances.values()]) * SAMPLES
  assert counts.sum() == SAMPLES
  assert stats.chisquare(*merged(counts, means)).pvalue > 0.01


def test_a_likely_symbol_that_is_never_drawn_hides_no_end():
  table = compile_pattern("a", Vocabulary("char", ("a", "b")))
  one = constraint(table, 9, 0.01, boundaries=False)
  apply, advance = map(jax.jit, one.processor)
  start_B = one.start(np.ones((1, 1)))
  state_B = advance(one.values, start_B, np.array([4]), 0)
  logits_BV = np.array([[0, 0, 0, 500, -5, -5]], np.float32)  # Unknown.
  after_V = np.asarray(apply(one.values, state_B, logits_BV, 1))[0]
  assert np.flatnonzero(after_V > -np.inf).tolist() == [END]
  np.testing.assert_allclose(after_V[END], -5 + 0.01 * np.log(2), rtol=1e-6)


PRINTED = Vocabulary("char", ("\n", *map(chr, range(32, 127))))
NAME = "[a-z_][a-z0-9_]*"
FORMS = [
  r"(19|20)\d{2}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])",
  r"[+-]?(0|[1-9]\d{0,5})(\.\d+)?([eE][+-]?\d{1,3})?",
  rf"def {NAME}\(({NAME}(, {NAME})*)?\)( -> {NAME})?:\n",
]


@pytest.fixture(scope="module")
def draw(tmp_path_factory):
  """A function that draws texts from a model of characters."""
  config = tiny(tmp_path_factory.mktemp("patterns"))
  experiment = experiments.build(config, {"symbols": PRINTED})
  params = random_params(experiment, 1, 0.3)

  def drawn(boundaries=True, **settings):
    config.data.boundaries = boundaries
    config.sample.update({"streams": 20, "length": 40, "prime": "", **settings})
    return texts.sample(experiment, params, config)

  return drawn


def test_every_sample_is_a_match(draw):
  for n, pattern in enumerate(FORMS):
    drawn = draw(n != 1, temperature=(0.0, 1.0), pattern=pattern)
    assert all(re.fullmatch(pattern, text) for text in drawn), drawn
    assert len(set(drawn)) > 5


def test_patterns_that_are_refused(draw, monkeypatch):
  for pattern, message in (
    ("a{41}", "its shortest match has 41 symbols, and a text at most 40"),
    ("[a-", "syntax error: unterminated character set at position 0"),
    ("ax(é|b)[éè]", "no text of the vocabulary's symbols (char) matches"),
    *((s, "it has an anchor") for s in ("(?=a)", r"(a)\1")),
    ("(a|b)*a(a|b){15}|b", "its automaton needs more than 32,768 states"),
  ):
    start = f"config.sample.pattern={pattern!r}: {message}"
    assert message_of(draw, pattern=pattern).startswith(start)
  monkeypatch.setattr(patterns, "_BYTES", 10)
  with pytest.raises(PatternError, match="^its table of . states and 3 sym"):
    compile_pattern("a(b|c)d", ABC)
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  with pytest.raises(PatternError, match=r"pip install 'seqrnn\[patterns\]'"):
    compile_pattern("a(b|c)d", ABC)
