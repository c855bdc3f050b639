"""Two processes: equal to one, agreeing, and never left alone.

Each has two devices, as two machines with two accelerators would.
"""

import json
import re
import socket

import pytest

from tests.faults.conftest import (
  STATEFUL,
  assert_close_run,
  call,
  steps,
  use_devices,
  write_config,
)

pytestmark = pytest.mark.slow

LOST = (
  "error: another process of this run has ended or cannot be reached; repeat"
  " the commands of all processes to resume from the last checkpoint\n"
)
FIELDS = {
  **STATEFUL,
  "train.batch_size": 6,  # Four devices do not divide it.
  "train.max_steps": 24,
  "train.epochs": 4,
  "train.eval_every": 8,
  "checkpoint.every": 6,
  "checkpoint.keep": 6,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """Of runs that start from another one, which lacks one of their symbols."""
  folder = tmp_path_factory.mktemp("processes")
  other = write_config(folder / "other", {**FIELDS, "train.max_steps": 1})
  for path in (folder / "other" / "corpus").iterdir():
    path.write_text(path.read_text().replace("e", "f"))
  with pytest.MonkeyPatch.context() as patch:
    use_devices(patch, 1)
    assert call(other, folder / "origin") == 0
  fields = {**FIELDS, "train.start_from": str(folder / "origin")}
  return write_config(folder, fields)


@pytest.fixture(scope="module")
def one(config):
  """A run of one process on one device."""
  workdir = config.parent / "one"
  with pytest.MonkeyPatch.context() as patch:
    use_devices(patch, 1)
    assert call(config, workdir) == 0
  return workdir


def start_two(start, *flags, faults=("", ""), heartbeat="10"):
  """Two processes; one that is silent for `heartbeat` seconds is lost."""
  with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))
    _, port = unused.getsockname()
  shared = f"--coordinator=127.0.0.1:{port}", "--num_processes=2"
  more = {"HEARTBEAT": heartbeat} if heartbeat else {}
  return [
    start(
      *flags, *shared, f"--process_id={index}", devices=2, fault=fault, **more
    )
    for index, fault in enumerate(faults)
  ]


def finish_alone(config, workdir, one):
  """Resumes to the end in this process, and compares with one process."""
  assert call(config, workdir) == 0
  assert_close_run(one, workdir)


def same_end(processes, status):
  """Both end with the status, and the second one says nothing."""
  first, second = (process.ended() for process in processes)
  assert (first.status, second.status) == (status, status), (first, second)
  assert (second.out, second.err) == ("", "")
  assert first.err.count("\n") == 1, first.err
  return first.err


def left_alone(processes, lost):
  """A peer is lost: the other one ends, with one line."""
  other = processes[1 - lost]
  processes[lost].until(processes[lost].marker.exists)
  ended = other.ended()
  assert ended.status not in (0, None), ended
  assert ended.err == LOST
  processes[lost].end()
  processes[lost].ended()
  if lost == 0:
    assert ended.out == ""


def test_two_processes_stop_fail_and_go_on_as_one(config, one, start):
  workdir = config.parent / "default"
  both = start_two(start, config, workdir, faults=("", "TERM steps 8"))
  line = same_end(both, 143)
  step = int(re.search(r"saved at step (\d+);", line)[1])
  assert steps(workdir)[-1] == step
  both = start_two(start, config, workdir, faults=("", "KILL steps 8"))
  left_alone(both, 1)
  finish_alone(config, workdir, one)
  first, both = ((run / "start.json").read_bytes() for run in (one, workdir))
  assert first == both and b"6 of 7 symbols" in both


@pytest.mark.faults
@pytest.mark.parametrize(("name", "lost"), [("KILL", 0), ("STOP", 1)])
def test_a_lost_peer(config, one, start, name, lost):
  workdir = config.parent / f"{name}{lost}"
  faults = ["", ""]
  faults[lost] = f"{name} steps 15"
  both = start_two(start, config, workdir, faults=faults, heartbeat=None)
  left_alone(both, lost)
  finish_alone(config, workdir, one)


@pytest.mark.faults
def test_two_processes_evaluate_as_one_does(tmp_path, start, capfd):
  # Windows of a text are in both processes.
  workdir = tmp_path / "evaluated"
  fields = {"task": "classification", "data.format": "files"}
  fields |= {"train.max_steps": 2, "train.batch_size": 6}
  assert call(write_config(tmp_path / "labels", fields), workdir) == 0
  flags = ("--mode=evaluate", "--config.evaluate.split=validation")
  assert call(None, workdir, *flags) == 0
  capfd.readouterr()
  alone = json.loads((workdir / "evaluation.json").read_text())
  table = (workdir / "confusion.csv").read_text()
  (workdir / "evaluation.json").unlink()
  first, second = (p.ended() for p in start_two(start, None, workdir, *flags))
  assert (first.status, first.err) == (0, "")
  assert second == (0, "", "")
  both = json.loads((workdir / "evaluation.json").read_text())
  assert both.keys() == alone.keys()
  for name, value in alone.items():
    if isinstance(value, float):
      assert both[name] == pytest.approx(value, rel=1e-5)
    else:
      assert both[name] == value
  assert (workdir / "confusion.csv").read_text() == table
  assert first.out.count("most frequent label") == 1
