"""Word vectors as text, and runs that start from them."""

import gzip
import json

import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.data.read import vectors
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.training import train
from tests.conftest import tiny

NAMES = Vocabulary("word", ("the", "\u00e9t\u00e9", "1", "a b", "gone"))
LINES = [
  "the 0.5 -1 2e-3",
  "other 1 2 3",
  "\u00e9t\u00e9 1 2 3 ",  # fastText ends a line with a space.
  "a b 4 5 6",
  "1 7 8 9",
]
FOUND = {4: [0.5, -1, 2e-3], 5: [1, 2, 3], 6: [7, 8, 9], 7: [4, 5, 6]}


def write(folder, lines, name="vectors.txt"):
  path = folder / name
  content = "".join(f"{line}\n" for line in lines).encode()
  path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
  return str(path)


def test_words_and_numbers_are_read(tmp_path):
  for name in ("vectors.txt", "vectors.vec.gz"):
    for header in ([], ["5 3"], ["\ufeff5 3"]):
      path = write(tmp_path, header + LINES, name)
      table = vectors.read_vectors(path, NAMES, 3)
      has_V = np.isfinite(table[:, 0])
      assert np.flatnonzero(has_V).tolist() == sorted(FOUND)
      for i, values in FOUND.items():
        np.testing.assert_array_equal(table[i], np.float32(values))


def test_missing_rows_are_like_the_others():
  rng = np.random.default_rng(0)
  every = rng.normal([3, -2], [0.1, 5], (4000, 2)).astype(np.float32)
  every[::2] = np.nan
  table = vectors.complete(every, 1)
  np.testing.assert_array_equal(table[1::2], every[1::2])
  np.testing.assert_allclose(table[::2].mean(0), [3, -2], atol=0.4)
  np.testing.assert_allclose(table[::2].std(0), [0.1, 5], rtol=0.1)
  np.testing.assert_array_equal(table, vectors.complete(every, 1))
  assert (table[::2] != vectors.complete(every, 2)[::2]).all()


def test_lines_are_refused_with_their_place(tmp_path):
  for lines, rule in (
    (["5 4", *LINES], ":1: has 4 numbers; .*embedding_size=3 must be"),
    (["the 1 2 3 4", *LINES], ":1: has 4 numbers; .*embedding_size=3"),
    ([*LINES, "more 1 2"], ":6: has 2 numbers; .*embedding_size=3"),
    ([*LINES, ""], ":6: has 0 numbers"),
    (["the 1 two 3"], ":1: 'the' must have 3 finite numbers, in one line"),
    (["the 1 nan 3"], ":1: 'the' must have 3 finite numbers"),
    ([*LINES, "the 1 2 3"], ":6: 'the' must have 3 finite numbers"),
    (["other 1 2 3"], "embedding_path='.*': has none of the 5 symbols"),
  ):
    with pytest.raises(UserError, match=rule):
      vectors.read_vectors(write(tmp_path, lines), NAMES, 3)
  (tmp_path / "v.gz").write_bytes(b"no archive")
  for name in ("none", "v.gz"):
    with pytest.raises(UserError, match=rf"{name}: cannot be read"):
      vectors.read_vectors(str(tmp_path / name), NAMES, 3)


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
  run = experiments.load(tmp_path / "run")
  names = run.experiment.vocabularies["symbols"]
  table_V = np.asarray(run.params["embedding"]["embedding"])
  a, b = names.encode("ab")
  np.testing.assert_array_equal(table_V[[a, b]], [[1, 2, 3], [4, 5, 6]])
  record = json.loads((tmp_path / "run" / "vectors.json").read_text())
  assert (record["vectors"], record["path"]) == (2, str(path))
  message = f"vectors: 2 of {len(names.symbols)} symbols are in {path}"
  assert message in capsys.readouterr().out
  path.unlink()
  config.update_from_flattened_dict({"train.max_steps": 2})
  train.fit(experiments.build, config, tmp_path / "run")
  after = experiments.load(tmp_path / "run")
  np.testing.assert_array_equal(after.params["embedding"]["embedding"], table_V)


def test_vectors_need_an_embedding(tmp_path):
  with pytest.raises(UserError, match="embedding_path='v'.*an embedding needs"):
    config_lib.check(tiny(tmp_path, {"model.embedding_path": "v"}))
