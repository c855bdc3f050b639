"""Workers of a search killed at random: each trial is there once, the same."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.conftest import ROOT, position, rows, steps, write_config

pytestmark = pytest.mark.slow

KILLS, TRIALS = 10, 20
PLAN = {
  "train.max_steps": 12,
  "train.eval_every": 2,
  "train.cpu_devices": 1,
  "train.cpu_threads": 1,
  "search.method": "random",
  "search.trials": TRIALS,
  "search.pruning": "none",
  "search.space": ("optimizer.learning_rate=log_uniform(1e-4, 1e-1)",),
}


def begin(*flags) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "run.py", *map(str, flags)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def workers(process: subprocess.Popen) -> list[int]:
  """Those that it has now."""
  own = Path(f"/proc/{process.pid}/task/{process.pid}/children")
  return [
    int(number)
    for number in own.read_text().split()
    if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()
  ]


def found(workdir: Path) -> list[dict[str, str]]:
  """trials.csv, without what differs from time to time."""
  with (workdir / "trials.csv").open(newline="") as file:
    return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def evaluations(workdir: Path) -> int:
  """How many there were."""
  tables = workdir.glob("trials/*/metrics.csv")
  return sum(path.read_text().count("\n") for path in tables)


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_workers_killed_at_random(tmp_path):
  config = write_config(tmp_path, PLAN)
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  search = (f"--config={config}", "--mode=search")
  process = begin(*search, f"--workdir={whole}", "--config.search.workers=1")
  assert "finished" in process.communicate()[0]

  rng = random.Random(0)
  again = (*search, f"--workdir={parts}", "--config.search.workers=2")
  process, out = begin(*again), ""
  for kill in range(KILLS):
    # However slow the machine, it comes to something between two of them.
    while not workers(process) or evaluations(parts) < 9 * kill:
      if process.poll() is not None:  # Each of its workers was killed.
        assert process.returncode == 1, "it has ended before it was killed"
        out += process.communicate()[0]
        process = begin(*again)
      time.sleep(0.02)
    time.sleep(rng.uniform(0, 2))
    if alive := workers(process):
      os.kill(rng.choice(alive), signal.SIGKILL)
  while process.wait() == 1:
    out += process.communicate()[0]
    process = begin(*again)
  out += process.communicate()[0]
  assert process.returncode == 0, out
  assert found(parts) == found(whole)
  assert [row["state"] for row in found(parts)] == ["finished"] * TRIALS
  for number in range(TRIALS):
    assert out.count(f"trial {number}  finished") == 1
    evaluated = rows(parts / "trials" / f"{number:04}")
    assert [row["step"] for row in evaluated] == [
      "2",
      "4",
      "6",
      "8",
      "10",
      "12",
    ]

  best = f"--config={parts / 'best.json'}"
  process = begin(best, f"--workdir={tmp_path / 'again'}")
  out, _ = process.communicate()
  assert process.returncode == 0, out
  last = position(tmp_path / "again", steps(tmp_path / "again")[-1])
  assert last["best"] == min(float(row["loss"]) for row in found(parts))
