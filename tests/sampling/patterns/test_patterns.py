"""Samples under a pattern: each matches, whatever the length and the unit."""

import re

import jax
import pytest

import experiments
from seqrnn.config.read import check
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.sampling import texts
from tests.conftest import tiny

VOCABULARIES = {
  "char": Vocabulary("char", tuple("abcdefgh 0123456789-\n")),
  "byte": Vocabulary("byte", tuple("ab01-") + ("\xc3", "\xa9", "\xa8")),
  "word": Vocabulary("word", ("ab", "a", "b", "\n", "12", "1", "-")),
  "session": Vocabulary("session", ("E1", "E22", "E3")),
  "ascii": Vocabulary("char", ("\n", *map(chr, range(32, 127)))),
}
OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
NAME = "[a-z_][a-z0-9_]*"
FORMS = [  # Dates, e-mail addresses, numbers, IPv4, colours, times, code, logs.
  r"(19|20)\d{2}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])",
  r"[a-z][a-z0-9._]*@[a-z0-9]+(\.[a-z]{2,3}){1,2}",
  r"[+-]?(0|[1-9]\d{0,5})(\.\d+)?([eE][+-]?\d{1,3})?",
  rf"({OCTET}\.){{3}}{OCTET}",
  r"#([0-9a-f]{3}){1,2}",
  r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6})?)?",
  rf"def {NAME}\(({NAME}(, {NAME})*)?\)( -> {NAME})?:\n",
  rf"(from (\.*{NAME}|\.+)(\.{NAME})* )?import {NAME}( as {NAME})?"
  rf"(, {NAME}( as {NAME})?)*\n",
  r"\[\d\d:\d\d:\d\d\] (INFO|WARN(ING)?|ERROR) [\w.]+: [^\n]+\n",
  r"(\+\d{1,3} )?(\(\d{2,4}\) |\d{2,4}[ -])\d{3}[ -]?\d{4}",
]


@pytest.fixture
def draw(tmp_path):
  """A function that draws texts from a model of a unit."""

  def drawn(vocabulary="char", boundaries=True, **settings):
    config = tiny(
      tmp_path,
      {
        "data.unit": VOCABULARIES[vocabulary].unit,
        "data.boundaries": boundaries,
        "sample.streams": 40,
        "sample.length": 12,
        **{f"sample.{name}": value for name, value in settings.items()},
      },
    )
    symbols = {"symbols": VOCABULARIES[vocabulary]}
    experiment = experiments.build(config, symbols)
    params = jax.jit(experiment.init)(jax.random.key(1))
    return texts.sample(experiment, params, config)

  return drawn


@pytest.mark.parametrize("boundaries", [True, False])
@pytest.mark.parametrize(
  ("unit", "pattern"),
  [
    ("char", r"\d{4}-[01]\d|[a-c]+( [d-f]{2})*"),
    ("byte", r"[aé]+-\w?"),
    ("word", r"(ab? )*12(\n+-|1)*"),
    ("session", r"E1( E[23]+){2,9} E1"),
  ],
)
def test_every_sample_is_a_match(draw, unit, pattern, boundaries):
  for temperature in (0.0, 1.0):
    settings = {"temperature": (temperature,), "pattern": pattern}
    found = draw(unit, boundaries, **settings)
    assert all(re.fullmatch(pattern, text) for text in found), found
  assert len(set(found)) > 5
  found = draw(unit, boundaries, **settings, length=7)
  assert all(re.fullmatch(pattern, text) for text in found), found


def test_common_forms(draw):
  for pattern in FORMS:
    drawn = draw("ascii", pattern=pattern, length=60)
    assert all(re.fullmatch(pattern, text) for text in drawn), drawn
    assert len(set(drawn)) > 15, pattern


def test_a_prime_is_no_part_of_the_match(draw):
  found = draw(prime="ab", pattern="[cd]{3}")
  assert all(re.fullmatch("ab[cd]{3}", text) for text in found), found


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"pattern": "a{13}"}, "its shortest match has 13 symbols, and a text at"),
    ({"pattern": "[a-"}, "syntax error at position 0: unterminated character"),
    (
      {"pattern": "ax(y|b)z"},
      "no text matches, as the vocabulary lacks 'x' 'z'",
    ),
    ({"pattern": r"a[A-Z]+\d"}, "no text matches that consists of the voc"),
    ({"pattern": r"a(?!b)"}, "it has a look-around (?!...): a pattern must"),
    ({"pattern": r"[\]$(?=]a\b"}, "it has an anchor"),
    ({"pattern": r"(a|b)\1"}, "it has a reference (\\1): a pattern cannot"),
    ({"pattern": "a++"}, "it has a possessive quantifier (*+): remove its"),
    ({"pattern": "(?>a|b)c"}, "it has an atomic group (?>...): write (?:...)"),
    ({"pattern": "(a)?(?(1)b|c)"}, "it has a condition (?(1)...): write the"),
    ({"pattern": "a{20000}"}, "its automaton needs more than 10,000 states"),
  ],
)
def test_what_is_refused(draw, settings, message):
  with pytest.raises(UserError) as caught:
    draw(**settings)
  assert str(caught.value).startswith(
    f"config.sample.pattern={settings['pattern']!r}: "
  )
  assert message in str(caught.value)


def test_the_excerpts_of_a_training_have_no_pattern(tmp_path):
  config = tiny(tmp_path, {"sample.pattern": "a{90}"})
  experiment = experiments.build(config, {"symbols": VOCABULARIES["char"]})
  params = jax.jit(experiment.init)(jax.random.key(1))
  assert set(texts.excerpts(experiment, config)(params)) - {"a"}


@pytest.mark.parametrize(
  ("settings", "rule"),
  [
    ({"pattern": "a", "schema": "b.json"}, "set one of the two; a schema"),
  ],
)
def test_fields_that_exclude_each_other(tmp_path, settings, rule):
  fields = {f"sample.{name}": value for name, value in settings.items()}
  with pytest.raises(UserError, match=rule):
    check(tiny(tmp_path, {**fields, "data.window": 8}))
