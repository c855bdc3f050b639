"""Sequences: documents as ids of a vocabulary, BEGIN and END where due."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from seqrnn.data import splits
from seqrnn.data.batches import sequences
from seqrnn.data.documents import Document
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary

texts = st.lists(
  st.tuples(
    st.text("abc", min_size=1, max_size=9), st.booleans(), st.booleans()
  ),
  min_size=1,
  max_size=9,
)
KNOWN = {"a": 4, "b": 5, "c": UNKNOWN}


def make_documents(texts, tokens=False):
  return [
    Document("d", list(text) if tokens else text, begins, ends)
    for text, begins, ends in texts
  ]


def expected(document, boundaries):
  ids = [KNOWN[symbol] for symbol in document.symbols]
  if boundaries and document.begins:
    ids = [BEGIN, *ids]
  if boundaries and document.ends:
    ids = [*ids, END]
  return ids


@given(texts, st.booleans(), st.booleans(), st.data())
def test_any_part_of_a_document_is_gathered(texts, boundaries, tokens, data):
  unit = "id" if tokens else "char"
  documents = make_documents(texts, tokens)
  pieces = splits.from_documents(documents, unit)
  coded = sequences.encode(pieces, Vocabulary(unit, ("a", "b")), boundaries)
  rows = [expected(document, boundaries) for document in documents]
  assert coded.bounds.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
  length = data.draw(st.integers(1, 12))
  picks = []
  for j, row in enumerate(rows):
    start = data.draw(st.integers(0, len(row) - 1))
    stop = data.draw(st.integers(start + 1, len(row)))
    picks.append((j, start, stop, row[start:stop][:length]))
  document, start, stop = (
    np.array(column) for column in list(zip(*picks, strict=True))[:3]
  )
  first = coded.bounds[document]
  gathered = coded.gather(document, first + start, first + stop, length)
  assert gathered.dtype == np.int32
  for row, (*_, ids) in zip(gathered.tolist(), picks, strict=True):
    assert row == ids + [PAD] * (length - len(ids))


def checksum(texts, known=("a", "b"), boundaries=True):
  pieces = splits.from_documents(make_documents(texts), "char")
  vocabulary = Vocabulary("char", known)
  encoded = sequences.encode(pieces, vocabulary, boundaries)
  return sequences.checksum(pieces, vocabulary, encoded)


def test_a_checksum_tells_data_apart():
  one = [("abba", True, True), ("cab", True, True)]
  others = [
    checksum(one, boundaries=False),
    checksum(one, known=("b", "a")),
    checksum([("abbb", True, True), ("cab", True, True)]),
    checksum([("abb", True, True), ("acab", True, True)]),
    checksum([("abba", True, False), ("cab", True, True)]),
    checksum([("abba", False, True), ("cab", True, True)]),
    checksum([("abbacab", True, True)]),
    checksum(one[::-1]),
    checksum(one[:1]),
  ]
  assert len({checksum(one), *others}) == 1 + len(others)
  assert checksum(one) == checksum(one)


@example([("a", True, True)] * 3, 7, {0, 2})  # Next but one.
@given(texts, st.integers(1, 7), st.sets(st.integers(0, 8), min_size=1))
def test_chunks_are_all_of_the_pieces(texts, size, keep):
  pieces = splits.from_documents(make_documents(texts), "char")
  keep = {number % len(texts) for number in keep}
  part = splits._select(pieces.corpus, np.array(sorted(keep)))
  before, splits._CHUNK = splits._CHUNK, size
  try:
    chunks = list(part.chunks())
    counts = part.counts()
  finally:
    splits._CHUNK = before
  assert all(0 < len(chunk) < 2 * size + 1 for chunk in chunks)
  symbols = pieces.corpus.symbols
  text = "".join(symbols[i] for chunk in chunks for i in chunk)
  assert text == "".join(texts[j][0] for j in sorted(keep))
  assert counts.tolist() == [text.count(symbol) for symbol in symbols]
