"""Formal languages: their answers by other rules, their splits, their loss."""

import re

import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.configs import base
from seqrnn.data.sources import corpora, formal
from seqrnn.experiments import tagging


@pytest.fixture(autouse=True)
def few(monkeypatch):
  """Training sets of 200 strings."""
  monkeypatch.setattr(formal, "_TRAIN", 200)
  monkeypatch.setattr(formal, "_VALIDATION", 50)
  formal.strings.cache_clear()
  yield
  formal.strings.cache_clear()


def strings(name, split="train"):
  """The strings of a language with their answers, and the number of blanks."""
  data = base.get_config().data
  data.update(source="formal", language=name)
  corpus = corpora.read_corpus(data, split)
  for j in range(len(corpus.names)):
    bounds = corpus.bounds[j : j + 2].tolist()
    text = corpus.text(*bounds)
    if corpus.tags is None:
      yield text, corpus.labels[j], 0
      continue
    tags = [corpus.tags.symbols[i] for i in corpus.tags.ids[slice(*bounds)]]
    string = text.rstrip("_")
    assert not any(tags[: len(string)])
    answer = "".join(tags[len(string) :])
    assert tags[len(string) :][: len(answer)] == [*answer]
    yield string, answer, len(text) - len(string)


def stack(string):
  """Rewrites until no action is left."""
  while match := re.search("[xab]", string):
    head, tail = string[: match.start()], string[match.end() :]
    stacks = {"x": head[:-1], "a": head + "0", "b": head + "1"}
    string = stacks[match[0]] + tail
  return string[::-1] + "2"


def cycle(string):
  """Walks step by step."""
  place = 0
  for step in string:
    place = (place + {"<": 4, "=": 0, ">": 1}[step]) % 5
  return str(place)


def arranged(string):
  """Moves three things step by step; each symbol is a permutation."""
  orders = ["abc", "acb", "bac", "bca", "cab", "cba"]
  things = "abc"
  for order in string:
    things = "".join(things["abc".index(c)] for c in orders[int(order)])
  return str(orders.index(things))


def pairs(string):
  return str(sum(a != b for a, b in zip(string, string[1:], strict=False)) % 2)


ORACLES = {
  "parity": lambda s: str(s.count("1") % 2),
  "even_pairs": pairs,
  "cycle_navigation": cycle,
  "modular_arithmetic": lambda s: str(eval(s) % 5),
  "s3": arranged,
  "reverse_string": lambda s: "".join(reversed(s)),
  "stack_manipulation": stack,
  "duplicate_string": lambda s: s + s,
  "odds_first": lambda s: "".join(
    c for k in (0, 1) for n, c in enumerate(s) if n % 2 == k
  ),
  "bucket_sort": lambda s: "".join(sorted(s)),
}


def test_the_answers():
  blanks = {"stack_manipulation": lambda n: n + 1}
  blanks["duplicate_string"] = lambda n: 2 * n
  for name, oracle in ORACLES.items():
    answers = set()
    for string, answer, gaps in strings(name):
      assert answer == oracle(string), (name, string)
      if formal.LANGUAGES[name].tagged:
        assert gaps == blanks.get(name, lambda n: n)(len(string))
      answers.add(answer)
    assert len(answers) >= (5 if name not in ("parity", "even_pairs") else 2)
  assert ORACLES.keys() == formal.LANGUAGES.keys()


def test_the_splits():
  train, held, test = (
    [string for string, *_ in strings("parity", split)]
    for split in corpora.SPLITS
  )
  assert {len(s) for s in train} == {*formal.TRAINED}
  assert {len(s) for s in held} < {*formal.TRAINED}
  assert not {*train} & {*held} and len(held) == 50
  lengths = [len(s) for s in test]
  assert lengths == np.repeat(formal.TESTED, formal.OF_A_LENGTH).tolist()
  sizes = np.diff(formal.strings("parity", "long").bounds)
  assert (
    sizes.tolist() == np.repeat(formal.LONG, formal.OF_A_LONG_LENGTH).tolist()
  )


def test_only_answers_count():
  config = base.get_config()
  fields = {"data.source": "formal", "data.language": "reverse_string"}
  fields |= {"task": "tagging", "data.window": 128, "data.buckets": 2}
  config.update_from_flattened_dict(fields)
  names = tagging.prepare(config)
  assert names["labels"].symbols in (("0", "1"), ("1", "0"))
  experiment = experiments.build(config, names)
  batch = experiment.batches("train", 0)[1]
  blank = names["symbols"].encode("_")[0]
  np.testing.assert_array_equal(batch["weights"], batch["inputs"] == blank)
  answers = batch["targets"][batch["weights"] > 0]
  assert {*names["labels"].encode("01")} == {*answers.tolist()}
  assert "spans" not in batch
