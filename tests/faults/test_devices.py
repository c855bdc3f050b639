"""The number of devices changes nothing but the last bits."""

import pytest

from seqrnn import experiments
from tests.faults.conftest import (
  assert_close_run,
  call,
  rows,
  use_devices,
  write_config,
)

pytestmark = [pytest.mark.slow, pytest.mark.faults]

FIELDS = {
  "train.epochs": 9,
  # 4 does not divide it, and the last batch of an epoch is partial.
  "train.batch_size": 6,
  "train.max_steps": 20,
  "train.eval_every": 5,
  "model.dropout": 0.2,
  "model.symbol_dropout": 0.1,
}
FILES = {"data.format": "files"}
CHORDS = {"data.source": "chords", "data.path": None}
CASES = {
  "language_model": {"data.stateful": True},
  "gap_model": {"train.ema": 0.9, "model.weight_drop": 0.2},
  "classification": FILES,  # Which of the texts a line is from.
  "regression": FILES,  # Its number.
  "tagging": {"data.format": "spaces"},
  "polyphony": CHORDS | {"model.symbol_dropout": 0.0},
}


@pytest.mark.parametrize("task", experiments.TASKS)
def test_devices_change_nothing(tmp_path, monkeypatch, capfd, task):
  """One, two or four, or one after the other in one run."""
  fields = {"task": task, **FIELDS, **CASES.get(task, {})}
  config = write_config(tmp_path, fields)
  turns = [(2, 5), (4, 10), (1, 20)]  # Devices, and up to which step.
  for devices, workdir, last in (
    *((n, tmp_path / str(n), 20) for n in (1, 2, 4)),
    *((n, tmp_path / "turns", last) for n, last in turns),
  ):
    use_devices(monkeypatch, devices)
    assert call(config, workdir, f"--config.train.max_steps={last}") == 0
    assert f"devices: {devices} x cpu, " in capfd.readouterr().out
  assert [row["step"] for row in rows(tmp_path / "1")] == [
    *("5", "10", "15", "20")
  ]
  for workdir in ("2", "4", "turns"):
    assert_close_run(tmp_path / "1", tmp_path / workdir)
