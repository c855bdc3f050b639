"""Streams: every target once, and a row that goes on where it stopped."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seqrnn.data.batches.streams import Rows, streams
from seqrnn.data.vocabulary import PAD
from seqrnn.errors import UserError
from tests.data.batches.test_windows import make_sequences

examples = settings(deadline=None, database=None, max_examples=40)
sizes = st.lists(st.integers(0, 30), max_size=10)


@examples
@given(sizes, st.integers(1, 6), st.integers(1, 7))
def test_every_symbol_but_a_first_is_a_target_once(sizes, B, T):
  assume(max(sizes, default=0) >= 2)
  sequences = make_sequences(sizes)
  ids, bounds = sequences.table, sequences.bounds
  firsts = set(ids[bounds[:-1][np.diff(bounds) > 0]].tolist())
  targets = []
  for batch in streams(sequences, Rows(B, T)):
    segment = batch["segment"]
    assert segment.dtype == np.int32 and segment.shape == (B, T + 1)
    for row in segment:
      inside = row != PAD
      assert not np.any(~inside[:-1] & inside[1:])  # Padding at the right.
      symbols = row[inside].tolist()
      assert len(symbols) != 1
      for symbol, following in zip(symbols, symbols[1:], strict=False):
        assert following == symbol + 1
        assert following not in firsts  # Not across a boundary.
        targets.append(following)
  assert sorted(targets) == sorted(set(ids.tolist()) - firsts)


@examples
@given(sizes, st.integers(1, 6), st.integers(1, 7))
def test_whole_documents_are_read_from_their_beginning(sizes, B, T):
  assume(max(sizes, default=0) >= 2)
  sequences = make_sequences(sizes)
  read = [[] for _ in range(B)]
  for batch in streams(sequences, Rows(B, T, whole=True)):
    for row, segment, reset in zip(
      read, batch["segment"].tolist(), batch["reset"], strict=True
    ):
      symbols_read = [symbol for symbol in segment if symbol != PAD]
      if reset:
        row.append(symbols_read)
      else:
        assert symbols_read[0] == row[-1].pop()
        row[-1] += symbols_read
  ids, bounds = sequences.table, sequences.bounds
  whole = [ids[a:b].tolist() for a, b in zip(bounds, bounds[1:], strict=False)]
  symbols_read = [document for row in read for document in row if document]
  assert symbols_read == [document for document in whole if len(document) > 1]


@examples
@given(sizes, st.integers(1, 6), st.integers(1, 7))
def test_a_row_goes_on_where_it_stopped_or_is_reset(sizes, B, T):
  assume(max(sizes, default=0) >= 2)
  sequences = make_sequences(sizes)
  ids, bounds = sequences.table, sequences.bounds
  batches = streams(sequences, Rows(B, T))
  slices = [b * len(ids) // B for b in range(B + 1)]
  pieces = {*bounds.tolist(), *slices}  # Where a piece may begin.
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
    assert not np.all(batches[0]["segment"][b] == PAD) or not any(
      np.any(batch["segment"][b]) for batch in batches
    )


def test_one_by_hand():
  # Two documents of 6 and 4 symbols in two rows of 5: the first row's last
  # target is the second's first symbol.
  batches = streams(make_sequences([6, 4]), Rows(2, 3))
  assert len(batches) == 2
  assert batches[0]["segment"].tolist() == [[4, 5, 6, 7], [10, 11, 12, 13]]
  assert batches[0]["reset"].tolist() == [True, True]
  assert batches[1]["segment"].tolist() == [[7, 8, 9, 0], [0, 0, 0, 0]]
  assert batches[1]["reset"].tolist() == [False, True]


def test_equal_documents_are_a_row_each():
  # As stream_tails makes them: no row resets but at the start.
  batches = streams(make_sequences([12] * 5), Rows(5, 4))
  assert [batch["reset"].all() for batch in batches] == [True, False, False]
  assert not any(batch["reset"].any() for batch in list(batches)[1:])
  assert np.array_equal(
    batches[0]["segment"][:, 0], 4 + 12 * np.arange(5, dtype=np.int32)
  )


@examples
@given(st.integers(0, 30), st.integers(1, 30))
def test_an_epoch_is_a_part_of_the_round(first, count):
  sequences = make_sequences([20, 7, 33])
  round_ = streams(sequences, Rows(3, 4))
  part = streams(sequences, Rows(3, 4), first=first, count=count)
  assert len(part) == count
  for i, batch in enumerate(part):
    expected = round_[(first + i) % len(round_)]
    assert np.array_equal(batch["segment"], expected["segment"])
    assert np.array_equal(batch["reset"], expected["reset"])
  assert round_[0]["reset"].all()


def test_documents_of_one_symbol_have_no_target():
  for sizes in ([], [1], [0, 1, 1]):
    with pytest.raises(UserError, match="no document has the two symbols"):
      streams(make_sequences(sizes), Rows(2, 3))


@examples
@given(sizes, st.integers(1, 6), st.integers(1, 7), st.data())
def test_rows_of_a_batch_are_parts_of_it(sizes, B, T, data):
  assume(max(sizes, default=0) >= 2)
  batches = streams(make_sequences(sizes), Rows(B, T), first=1)
  start = data.draw(st.integers(0, B))
  stop = data.draw(st.integers(start, B))
  view = batches.rows(start, stop)
  assert len(view) == len(batches) and view.batch_size == stop - start
  for part, whole in zip(view, batches, strict=True):
    assert list(part) == list(whole)
    for name in whole:
      assert part[name].dtype == whole[name].dtype
      assert np.array_equal(part[name], whole[name][start:stop])
