"""The bar that a terminal shows of a training, which stays the same."""

import io
import re

from seqrnn.training import train
from tests.conftest import tiny
from tests.modes.test_train import assert_same_run, build, rows

CHANGES = {"train.max_steps": 9, "train.eval_every": 3}


def test_a_bar_shows_the_best_loss_and_changes_nothing(
  tmp_path, capsys, monkeypatch
):
  config, shown = tiny(tmp_path, CHANGES), io.StringIO()
  train.fit(build, config, tmp_path / "plain")
  assert "\x1b" not in capsys.readouterr().out
  monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes it for a terminal.
  monkeypatch.setenv("COLUMNS", "200")
  monkeypatch.setattr("sys.stdout", shown)
  train.fit(build, config, tmp_path / "run")
  assert_same_run(tmp_path / "run", tmp_path / "plain", 9)
  text = re.sub("\x1b[^a-zA-Z]*[a-zA-Z]", "", shown.getvalue())
  best = re.findall(r"loss .*  best ([0-9.]+)", text)
  losses = [float(row["validation_loss"]) for row in rows(tmp_path / "run")]
  assert best and set(best) <= {f"{loss:.4f}" for loss in losses}
