"""What a training shows on a terminal, and that it trains the same."""

import re

import numpy as np
import pytest
from conftest import tiny
from test_train import assert_same_run, rows

import experiments
from seqrnn import train
from seqrnn.errors import escaped
from seqrnn.progress import Curve


@pytest.mark.parametrize("count", [1, 31, 32, 33, 5000])
def test_the_curve_has_means_of_as_many_steps_each(count):
  losses = np.random.default_rng(0).normal(size=count) - np.arange(count) / 9
  curve = Curve()
  for loss in losses:
    curve.add(loss)
  size = 1
  while count // size >= 32:
    size *= 2
  means = losses[: count // size * size].reshape(-1, size).mean(1)
  share = (means - means.min()) / max(np.ptp(means), 1e-9)
  expected = "".join("▁▂▃▄▅▆▇█"[round(7 * x)] for x in share)
  assert str(curve) == expected and 1 <= len(expected) < 32


def test_a_terminal_shows_more_and_the_run_is_the_same(
  tmp_path, monkeypatch, capsys
):
  changes = {"train.max_steps": 6, "train.eval_every": 2, "model.dropout": 0.2}
  train.run(experiments.build, tiny(tmp_path, changes), tmp_path / "plain")
  plain = capsys.readouterr().out
  assert "sample" not in plain and "\x1b" not in plain
  assert not (tmp_path / "plain" / "tensorboard").exists()
  monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes it for a terminal.
  monkeypatch.setenv("COLUMNS", "200")
  config = tiny(tmp_path, {**changes, "train.tensorboard": True})
  train.run(experiments.build, config, tmp_path / "shown")
  text = re.sub("\x1b[^a-zA-Z]*[a-zA-Z]", "", capsys.readouterr().out)
  assert_same_run(tmp_path / "plain", tmp_path / "shown", 6)
  run = experiments.load(tmp_path / "shown", 2)
  [sample] = run.sample(length=config.train.sample_length)
  assert f"sample: {escaped(sample)}" in text
  best = float(rows(tmp_path / "shown")[0]["validation_loss"])
  assert re.search(rf"[▁█]  loss .* symbols/s  best {best:.4f}", text)
