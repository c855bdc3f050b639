"""Columns: numbers and texts come back as they were added, in little memory."""

import errno
import os
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrnn.data.read import columns
from seqrnn.data.read.columns import (
  Changes,
  Column,
  Texts,
  Tokens,
  concatenate,
  grouped,
  in_order,
  taken,
)
from seqrnn.errors import MachineError


@settings(deadline=None, database=None, max_examples=40)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9)), st.data())
def test_keys_are_numbered_by_their_first_places(keys, data):
  before, columns._BLOCK = columns._BLOCK, data.draw(st.integers(1, 7))
  try:
    distinct, which = in_order(np.array(keys, np.uint64))
  finally:
    columns._BLOCK = before
  index = {key: n for n, key in enumerate(dict.fromkeys(keys))}
  assert distinct.tolist() == list(index)
  assert which.tolist() == [index[key] for key in keys]


@pytest.mark.parametrize("small", [0, 2**20])
def test_numbers_of_memory_and_of_a_file(monkeypatch, small):
  monkeypatch.setattr(columns, "_SMALL", small)
  monkeypatch.setattr(columns, "_BLOCK", 3)
  for kind, top in (("<u4", 2**32 - 1), ("<u8", 2**64 - 1)):
    column, expected = Column(kind), [0, 5, top, 7]
    for n, number in enumerate(expected):
      assert len(column) == n
      column.append(number)
    column.extend(np.array([3, 4], np.uint8))
    numbers = column.numbers()
    assert numbers.tolist() == [*expected, 3, 4]
    assert numbers.dtype == np.dtype(kind)


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


@settings(deadline=None, database=None, max_examples=40)
@given(
  st.lists(st.sampled_from(["", "a", "\ud800", "\u00e9\u4e16"])), st.data()
)
def test_changes_are_texts_in_any_order(texts, data):
  changes = Changes()
  for text in texts:
    changes.append(text)
  results = changes.texts()
  if not any(texts):
    assert results is None
    return
  assert list(results) == texts
  changed = [b for a, b in zip([None, *texts], texts, strict=False) if a != b]
  assert list(results.symbols) == changed
  order = np.array(data.draw(st.permutations(range(len(texts)))), np.int64)
  expected = [texts[i] for i in order]
  assert list(results[order]) == expected
  assert list(concatenate([results, results[order]])) == [*texts, *expected]


@settings(deadline=None, database=None, max_examples=40)
@given(st.lists(st.integers(0, 9)), st.data())
def test_equal_ids_come_together(keys, data):
  index = {key: n for n, key in enumerate(dict.fromkeys(keys))}
  ids = np.array([index[key] for key in keys], np.uint32)
  held, columns._SORTED = columns._SORTED, data.draw(st.integers(1, 7))
  try:
    order, bounds = grouped(ids, len(index))
  finally:
    columns._SORTED = held
  expected = np.argsort(ids, kind="stable")
  assert np.arange(len(ids))[order].tolist() == expected.tolist()
  assert bounds.tolist() == [
    np.searchsorted(np.sort(ids), n) for n in range(len(index) + 1)
  ]


def test_numbers_are_taken_in_another_order(monkeypatch):
  monkeypatch.setattr(columns, "_BLOCK", 7)
  numbers = np.arange(100, dtype=np.uint16) * 5
  order = np.random.default_rng(0).permutation(100)
  for some in (order, order[:0], slice(3, None)):
    results = taken(numbers, some)
    assert results.dtype == numbers.dtype
    assert results.tolist() == numbers[some].tolist()


def test_a_full_folder_of_temporary_files_is_named(monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  column = Column()
  monkeypatch.setattr(column._file, "write", full, raising=False)
  with pytest.raises(MachineError) as error:
    column.extend(np.arange(3))
  folder = tempfile.gettempdir()
  assert (
    str(error.value) == f"{folder}: cannot be written: No space left on device"
  )
