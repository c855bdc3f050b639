"""A training that diverges by itself: nothing of it is saved."""

import math
import signal

import numpy as np
import pytest

from tests.faults.conftest import (
  arrays,
  assert_same_run,
  call,
  position,
  record,
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
  "train.rollbacks": 8,
  "train.rollback_factor": 0.1,
}
ROLLBACK = "--config.train.on_nonfinite=rollback"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  return write_config(tmp_path_factory.mktemp("nonfinite"), FIELDS)


def healthy(workdir):
  """Whether every checkpoint, and every row, is finite, the best included."""
  assert steps(workdir)
  for step in steps(workdir):
    for name, array in arrays(workdir, step).items():
      assert np.isfinite(array).all(), (step, name)
  last = position(workdir, steps(workdir)[-1])
  assert math.isfinite(last["best"]) and last["best_step"] in steps(workdir)
  for row in rows(workdir):
    assert all(math.isfinite(float(value)) for value in row.values()), row
  return last


@pytest.fixture(scope="module")
def whole(config):
  """A run that goes back and on by itself; what it printed is beside it."""
  workdir = config.parent / "whole"
  assert call(config, workdir, ROLLBACK) == 0
  return workdir


def test_a_divergence_stops(config, capfd):
  workdir = config.parent / "stop"
  assert call(config, workdir) == 2
  err = capfd.readouterr().err
  assert err.startswith("error: config.optimizer.learning_rate=200.0: at step ")
  assert err.count("\n") == 1 and "is not finite, and was not saved" in err
  last = healthy(workdir)
  assert last["step"] < 50
  assert call(None, workdir, "--mode=sample", "--config.sample.length=5") == 0
  record("a divergence, on_nonfinite=stop", "one line, all saved is finite")


def test_a_divergence_goes_back_and_on(whole):
  last = healthy(whole)
  assert last["step"] == 50 and 1 <= last["rollbacks"] <= 8
  assert len(rows(whole)) == 13
  rates = [float(row["learning_rate"]) for row in rows(whole)]
  assert rates[-1] < max(rates)
  record("a divergence, on_nonfinite=rollback", "ends, all saved is finite")


@pytest.mark.faults
@pytest.mark.parametrize("place", ["restore 2", "steps", "orbax", "evaluation"])
def test_a_kill_after_going_back(config, whole, start, place):
  """The way back is not saved by itself: going on takes it once more."""
  workdir = config.parent / place.split()[0]
  if " " not in place:
    process = start(
      config, workdir, ROLLBACK, devices=4, fault="KILL restore 2"
    )
    assert process.ended().status == -signal.SIGKILL  # At the way back.
    place = {"steps": "steps 9", "orbax": "orbax 2"}.get(place, "evaluation 9")
  process = start(config, workdir, ROLLBACK, devices=4, fault=f"KILL {place}")
  assert process.ended().status == -signal.SIGKILL
  assert process.struck
  assert call(config, workdir, ROLLBACK) == 0
  healthy(workdir)
  assert_same_run(whole, workdir)
  record(f"kill -9 after a way back: {place.split()[0]}", "same bits")
