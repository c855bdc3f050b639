"""Columns: numbers and texts come back as they were added, in little memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrnn.data import columns
from seqrnn.data.columns import Column, Texts, Tokens, concatenate, in_order


@settings(deadline=None, database=None, max_examples=200)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9)), st.data())
def test_keys_are_numbered_by_their_first_places(keys, data):
  held, columns._HELD = columns._HELD, data.draw(st.integers(1, 7))
  try:
    distinct, which = in_order(np.array(keys, np.uint64))
  finally:
    columns._HELD = held
  index = {key: n for n, key in enumerate(dict.fromkeys(keys))}
  assert distinct.tolist() == list(index)
  assert which.tolist() == [index[key] for key in keys]


@pytest.mark.parametrize(("distinct", "most"), [(100, 20), (2**40, 36)])
def test_numbering_takes_few_bytes_a_key(distinct, most):
  keys = np.random.default_rng(0).integers(0, distinct, 2**18, np.uint64)
  tracemalloc.start()
  in_order(keys)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < most * len(keys) + 10 * 8 * columns._HELD


@pytest.mark.parametrize("small", [0, 2**20])
def test_numbers_come_back_from_memory_and_from_a_file(monkeypatch, small):
  monkeypatch.setattr(columns, "SMALL", small)
  monkeypatch.setattr(columns, "_HELD", 3)
  for kind, top in (("<u4", 2**32 - 1), ("<u8", 2**64 - 1)):
    column, expected = Column(kind), [0, 5, top, 7]
    for n, number in enumerate(expected):
      assert len(column) == n
      column.append(number)
    found = column.numbers()
    assert (found.tolist(), found.dtype) == (expected, np.dtype(kind))


def test_texts_are_kept_once_each():
  tokens = Tokens()
  for token in "abcab":
    tokens.append(token)
  assert len(tokens) == 5
  texts = tokens.texts()
  assert list(texts) == list("abcab") and texts.symbols == ["a", "b", "c"]
  assert list(texts[np.array([4, 2])]) == ["b", "c"]
  assert list(texts[1:3]) == ["b", "c"]
  both = concatenate([texts[3:], Texts(["x", "b"], np.array([1, 0, 1]))])
  assert list(both) == ["a", "b", "b", "x", "b"]
