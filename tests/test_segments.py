"""Segments: which windows an epoch takes, of which split."""

import numpy as np
import pytest
from conftest import tiny

from seqrnn.data import splits, vocabulary
from seqrnn.data.corpora import from_text
from seqrnn.data.segments import Segments
from seqrnn.data.vocabulary import PAD


def segments(tmp_path, changes, **shape):
  """Segments of one document whose symbols tell where they stand."""
  text = "".join(chr(0x4E00 + n) for n in range(400))
  path = tmp_path / "text.txt"
  path.write_text(text, "utf-8")
  config = tiny(
    tmp_path,
    {
      "data.path": str(path),
      "data.boundaries": False,
      "data.vocabulary_size": None,
      **changes,
    },
  )
  [document] = splits.reader(config)("train")
  symbols = vocabulary.make([document], "char", 1, None)
  shape = {"length": 9, "minimum": 2, **shape}
  return Segments(config, symbols, **shape), len(document.symbols)


def starts(batches):
  """Where the windows of an epoch start, in order: ids go by code point."""
  found = np.concatenate([batch["segment"][:, 0] for batch in batches])
  return (found[found != PAD] - 4).tolist()


def test_training_is_shuffled_and_differs_from_epoch_to_epoch(tmp_path):
  made, n = segments(tmp_path, {})
  first, again, second = (starts(made.batches("train", e)) for e in (0, 0, 1))
  assert first == again != second
  assert sorted(first) == sorted(second) == list(range(0, n - 1, 8))


def test_other_seeds_have_other_orders(tmp_path):
  one, _ = segments(tmp_path, {"seed": 1})
  two, _ = segments(tmp_path, {"seed": 2})
  assert starts(one.batches("train", 0)) != starts(two.batches("train", 0))


def test_evaluation_is_in_order_and_counts_each_symbol_once(tmp_path):
  made, n = segments(tmp_path, {"data.step": 3, "data.offset": 5})
  text = "".join(made._vocabulary.symbols)
  document = from_text(text, "char")
  found = starts(made.batches(document, 0))
  assert found == list(range(0, n - 1, 8))


def test_a_fixed_offset_and_step(tmp_path):
  made, n = segments(tmp_path, {"data.step": 3, "data.offset": 5})
  found = sorted(starts(made.batches("train", 0)))
  # Until one reaches the end.
  assert found == list(range(5, n - 9 + 3, 3))


def test_a_random_offset_is_drawn_each_epoch(tmp_path):
  made, _ = segments(tmp_path, {"data.step": 6, "data.random_offset": True})
  firsts = [min(starts(made.batches("train", epoch))) for epoch in range(40)]
  assert set(firsts) == set(range(6))
  for epoch in range(3):
    assert {s % 6 for s in starts(made.batches("train", epoch))} == {
      firsts[epoch]
    }


@pytest.mark.parametrize(
  ("changes", "rows"),
  [
    ({"train.samples_per_epoch": 10}, 10),
    ({"train.batches_per_epoch": 3}, 12),
    ({"train.samples_per_epoch": 100}, 100),
  ],
)
def test_an_epoch_is_as_long_as_it_is_told(tmp_path, changes, rows):
  made, n = segments(tmp_path, changes)
  batches = made.batches("train", 0)
  assert len(batches) == -(-rows // 4)
  found = starts(batches)
  assert len(found) == rows
  windows = len(range(0, n - 1, 8))
  # None comes a second time before all have come once.
  assert len(set(found[:windows])) == min(rows, windows)
  # Only training is cut short.
  assert len(starts(made.batches("validation", 0))) > 0


def test_stateful_epochs_go_on_where_the_last_one_ended(tmp_path):
  made, n = segments(
    tmp_path, {"data.stateful": True, "train.batches_per_epoch": 3}
  )
  whole, _ = segments(tmp_path, {"data.stateful": True})
  everything = whole.batches("train", 0)
  assert len(everything) == -(-(n // 4) // 8)
  for epoch in range(5):
    part = made.batches("train", epoch)
    assert len(part) == 3
    for i, batch in enumerate(part):
      expected = everything[(3 * epoch + i) % len(everything)]
      np.testing.assert_array_equal(batch["segment"], expected["segment"])
      np.testing.assert_array_equal(batch["reset"], expected["reset"])


def test_facts_tell_corpora_apart(tmp_path):
  made, n = segments(tmp_path, {})
  facts = made.facts("train")
  assert facts["documents"] == 1 and facts["symbols"] == n
  other, _ = segments(tmp_path, {"data.test_fraction": 0.2})
  assert other.facts("train")["crc32"] != facts["crc32"]
