"""A training that diverges by itself: nothing of it is saved."""

import math

import numpy as np

from tests.faults.conftest import (
  arrays,
  call,
  position,
  rows,
  steps,
  write_config,
)

# A rectifier without a bound, and steps that grow until they are far too long.
FIELDS = {
  "model.cell": "rnn_relu",
  "model.layers": 2,
  "model.hidden_size": 32,
  "optimizer.name": "sgd",
  "optimizer.learning_rate": 200.0,
  "schedule.warmup_steps": 40,
  "train.epochs": 4,
  "train.max_steps": 50,
  "train.eval_every": 4,
  "checkpoint.keep": 3,
}


def test_a_divergence_stops(tmp_path, capfd):
  config, workdir = write_config(tmp_path, FIELDS), tmp_path / "stop"
  assert call(config, workdir) == 2
  err = capfd.readouterr().err
  assert err.startswith("error: config.optimizer.learning_rate=200.0: at step ")
  assert err.count("\n") == 1 and "is not finite, and was not saved" in err
  assert steps(workdir)[-1] < 50
  for step in steps(workdir):
    for name, array in arrays(workdir, step).items():
      assert np.isfinite(array).all(), (step, name)
  last = position(workdir, steps(workdir)[-1])
  assert math.isfinite(last["best"]) and last["best_step"] in steps(workdir)
  for row in rows(workdir):
    assert all(math.isfinite(float(value)) for value in row.values()), row
  assert call(None, workdir, "--mode=sample", "--config.sample.length=5") == 0
