"""predict: tables, predictions.csv, filled gaps."""

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.data.sources.corpora import from_text
from seqrnn.modes import predict
from seqrnn.run import load_run
from seqrnn.training import train
from tests.conftest import read_csv, tiny


@pytest.fixture(scope="module")
def alphabet(tmp_path_factory):
  """A gap model that has learned `abcdefgh` repeated."""
  folder = tmp_path_factory.mktemp("gap")
  (folder / "alphabet.txt").write_text("abcdefgh" * 60)
  config = tiny(
    folder,
    {
      "task": "gap_model",
      "data.window": 32,
      "data.path": str(folder / "alphabet.txt"),
      "model.symbol_dropout": 0.2,
      "model.hidden_size": 16,
      "optimizer.learning_rate": 0.02,
      "train.epochs": 40,
      "train.eval_every": 80,
    },
  )
  train.fit(experiments.build, config, folder / "run")
  return load_run(folder / "run")


def test_predictions_are_the_models_own(alphabet):
  found = alphabet.predict("abcdefgh", top_k=3)
  assert len(found) == 1
  [row] = found
  assert row.positions.tolist() == list(range(1, 9))  # Begin is no question.
  symbols = alphabet.experiment.vocabularies["symbols"]
  assert symbols.text(row.targets) == "abcdefgh"
  [batch] = alphabet.experiment.batches(from_text("abcdefgh", "char"), 0)
  _, logits_BTV = alphabet.experiment.predict(alphabet.params, (), batch)
  chances = np.asarray(jax.nn.softmax(logits_BTV))[0, 1:9]
  best = -np.sort(-chances, axis=1)[:, :3]
  np.testing.assert_allclose(row.probabilities, best, 1e-4)
  surprisal = -np.log(chances[np.arange(8), row.targets])
  np.testing.assert_allclose(row.surprisal, surprisal, 1e-4, 1e-6)
  scores = alphabet.score("abcdefgh")
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


def test_gaps_with_lengths_are_filled(alphabet, capsys):
  config = alphabet.config.copy_and_resolve_references()
  config.predict.text = "abc_{3}gh_bcd"
  found = predict.run(experiments.build, config, alphabet.workdir)
  out = capsys.readouterr().out
  assert "filled: abcdefghabcd" in out and "pseudo log p" in out
  [first, *others] = read_csv(alphabet.workdir / "predictions.csv")
  assert first["filling"] == "0" and first["text"] == "abcdefghabcd"
  assert (first["gap_1"], first["gap_2"]) == ("def", "a")
  assert first["probability"] == "" and len(others) == 4
  scores = [float(row["score_nats"]) for row in (first, *others)]
  np.testing.assert_allclose(scores, [one.score for one in found], rtol=1e-4)
  assert alphabet.fill("abc_{3}gh_bcd") == found
