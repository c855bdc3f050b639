"""The functions of tasks, each alone, against loops over plain lists."""

import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, PAD
from seqrnn.experiments import gap_model, language_model

# Documents of any length, padded at the right: one longer than the window, one
# shorter, one of a single symbol, and a row that is padding.
ROWS = [[BEGIN, 5, 6, 7, 8], [9, 5, END], [7], []]


def segments(rows=ROWS):
  """A batch as Segments make it."""
  asked = np.full((len(rows), 5), PAD, np.int32)
  for n, row in enumerate(rows):
    asked[n, : len(row)] = row
  return {
    "segment": asked,
    "read": np.where(asked > END, asked.astype(str), "").astype(object),
    "weight": np.arange(1, len(rows) + 1, dtype=np.float32)[:, None],
    "reset": np.ones(len(rows), bool),
  }


def test_a_language_model_asks_for_every_symbol_after_the_first():
  batch = language_model.targets(segments(), many_to_one=False)
  for n, row in enumerate(ROWS):
    asked = batch["weights"][n] > 0
    assert batch["inputs"][n][asked].tolist() == row[:-1]
    assert batch["targets"][n][asked].tolist() == row[1:]
    named = [str(i) if i > END else "" for i in row[1:]]
    assert batch["truth"][n][asked].tolist() == named
    assert set(batch["weights"][n]) <= {0, n + 1}


def test_many_to_one_asks_for_the_last_symbol_alone():
  batch = language_model.targets(segments(), many_to_one=True)
  assert batch["targets"].shape == batch["truth"].shape == (len(ROWS), 1)
  for n, row in enumerate(ROWS):
    assert batch["inputs"][n].tolist() == row[:-1] + [PAD] * (
      5 - len(row[:-1]) - 1
    )
    assert batch["targets"][n].tolist() == (row[-1:] or [PAD])
    assert batch["weights"][n] == (n + 1 if row else 0)


def test_a_gap_model_asks_for_every_symbol_of_a_segment():
  for apart in (False, True):
    batch = gap_model.targets(segments(), apart=apart)
    least = BEGIN if apart else END
    for n, row in enumerate(ROWS):
      assert batch["inputs"][n].tolist() == batch["targets"][n].tolist()
      expected = [(n + 1) * (i > least) for i in row] + [0] * (5 - len(row))
      assert batch["weights"][n].tolist() == expected
    assert ("heads" in batch) == apart
