"""predict: tables, predictions.csv, filled gaps."""

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.data.sources.corpora import from_text
from seqrnn.modes import predict
from seqrnn.run import load_run
from tests.conftest import read_csv, save_run, tiny


@pytest.fixture(scope="module")
def gap_model(tmp_path_factory):
  """A run of a gap model with random parameters."""
  folder = tmp_path_factory.mktemp("gap")
  config = tiny(folder, {"task": "gap_model", "data.window": 32})
  save_run(config, folder / "run")
  return load_run(folder / "run")


def test_predictions_are_the_models_own(gap_model):
  [row] = gap_model.predict("abcdecba", top_k=3)
  assert row.positions.tolist() == list(range(1, 9))  # Begin is no question.
  symbols = gap_model.experiment.vocabularies["symbols"]
  assert symbols.text(row.targets) == "abcdecba"
  [batch] = gap_model.experiment.batches(from_text("abcdecba", "char"), 0)
  _, logits_BTV = gap_model.experiment.predict(gap_model.params, (), batch)
  chances = np.asarray(jax.nn.softmax(logits_BTV))[0, 1:9]
  best = -np.sort(-chances, axis=1)[:, :3]
  np.testing.assert_allclose(row.probabilities, best, 1e-4)
  surprisal = -np.log(chances[np.arange(8), row.targets])
  np.testing.assert_allclose(row.surprisal, surprisal, 1e-4, 1e-6)
  scores = gap_model.score("abcdecba")
  np.testing.assert_allclose(scores, row.surprisal, 1e-5, 1e-6)


def test_a_language_model_predicts_the_end_of_a_text(trained, capsys):
  workdir = trained()
  config = load_run(workdir).config
  config.predict.text = "ab\u00e9"
  predict.run(experiments.build, config, workdir)
  assert "read as unknown: '\u00e9'" in capsys.readouterr().err
  table = read_csv(workdir / "predictions.csv")
  # After begin, a, b and the unknown symbol, whose name stays; the last answer
  # is open.
  assert [row["truth"] for row in table] == ["a", "b", "\u00e9", ""]


def test_gaps_with_lengths_are_filled(gap_model, capsys):
  config = gap_model.config.copy_and_resolve_references()
  config.predict.text = "abc_{3}ab_bcd"
  found = predict.run(experiments.build, config, gap_model.workdir)
  out = capsys.readouterr().out
  assert "filled: abc" in out and "pseudo log p" in out
  rows = read_csv(gap_model.workdir / "predictions.csv")
  assert [row["filling"] for row in rows] == [*"01234"]
  for row, one in zip(rows, found, strict=True):
    assert (row["text"], row["probability"]) == (one.text, "")
    assert [row["gap_1"], row["gap_2"]] == one.gaps
    assert float(row["score_nats"]) == pytest.approx(one.score, rel=1e-4)
  assert gap_model.fill("abc_{3}ab_bcd") == found
