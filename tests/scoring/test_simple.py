"""Simple methods, beside which a figure of a network is printed."""

import math
from collections import Counter

import pytest

from seqrnn import experiments
from seqrnn.scoring import simple
from tests.conftest import tiny


def test_a_markov_chain_predicts_the_next_event(tmp_path):
  texts = {"train": ["a b a b c"] * 9 + ["b a"], "validation": ["a b c", "c d"]}
  fields = {"data.unit": "session", "data.path": None, "train.batch_size": 3}
  for split, lines in texts.items():
    (tmp_path / split).write_text("".join(f"{line}\n" for line in lines))
    fields[f"data.{split}_path"] = str(tmp_path / split)
  config = tiny(tmp_path, fields)
  experiment = experiments.build(config, None)
  pairs = {
    split: [
      pair
      for line in lines
      for symbols in (["<", *line.replace("d", "?").split(), ">"],)
      for pair in zip(symbols, symbols[1:], strict=False)
    ]
    for split, lines in texts.items()
  }
  after = Counter(pairs["train"])
  targets = Counter(b for _, b in pairs["train"])
  every = {x: targets[x] + 1 for x in "abc>?"}

  def p(a, b):
    row = {y: n for (x, y), n in after.items() if x == a}
    total, alone = sum(row.values()), every[b] / sum(every.values())
    share = len(row) / (total + len(row)) if row else 1
    return share * alone + (1 - share) * row.get(b, 0) / max(total, 1)

  bits = [-math.log2(p(*pair)) for pair in pairs["validation"]]
  best = [max(every, key=lambda b: p(a, b)) for a, _ in pairs["validation"]]  # noqa: B023
  hits = [b == y for b, (_, y) in zip(best, pairs["validation"], strict=True)]
  result = simple.compare(experiment, config, "validation")
  assert result is not None
  name, figures = result
  assert name == "Markov chain"
  assert figures["bits_per_symbol"] == pytest.approx(sum(bits) / len(bits))
  assert figures["accuracy"] == pytest.approx(sum(hits) / len(hits))


def test_each_symbol_has_its_most_frequent_tag(tmp_path):
  lines = {
    "train": "a B-x\nb I-x\nc O\n\na B-x\nb O\nb I-x\nc O\n",
    "validation": "a B-x\nb I-x\nc O\n\nb O\nnew O\n",
  }
  fields = {"task": "tagging", "data.unit": "word", "data.format": "columns"}
  fields |= {"data.path": None}
  for split, content in lines.items():
    (tmp_path / split).write_text(content)
    fields[f"data.{split}_path"] = str(tmp_path / split)
  config = tiny(tmp_path, fields)
  experiment = experiments.build(config, None)
  result = simple.compare(experiment, config, "validation")
  assert result is not None
  name, figures = result
  assert name == "most frequent tag of each symbol"
  assert figures["f1"] == pytest.approx(2 / 3)  # Of one span, b is another.
