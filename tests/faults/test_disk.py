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


@pytest.mark.parametrize(
  ("place", "leave", "words", "saved"),
  [
    # The next row may find no room, before the checkpoint is waited for.
    ("room 3", 20_000, "/run/", [5, 10]),
    # Later rows find room in the last page of the file.
    ("add_row 1", 0, "metrics.csv: cannot be written: No space left", [5]),
  ],
)
def test_a_full_disk_ends_a_run_that_can_be_resumed(
  whole, disk, start, place, leave, words, saved
):
  (config, reference), workdir = whole, disk / "run"
  room = {"FILLER": str(disk / "filler"), "LEAVE": str(leave)}
  process = start(config, workdir, devices=4, fault=f"FILL {place}", **room)
  done = process.ended()
  assert process.marker.exists(), place
  assert done.status == 2, done
  assert done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
  assert words in done.err, done.err
  assert steps(workdir) == saved
  for step in saved:
    folder = workdir / "checkpoints" / str(step)
    assert checkpoint.find_damage(folder) is None
  (disk / "filler").unlink(missing_ok=True)
  assert call(config, workdir) == 0
  assert_same_run(reference, workdir)
