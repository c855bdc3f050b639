"""Segments: which windows an epoch takes, of which split."""

import random
import tracemalloc

import numpy as np

from seqrnn import experiments
from seqrnn.data import splits, vocabulary
from seqrnn.data.batches.segments import Segments
from seqrnn.data.documents import Document
from seqrnn.data.read import columns, reading
from seqrnn.data.sources import cache
from seqrnn.data.sources.corpora import from_text
from seqrnn.data.vocabulary import PAD
from tests.conftest import tiny


def segments(tmp_path, changes, **shape):
  """Segments of one document whose symbols tell where they stand."""
  text = "".join(chr(0x4E00 + n) for n in range(400))
  path = tmp_path / "text.txt"
  path.write_text(text, "utf-8")
  fields = {"data.boundaries": False, "data.vocabulary_size": None, **changes}
  config = tiny(tmp_path, {"data.path": str(path), **fields})
  pieces = splits.reader(config)("train")
  counts = pieces.counts()
  symbols = vocabulary.make(pieces.corpus.symbols, counts, "char", 1, None)
  shape = {"length": 9, "minimum": 2, **shape}
  return Segments(config, symbols, **shape), int(counts.sum())


def starts(batches):
  """Where the windows of an epoch start, in order: ids go by code point."""
  results = np.concatenate([batch["segment"][:, 0] for batch in batches])
  return (results[results != PAD] - 4).tolist()


def test_training_is_shuffled_and_differs_from_epoch_to_epoch(tmp_path):
  segmenter, n = segments(tmp_path, {})
  first, again, second = (
    starts(segmenter.batches("train", e)) for e in (0, 0, 1)
  )
  assert first == again != second
  assert sorted(first) == sorted(second) == list(range(0, n - 1, 8))


def test_evaluation_is_in_order_and_counts_each_symbol_once(tmp_path):
  segmenter, n = segments(tmp_path, {"data.step": 3, "data.offset": 5})
  text = "".join(segmenter._vocabulary.symbols)
  document = from_text(text, "char")
  assert starts(segmenter.batches(document, 0)) == list(range(0, n - 1, 8))
  # A fixed offset and step; the last window reaches the end.
  trained = sorted(starts(segmenter.batches("train", 0)))
  assert trained == list(range(5, n - 9 + 3, 3))


def test_a_random_offset_is_drawn_each_epoch(tmp_path):
  segmenter, _ = segments(
    tmp_path, {"data.step": 6, "data.random_offset": True}
  )
  cuts, counts = [], set()
  for epoch in range(20):
    # The first window begins with the document and ends at the offset.
    first, *later = sorted(starts(segmenter.batches("train", epoch)))
    assert first == 0 and len({s % 6 for s in later}) == 1
    cuts.append(later[0] % 6)
    counts.add(len(later))
  assert len(set(cuts)) >= 3 and len(counts) == 1


def test_the_length_of_an_epoch(tmp_path):
  for changes, rows in (
    ({"train.samples_per_epoch": 10}, 10),
    ({"train.batches_per_epoch": 3}, 12),
  ):
    segmenter, n = segments(tmp_path, changes)
    batches = segmenter.batches("train", 0)
    assert len(batches) == -(-rows // 4)
    places = starts(batches)
    assert len(places) == rows
    windows = len(range(0, n - 1, 8))
    # None comes a second time before all have come once.
    assert len(set(places[:windows])) == min(rows, windows)
    # Only training is cut short.
    assert len(starts(segmenter.batches("validation", 0))) > 0


HUGE = {"train.batch_size": 3000, "data.window": 5000}


def shapes(experiment, split="train", epochs=3):
  shapes = {
    batch["inputs"].shape[:2]
    for epoch in range(epochs)
    for batch in experiment.batches(split, epoch)
  }
  sizes = {experiment.batches(split, e).batch_size for e in range(epochs)}
  assert sizes == {rows for rows, _ in shapes}
  return shapes


def test_a_batch_has_no_more_rows_than_there_are_windows(tmp_path):
  cases = [
    ({}, {(3, 5000)}),  # Three documents.
    ({"data.buckets": 4}, {(3, 255)}),
    # 241 symbols each: as many windows without an offset, in all epochs.
    ({"data.window": 50, "data.random_offset": True}, {(15, 50)}),
    ({"data.mapping": "many_to_one", "data.window": 230}, {(3, 230)}),
    ({"data.stateful": True, "train.batch_size": 16}, {(16, 46)}),
  ]
  for fields, expected in cases:
    experiment = experiments.build(tiny(tmp_path, HUGE | fields), None)
    assert shapes(experiment) == expected, fields
  segmented, _ = segments(tmp_path, {"train.batch_size": 16})
  for count, rows in ((1, 1), (3, 8), (8, 8), (9, 16), (40, 16)):
    texts = [Document("x", "ab" * 3)] * count
    assert segmented.batches(texts, 0, ordered=True).batch_size == rows


def test_stateful_epochs_go_on_where_the_last_one_ended(tmp_path):
  segmenter, n = segments(
    tmp_path, {"data.stateful": True, "train.batches_per_epoch": 3}
  )
  whole, _ = segments(tmp_path, {"data.stateful": True})
  everything = whole.batches("train", 0)
  assert len(everything) == -(-(n // 4) // 8)
  for epoch in range(5):
    part = segmenter.batches("train", epoch)
    assert len(part) == 3
    for i, batch in enumerate(part):
      expected = everything[(3 * epoch + i) % len(everything)]
      np.testing.assert_array_equal(batch["segment"], expected["segment"])
      np.testing.assert_array_equal(batch["reset"], expected["reset"])


def test_no_more_memory_for_more_text(tmp_path, monkeypatch):
  # All that a start needs, of a text that is in memory as pages of a file.
  monkeypatch.setattr(cache, "LARGE", 0)
  monkeypatch.setattr(reading, "CHUNK", 2**14)
  monkeypatch.setattr(splits, "_CHUNK", 2**14)
  monkeypatch.setattr(columns, "_SMALL", 2**14)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

  def peak(size):
    path = tmp_path / f"{size}.txt"
    path.write_text("".join(random.Random(0).choices("abcdé", k=2000)) * size)
    config = tiny(tmp_path, {"data.path": str(path), "data.step": 1})
    tracemalloc.start()
    experiment = experiments.build(config, None)
    experiment.facts("train")
    for batches in (experiment.batches(s, 0) for s in ("train", "validation")):
      assert batches[0] and batches[-1]
    _, results = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return results

  peak(1)  # Imports and caches.
  assert peak(300) < peak(100) + 100_000
