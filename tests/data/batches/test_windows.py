"""Windows: against a loop over documents, and what a shuffle may not change."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seqrnn.data.batches.sequences import Sequences
from seqrnn.data.batches.windows import (
  Batches,
  Epoch,
  Shape,
  shuffle,
)
from seqrnn.data.batches.windows import windows as windows_of
from seqrnn.data.vocabulary import PAD
from seqrnn.errors import UserError

examples = settings(deadline=None, database=None, max_examples=50)


def make_sequences(sizes):
  """Documents in which no id is twice, so that each tells its place."""
  bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
  ids = np.arange(bounds[-1], dtype=np.uint16)
  table = np.arange(4, 4 + len(ids), dtype=np.int32)
  nowhere = np.zeros(len(sizes), bool)
  return Sequences(
    ids,
    table,
    0 * bounds[:-1],
    nowhere,
    nowhere,
    bounds,
    np.arange(len(sizes)),
  )


def windows(sequences, batch_size, drawn=None, **fields):
  shape = {name: fields.pop(name) for name in Shape._fields if name in fields}
  if drawn is not None:
    fields["offset"] = drawn
  return windows_of(sequences, Shape(**shape), batch_size, Epoch(**fields))


def cut(sequences, length, step, offset, full, minimum):
  """The windows of each document, one by one."""
  ids, bounds = sequences.table, sequences.bounds
  results = []
  for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
    document = ids[begin:end].tolist()
    start, n = offset, len(document)
    while n - start >= minimum:
      if full and n - start < length and start > offset:
        break
      results.append(document[start : start + length])
      if start + length >= n:
        break
      start += step
  return results


def rows(batches, length):
  """All rows without their padding, which is checked to stand at the right."""
  results = []
  for batch in batches:
    segment = batch["segment"]
    assert segment.dtype == np.int32 and segment.shape[1] <= length
    for row in segment:
      inside = row != PAD
      assert not np.any(~inside[:-1] & inside[1:])
      results.append(row[inside].tolist())
  return results


shapes = st.fixed_dictionaries(
  {
    "length": st.integers(1, 7),
    "step": st.integers(1, 9),
    "offset": st.integers(0, 4),
    "full": st.booleans(),
    "minimum": st.integers(1, 3),
  }
)
sizes = st.lists(st.integers(0, 25), max_size=8)


@examples
@given(sizes, shapes, st.integers(1, 5))
def test_windows_as_cut_one_by_one(sizes, shape, batch_size):
  assume(shape["minimum"] <= shape["length"])
  sequences = make_sequences(sizes)
  expected = cut(sequences, **shape)
  if not expected:
    with pytest.raises(UserError, match=r"^data\.window(, data\.offset=\d)?: "):
      windows(sequences, batch_size=batch_size, **shape)
    return
  batches = windows(sequences, batch_size=batch_size, **shape)
  assert len(batches) == -(-len(expected) // batch_size)
  assert all(len(batch["segment"]) == batch_size for batch in batches)
  results = rows(batches, shape["length"])
  assert results[: len(expected)] == expected
  # The rest of the last batch is padding, whole rows of it.
  assert results[len(expected) :] == [[]] * (len(results) - len(expected))


@examples
@given(sizes, st.integers(1, 7), st.integers(1, 5))
def test_every_symbol_but_a_first_is_a_target_once(sizes, T, batch_size):
  assume(max(sizes, default=0) >= 2)
  sequences = make_sequences(sizes)
  ids, bounds = sequences.table, sequences.bounds
  batches = windows(sequences, batch_size=batch_size, length=T + 1, step=T)
  targets = []
  for row in rows(batches, T + 1):
    for symbol, following in zip(row, row[1:], strict=False):
      assert following == symbol + 1
      targets.append(following)
  firsts = ids[bounds[:-1][np.diff(bounds) > 0]]
  assert targets == sorted(set(ids.tolist()) - set(firsts.tolist()))


def targets_of(results, minimum):
  return [symbol for row in results for symbol in row[minimum - 1 :]]


@examples
@given(sizes, st.integers(1, 7), st.integers(1, 2), st.integers(0, 99))
def test_a_drawn_offset_loses_no_target_and_no_document(
  sizes, T, minimum, seed
):
  assume(max(sizes, default=0) >= minimum)
  sequences = make_sequences(sizes)
  shape = {"length": T + minimum - 1, "step": T, "minimum": minimum}
  fixed, drawn = (
    windows(sequences, batch_size=3, drawn=rng, **shape)
    for rng in (None, np.random.default_rng(seed))
  )
  results = rows(drawn, T + minimum - 1)
  expected = targets_of(rows(fixed, T + minimum - 1), minimum)
  assert sorted(targets_of(results, minimum)) == expected
  for batch in drawn:
    for row, place in zip(batch["segment"], batch["place"], strict=True):
      assert row[0] in (PAD, place + 4)
  # What fits into one window is not cut.
  whole = [n for n in sizes if minimum <= n < T + minimum]
  assert sum(len(row) in whole for row in results) >= len(whole)


@examples
@given(sizes, shapes, st.integers(1, 5))
def test_an_epoch_has_as_many_batches_whatever_is_drawn(sizes, shape, B):
  shape["length"] = max(shape["minimum"], shape["length"])
  del shape["offset"]
  sequences = make_sequences(sizes)
  assume(cut(sequences, offset=0, **shape))
  counts, places = set(), set()
  for seed in range(12):
    batches = windows(
      sequences, batch_size=B, drawn=np.random.default_rng(seed), **shape
    )
    results = rows(batches, shape["length"])
    counts.add(len([row for row in results if row]))
    places |= {row[0] for row in results if row}
    assert all(len(row) >= shape["minimum"] for row in results if row)
    if shape["full"]:
      short = {n for n in sizes if n < shape["length"]}
      assert {len(row) for row in results} <= {0, shape["length"], *short}
  assert len(counts) == 1
  # Of several windows in a document, the cuts are not always the same. (Of two
  # offsets, which give one window more or less, one is never drawn.)
  if max(sizes) > shape["length"] + shape["step"] > shape["length"] + 2:
    assert len(places) > min(counts)


@examples
@given(sizes, shapes, st.integers(1, 5), st.integers(1, 40), st.booleans())
def test_passes_go_round_and_each_window_is_once_in_one(
  sizes, shape, batch_size, samples, shuffle
):
  assume(shape["minimum"] <= shape["length"])
  sequences = make_sequences(sizes)
  once = cut(sequences, **shape)
  assume(once)
  batches = windows(
    sequences,
    batch_size=batch_size,
    order=(3, 5) if shuffle else None,
    samples=samples,
    **shape,
  )
  assert len(batches) == -(-samples // batch_size)
  results = rows(batches, shape["length"])
  assert all(results[:samples]) and not any(results[samples:])
  for start in range(0, samples, len(once)):
    turn = results[start : min(start + len(once), samples)]
    if not shuffle:
      assert turn == once[: len(turn)]
    elif len(turn) == len(once):
      assert sorted(turn) == sorted(once)
    else:
      assert all(turn.count(row) <= once.count(row) for row in turn)


def test_an_order_is_of_its_seed_epoch_and_pass_alone():
  sequences = make_sequences([50, 3, 70])

  def order(key, samples=None):
    batches = windows(
      sequences, batch_size=7, length=5, step=1, order=key, samples=samples
    )
    # Last one first: no batch depends on those before it.
    return np.concatenate([b["segment"] for b in [*reversed(batches)][::-1]])

  total = 46 + 1 + 66
  first = order((1, 2))
  assert np.array_equal(first, order((1, 2)))
  assert not np.array_equal(first, order((1, 3)))
  assert not np.array_equal(first, order((2, 2)))
  # A whole pass is the same, whatever number of samples is asked for.
  twice = order((1, 2), 2 * total)
  assert np.array_equal(twice[:total], first[:total])
  assert not np.array_equal(twice[total : 2 * total], first[:total])
  # So that an epoch can be repeated anywhere.
  rows = shuffle(np.arange(total), total, (1, 2, 0))
  ordered = windows(sequences, batch_size=total, length=5, step=1)[0]
  assert np.array_equal(first[:total], ordered["segment"][rows])


@examples
@given(sizes, shapes, st.integers(1, 5), st.integers(1, 9), st.booleans())
def test_buckets_have_each_window_once_beside_others_as_long(
  sizes, shape, B, buckets, shuffled
):
  assume(shape["minimum"] <= shape["length"])
  sequences = make_sequences(sizes)
  once = cut(sequences, **shape)
  assume(once)
  batches = windows(
    sequences,
    batch_size=B,
    buckets=buckets,
    order=(3, 5) if shuffled else None,
    **shape,
  )
  assert len(batches) == -(-len(once) // B)
  results = rows(batches, shape["length"])
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
  for batch in batches:
    for row, document, place in zip(*batch.values(), strict=True):
      if row[0] != PAD:  # Ids tell where they stand.
        assert row[0] - 4 == place
        bounds = sequences.bounds
        assert bounds[document] <= place < bounds[document + 1]


def test_an_order_of_buckets_is_of_its_seed_epoch_and_pass_alone():
  sequences = make_sequences(np.random.default_rng(0).integers(2, 30, 300))
  fields = {"batch_size": 8, "length": 20, "step": 20, "buckets": 4}

  def order(epoch, samples=None):
    batches = windows(sequences, order=(1, epoch), samples=samples, **fields)
    # Last one first: no batch depends on those before it.
    return [batch["place"].tolist() for batch in batches[::-1]][::-1]

  first = order(0)
  assert first == order(0) != order(1)
  # Not the same rows side by side, and not from short to long.
  assert not {*map(tuple, first)} & {*map(tuple, order(1))}
  twice, n = order(0, 2 * 8 * len(first)), len(first)
  assert twice[:n] == first != twice[n:]
  assert sorted(sum(twice[n:], [])) == sorted(sum(first, []))


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
  with pytest.raises(IndexError, match=r"rows 0\.\.5 of 4"):
    batches.rows(0, 5)


def same(one, other):
  return list(one) == list(other) and all(
    one[name].dtype == other[name].dtype
    and np.array_equal(one[name], other[name])
    for name in one
  )


@settings(deadline=None, database=None, max_examples=25)
@given(
  sizes,
  shapes,
  st.integers(1, 6),
  st.none() | st.integers(1, 40),
  st.lists(st.integers(0, 6), min_size=1, max_size=3),
  st.none() | st.integers(1, 4),
)
def test_rows_of_a_batch_are_parts_of_it(
  sizes, shape, B, samples, edges, buckets
):
  assume(shape["minimum"] <= shape["length"])
  sequences = make_sequences(sizes)
  assume(cut(sequences, **shape))
  batches = windows(
    sequences,
    batch_size=B,
    order=(0, 0),
    samples=samples,
    buckets=buckets,
    **shape,
  ).map(lambda batch: {**batch, "first": batch["segment"][:, 0]})
  edges = [0, *sorted(min(edge, B) for edge in edges), B]
  views = [batches.rows(*pair) for pair in itertools.pairwise(edges)]
  assert [len(view) for view in views] == [len(batches)] * len(views)
  assert [view.batch_size for view in views] == np.diff(edges).tolist()
  for i, whole in enumerate(batches):
    parts = [view[i] for view in views]
    joined = {n: np.concatenate([part[n] for part in parts]) for n in whole}
    assert same(joined, whole) and same(batches.rows(0, B)[i], whole)


def test_a_shuffle_has_each_number_once():
  for n in (*range(1, 34), 99, 100, 1024, 1025, 65_537):
    numbers = shuffle(np.arange(n), n, (1, 2, 3))
    assert numbers.dtype == np.int64
    np.testing.assert_array_equal(np.sort(numbers), np.arange(n))


@settings(deadline=None, database=None, max_examples=40)
@given(st.integers(1, 2**53), st.tuples(st.integers(0, 2**32 - 1)), st.data())
def test_parts_of_a_shuffle_are_those_of_the_whole(n, key, data):
  places = st.lists(st.integers(0, n - 1), min_size=1, max_size=20, unique=True)
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
