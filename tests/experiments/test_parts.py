"""The functions of tasks, each alone, against loops over plain lists."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.data.batches.sequences import Sequences
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.experiments import (
  classification,
  gap_model,
  language_model,
  parts,
  polyphony,
  tagging,
)
from seqrnn.models import network
from seqrnn.scoring.predictions import Prediction
from tests.conftest import tiny

# Documents of any length, padded at the right: one longer than the window, one
# shorter, one of a single symbol, and a row that is padding.
ROWS = [[BEGIN, 5, 6, 7, 8], [9, 5, END], [7], []]


def segments(rows=ROWS):
  """A batch as Segments make it."""
  made = np.full((len(rows), 5), PAD, np.int32)
  for n, row in enumerate(rows):
    made[n, : len(row)] = row
  return {
    "segment": made,
    "read": np.where(made > END, made.astype(str), "").astype(object),
    "weight": np.arange(1, len(rows) + 1, dtype=np.float32)[:, None],
    "reset": np.ones(len(rows), bool),
  }


def test_a_language_model_asks_for_every_symbol_after_the_first():
  made = language_model.targets(segments(), many_to_one=False)
  for n, row in enumerate(ROWS):
    asked = made["weights"][n] > 0
    assert made["inputs"][n][asked].tolist() == row[:-1]
    assert made["targets"][n][asked].tolist() == row[1:]
    named = [str(i) if i > END else "" for i in row[1:]]
    assert made["truth"][n][asked].tolist() == named
    assert set(made["weights"][n]) <= {0, n + 1}


def test_many_to_one_asks_for_the_last_symbol_alone():
  made = language_model.targets(segments(), many_to_one=True)
  assert made["targets"].shape == made["truth"].shape == (len(ROWS), 1)
  for n, row in enumerate(ROWS):
    assert made["inputs"][n].tolist() == row[:-1] + [PAD] * (
      5 - len(row[:-1]) - 1
    )
    assert made["targets"][n].tolist() == (row[-1:] or [PAD])
    assert made["weights"][n] == (n + 1 if row else 0)


def test_a_window_is_filled_and_then_moves():
  seen = []

  def apply(_, window_BT, carry, **__):
    seen.append(np.asarray(window_BT).tolist())
    return carry, jnp.zeros((len(window_BT), 1, 9))

  model = SimpleNamespace(apply=apply, initial_carry=lambda _: ())
  window_BT = language_model.empty_window(3, 2)
  symbols = np.random.default_rng(0).integers(4, 9, (6, 2))
  for symbol_B in symbols:
    window_BT, logits_BV = language_model.after_window(
      model, {}, window_BT, jnp.asarray(symbol_B)
    )
    assert logits_BV.shape == (2, 9)
  for n, rows in enumerate(seen, 1):
    for b, row in enumerate(rows):
      last = symbols[max(n - 3, 0) : n, b].tolist()
      assert row == last + [PAD] * (3 - len(last))


@pytest.mark.parametrize("apart", [False, True])
def test_a_gap_model_asks_for_every_symbol_of_a_segment(apart):
  made = gap_model.targets(segments(), apart=apart)
  least = BEGIN if apart else END
  for n, row in enumerate(ROWS):
    assert made["inputs"][n].tolist() == made["targets"][n].tolist()
    expected = [(n + 1) * (i > least) for i in row] + [0] * (5 - len(row))
    assert made["weights"][n].tolist() == expected
  assert ("heads" in made) == apart


def test_what_a_head_must_not_see():
  for T in (1, 4):
    found = gap_model.forbidden(3, T).reshape(3, T, T)
    for t, s in np.ndindex(T, T):
      assert found[:, t, s].tolist() == [s == t, s >= t, s <= t]
    np.testing.assert_array_equal(gap_model.forbidden(1, T), np.eye(T))


def test_the_loss_of_three_heads_is_their_mean():
  rng = np.random.default_rng(0)
  logits = {name: rng.normal(size=(2, 3, 7)) for name in gap_model.HEADS}
  targets_BT, weights_BT = rng.integers(4, 7, (2, 3)), rng.random((2, 3))
  heads_B3 = rng.random((2, 3))
  loss, totals = gap_model.cross_entropies(
    {"heads": heads_B3}, logits, targets_BT, weights_BT
  )
  means = []
  for n, logits_BTV in enumerate(logits.values()):
    p_BTV = np.exp(logits_BTV) / np.exp(logits_BTV).sum(-1, keepdims=True)
    nll_BT = -np.log(np.take_along_axis(p_BTV, targets_BT[..., None], -1))[
      ..., 0
    ]
    weight_BT = weights_BT * heads_B3[:, n, None]
    means.append((nll_BT * weight_BT).sum() / weight_BT.sum())
  assert float(loss) == pytest.approx(np.mean(means), rel=1e-5)
  names = ("loss", "forward_loss", "backward_loss")
  found = [float(totals[n][0] / totals[n][1]) for n in names]
  assert found == pytest.approx(means, rel=1e-5)


def test_a_label_is_that_of_the_document():
  place, document = np.array([0, 0, 0, 3]), np.array([2, 0, 1, 0])
  batch = {**segments(), "document": document, "place": place}
  made = classification.targets(
    np.array([7, 4, UNKNOWN]), np.array(["a", "b", ""], object), None, batch
  )
  assert made["targets"].tolist() == [[UNKNOWN], [7], [4], [7]]
  assert made["truth"].tolist() == [[""], ["a"], ["b"], ["a"]]
  assert made["weights"].tolist() == [[1], [1], [1], [0]]
  assert made["place"].tolist() == place.tolist()
  weigh = lambda: np.arange(9) / 2
  made = classification.targets(np.array([7, 4, 5]), None, weigh, batch)
  assert made["importance"].tolist() == [[2.5], [3.5], [2], [3.5]]
  assert "truth" not in made and "read" not in made


def test_labels_that_are_rare_weigh_more():
  batches = [{**segments(), "document": np.array([n, 3, 3, 0])} for n in (0, 1)]
  source = SimpleNamespace(batches=lambda *_, **__: batches)
  labels = Vocabulary("id", ("often", "rarely", "never"))
  ids = lambda _: np.array([4, 5, 6, 4])
  weight_V = classification.importance(source, labels, ids)
  # Of six windows that are not padding, five are `often`.
  np.testing.assert_allclose(weight_V[4:], [6 / 5 / 3, 6 / 3, 6 / 3], rtol=1e-6)


def sequences(rows):
  """Documents without boundaries, whose ids are those of the corpus."""
  bounds = np.cumsum([0, *map(len, rows)])
  no = np.zeros(len(rows), bool)
  ids = np.concatenate(rows)
  table = np.arange(max(ids) + 1, dtype=np.int32) + UNKNOWN + 1
  zero = np.zeros(len(rows), np.int64)
  return Sequences(ids, table, zero, no, no, bounds, np.arange(len(rows)))


def test_tags_stand_beside_the_symbols_of_a_window():
  true = sequences([np.array([0, 1, 2, 3, 1]), np.array([3, 3, 0])])
  # The last three symbols of the first document, all of the second, padding.
  batch = {
    **segments([[8, 9, 8], [5, 6, 7], []]),
    "document": np.array([0, 1, 0]),
    "place": np.array([2, 5, 0]),
  }
  columns = {"targets": true.gather, "truth": lambda *rows: rows}
  made = tagging.targets(columns, batch)
  assert made["targets"][:, :3].tolist() == [[6, 7, 5], [7, 7, 4], [PAD] * 3]
  assert made["targets"][:, 3:].max() == PAD
  assert made["weights"].sum(1).tolist() == [3, 3, 0]
  assert "truth" in made and "read" in made
  del batch["read"]
  assert not {"truth", "read", "document"} & set(
    tagging.targets(columns, batch)
  )


def test_spaces_are_put_after_the_symbols_with_that_tag():
  said = lambda document, text, best: Prediction(
    document,
    np.arange(len(text)) + 4,
    list(text),
    np.arange(len(text)),
    np.full(len(text), UNKNOWN),
    [""] * len(text),
    likely=[["space"] if tag else ["none"] for tag in best],
  )
  found = [said(0, "ab", [0, 1]), said(0, "c", [0]), said(1, "[b]d", [0] * 4)]
  # Markup of the text is escaped.
  assert tagging.restored(found) == "restored: ab c\n\\[b]d"


def test_frames_are_looked_up_by_the_places_of_a_segment():
  frames = np.random.default_rng(0).integers(0, 2, (10, 88), np.uint8)
  made = polyphony.targets(frames, segments())
  for n, row in enumerate(ROWS):
    asked = made["weights"][n] > 0
    assert asked.sum() == max(len(row) - 1, 0)
    np.testing.assert_array_equal(made["inputs"][n][asked], frames[row[:-1]])
    np.testing.assert_array_equal(made["targets"][n][asked], frames[row[1:]])


def test_a_carry_is_kept_where_there_is_one(tmp_path):
  config = tiny(tmp_path)
  vocabularies = {"symbols": Vocabulary("char", tuple("abcde"))}
  model = parts.sequence_model(config, vocabularies, pooled=False)
  params = network.init(model, jax.random.key(0))
  ids_BT = np.random.default_rng(0).integers(4, 9, (2, 6), np.int32)
  halves = [
    {"inputs": ids_BT[:, part], "reset": np.array([n == 0, True])}
    for n, part in enumerate((slice(0, 3), slice(3, 6)))
  ]
  whole = {"inputs": ids_BT, "reset": np.ones(2, bool)}
  after, expected = parts.predict(model, params, (), whole)
  assert after == ()
  carry, outputs = model.initial_carry(2), []
  for batch in halves:
    carry, logits = parts.predict(model, params, carry, batch)
    outputs.append(logits)
  joined = jnp.concatenate(outputs, axis=1)
  np.testing.assert_allclose(joined[0], expected[0], atol=1e-5)
  # The second row starts anew in the middle.
  _, alone = parts.predict(model, params, (), halves[1])
  np.testing.assert_allclose(joined[1, 3:], alone[1], atol=1e-5)
  assert abs(joined[1, 3:] - expected[1, 3:]).max() > 1e-4
  # The loss and the scores are those of the logits.
  batch = {**whole, "targets": ids_BT, "weights": np.ones((2, 6), np.float32)}
  predict = lambda *_: ((), expected)
  _, nll_BT = parts.score(predict, params, (), batch)
  mean, _ = parts.loss(model, network.Objective(), params, (), batch, None)
  assert float(mean) == pytest.approx(float(jnp.mean(nll_BT)), rel=1e-5)


def test_a_split_is_read_once_and_documents_each_time():
  read = []
  once = parts.once_a_split(lambda split: read.append(split) or len(read))
  assert [once("test"), once("test"), once([1]), once([1])] == [1, 1, 2, 3]
