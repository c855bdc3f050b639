"""Splits: nothing on two sides, nothing lost."""

import hashlib
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrnn.configs import base
from seqrnn.data import splits
from seqrnn.data.documents import Document, collect, digest
from seqrnn.data.read.columns import Tokens
from seqrnn.data.sources import corpora
from seqrnn.data.sources.corpora import SPLITS
from seqrnn.errors import UserError


def fields(way, validation=0.1, test=0.1, **overrides):
  data = base.get_config().data
  data.split = way
  data.validation_fraction, data.test_fraction = validation, test
  data.update(overrides)
  return data


def make_documents(sizes):
  """Documents in which no symbol is twice, so that each tells its place."""
  symbols = map(chr, range(256, 0xD800))
  return [
    Document(f"g{i}", "".join(next(symbols) for _ in range(n)))
    for i, n in enumerate(sizes)
  ]


def make_corpus(documents, group_size=1):
  groups = [
    digest(f"g{i // group_size}".encode()) for i in range(len(documents))
  ]
  corpus = collect(documents, "char")
  return corpus._replace(groups=np.array(groups, np.uint64))


def split(corpus, data, batch_size=4):
  """The documents of each split, as such."""
  if isinstance(corpus, list):
    corpus = collect(corpus, "char")
  parts = splits.split(corpus, data, batch_size)
  return {name: list(pieces.documents()) for name, pieces in parts.items()}


def size(documents):
  return sum(len(document.symbols) for document in documents)


def names_of(documents):
  return [document.name for document in documents]


fractions = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.4])
sizes = st.lists(st.integers(1, 60), min_size=1, max_size=40)
ways = st.sampled_from(["documents", "last_documents"])


@given(ways, sizes, st.integers(1, 3), fractions, fractions)
def test_whole_groups_are_held_out(way, sizes, group_size, validation, test):
  documents = make_documents(sizes)
  group = {f"g{i}": i // group_size for i in range(len(sizes))}
  starts = range(0, len(documents), group_size)
  of_group = [size(documents[i : i + group_size]) for i in starts]
  corpus = make_corpus(documents, group_size)
  try:
    parts = split(corpus, fields(way, validation, test))
  except UserError:
    # Only when the last group was needed to fill the held-out splits.
    assert (1 - validation - test) * size(documents) <= 2 * max(of_group)
    return
  for name in SPLITS:
    # In their order, and as they were.
    assert parts[name] == [d for d in documents if d in parts[name]]
  assert sum(map(len, parts.values())) == len(documents)
  groups = [{group[d.name] for d in parts[name]} for name in SPLITS]
  assert sum(map(len, groups)) == len(set.union(*groups))
  assert parts["train"]
  for part, fraction in ((groups[1], validation), (groups[2], test)):
    goal = fraction * size(documents)
    held_out = [of_group[k] for k in part]
    assert sum(held_out) >= goal - 1e-3
    # Not a group more than it takes.
    assert not part or sum(held_out) - max(held_out) < goal
  if way == "last_documents":
    assert [d for part in parts.values() for d in part] == documents


def test_a_rounding_error_holds_no_further_document_out():
  """0.07 * 100 is 7.000000000000001, and 0.14 * 100 is 14.000000000000002."""
  parts = split(make_documents([1] * 100), fields("documents", 0.07, 0.14))
  assert [len(parts[name]) for name in SPLITS] == [79, 7, 14]


def test_a_labelled_document_counts_as_one_however_long_it_is():
  for longest in range(0, 20, 3):
    documents = make_documents([2000 if i == longest else 5 for i in range(20)])
    corpus = make_corpus(documents)._replace(labels=documents)
    parts = split(corpus, fields("documents", 0.1, 0.2))
    assert [len(parts[name]) for name in SPLITS] == [14, 2, 4]


def test_a_hash_chooses_so_neither_order_nor_neighbours_do():
  documents = make_documents([10] * 200)
  data = fields("documents")
  held_out = {*names_of(split(documents, data)["test"])}
  backwards = split(documents[::-1], data)["test"]
  names = [d.name for d in documents[::-1] if d.name in held_out]
  assert names_of(backwards) == names
  # A hash that is the same on every machine: 20 of 200 are a tenth.
  key = lambda d: hashlib.sha256(d.name.encode()).hexdigest()
  assert held_out == {*names_of(sorted(documents, key=key)[:20])}
  # Each of two that leave makes room for one more, and moves no other.
  fewer = [d for d in documents if d.name not in ("g3", "g4")]
  after = {*names_of(split(fewer, data)["test"])}
  assert len(held_out ^ after) <= 4


def test_documents_that_share_a_long_line_are_on_one_side():
  random = np.random.default_rng(0)
  pool = [" ".join(map(str, random.integers(1e9, size=5))) for _ in range(300)]
  texts = []
  for n in range(60):
    # Chains: most have a line of the one before; a short line is everywhere.
    lines = ["See also:", *random.choice(pool[5 * n : 5 * n + 6], 4)]
    texts.append("\n".join(lines))
  words = [re.findall(r"\S+|\n", text) for text in texts]
  for unit, symbols in (("char", texts), ("word", words)):
    documents = [Document(f"{n}", content) for n, content in enumerate(symbols)]
    corpus = collect(documents, unit)
    parts = split(corpus, fields("shared_lines"))
    lines = [
      {line for d in parts[name] for line in texts[int(d.name)].split("\n")[1:]}
      for name in SPLITS
    ]
    assert all(lines)
    assert len(set.union(*lines)) == sum(map(len, lines))
    assert parts != split(corpus, fields("documents"))


def test_the_largest_group_that_shares_lines_trains():
  for word, joined in (("which", True), ("that", False)):
    line = f"A line {word} most of the documents have.\n"  # 40 or 39 letters.
    documents = [
      Document(f"{n}", line * (n % 5 > 0) + f"This is document {n}.")
      for n in range(100)
    ]
    parts = split(documents, fields("shared_lines", 0.02, 0.02))
    held_out = {int(d.name) % 5 for d in parts["validation"] + parts["test"]}
    assert (held_out == {0}) == joined


@given(sizes, fractions, fractions)
def test_every_tail_is_held_out(sizes, validation, test):
  documents = make_documents(sizes)
  parts = split(documents, fields("tails", validation, test))
  for document in documents:
    pieces = [d for name in SPLITS for d in parts[name]]
    pieces = [d for d in pieces if d.name == document.name]
    assert "".join(piece.symbols for piece in pieces) == document.symbols
    assert all(piece.symbols for piece in pieces)
    assert [d.begins for d in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [d.ends for d in pieces] == [False] * (len(pieces) - 1) + [True]
    n = len(document.symbols)
    for name, fraction in (("validation", validation), ("test", test)):
      here = size([d for d in parts[name] if d.name == document.name])
      assert fraction * n - 1 < here <= fraction * n + 1e-3
  assert len(parts["train"]) == len(documents)


def test_auto_holds_out_documents_where_there_are_ten():
  # Ten functions of one module are one group.
  cases = ((9, 1, "tails"), (10, 1, "documents"), (10, 10, "tails"))
  for count, group_size, way in cases:
    corpus = make_corpus(make_documents([20] * count), group_size)
    assert split(corpus, fields("auto")) == split(corpus, fields(way))
  corpus = make_corpus(make_documents([20] * 9), 1)._replace(labels=corpus)
  assert split(corpus, fields("auto")) == split(corpus, fields("documents"))


def char_rnn(text, batch_size, T, validation, test):
  """What util/CharSplitLMMinibatchLoader.lua does, by its own steps."""
  text = text[: batch_size * T * (len(text) // (batch_size * T))]
  streams = np.array(list(text)).reshape(batch_size, -1)
  x_batches = np.split(streams, streams.shape[1] // T, axis=1)
  nbatches = len(x_batches)
  ntrain = math.floor(nbatches * (1 - validation - test) + 1e-9)
  nval = math.floor(nbatches * validation + 1e-9)
  if test == 0:
    nval = nbatches - ntrain
  return np.split(x_batches, [ntrain, ntrain + nval])


@given(
  *(st.integers(1, 4), st.integers(1, 5), st.integers(100, 400)),
  *(fractions, fractions),
)
def test_stream_tails_are_those_of_char_rnn(rows, T, n, validation, test):
  documents = make_documents([n])
  data = fields("stream_tails", validation, test, window=T)
  parts = split(documents, data, rows)
  expected = char_rnn(documents[0].symbols, rows, T, validation, test)
  for name, batches in zip(SPLITS, expected, strict=True):
    texts = ["".join(row) for row in np.hstack(batches)] if len(batches) else []
    assert [d.symbols for d in parts[name]] == texts
    assert not any(d.begins or d.ends for d in parts[name])


@pytest.fixture
def readings(monkeypatch):
  """What the corpus was asked for, each time it was read."""
  asked, read = [], corpora.read_corpus

  def count(data, split=None):
    asked.append(split)
    return read(data, split)

  monkeypatch.setattr(corpora, "read_corpus", count)
  return asked


def make_config(path=None, **overrides):
  config = base.get_config()
  config.data.update(
    {"source": "files", "path": path and str(path), **overrides}
  )
  return config


@pytest.fixture
def text(tmp_path):
  path = tmp_path / "text.txt"
  path.write_text("It was the best of times, it was the worst of times")
  return path


def test_a_reader_reads_once_and_only_what_it_is_asked_for(readings, text):
  read = splits.reader(make_config(text))
  assert readings == []
  parts = {name: read(name) for name in SPLITS}
  assert read("train") is parts["train"]
  assert readings == [None]
  documents = [d for pieces in parts.values() for d in pieces.documents()]
  assert "".join(d.symbols for d in documents) == text.read_text()
  missing = str(text.with_name("missing.txt"))
  read = splits.reader(make_config(train_path=str(text), test_path=missing))
  assert [d.symbols for d in read("train").documents()] == [text.read_text()]
  assert readings == [None, "train"]
  with pytest.raises(UserError, match=r"^data\.test_path='.*missing\.txt'"):
    read("test")


def test_blocks_are_equal_and_take_groups_as_a_whole():
  whole = splits.whole(make_corpus(make_documents([3] * 12), group_size=3))
  blocks = splits.blocks(whole, 2)
  assert np.bincount(blocks).tolist() == [6, 6]
  groups = [int(name[1:]) // 3 for name in names_of(whole.documents())]
  pairs = {*zip(groups, blocks.tolist(), strict=True)}
  assert len(pairs) == len({*groups}) == 4
  plain = splits.whole(make_corpus(make_documents([3] * 12)))
  dealt = splits.blocks(plain, 2, 3)  # Three blocks each, in turn.
  assert dealt.tolist() == [0, 0, 1, 1] * 3
  few = splits.blocks(plain, 5, 4)
  assert np.bincount(few).min() >= 2
  with pytest.raises(UserError, match="detect.folds=40: .* too few for 40"):
    splits.blocks(whole, 40)


def test_folds_are_blocks_with_borders_between_unlike_documents():
  symbols = ["ab"] * 9 + ["abb"] * 2 + ["c"] * 9
  documents = [Document(f"{n}", text) for n, text in enumerate(symbols)]
  corpus = collect(documents, "char")

  def names(pieces, block):
    some = splits.some(pieces, splits.blocks(pieces, 2) == block)
    return [int(name) for name in names_of(some.documents())]

  whole = splits.whole(corpus)
  # The middle is 10, in the middle of like documents.
  assert names(whole, 0) == [*range(11)]
  assert names(whole, 1) == [*range(11, 20)]
  # No other place is near it.
  alike = [Document(f"{n}", "c") for n in range(40)]
  alike = splits.whole(collect(alike, "char"))
  assert names(alike, 0) == [*range(20)]
  labels = Tokens()
  for n in range(20):
    labels.collect(["first" if n < 11 else "last"])
  labelled = splits.whole(corpus._replace(labels=labels.texts()))
  assert {n < 11 for n in names(labelled, 0)} == {True, False}
