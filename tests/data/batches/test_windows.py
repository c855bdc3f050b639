"""Windows: against a loop over documents, and what a shuffle may not change."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from seqrnn.data.batches.sequences import Sequences
from seqrnn.data.batches.windows import Batches, Epoch, Shape, shuffle, windows
from seqrnn.data.vocabulary import PAD
from seqrnn.errors import UserError


def make_sequences(sizes):
  """Documents in which no id is twice, so that each tells its place."""
  bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
  table = np.arange(4, 4 + bounds[-1], dtype=np.int32)
  ids, nowhere = table.astype(np.uint16) - 4, np.zeros(len(sizes), bool)
  distinct = np.arange(len(sizes))
  return Sequences(
    ids, table, 0 * bounds[:-1], nowhere, nowhere, bounds, distinct
  )


def cut(sequences, shape, offset=0):
  """The windows of each document, one by one."""
  ids, bounds = sequences.table, sequences.bounds
  results = []
  for begin, end in itertools.pairwise(bounds):
    document = ids[begin:end].tolist()
    start, n = offset, len(document)
    while n - start >= shape.minimum:
      if shape.full and n - start < shape.length and start > offset:
        break
      results.append(document[start : start + shape.length])
      if start + shape.length >= n:
        break
      start += shape.step
  return results


def rows(batches, length):
  """All rows without their padding, which is checked to stand at the right."""
  results = []
  for batch in batches:
    segment = batch["segment"]
    assert segment.dtype == np.int32 and segment.shape[1] <= length
    for row, place in zip(segment, batch["place"], strict=True):
      inside = row != PAD
      assert not np.any(~inside[:-1] & inside[1:])
      assert row[0] in (PAD, place + 4)
      results.append(row[inside].tolist())
  return results


shapes = (
  st.tuples(*(st.integers(1, n) for n in (7, 9, 3)), st.booleans())
  .map(lambda fields: Shape(*fields))
  .filter(lambda shape: shape.minimum <= shape.length)
)
sizes = st.lists(st.integers(0, 25), max_size=8)
offsets, batch_sizes = st.integers(0, 4), st.integers(1, 5)
orders = st.sampled_from([None, (3, 5)])


@given(sizes, shapes, offsets, batch_sizes)
def test_windows_as_cut_one_by_one(sizes, shape, offset, batch_size):
  sequences = make_sequences(sizes)
  expected = cut(sequences, shape, offset)
  if not expected:
    with pytest.raises(UserError, match=r"^data\.window(, data\.offset=\d)?: "):
      windows(sequences, shape, batch_size, Epoch(offset))
    return
  batches = windows(sequences, shape, batch_size, Epoch(offset))
  assert len(batches) == -(-len(expected) // batch_size)
  assert all(len(batch["segment"]) == batch_size for batch in batches)
  results = rows(batches, shape.length)
  assert results[: len(expected)] == expected
  # The rest of the last batch is padding, whole rows of it.
  assert results[len(expected) :] == [[]] * (len(results) - len(expected))


def targets_of(results, minimum=2):
  return [symbol for row in results for symbol in row[minimum - 1 :]]


@given(sizes, st.integers(1, 7), st.integers(1, 2), st.integers(0, 99))
def test_a_drawn_offset_loses_no_target_and_no_document(
  sizes, T, minimum, seed
):
  assume(max(sizes, default=0) >= minimum)
  sequences = make_sequences(sizes)
  length = T + minimum - 1
  fixed, drawn = (
    rows(windows(sequences, Shape(length, T, minimum), 3, Epoch(o)), length)
    for o in (0, np.random.default_rng(seed))
  )
  expected = targets_of(fixed, minimum)
  assert sorted(targets_of(drawn, minimum)) == expected
  # What fits into one window is not cut.
  whole = [n for n in sizes if minimum <= n < T + minimum]
  assert sum(len(row) in whole for row in drawn) >= len(whole)


@given(sizes, shapes, batch_sizes)
def test_an_epoch_has_as_many_batches_whatever_is_drawn(sizes, shape, B):
  sequences = make_sequences(sizes)
  assume(cut(sequences, shape))
  counts, places = set(), set()
  for seed in range(8):
    epoch = Epoch(np.random.default_rng(seed))
    results = rows(windows(sequences, shape, B, epoch), shape.length)
    counts.add(len([row for row in results if row]))
    places |= {row[0] for row in results if row}
    assert all(len(row) >= shape.minimum for row in results if row)
    if shape.full:
      short = {n for n in sizes if n < shape.length}
      assert {len(row) for row in results} <= {0, shape.length, *short}
  assert len(counts) == 1
  # Of several windows in a document, the cuts are not always the same. (Of two
  # offsets, which give one window more or less, one is never drawn.)
  if max(sizes) > shape.length + shape.step > shape.length + 2:
    assert len(places) > min(counts)


@given(sizes, shapes, offsets, batch_sizes, st.integers(1, 40), orders)
def test_passes_go_round_and_each_window_is_once_in_one(
  sizes, shape, offset, batch_size, samples, order
):
  sequences = make_sequences(sizes)
  once = cut(sequences, shape, offset)
  assume(once)
  epoch = Epoch(offset, order, samples)
  batches = windows(sequences, shape, batch_size, epoch)
  assert len(batches) == -(-samples // batch_size)
  results = rows(batches, shape.length)
  assert all(results[:samples]) and not any(results[samples:])
  for start in range(0, samples, len(once)):
    turn = results[start : min(start + len(once), samples)]
    if not order:
      assert turn == once[: len(turn)]
    elif len(turn) == len(once):
      assert sorted(turn) == sorted(once)
    else:
      assert all(turn.count(row) <= once.count(row) for row in turn)


def test_an_order_is_of_its_seed_epoch_and_pass_alone():
  # A window each: 38 batches of 8.
  sequences = make_sequences(np.random.default_rng(0).integers(2, 20, 304))

  def order(buckets, key, samples=None):
    epoch = Epoch(0, key, samples, buckets)
    batches = windows(sequences, Shape(20, 20), 8, epoch)
    # Last one first: no batch depends on those before it.
    return [tuple(batch["place"]) for batch in batches[::-1]][::-1]

  for buckets in (None, 4):
    first = order(buckets, (1, 2))
    assert len(first) == 38 and first == order(buckets, (1, 2))
    for key in ((1, 3), (2, 2)):  # Not the same rows side by side.
      assert not {*first} & {*order(buckets, key)}
    # A whole pass is the same, whatever number of samples is asked for.
    twice = order(buckets, (1, 2), 2 * 304)
    assert twice[:38] == first != twice[38:]
    assert sorted(sum(twice[38:], ())) == sorted(sum(first, ()))
  # So that an epoch can be repeated anywhere.
  rows = shuffle(np.arange(304), 304, (1, 2, 0))
  places = np.concatenate(order(None, (1, 2)))
  assert np.array_equal(places, sequences.bounds[rows])


@given(sizes, shapes, offsets, batch_sizes, st.integers(1, 9), orders)
def test_buckets_have_each_window_once_beside_others_as_long(
  sizes, shape, offset, B, buckets, order
):
  sequences = make_sequences(sizes)
  once = cut(sequences, shape, offset)
  assume(once)
  batches = windows(sequences, shape, B, Epoch(offset, order, buckets=buckets))
  assert len(batches) == -(-len(once) // B)
  results = rows(batches, shape.length)
  assert sorted(filter(None, results)) == sorted(once)
  longest = [
    max(len(row) for row in results[n * B : (n + 1) * B])
    for n in range(len(batches))
  ]
  widths = [batch["segment"].shape[1] for batch in batches]
  assert len(set(widths)) <= buckets
  # No batch is wider than one bucket needs that its longest row is in.
  for wide, long in zip(widths, longest, strict=True):
    assert not any(long <= other < wide for other in widths)
  if buckets >= 8:  # As many as there may be lengths.
    assert widths == longest
  bounds = sequences.bounds
  for batch in batches:
    document, place = batch["document"], batch["place"]
    inside = (bounds[document] <= place) & (place < bounds[document + 1])
    assert inside[batch["segment"][:, 0] != PAD].all()


def test_batches_are_made_when_asked_for():
  asked = []

  def make(i, start, stop):
    asked.append(i)
    return {"x": 10 * i + np.arange(4)[start:stop]}

  batches = Batches(5, 4, make)
  doubled = batches.map(lambda batch: {"x": 2 * batch["x"]})
  later = doubled[1:4].rows(1, 3)[::-1]
  assert (len(batches), len(later), asked) == (5, 3, [])
  values = [batch["x"].tolist() for batch in later]
  assert values == [[62, 64], [42, 44], [22, 24]]
  assert asked == [3, 2, 1]
  with pytest.raises(IndexError):
    later[3]


@given(
  *(sizes, shapes, st.none() | st.integers(1, 40)),
  st.lists(st.integers(0, 4), min_size=1, max_size=3),
  st.none() | st.integers(1, 4),
)
def test_rows_of_a_batch_are_parts_of_it(sizes, shape, samples, edges, buckets):
  sequences = make_sequences(sizes)
  assume(cut(sequences, shape))
  batches = windows(sequences, shape, 4, Epoch(0, (0, 0), samples, buckets))
  batches = batches.map(lambda b: {**b, "first": b["segment"][:, 0]})
  edges = [0, *sorted(edges), batches.batch_size]
  views = [batches.rows(*pair) for pair in itertools.pairwise(edges)]
  assert [len(view) for view in views] == [len(batches)] * len(views)
  assert [view.batch_size for view in views] == np.diff(edges).tolist()
  for i, whole in enumerate(batches):
    parts = [view[i] for view in views]
    for name, expected in whole.items():
      joined = np.concatenate([part[name] for part in parts])
      assert joined.dtype == expected.dtype
      np.testing.assert_array_equal(joined, expected)


def test_a_shuffle_has_each_number_once():
  for n in (*range(1, 34), 99, 100, 1024, 1025, 65_537):
    numbers = shuffle(np.arange(n), n, (1, 2, 3))
    assert numbers.dtype == np.int64
    np.testing.assert_array_equal(np.sort(numbers), np.arange(n))


@given(st.integers(1, 2**53), st.tuples(st.integers(0, 2**32 - 1)), st.data())
def test_parts_of_a_shuffle_are_those_of_the_whole(n, key, data):
  places = st.lists(st.integers(0, n - 1), min_size=1, max_size=9, unique=True)
  some = np.array(data.draw(places))
  numbers = shuffle(some, n, key)
  assert len(set(numbers.tolist())) == len(some)
  assert numbers.min() >= 0 and numbers.max() < n
  for place, expected in zip(some, numbers, strict=True):
    assert shuffle(np.array([place]), n, key) == [expected]


def test_a_shuffle_is_the_same_on_every_machine():
  # Written down once: a run resumes with the order that it began with.
  order = [6, 7, 9, 4, 0, 3, 2, 8, 1, 5]
  assert shuffle(np.arange(10), 10, (0, 0, 0)).tolist() == order
  places = np.array([0, 1, 10**9, 10**12 - 1])
  order = [272741485704, 113729321680, 850124346221, 961324969233]
  assert shuffle(places, 10**12, (7, 3, 1)).tolist() == order
