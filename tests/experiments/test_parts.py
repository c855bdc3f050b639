"""The functions of tasks, each alone, against loops over plain lists."""

from functools import partial

import jax
import numpy as np
import pytest

from seqrnn.data.vocabulary import BEGIN, END, PAD, Vocabulary
from seqrnn.experiments import (
  gap_model,
  language_model,
  parts,
)
from seqrnn.models import network
from tests.conftest import tiny
from tests.models.test_cells import normal

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


def test_a_carry_is_kept_where_there_is_one(tmp_path):
  vocabularies = {"symbols": Vocabulary("char", tuple("abcde"))}
  model = parts.sequence_model(tiny(tmp_path), vocabularies, pooled=False)
  init = jax.eval_shape(partial(network.init, model), jax.random.key(0))
  params = normal(np.random.default_rng(0), init)
  params = jax.tree.map(np.float32, params)
  predict = jax.jit(partial(parts.predict, model))
  ids_BT = np.random.default_rng(0).integers(4, 9, (2, 6), np.int32)
  halves = [
    {"inputs": ids_BT[:, part], "reset": np.array([n == 0, True])}
    for n, part in enumerate((slice(0, 3), slice(3, 6)))
  ]
  whole = {"inputs": ids_BT, "reset": np.ones(2, bool)}
  after, expected = predict(params, (), whole)
  assert after == ()
  carry, outputs = jax.tree.map(np.array, model.initial_carry(2)), []
  for batch in halves:
    carry, logits = predict(params, carry, batch)
    outputs.append(logits)
  joined = np.concatenate(outputs, axis=1)
  np.testing.assert_allclose(joined[0], expected[0], atol=1e-5)
  # The second row starts anew in the middle.
  _, alone = predict(params, (), halves[1])
  np.testing.assert_allclose(joined[1, 3:], alone[1], atol=1e-5)
  assert abs(joined[1, 3:] - expected[1, 3:]).max() > 1e-4
  # The loss and the scores are those of the logits.
  batch = {**whole, "targets": ids_BT, "weights": np.ones((2, 6), np.float32)}

  @jax.jit
  def loss_and_scores(params):
    _, nll_BT = parts.score(lambda *_: ((), expected), params, (), batch)
    objective = parts.cross_entropy, 0.0
    return parts.loss(model, objective, params, (), batch, None)[0], nll_BT

  mean, nll_BT = map(np.asarray, loss_and_scores(params))
  assert float(mean) == pytest.approx(nll_BT.mean(), rel=1e-5)
