"""evaluate: figures of a split equal a sum over its symbols."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.modes import evaluate
from seqrnn.run import load_run
from seqrnn.training.history import add_row, draw_history
from tests.conftest import save_run, tiny


@pytest.mark.parametrize(
  "changes",
  [{}, {"data.stateful": True}, {"task": "gap_model", "model.heads": "all"}],
  ids=["windows", "stateful", "heads"],
)
def test_figures_are_means_over_all_targets(tmp_path, changes):
  workdir = tmp_path / "run"
  save_run(tiny(tmp_path, changes), workdir)
  run = load_run(workdir)
  config = run.config
  config.evaluate.split = "validation"
  figures = evaluate.run(experiments.build, config, workdir)
  # The same by hand: batch after batch, on one device, in float64.
  experiment = run.experiment
  predict = jax.jit(experiment.predict)
  batches = experiment.batches("validation", 0)
  carry = experiment.carry(len(batches[0]["inputs"]))
  nll, hits, weight = 0.0, 0.0, 0.0
  for batch in batches:
    carry, logits_BNV = predict(run.params, carry, batch)
    chances = np.asarray(jax.nn.log_softmax(logits_BNV), np.float64)
    targets, w = batch["targets"], batch["weights"].astype(np.float64)
    true = np.take_along_axis(chances, targets[..., None], -1)[..., 0]
    nll -= (true * w).sum()
    hits += ((chances.argmax(-1) == targets) * w).sum()
    weight += w.sum()
  assert figures["loss"] == pytest.approx(nll / weight, rel=1e-5)
  assert figures["accuracy"] == pytest.approx(hits / weight, rel=1e-6)
  assert figures["bits_per_symbol"] == pytest.approx(
    nll / weight / np.log(2), rel=1e-5
  )
  record = json.loads((workdir / "evaluation.json").read_text())
  assert record["split"] == "validation" and record["step"] == run.step
  assert record["loss"] == figures["loss"]
  assert run.evaluate("validation")["loss"] == figures["loss"]
  if "task" in changes:
    return
  # Every symbol of a text is scored once.
  text = "abcab" * 11
  scores = run.score(text)
  assert len(scores) == len(text) + 1  # The end is a symbol, too.
  assert (scores > 0).all()
  # Later symbols do not change earlier scores.
  longer = run.score(text + "bca")
  np.testing.assert_allclose(longer[: len(text)], scores[:-1], rtol=1e-5)


@pytest.mark.usefixtures("rendered")
def test_a_workdir_may_have_any_name(tmp_path, capsys):
  """No markup of a console; and data that have changed are noticed."""
  workdir = tmp_path / "[" / "b]$x^$"
  config = tiny(tmp_path)
  save_run(config, workdir)
  add_row(
    workdir / "metrics.csv", {"step": 1, "train_loss": 2, "validation_loss": 3}
  )
  draw_history(workdir, "nats a symbol")
  assert (workdir / "history.png").stat().st_size > 5000
  capsys.readouterr()
  evaluate.run(experiments.build, config, workdir)
  out, err = capsys.readouterr()
  # However narrow the table.
  assert f"{workdir}, step 1: test split, 3 documents\n" in out
  assert "have changed" not in err
  for text in Path(config.data.path).iterdir():
    text.write_text(text.read_text()[::-1])
  evaluate.run(experiments.build, config, workdir)
  assert "training data have changed" in capsys.readouterr().err
