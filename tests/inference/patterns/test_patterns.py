"""Samples under a pattern: each matches, whatever the length and the unit."""

import re

import jax
import pytest

import experiments
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.inference import texts
from seqrnn.settings.config import check
from tests.conftest import tiny

VOCABULARIES = {
  "char": Vocabulary("char", tuple("abcdefgh 0123456789-\n")),
  "byte": Vocabulary("byte", tuple("ab01-") + ("\xc3", "\xa9", "\xa8")),
  "word": Vocabulary("word", ("ab", "a", "b", "\n", "12", "1", "-")),
  "session": Vocabulary("session", ("E1", "E22", "E3")),
}


@pytest.fixture
def draw(tmp_path):
  """A function that draws texts from a model of a unit."""

  def drawn(unit="char", boundaries=True, **settings):
    config = tiny(
      tmp_path,
      {
        "data.unit": unit,
        "data.boundaries": boundaries,
        "sample.streams": 40,
        "sample.length": 12,
        **{f"sample.{name}": value for name, value in settings.items()},
      },
    )
    symbols = {"symbols": VOCABULARIES[unit]}
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
      "no text matches, as the vocabulary lacks 'z' 'x'",
    ),
    ({"pattern": r"a[A-Z]+\d"}, "no character of the vocabulary fits its part"),
    ({"pattern": r"a(?!b)"}, "(?! at position 1 is no part of a pattern"),
    ({"pattern": r"[\]$(?=]a\b"}, r"\b at position 9 is no part of a pattern"),
    ({"pattern": "(a|b)*a(a|b){30}c"}, "at its part '(a|b){30}'"),
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
  config = tiny(
    tmp_path, {"train.sample_length": 20, "sample.pattern": "a{30}"}
  )
  experiment = experiments.build(config, {"symbols": VOCABULARIES["char"]})
  params = jax.jit(experiment.init)(jax.random.key(1))
  assert set(texts.excerpts(experiment, config)(params)) - {"a"}


@pytest.mark.parametrize(
  ("settings", "rule"),
  [
    ({"pattern": "a", "schema": "b.json"}, "set one of the two; a schema"),
    ({"resample": 2}, "candidates are weighed by a pattern"),
    ({"resample": 2, "pattern": "a", "top_k": 2}, "draws from all symbols"),
    (
      {"resample": 9999, "pattern": "a", "streams": 999},
      "the candidates must not have more than",
    ),
  ],
)
def test_fields_that_exclude_each_other(tmp_path, settings, rule):
  fields = {f"sample.{name}": value for name, value in settings.items()}
  with pytest.raises(UserError, match=rule):
    check(tiny(tmp_path, {**fields, "data.window": 8}))
