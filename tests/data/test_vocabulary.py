"""Vocabularies: ids and back, the same whatever the order of documents."""

import os
import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrnn.data import vocabulary
from seqrnn.data.documents import Document
from seqrnn.data.logs import templates
from seqrnn.data.sources.corpora import from_text
from seqrnn.data.splits import from_documents as pieces
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.errors import UserError

plain = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
tokens = st.lists(st.text("abé0", min_size=1, max_size=3), min_size=1)


def document(symbols):
  return Document("d", symbols)


def make(documents, unit, min_count, size):
  """The vocabulary of documents."""
  part = pieces(documents, unit)
  symbols = part.corpus.symbols
  return vocabulary.make(symbols, part.counts(), unit, min_count, size)


@given(plain, plain, tokens, tokens)
def test_symbols_as_one_by_one(text, other, words, others):
  for unit, known, some, unknown in (
    ("char", text, other, "\ufffd"),
    *((unit, words, others, "<unknown>") for unit in ("id", "session")),
  ):
    vocab = make([document(known)], unit, 1, None)
    ids = vocab.encode(some)
    assert ids.dtype == np.int32
    expected = [
      vocab.symbols.index(s) + 4 if s in [*known] else UNKNOWN for s in some
    ]
    assert ids.tolist() == expected
    between = "" if unit == "char" else " "
    assert vocab.text(vocab.encode(known)) == between.join(known)
    shown = [s if s in [*known] else unknown for s in some]
    assert vocab.text(ids) == between.join(shown)
    strangers = [s for s in dict.fromkeys(some) if s not in [*known]]
    assert vocab.unknown(some) == strangers


def test_templates_of_long_lines_are_found_and_not_kept():
  vocab = Vocabulary("log", ("a <*>", "b"), matcher=templates.matcher)
  assert vocab.encode(["a x", "b", "c", "a x"]).tolist() == [4, 5, UNKNOWN, 4]
  tracemalloc.start()
  for n in range(300):
    assert vocab.encode([f"a {n}{'x' * 10_000}"]).tolist() == [4]
  size_after, _ = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert size_after < 100_000


@given(st.binary(min_size=1))
def test_bytes_come_back_as_text(content):
  documents = from_text(os.fsdecode(content), "byte")
  vocab = make(documents, "byte", 1, None)
  text = vocab.text(vocab.encode(documents[0].symbols))
  assert text == content.decode("utf-8", "replace")
  vocab = Vocabulary("byte", tuple("\xc3\xa9a"))
  assert vocab.text([4, 5, UNKNOWN, 6, 4]) == "é\ufffda\ufffd"


def test_words_are_joined_with_no_space_at_a_newline():
  text = "to be\n\nor not\n"
  [words] = from_text(text, "word")
  vocab = make([words], "word", 1, None)
  assert vocab.text(vocab.encode(words.symbols)) == text
  assert vocab.text(vocab.encode(["to", "see", "be"])) == "to <unknown> be"


def test_reserved_symbols_are_no_text_but_have_names():
  vocab = Vocabulary("char", ("a", "\n", "é"))
  ids = np.array([BEGIN, 4, UNKNOWN, 5, 6, END, PAD])
  assert len(vocab) == 7
  assert vocab.text(ids) == "a\ufffd\né"
  names = "<begin> a <unknown> \\n é <end> <pad>"
  assert vocab.names(ids) == names.split()
  names = Vocabulary("byte", ("a", "\n", "é", "\0")).names(range(4, 8))
  assert names == ["a", "\\x0a", "\\xe9", "\\x00"]


def test_the_most_frequent_come_first_and_ties_go_by_symbol():
  documents = [document("cab"), document("bcd"), document("bz")]
  assert make(documents, "char", 1, None).symbols == tuple("bcadz")
  assert make(documents, "char", 2, None).symbols == ("b", "c")
  assert make(documents, "char", 1, 3).symbols == ("b", "c", "a")
  assert make(documents, "char", 2, 9).symbols == ("b", "c")


@given(st.lists(tokens, min_size=1), st.randoms(use_true_random=False))
def test_it_does_not_depend_on_the_order_of_documents(texts, rng):
  before = make([document(text) for text in texts], "id", 1, None)
  rng.shuffle(texts)
  for text in texts:
    rng.shuffle(text)
  assert make([document(text) for text in texts], "id", 1, None) == before
  counts = Counter(token for text in texts for token in text)
  frequencies = [counts[symbol] for symbol in before.symbols]
  assert frequencies == sorted(counts.values(), reverse=True)


def test_it_is_saved_whole_and_read_back(tmp_path):
  rng = random.Random(0)
  characters = tuple(map(chr, rng.sample(range(0xD800), 500)))
  vocabularies = {
    "symbols": Vocabulary("char", characters),
    "bytes": Vocabulary("byte", tuple(map(chr, range(256)))),
    "labels": Vocabulary("id", ("<pad>", "Polish", '"', "\u2028", "\ud800")),
    "padded": Vocabulary("word", ("a", "b", "c")).padded(),
  }
  assert len(vocabularies["padded"]) == 12
  path = tmp_path / "vocabulary.json"
  path.write_bytes(vocabulary.encoded(vocabularies))
  assert vocabulary.load(path) == vocabularies


def test_a_file_of_anyone_is_checked(tmp_path):
  path = tmp_path / "vocabulary.json"
  for content, message in (
    ("{", "not JSON"),
    ("[]", "must be as it was written"),
    ('{"x": ["a"]}', "must be as it was written"),
    ('{"x": {"unit": "char"}}', "must be as it was written"),
    ('{"x": {"unit": "id", "symbols": [], "rows": "9"}}', "must be as it"),
  ):
    path.write_text(content)
    with pytest.raises(UserError, match=rf"vocabulary\.json: {message}"):
      vocabulary.load(path)
