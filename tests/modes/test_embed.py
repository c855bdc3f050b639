"""embed: files of vectors and of their names, written in pieces."""

import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.data.vocabulary import RESERVED
from seqrnn.modes import embed
from seqrnn.run import load_run
from tests.conftest import read_csv, save_run, tiny

TEXT = 'ab "c"\n\u00e9, e\nabcab'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run of labelled lines, two letters of which are quoted in CSV."""
  folder = tmp_path_factory.mktemp("embed")
  for label in ("x", "y"):
    (folder / "texts").mkdir(exist_ok=True)
    lines = [f"{letter}{label}, b\n" for letter in "abcdefgh\0"]
    (folder / "texts" / label).write_text("".join(lines))
  fields = {
    "task": "classification",
    "data.format": "files",
    "data.path": str(folder / "texts"),
    "data.test_fraction": 0.3,
    "data.split": "documents",
    "model.embedding_size": 4,
  }
  save_run(tiny(folder, fields), folder / "run")
  (folder / "others").write_text(TEXT)
  return load_run(folder / "run")


def embedded(run, format="files", **settings):
  """The arrays and the rows of a table, as a reader of both finds them."""
  config = run.config.copy_and_resolve_references()
  config.data.format = format
  config.embed.update(settings)
  path = embed.run(experiments.build, config, run.workdir)
  rows = read_csv(path.with_suffix(".csv"))
  array = np.load(path)
  assert array.dtype == np.float32
  return array, rows


def test_texts_of_a_split_have_names_and_labels(run, capsys):
  vectors, rows = embedded(run)
  named = run.experiment.batches("test", 0, ordered=True, named=True)
  texts = [
    "".join(batch["read"][n])
    for batch in named
    for n in np.flatnonzero(batch["weights"])
  ]
  assert [row["label"] for row in rows] == [text[1] for text in texts]
  assert [row["text"] for row in rows] == [str(n) for n in range(len(rows))]
  assert [int(row["symbols"]) for row in rows] == [len(t) + 2 for t in texts]
  assert all(row["name"].startswith(row["label"]) for row in rows)
  expected = run.states("\n".join(texts), of="texts")
  np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)
  out = capsys.readouterr().out.splitlines()
  assert out[0].endswith("states.npy") and out[1].endswith("states.csv")
  assert out[2] == f"{len(texts)} vectors of 8 numbers"


def test_symbols_of_a_file_without_labels(run):
  path = str(run.workdir.parent / "others")
  vectors, rows = embedded(run, "text", of="symbols", path=path)
  lines = TEXT.split("\n")
  assert [row["symbol"] for row in rows] == list("".join(lines))
  assert [int(row["position"]) for row in rows] == [
    n for line in lines for n in range(len(line))
  ]
  assert [int(row["text"]) for row in rows] == [0] * 6 + [1] * 4 + [2] * 5
  assert list(rows[0]) == ["text", "name", "position", "symbol"]
  np.testing.assert_allclose(vectors, run.states(TEXT), rtol=1e-5, atol=1e-6)


def test_the_vocabulary(run):
  vectors, rows = embedded(run, of="vocabulary")
  table = run.params["embedding"]["embedding"]
  np.testing.assert_array_equal(vectors, table[: len(rows)])
  names = run.experiment.vocabularies["symbols"].names(range(len(rows)))
  assert [row["symbol"] for row in rows] == names
  assert names[: len(RESERVED)] == list(RESERVED)
