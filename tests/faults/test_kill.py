"""kill -9 and signals: a resumed run equals an uninterrupted one to the bit."""

import re
import signal

import pytest

from tests.conftest import read_csv
from tests.faults.conftest import (
  STATEFUL,
  WINDOWS,
  assert_same_run,
  rows,
  steps,
  write_config,
)

pytestmark = pytest.mark.slow

PLAN = {
  "train.epochs": 6,
  "train.batches_per_epoch": 20,
  "train.eval_every": 10,
  "checkpoint.every": 4,
  "optimizer.name": "rmsprop",
  "schedule.name": "cosine",
}
UNFINISHED = "checkpoints/*.orbax-checkpoint-tmp"
# Faults at exact places, each in another life of the same training. A life
# begins at the newest checkpoint, so a small count is reached in each. A table
# is replaced only after a kill between its row and the checkpoint: `timing`.
FAULTS = """
KILL restore 1, TERM restore 1, INT replace-config.json 1,
KILL replace-vocabulary.json 1, KILL replace-config.json 1, KILL header 1,
KILL title 1, KILL steps 7, TERM steps 1, INT evaluation 2, KILL rows 1,
KILL timing 1, KILL replace-metrics.csv 1, TERM rows 1, KILL evaluation 2,
KILL row 1, TERM orbax 1, KILL save 1, KILL orbax 1, KILL sums 1,
INT rename 1, KILL rename 1, KILL remove 1
"""


@pytest.fixture(
  scope="module",
  params=[
    pytest.param(STATEFUL, id="stateful"),
    pytest.param(WINDOWS, id="windows", marks=pytest.mark.faults),
  ],
)
def whole(request, tmp_path_factory, start):
  """A config, and a run of it that nothing interrupts."""
  folder = tmp_path_factory.mktemp("kill")
  config = write_config(folder, {**PLAN, **request.param})
  process = start(config, folder / "whole")
  return config, folder, process


def finish(start, config, folder, name):
  """Resumes to the end, and compares with the uninterrupted run."""
  done = start(config, folder / name).ended()
  assert done.status == 0, done
  assert not list((folder / name).glob(UNFINISHED))
  assert set(steps(folder / "whole")) <= set(steps(folder / name))
  assert_same_run(folder / "whole", folder / name)
  timed = [row["step"] for row in read_csv(folder / name / "timing.csv")]
  assert timed == [row["step"] for row in rows(folder / name)]


def stop_at(start, config, workdir, fault):
  """A life that ends by a fault: at once, or saved and in one line."""
  process = start(config, workdir, fault=fault)
  done = process.ended()
  assert process.marker.exists(), fault
  name = fault.split()[0]
  lines = [line for line in done.err.splitlines() if "checkpoint " not in line]
  if name == "KILL":
    assert (done.status, lines) == (-signal.SIGKILL, []), (fault, done)
    return
  assert done.status == 128 + signal.Signals[f"SIG{name}"], (fault, done)
  [line] = lines
  if not steps(workdir):
    assert (
      line == f"stopped by SIG{name} before the first step; repeat the command"
    )
    return
  match = re.fullmatch(
    rf"stopped by SIG{name} and saved at step (\d+); repeat the command, or run"
    rf" `seqrnn --workdir={workdir}`, to resume",
    line,
  )
  assert match and int(match[1]) == steps(workdir)[-1], (fault, done)


def test_kills_and_a_signal_change_nothing(whole, start):
  config, folder, process = whole
  stop_at(start, config, folder / "few", "KILL orbax 3")
  assert list((folder / "few").glob(UNFINISHED)), "not killed while it saved"
  stop_at(start, config, folder / "few", "TERM steps 7")
  stop_at(start, config, folder / "few", "KILL evaluation 3")
  assert process.ended().status == 0
  finish(start, config, folder, "few")


@pytest.mark.faults
def test_a_fault_at_every_place_of_a_training(whole, start):
  config, folder, process = whole
  for fault in FAULTS.split(","):
    stop_at(start, config, folder / "places", fault.strip())
  assert process.ended().status == 0
  finish(start, config, folder, "places")
