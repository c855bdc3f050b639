"""Streams: every target once, and a row that goes on where it stopped."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrnn.data.batches.streams import StreamLayout, streams
from seqrnn.data.vocabulary import PAD
from seqrnn.errors import UserError
from tests.data.batches.test_windows import make_sequences, rows, targets_of

documents = (
  st.lists(st.integers(0, 30), max_size=10)
  .filter(lambda sizes: max(sizes, default=0) >= 2)
  .map(make_sequences)
)
row_counts, lengths = st.integers(1, 6), st.integers(1, 7)


@given(documents, row_counts, lengths)
def test_every_symbol_but_a_first_is_a_target_once(sequences, B, T):
  ids, bounds = sequences.table, sequences.bounds
  firsts = set(ids[bounds[:-1][np.diff(bounds) > 0]].tolist())
  batches = streams(sequences, StreamLayout(B, T))
  assert all(batch["segment"].shape == (B, T + 1) for batch in batches)
  results = rows(batches, T + 1)
  assert all(len(row) != 1 for row in results)
  assert all(b == a + 1 for row in results for a, b in itertools.pairwise(row))
  # No target is across a boundary.
  targets = sorted(set(ids.tolist()) - firsts)
  assert sorted(targets_of(results)) == targets


@given(documents, row_counts, lengths)
def test_whole_documents_are_read_from_their_beginning(sequences, B, T):
  read = [[] for _ in range(B)]
  for batch in streams(sequences, StreamLayout(B, T, whole=True)):
    for row, segment, reset in zip(
      read, batch["segment"].tolist(), batch["reset"], strict=True
    ):
      symbols_read = [symbol for symbol in segment if symbol != PAD]
      if reset:
        row.append(symbols_read)
      else:
        assert symbols_read[0] == row[-1].pop()
        row[-1] += symbols_read
  edges = itertools.pairwise(sequences.bounds)
  whole = [sequences.table[a:b].tolist() for a, b in edges]
  symbols_read = [document for row in read for document in row if document]
  assert symbols_read == [document for document in whole if len(document) > 1]


@given(documents, row_counts, lengths)
def test_a_row_goes_on_where_it_stopped_or_is_reset(sequences, B, T):
  batches = streams(sequences, StreamLayout(B, T))
  n = len(sequences.ids)
  slices = [b * n // B for b in range(B + 1)]
  pieces = {*sequences.bounds.tolist(), *slices}  # Where a piece may begin.
  for b in range(B):
    place = None  # Of the next input, while a piece goes on.
    ended = False
    for batch in batches:
      row, reset = batch["segment"][b], bool(batch["reset"][b])
      assert batch["reset"].dtype == bool
      inputs = row[:-1][row[1:] != PAD] - 4
      if not len(inputs):
        assert reset and not np.any(row)
        ended = True
        continue
      assert not ended  # Nothing comes after the end of a stream.
      assert slices[b] <= inputs[0] and inputs[-1] < slices[b + 1]
      if reset:
        # A piece begins, and the one before it was read to its end.
        assert inputs[0] in pieces
        assert place is None or place in pieces or place + 1 in pieces
      else:
        assert inputs[0] == place
        assert place not in pieces
      place = int(inputs[-1]) + 1


def test_documents_of_one_symbol_have_no_target():
  for sizes in ([], [1], [0, 1, 1]):
    with pytest.raises(UserError, match="no document has the two symbols"):
      streams(make_sequences(sizes), StreamLayout(2, 3))
