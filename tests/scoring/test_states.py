"""States equal a loop over the LSTM's equations, whatever the batches are."""

import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.data import splits
from seqrnn.data.documents import Document
from seqrnn.errors import UserError
from seqrnn.scoring import states
from tests.conftest import tiny
from tests.sampling.test_repeats import untrained

TEXT = "abcde abcd\nabc " * 2


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def lstm(cell, x_TD):
  """The states [T, H] of an LSTM by its equations, in float64."""
  table = cell["input_kernel"]
  kernel = np.asarray(table.get("kernel", table.get("embedding")), np.float64)
  recurrent = np.asarray(cell["recurrent_kernel"], np.float64)
  h = c = np.zeros(len(recurrent))
  found = []
  for x in x_TD:
    z = (kernel[x] if "embedding" in table else x @ kernel) + cell["bias"]
    i, f, g, o = np.split(np.asarray(z + h @ recurrent, np.float64), 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    found.append(h)
  return np.array(found)


def tower(body, x, depth, reverse=False):
  """The states of the first `depth` layers of one direction."""
  for n in range(depth):
    x = x[::-1] if reverse else x
    x = lstm(body[f"layers_{n}"]["cell"], x)
    x = x[::-1] if reverse else x
  return x


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
  for layer in (1, 2):
    expected = [tower(run.params["body"], part, layer) for part in parts]
    check(run.states(TEXT, layer=layer), np.concatenate(expected)[1:])
  check(run.states(TEXT), run.states(TEXT, layer=2))


def test_the_last_symbol_without_boundaries_is_read_too(folder):
  run = untrained(folder, {"data.boundaries": False})
  expected = tower(run.params["body"], encoded(run, "abcd"), 1)
  check(run.states("abcd"), expected)
  check(run.states("abcd", of="texts", pooling="last")[0], expected[-1])
  with pytest.raises(UserError, match="^text: must be a str, not list$"):
    run.states([*"abcd"])


def test_both_towers_of_a_gap_model(folder):
  fields = {"task": "gap_model", "model.layers": 2, "data.window": 40}
  run = untrained(folder, fields)
  ids = [1, *encoded(run, TEXT), 2]
  body = run.params["body"]
  expected = np.concatenate(
    [
      tower(body["forward"]["tower"], ids, 2),
      tower(body["backward"]["tower"], ids, 2, reverse=True),
    ],
    axis=1,
  )[1:-1]
  check(run.states(TEXT), expected)
  check(run.states(TEXT, of="texts", pooling="max")[0], expected.max(0))


@pytest.fixture(scope="module")
def classifier(folder):
  return untrained(
    folder,
    {
      "task": "classification",
      "data.format": "files",
      "data.window": 12,
      "model.bidirectional": True,
      "model.embedding_size": 5,
      "model.layers": 2,
      "model.pooling": "mean",
    },
  )


def test_a_text_is_pooled_over_its_symbols_as_the_head_reads_it(classifier):
  run, texts = classifier, ["abc", "d\u00e9", "abcdabcd"]
  table = np.asarray(run.params["embedding"]["embedding"])
  each = []
  for text in texts:
    ids = [1, *encoded(run, text), 2]
    each.append(deep(run.params["body"], table[ids], 2))
  found = {
    pooling: run.states("\n".join(texts), of="texts", pooling=pooling)
    for pooling in states.POOLINGS
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


def pooled(run, pieces, pooling):
  """The vectors and the lengths of all documents."""
  pieces = states.followed(run.experiment, pieces, run.config.data.boundaries)
  reading = states.Reading(run.experiment, run.params, pieces)
  block = states.texts(reading, pooling)
  assert block.document.tolist() == list(range(len(pieces)))
  return block.vectors, block.position


@pytest.mark.parametrize(
  ("task", "pooling"),
  [("language_model", "mean"), ("gap_model", "max"), ("gap_model", "last")],
)
def test_batches_and_padding_change_nothing(folder, task, pooling):
  """Documents of several windows, and one that is empty."""
  sizes = [3, 0, 30, 1, 17, 8]
  documents = [Document(str(n), TEXT[:n]) for n in sizes]
  # Begin and 8 symbols: the last one would be a target alone.
  documents[-1] = documents[-1]._replace(ends=task == "gap_model")
  pieces = splits.from_documents(documents, "char")
  found = []
  for rows in (1, 4):
    run = untrained(folder, {"task": task, "train.batch_size": rows})
    found.append(pooled(run, pieces, pooling))
  for vectors, counts in found:
    check(vectors, found[0][0])
    assert counts.tolist() == sizes and not vectors[1].any()
  run = untrained(folder, {"task": task})
  for n, size in enumerate(sizes):
    if size:
      check(run.states(TEXT[:size], "texts", pooling=pooling)[0], vectors[n])
  if task == "gap_model":  # The backward state at the begin of the text.
    every = run.states(TEXT)
    expected = {
      "mean": every.mean(0),
      "max": every.max(0),
      "last": np.concatenate([every[-1, :8], every[0, 8:]]),
    }
    check(vectors[2], expected[pooling])


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


def test_the_vectors_of_a_vocabulary_are_its_embedding(classifier, folder):
  np.testing.assert_array_equal(
    classifier.states("", of="vocabulary"),
    classifier.params["embedding"]["embedding"],
  )
  with pytest.raises(UserError, match=r"vocabulary.*model\.embedding_size"):
    untrained(folder).states("", of="vocabulary")


def test_settings_that_are_refused(classifier, folder):
  with pytest.raises(UserError, match="layer=3: the model has 2 rec"):
    classifier.states("abc", layer=3)
  with pytest.raises(UserError, match=r"embed\.pooling='sum': must be one of"):
    classifier.states("abc", "texts", pooling="sum")
  with pytest.raises(UserError, match="text='': no symbol there"):
    classifier.states("")
  config = tiny(folder, {"task": "polyphony", "data.source": "chords"})
  task = experiments.build(config, None)
  music = experiments.Run(folder, config, task, {}, 0)
  with pytest.raises(UserError, match="task='polyphony' reads no text"):
    music.states("abc")
