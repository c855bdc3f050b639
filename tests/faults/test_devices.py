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
  "train.max_steps": 20,
  "train.eval_every": 5,
  "model.dropout": 0.2,
  "model.symbol_dropout": 0.1,
}
# 4 does not divide 6 and 7 rows, and the last batch of an epoch is partial.
CASES = {
  "stateful": {"data.stateful": True, "train.batch_size": 6},
  "regularised": {
    "task": "gap_model",
    "train.batch_size": 6,
    "train.ema": 0.9,
    "model.weight_drop": 0.2,
  },
  "classification": {  # Which of the texts a line is from.
    "task": "classification",
    "data.format": "files",
    "train.batch_size": 7,
  },
  "tagging": {
    "task": "tagging",
    "data.format": "spaces",
    "train.batch_size": 6,
  },
  "polyphony": {
    "task": "polyphony",
    "data.source": "chords",
    "data.path": None,
    "train.batch_size": 6,
    "model.symbol_dropout": 0.0,
  },
}
# A task without a case of its own has one with the default fields.
_tasks = {case.get("task", "language_model") for case in CASES.values()}
CASES |= {
  name: {"task": name} for name in sorted({*experiments.TASKS} - _tasks)
}


@pytest.mark.parametrize("name", CASES)
def test_devices_change_nothing(tmp_path, monkeypatch, capfd, name):
  """One, two or four, or one after the other in one run."""
  config = write_config(tmp_path, {**FIELDS, **CASES[name]})
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
