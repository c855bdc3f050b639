"""Columns: numbers and texts come back as they were added, in little memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrnn.data.read import columns
from seqrnn.data.read.columns import Changes, concatenate, grouped, taken


@given(st.lists(st.sampled_from(["", "a", "\u00e9\u4e16"])), st.data())
def test_changes_are_texts_in_any_order(texts, data):
  changes = Changes()
  changes.collect(texts)
  results = changes.texts()
  if not any(texts):
    assert results is None
    return
  assert list(results) == texts
  changed = [b for a, b in zip([None, *texts], texts, strict=False) if a != b]
  assert list(results.symbols) == changed
  order = np.array(data.draw(st.permutations(range(len(texts)))), np.int64)
  expected = [texts[i] for i in order]
  assert list(concatenate([results, results[order]])) == [*texts, *expected]


@given(st.lists(st.integers(0, 9)), st.integers(1, 7))
def test_equal_ids_come_together(keys, block):
  index = {key: n for n, key in enumerate(dict.fromkeys(keys))}
  ids = np.array([index[key] for key in keys], np.uint32)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(columns, "_SORTED", block)
    patch.setattr(columns, "_BLOCK", block)
    order, bounds = grouped(ids, len(index))
    assert taken(ids, order).tolist() == sorted(ids)
  expected = np.argsort(ids, kind="stable")
  assert np.arange(len(ids))[order].tolist() == expected.tolist()
  assert bounds.tolist() == [
    np.searchsorted(np.sort(ids), n) for n in range(len(index) + 1)
  ]
