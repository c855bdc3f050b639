"""Words as numbers: affixes, shapes, vectors; a run that starts from them."""

import gzip

import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.data.read import words
from seqrnn.data.vocabulary import PAD, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.run import load_run
from seqrnn.training import train
from tests.conftest import tiny


def test_a_word_has_its_shape_and_its_affixes():
  texts = ["Walking", "talking", "B2", "c3", "walk", ""]
  known = words.affix_vocabulary(Vocabulary("word", tuple(texts)), 3)
  assert set(known.symbols) == {
    *("-g", "-ng", "-ing", "w-", "wa-", "wal-"),
    *("-0", "shape x"),
  }
  table = words.affixes(known, 3, ["Talking", "walks", "\u00c99"])
  assert table.shape == (3, 7)
  names = [
    {known.symbols[i - 4] for i in row if i > UNKNOWN} for row in table.tolist()
  ]
  shaped = {"shape x", "w-", "wa-", "wal-"}
  assert names == [{"-g", "-ng", "-ing"}, shaped, {"-0"}]
  assert table[2, 5:].tolist() == [PAD, PAD]  # Of two characters.


def test_a_word_has_its_first_characters():
  known = Vocabulary("char", ("a", "b"))
  table = words.characters(known, ["ab" * 20, "x", ""])
  assert table.tolist() == [[4, 5] * 10, [UNKNOWN] + [PAD] * 19, [PAD] * 20]


NAMES = Vocabulary("word", ("the", "\u00e9t\u00e9", "1", "a b", "gone"))
LINES = [
  "the 0.5 -1 2e-3",
  "other 1 2 3",
  "\u00e9t\u00e9 1 2 3 ",  # fastText ends a line with a space.
  "a b 4 5 6",
  "1 7 8 9",
]
VECTORS = [[0.5, -1, 2e-3], [1, 2, 3], [7, 8, 9], [4, 5, 6]]


def write(folder, lines, name="vectors.txt"):
  path = folder / name
  content = "".join(f"{line}\n" for line in lines).encode()
  path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
  return str(path)


def test_words_and_numbers_are_read(tmp_path):
  for name in ("vectors.txt", "vectors.vec.gz"):
    for header in ([], ["5 3"], ["\ufeff5 3"]):
      path = write(tmp_path, header + LINES, name)
      table = words.read_vectors(path, NAMES, 3)
      assert np.isfinite(table[:, 0]).nonzero()[0].tolist() == [4, 5, 6, 7]
      np.testing.assert_array_equal(table[4:8], np.float32(VECTORS))


def test_missing_rows_are_like_the_others():
  rng = np.random.default_rng(0)
  every = rng.normal([3, -2], [0.1, 5], (4000, 2)).astype(np.float32)
  every[::2] = np.nan
  table = words.complete(every, 1)
  np.testing.assert_array_equal(table[1::2], every[1::2])
  np.testing.assert_allclose(table[::2].mean(0), [3, -2], atol=0.4)
  np.testing.assert_allclose(table[::2].std(0), [0.1, 5], rtol=0.1)
  np.testing.assert_array_equal(table, words.complete(every, 1))
  assert (table[::2] != words.complete(every, 2)[::2]).all()


def test_lines_are_refused_with_their_place(tmp_path):
  for lines, rule in (
    (["5 4", *LINES], ":1: has 4 numbers; .*embedding_size=3 must be"),
    (["the 1 nan 3"], ":1: 'the' must have 3 finite numbers"),
    (["the 1 2 1_03"], ":1: 'the' must have 3 finite numbers"),
    (["1 \u00b2", *LINES], ":1: has 1 numbers; .*embedding_size=3 must be"),
    (["other 1 2 3"], "embedding_path='.*': has none of the 5 symbols"),
  ):
    with pytest.raises(UserError, match=rule):
      words.read_vectors(write(tmp_path, lines), NAMES, 3)
  with pytest.raises(UserError, match="an embedding needs a size"):
    config_lib.check(tiny(tmp_path, {"model.embedding_path": "v"}))


def test_a_run_starts_from_them_and_resumes_without_the_file(tmp_path, capsys):
  path = tmp_path / "vectors.txt"
  path.write_text("a 1 2 3\nb 4 5 6\nz 0 0 0\n")
  fields = {
    "model.embedding_size": 3,
    "model.embedding_path": str(path),
    "optimizer.learning_rate": 1e-30,  # Nothing moves.
    "train.max_steps": 1,
  }
  config = tiny(tmp_path, fields)
  train.fit(experiments.build, config, tmp_path / "run")
  message = f"vectors: 2 of 7 symbols are in {path} (28.6%)"
  assert message in capsys.readouterr().out
  path.unlink()
  config.update_from_flattened_dict({"train.max_steps": 2})
  train.fit(experiments.build, config, tmp_path / "run")
  run = load_run(tmp_path / "run")
  ids = run.experiment.vocabularies["symbols"].encode("ab")
  table_V = np.asarray(run.params["embedding"]["embedding"])
  np.testing.assert_array_equal(table_V[ids], [[1, 2, 3], [4, 5, 6]])
