"""Spans against loops over the tags, and which tags may follow each other."""

import itertools

import numpy as np
import pytest

from seqrnn.data import splits
from seqrnn.data.batches.sequences import encode
from seqrnn.data.documents import Document
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.scoring import spans
from seqrnn.scoring.joining import LabelRows

BIO = ("O", "B-x", "I-x", "B-y", "I-y")
BIOES = ("O", *(f"{letter}-{kind}" for kind in "xy" for letter in "BIES"))
BILOU = tuple(name.replace("E-", "L-").replace("S-", "U-") for name in BIOES)


def bio(tags):
  """(first, last, type) of each span; an unseen tag is one of its own."""
  found = []
  for t, tag in enumerate(tags):
    if tag == "O":
      continue
    kind, _, name = tag.partition("-")
    goes_on = kind == "I" and found and found[-1][1:] == (t - 1, name)
    if goes_on:
      found[-1] = (found[-1][0], t, name)
    else:
      found.append((t, t, name))
  return found


def bioes(tags):
  """(first, last, type): all runs whose tags are S, or B, I, ..., E."""
  found = []
  for a, b in itertools.combinations_with_replacement(range(len(tags)), 2):
    run = [tag.partition("-")[::2] for tag in tags[a : b + 1]]
    whole = "S" if a == b else f"B{'I' * (b - a - 1)}E"
    letters, types = zip(*run, strict=True)
    if "".join(letters) == whole and len({*types}) == 1:
      found.append((a, b, types[0]))
  return found


@pytest.mark.parametrize(
  ("names", "oracle", "unseen"),
  [(BIO, bio, "B-?"), (BIOES, bioes, "S-?"), (BILOU, bioes, "S-?")],
  ids=["bio", "bioes", "bilou"],
)
def test_spans_are_counted_as_a_loop_does(names, oracle, unseen):
  letters = str.maketrans("LU", "ES")
  tag_of = {UNKNOWN: unseen, **dict(enumerate(names, 4))}
  rng = np.random.default_rng(0)
  labels = Vocabulary("id", names)
  C, rows = len(names), 400
  targets = 4 + rng.integers(0, C, (rows, 6))
  for row, t in itertools.product(range(0, rows, 2), range(1, 6)):
    # Spans that follow the scheme, too.
    before = tag_of[int(targets[row, t - 1])]
    if before[0] in "BI":
      again = before[0] == "I" and rng.random() < 0.4
      targets[row, t] = min(targets[row, t - 1] + (not again), C + 3)
  targets[rng.random(targets.shape) < 0.05] = UNKNOWN
  best = np.where(
    rng.random((rows, 6)) < 0.8, targets, rng.integers(4, 4 + C, (rows, 6))
  )
  best = np.maximum(best, 4)
  lengths = rng.integers(0, 7, (rows, 1))
  some = np.arange(6) < lengths
  begins = np.arange(6) == np.zeros((rows, 1))
  answers = LabelRows(targets[some], best[some], some[some], begins[some])
  counts = np.zeros((3, 3))
  for row in range(rows):
    T = int(lengths[row, 0])
    a, b = (
      oracle([tag_of[i].translate(letters) for i in ids[row, :T].tolist()])
      for ids in (targets, best)
    )
    for n, kinds in enumerate((a, b, {*a} & {*b})):
      for *_, kind in kinds:
        counts[n, "xy?".index(kind)] += 1
  true, found, both = counts.sum(1).tolist()
  assert 50 < both < min(true, found) and counts[2, 1] > 10
  np.testing.assert_array_equal(answers.span_counts(labels), counts)
  table = spans.span_table(labels, counts)
  f1 = 2 * both / (true + found)
  figures = {"precision": both / found, "recall": both / true, "f1": f1}
  assert spans.figures(counts.sum(1)) == figures
  assert table[0][:4] == ["all", *figures.values()]
  order = sorted(zip(-counts[0], ["x", "y", "<unknown>"], strict=True))
  assert [row[0] for row in table[1:]] == [name for _, name in order]


def test_of_two_tags_the_rarer_counts():
  ones, begins = np.ones(4), np.array([1, 0, 0, 0], bool)
  answers = LabelRows(
    np.array([5, 5, 4, 4]), np.array([5, 4, 5, 4]), ones, begins
  )
  counts = answers.span_counts(Vocabulary("id", ("none", "space")))
  assert counts is not None and counts.tolist() == [[2, 0], [2, 0], [1, 0]]
  assert answers.span_counts(Vocabulary("id", ("A", "B", "C"))) is None
  nothing = {"precision": 0, "recall": 0, "f1": 0}
  assert spans.figures(np.zeros(3)) == nothing


def follows(oracle, tags):
  """Whether spans that begin with B or S account for all tags but O."""
  found = oracle(tags)
  covered = sum(last + 1 - first for first, last, _ in found)
  begun = all(tags[first][0] in "BS" for first, *_ in found)
  return begun and covered == sum(tag != "O" for tag in tags)


@pytest.mark.parametrize(
  ("names", "oracle"), [(BIO, bio), (BIOES, bioes)], ids=["bio", "bioes"]
)
def test_all_texts_of_a_scheme_are_allowed_and_no_others(names, oracle):
  rules = spans.allowed(Vocabulary("id", names))
  assert rules is not None
  pair, first, last = rules
  count = 0
  for ids in itertools.product(range(len(names)), repeat=4):
    fits = first[ids[0]] and last[ids[-1]]
    fits = fits and all(pair[a, b] for a, b in itertools.pairwise(ids))
    assert fits == follows(oracle, [names[i] for i in ids])
    count += fits
  assert 50 < count < len(names) ** 4 / 2


def test_tags_against_a_scheme_are_warned_of(capsys):
  labels = Vocabulary("id", BIO)
  rules = spans.allowed(labels)
  assert rules is not None
  for texts, warning in (
    (["B-x I-x O", "B-y"], ""),
    (["B-x O", "O I-x I-y"], "2 of 5 tags follow another"),
  ):
    documents = [Document("", text.split()) for text in texts]
    pieces = splits.from_documents(documents, "id")
    spans.warn(rules[0], encode(pieces, labels, False))
    err = capsys.readouterr().err
    assert err.startswith(f"train split: {warning}") == bool(warning)
