"""Damaged checkpoints: they are not used, and stderr names them."""

import re
import shutil
from pathlib import Path

import pytest

from tests.faults.conftest import (
  assert_same_run,
  call,
  contents,
  steps,
  write_config,
)

STEPS = [2, 4, 6, 8]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A config, and a run of it that has four checkpoints."""
  folder = tmp_path_factory.mktemp("damage")
  fields = {
    "train.max_steps": 8,
    "train.eval_every": 4,
    "checkpoint.every": 2,
    "checkpoint.keep": 4,
  }
  config = write_config(folder, fields)
  assert call(config, folder / "whole") == 0
  assert steps(folder / "whole") == STEPS
  return config, folder / "whole"


@pytest.fixture
def run(trained, tmp_path):
  """A copy to be damaged."""
  shutil.copytree(trained[1], tmp_path / "run")
  return tmp_path / "run"


def flip(path: Path):
  """One bit, of a byte in the middle."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1 << len(content) % 8
  path.write_bytes(content)


def check_warnings(err: str, damaged: list[int], used: int):
  """Checks that stderr names the damaged ones, why, and the one used."""
  lines = [line for line in err.splitlines() if ": input " not in line]
  assert len(lines) == len(damaged) + 1, err
  for line, step in zip(lines, damaged, strict=False):
    assert re.match(rf"checkpoint {step}(, the best,)? is damaged: \S", line)
  assert lines[-1] == f"checkpoint {used} is used instead"


def test_the_newest_intact_one_goes_on(trained, run, capfd):
  config, whole = trained
  newest = run / "checkpoints" / "8"
  (file,) = (newest / "state" / "d").iterdir()
  flip(file)
  shutil.rmtree(run / "checkpoints" / "6")
  (run / "checkpoints" / "6").mkdir()
  before = contents(run)
  assert call(None, run, "--mode=evaluate") == 0
  check_warnings(capfd.readouterr().err, [8, 6], 4)
  (run / "evaluation.json").unlink()
  assert contents(run) == before
  assert call(config, run) == 0
  check_warnings(capfd.readouterr().err, [8, 6], 4)
  assert steps(run) == STEPS
  assert_same_run(whole, run)
