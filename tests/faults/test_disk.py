"""A full disk: one line, nothing lost, and resumed to the bit."""

import os
import subprocess

import pytest

from seqrnn.training import checkpoint
from tests.faults.conftest import (
  STATEFUL,
  assert_same_run,
  call,
  steps,
  write_config,
)

pytestmark = pytest.mark.slow

FIELDS = {
  **STATEFUL,
  "train.max_steps": 20,
  "train.eval_every": 10,
  "checkpoint.every": 5,
  "checkpoint.keep": 2,
}
SIZE = 4_000_000  # Bytes of the disk.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A config, and a run of it on a disk that has room."""
  folder = tmp_path_factory.mktemp("disk")
  config = write_config(folder, FIELDS)
  assert call(config, folder / "whole") == 0
  return config, folder / "whole"


@pytest.fixture
def disk(tmp_path):
  """A small disk of its own."""
  folder = tmp_path / "disk"
  folder.mkdir()
  command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
  if os.geteuid() != 0:
    pytest.skip("only root may mount a disk")
  mounted = subprocess.run(command, capture_output=True, text=True)
  if mounted.returncode:
    pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
  yield folder
  subprocess.run(["umount", "-l", str(folder)], check=True)


def fail(start, whole, disk, place, leave=0, expected=""):
  """A run whose disk gets full at a place; its only line."""
  process = start(
    whole[0],
    disk / "run",
    devices=4,
    fault=f"FILL {place}",
    environment={"FILLER": str(disk / "filler"), "LEAVE": str(leave)},
  )
  done = process.ended()
  assert process.struck, place
  assert done.status == 2, done
  assert done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
  assert expected in done.err, done.err


def finish(whole, disk):
  """Once there is room, going on gives what never stopping gives."""
  config, reference = whole
  for step in steps(disk / "run"):
    folder = disk / "run" / "checkpoints" / str(step)
    assert checkpoint.find_damage(folder) is None
  (disk / "filler").unlink(missing_ok=True)
  assert call(config, disk / "run") == 0
  assert_same_run(reference, disk / "run")


@pytest.mark.parametrize(
  "leave",
  [
    20_000,
    *(pytest.param(n, marks=pytest.mark.faults) for n in (0, 8192, 60_000)),
  ],
)
def test_the_room_goes_while_a_checkpoint_is_written(whole, disk, start, leave):
  """Another program takes the room that there was."""
  # The next row may be what finds no room, before the checkpoint is waited for.
  line = f"{disk}/run/"
  fail(start, whole, disk, "room 3", leave, line)
  assert steps(disk / "run") == [5, 10]
  finish(whole, disk)


@pytest.mark.parametrize(
  ("place", "name"),
  [  # Later rows find room in the last page of the file.
    ("add_row 1", "metrics"),
    pytest.param("add_row 2", "timing", marks=pytest.mark.faults),
  ],
)
def test_no_room_for_a_row(whole, disk, start, place, name):
  line = f"{name}.csv: cannot be written: No space left on device"
  fail(start, whole, disk, place, 0, line)
  assert steps(disk / "run") == [5]
  finish(whole, disk)
