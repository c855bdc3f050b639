"""Damaged checkpoints: they are not used, and stderr names them."""

import re
import shutil

from tests.faults.conftest import assert_same_run, call, steps, write_config
from tests.training.test_checkpoint import flip

FIELDS = {
  "train.max_steps": 8,
  "train.eval_every": 4,
  "checkpoint.every": 2,
  "checkpoint.keep": 4,
}


def test_the_newest_intact_one_goes_on(tmp_path, capfd):
  config = write_config(tmp_path, FIELDS)
  whole, run = tmp_path / "whole", tmp_path / "run"
  assert call(config, whole) == 0
  assert steps(whole) == [2, 4, 6, 8]
  shutil.copytree(whole, run)
  [file] = (run / "checkpoints/8/state/d").iterdir()
  flip(file)
  shutil.rmtree(run / "checkpoints/6")
  (run / "checkpoints/6").mkdir()
  for flags in (["--mode=evaluate"], []):
    capfd.readouterr()
    assert call(None if flags else config, run, *flags) == 0
    lines = capfd.readouterr().err.splitlines()
    named = [line for line in lines if not line.startswith("may read ")]
    assert re.match("checkpoint 8 is damaged: state/d", named[0])
    assert re.match("checkpoint 6 is damaged: sha256 is missing", named[1])
    assert named[2:] == ["checkpoint 4 is used instead"]
  assert_same_run(whole, run)
