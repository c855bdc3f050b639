"""States equal a loop over the LSTM's equations, whatever the batches are."""

import numpy as np
import pytest

from seqrnn.data import splits
from seqrnn.data.documents import Document
from seqrnn.errors import UserError
from seqrnn.scoring import states
from tests.conftest import untrained
from tests.scoring.oracle import lstm, tower, towers

TEXT = "abcde abcd\nabc " * 2


def deep(body, x, depth):
  """The states of a deep bidirectional stack."""
  for n in range(depth):
    layer = body[f"layers_{n}"]
    ahead = lstm(layer["forward"]["cell"], x)
    back = lstm(layer["backward"]["cell"], x[::-1])[::-1]
    x = np.concatenate([ahead, back], axis=1)
  return x


def encoded(run, text):
  return run.experiment.vocabularies["symbols"].encode(text).tolist()


def check(found, expected):
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("states")


@pytest.mark.parametrize("stateful", [False, True])
def test_a_language_model_reads_each_window_anew_or_resumes(folder, stateful):
  run = untrained(folder, {"data.stateful": stateful, "model.layers": 2})
  ids = [1, *encoded(run, TEXT)]  # Begin comes first; the end is no input.
  parts = [ids] if stateful else [ids[n : n + 8] for n in range(0, 31, 8)]
  for layer in (1, None):
    expected = [tower(run.params["body"], part, layer or 2) for part in parts]
    check(run.states(TEXT, layer=layer), np.concatenate(expected)[1:])


def test_the_last_symbol_without_boundaries_is_read_too(folder):
  run = untrained(folder, {"data.boundaries": False})
  expected = tower(run.params["body"], encoded(run, "abcd"))
  check(run.states("abcd"), expected)
  check(run.states("abcd", of="texts", pooling="last")[0], expected[-1])
  with pytest.raises(UserError, match=r"vocabulary.*model\.embedding_size"):
    run.states("", of="vocabulary")


def test_a_text_is_pooled_over_its_symbols_as_the_head_reads_it(folder):
  fields = {
    "task": "classification",
    "data.format": "files",
    "data.window": 12,
    "model.bidirectional": True,
    "model.embedding_size": 5,
    "model.layers": 2,
    "model.pooling": "mean",
  }
  run, texts = untrained(folder, fields), ["abc", "d\u00e9", "abcdabcd"]
  table = np.asarray(run.params["embedding"]["embedding"])
  each = []
  for text in texts:
    ids = [1, *encoded(run, text), 2]
    each.append(deep(run.params["body"], table[ids], 2))
  found = {
    pooling: run.states("\n".join(texts), of="texts", pooling=pooling)
    for pooling in ("last", "mean", "max")
  }
  check(found["mean"], [y.mean(0) for y in each])
  check(found["max"], [y.max(0) for y in each])
  ends = [np.concatenate([y[-1, :8], y[0, 8:]]) for y in each]
  check(found["last"], ends)
  check(run.states("\n".join(texts)), np.concatenate([y[1:-1] for y in each]))
  # The head on this vector predicts what the run does.
  head = {name: np.asarray(x) for name, x in run.params["head"].items()}
  logits = found["mean"] @ head["kernel"] + head["bias"]
  chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  for p, chances_V in zip(run.predict("\n".join(texts)), chances, strict=True):
    check(p.probabilities[0], -np.sort(-chances_V)[: len(p.ids[0])])
  symbols = run.states("", of="vocabulary")
  np.testing.assert_array_equal(symbols, table[: len(symbols)])
  with pytest.raises(UserError, match="text='': no symbol there"):
    run.states("")


def test_batches_and_padding_change_nothing(folder):
  """Documents of several windows, and one that is empty, of a gap model."""
  sizes = [3, 0, 30, 1, 17, 8]
  documents = [Document(str(n), TEXT[:n]) for n in sizes]
  whole = splits.from_documents(documents, "char")
  for rows in (1, 4):
    run = untrained(folder, {"task": "gap_model", "train.batch_size": rows})
    for pooling in ("last", "mean", "max"):
      pieces = states.ended(run.experiment, whole, True)
      reading = states.LayerOfTexts(run.experiment, run.params, pieces)
      block = states.texts(reading, pooling)
      assert block.document.tolist() == list(range(len(sizes)))
      assert block.position.tolist() == sizes and not block.vectors[1].any()
      for n, size in enumerate(sizes):
        ids = [1, *encoded(run, TEXT[:size]), 2]
        parts = [ids[k : k + 8] for k in range(0, len(ids), 8)]
        y = [towers(run.params["body"], part) for part in parts]
        y_TH = np.concatenate(y)[1:-1]
        if size:
          ends = [y_TH[-1, :8], y_TH[0, 8:]]
          expected = np.concatenate(ends) if pooling == "last" else None
          if expected is None:
            expected = getattr(y_TH, pooling)(axis=0)
          check(block.vectors[n], expected)


def test_words_with_characters_have_states_of_the_words(tmp_path):
  (tmp_path / "train").write_text("a D\nbook N\n\nread V\n\n" * 20)
  fields = {
    "task": "tagging",
    "data.path": str(tmp_path / "train"),
    "data.format": "columns",
    "data.unit": "word",
    "model.embedding_size": 5,
    "model.letters": 3,
  }
  run = untrained(tmp_path, fields)
  assert run.states("a book xyz").shape == (3, 8)
  with pytest.raises(UserError, match="layer=2: the model has 1 rec"):
    run.states("a", layer=2)  # Those of the characters are not counted.
  music = untrained(tmp_path, {"task": "polyphony", "data.source": "chords"})
  with pytest.raises(UserError, match="task='polyphony' reads no text"):
    music.states("abc")
