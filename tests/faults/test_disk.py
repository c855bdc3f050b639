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


def test_a_full_disk_ends_a_run_that_can_be_resumed(whole, disk, start):
  (config, reference), workdir = whole, disk / "run"
  # The next row may find no room, before the checkpoint is waited for.
  room = {"FILLER": str(disk / "filler"), "LEAVE": "20000"}
  process = start(config, workdir, devices=4, fault="FILL room 3", **room)
  done = process.ended()
  assert process.marker.exists()
  assert done.status == 2, done
  assert done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
  assert "/run/" in done.err, done.err
  assert steps(workdir) == [5, 10]
  for step in (5, 10):
    folder = workdir / "checkpoints" / str(step)
    assert checkpoint.find_damage(folder) is None
  (disk / "filler").unlink(missing_ok=True)
  assert call(config, workdir) == 0
  assert_same_run(reference, workdir)
