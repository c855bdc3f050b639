"""What a wrong name is taken for."""

import random
import string

import pytest

from seqrnn.config import suggestions
from seqrnn.config.read import FIELDS

KNOWN = list(FIELDS)


def test_an_alias_leads_to_a_field_and_is_the_name_of_none():
  parts = {name.rpartition(".")[2] for name in KNOWN}
  for alias, field in suggestions.ALIASES.items():
    assert field in KNOWN and alias not in parts, alias
    assert alias == alias.lower() and "-" not in alias


@pytest.mark.parametrize(
  ("wrong", "expected"),
  [
    ("train.lr", ["optimizer.learning_rate"]),
    ("LR", ["optimizer.learning_rate"]),
    ("units", ["model.hidden_size"]),
    ("rnn-size", ["model.hidden_size"]),
    ("batch", ["train.batch_size"]),
    ("data.seq_length", ["data.window"]),
    ("num_layers", ["model.layers"]),
    ("num_epoch", ["train.epochs"]),  # As an alias.
    ("train.hidden_size", ["model.hidden_size"]),
    ("model.hiden_size", ["model.hidden_size"]),
    ("name", ["optimizer.name", "schedule.name"]),
    ("optimizer.nam", ["optimizer.name"]),
    ("sample.step", ["checkpoint.step", "data.step"]),
    ("Seed", ["seed"]),
    ("", []),
    ("zzz", []),
    ("\u00fc.\n", []),
    ("search.space.", []),
    ("data.q", []),
  ],
)
def test_the_last_part_of_a_name_counts(wrong, expected):
  assert suggestions.fields(wrong, FIELDS) == expected


def test_a_letter_too_many_is_forgiven():
  rng = random.Random(0)
  for name in KNOWN:
    group, dot, last = name.rpartition(".")
    place = rng.randrange(1, len(last))
    letter = rng.choice(string.ascii_lowercase)
    wrong = f"{group}{dot}{last[:place]}{letter}{last[place:]}"
    if wrong not in FIELDS and len(last) > 4:
      assert name in suggestions.fields(wrong, FIELDS), wrong


def test_a_name_in_another_case_is_near():
  assert suggestions.near("LSTM", ["gru", "lstm"]) == "lstm"
  assert suggestions.hint("x", ["lstm"]) == ""
