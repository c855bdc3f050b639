"""Tables of patterns, against Python's re on all short texts."""

import importlib.util
import itertools
import random
import re

import numpy as np
import pytest

from seqrnn.data.vocabulary import END, RESERVED, Vocabulary, joined
from seqrnn.sampling.patterns import bounded
from seqrnn.sampling.patterns.bounded import PatternError
from seqrnn.sampling.patterns.table import (
  ENDED,
  NEVER,
  START,
  compile_pattern,
)

ATOMS = [
  *("a", "b", "é", "_", " ", r"\n", r"\.", r"\d", r"\w", r"\W", r"\s", r"\S"),
  *(".", "[ab]", "[^a]", r"[^\w]", "[b-é]", "[^é\n]", r"[\d.]", "(?i:B)"),
  *("(?s:.)", "(?i:a)", "(?a:\\w)", "(?i:[^A])", "", "\\x61", "(?:)"),
]
REPEATS = ["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?", "{,1}"]
UNITS = {
  "char": tuple("aAb.é_ \n1٣"),
  "byte": (*"ab._ \n1", "\xc3", "\xa9", "\xd9", "\xa3"),
  "word": ("a", "ab", "\n", "é1", ".", "b"),
  "session": ("a", "ab", "é1", "."),
}


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
def test_a_table_accepts_what_python_matches(unit, monkeypatch):
  # Without the start of a process for each pattern.
  monkeypatch.setattr(bounded, "run", lambda _, text: bounded.automaton(text))
  vocabulary = Vocabulary(unit, UNITS[unit])
  ids = range(len(RESERVED), len(vocabulary))
  rows = [r for n in range(4) for r in itertools.product(ids, repeat=n)]
  if unit == "byte":  # Those in UTF-8.
    rows = [r for r in rows if "\ufffd" not in vocabulary.text(r)]
  texts = [vocabulary.text(row) for row in rows]
  rng = random.Random(4)
  kept = 0
  for _ in range(120):
    pattern = expression(rng)
    true = [bool(re.fullmatch(pattern, text)) for text in texts]
    try:
      table = compile_pattern(pattern, vocabulary)
    except PatternError as error:
      assert str(error).startswith("no ")
      assert not any(true), pattern
      continue
    kept += 1
    states = np.array([state_after(table, row) for row in rows])
    wrong = np.flatnonzero((table.need_SV[states, END] == 0) != true)
    assert not len(wrong), (pattern, texts[wrong[0]])
    if any(true) and unit != "byte":
      lengths = [
        len(row) for row, found in zip(rows, true, strict=True) if found
      ]
      assert table.shortest == min(lengths)
  assert kept > 60


def test_needs_and_ends():
  vocabulary = Vocabulary("char", tuple("ab"))
  table = compile_pattern("a(bb)*|bab", vocabulary)
  a, b = vocabulary.encode("ab")
  assert table.shortest == 1
  assert table.need_SV[START, [a, b, END]].tolist() == [0, 2, NEVER]
  after = table.next_SV[START, a]
  assert table.need_SV[after, [a, b, END]].tolist() == [NEVER, 1, 0]
  assert table.next_SV[after, END] == ENDED
  assert table.next_SV[ENDED, END] == ENDED
  assert (table.need_SV[:, :END] == NEVER).all()
  assert table.need_SV[ENDED].tolist().count(0) == 1
  # All needs, by enumeration.
  texts = [t for n in range(8) for t in itertools.product("ab", repeat=n)]
  full = [t for t in map("".join, texts) if re.fullmatch("a(bb)*|bab", t)]
  for text in {m[:n] for m in full for n in range(1, len(m) + 1)}:
    [*before, last] = vocabulary.encode(text)
    found = [len(m) - len(text) for m in full if m.startswith(text)]
    assert table.need_SV[state_after(table, before), last] == min(found)


def test_symbols_of_words_are_joined_as_text():
  words = Vocabulary("word", ("def", "f", "(", ")", "\n", ":"))
  table = compile_pattern(r"def f \( \) :\n(f f\n)*", words)
  ids = words.encode(["def", "f", "(", ")", ":", "\n", "f", "f", "\n"])
  for count, accepted in ((5, False), (6, True), (8, False), (9, True)):
    assert (
      table.need_SV[state_after(table, ids[:count]), END] == 0
    ) == accepted
  assert joined(["def", "f", "\n", "f"], "word") == "def f\nf"


@pytest.mark.parametrize(
  "pattern",
  [
    "(a{1,1000}){1,1000}",
    "(?:(?:a{1000}){1000}){1000}",
    ".{100000}",
    "ab(a?){30000}b",
    "(?:a*){20000}",
    "(a{5000}|b{5000}|ab)",
  ],
)
def test_a_long_pattern_is_refused_before_it_is_compiled(pattern, monkeypatch):
  monkeypatch.delattr(bounded, "run")
  with pytest.raises(PatternError, match="^its automaton needs more than 10,"):
    compile_pattern(pattern, Vocabulary("char", tuple("ab")))


@pytest.mark.parametrize("pattern", ["(a|b)*a(a|b){14}|b", "(a|b)*a(a|b){99}"])
def test_an_automaton_that_is_too_large_is_refused(pattern):
  with pytest.raises(PatternError, match="^its automaton needs more than 10,"):
    compile_pattern(pattern, Vocabulary("char", tuple("ab")))


def test_outlines_core_is_not_installed(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  with pytest.raises(PatternError, match=r"pip install 'seqrnn\[patterns\]'"):
    compile_pattern("a(b|c)", Vocabulary("char", tuple("abc")))


def test_a_table_that_is_too_large_is_refused():
  words = Vocabulary("word", tuple(f"w{n}" for n in range(20_000)))
  with pytest.raises(
    PatternError, match="^its table of .* has more than 128 MB"
  ):
    compile_pattern("(w[0-9]+ ){900}w1", words)


def test_a_log_has_no_texts():
  with pytest.raises(PatternError, match="data.unit=log are templates"):
    compile_pattern("a", Vocabulary("log", ("a <*>",)))


@pytest.mark.parametrize(
  "pattern",
  [
    "\x00",
    "(" * 5000 + ")" * 5000,
    "a{99999999999}",
    "[]",
    "\\",
    "(?P<a>",
    "(?x) #",
  ],
)
def test_odd_patterns_end_in_an_error_or_a_table(pattern):
  try:
    compile_pattern(pattern, Vocabulary("char", tuple("ab")))
  except PatternError as error:
    assert str(error)
