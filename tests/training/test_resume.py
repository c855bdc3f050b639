"""What may change when a run resumes: its limits."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from seqrnn import experiments
from seqrnn.config import command
from seqrnn.config import read as config_lib
from seqrnn.errors import UserError
from seqrnn.training import train
from seqrnn.training.checkpoint import Position
from tests.conftest import tiny


def test_only_limits_may_change(trained, capsys):
  workdir = trained()

  def fit(**fields):
    config = config_lib.read_run(workdir)
    with config.unlocked():
      config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in fields.items()}
      )
    return train.fit(experiments.build, config, workdir)

  record = (workdir / "config.json").read_bytes()
  for name, value, differs in (
    ("train.label_smoothing", 0.4, "train.label_smoothing: 0.0 -> 0.4"),
    ("train.tensorboard", True, "train.tensorboard: False -> True"),
    ("optimizer.learning_rate", 0.1, "optimizer.learning_rate: 0.002 -> 0.1"),
    ("schedule.warmup_steps", 3, "schedule.warmup_steps: 0 -> 3"),
    ("checkpoint.every", 2, "checkpoint.every: None -> 2"),
  ):
    with pytest.raises(UserError) as caught:
      fit(**{name: value})
    assert str(caught.value) == (
      f"{workdir}: holds another run, {differs}; name another --workdir,"
      " because only train.epochs, train.max_steps, train.patience may change"
    )
  # A limit that is lower, or raised where another one has ended the training.
  for limits in ({"train.max_steps": 2}, {"train.epochs": 3}):
    capsys.readouterr()
    assert fit(**limits)["step"] == 4
    out = capsys.readouterr().out
    assert re.search(r"^the training has ended by .*max_steps$", out, re.M)
    assert "finished at step 4;" in out
    assert (workdir / "config.json").read_bytes() == record
  fit(**{"train.max_steps": 5, "train.patience": 9})
  settings = experiments.load(workdir).config.train
  assert (settings.max_steps, settings.patience) == (5, 9)


def test_an_epoch_without_the_batch_of_a_position_is_refused(tmp_path):
  batches: Any = SimpleNamespace(batches=lambda *_: range(2))
  training: Any = SimpleNamespace(workdir=tmp_path, experiment=batches)
  with pytest.raises(UserError, match="batch 3 of an epoch, which has 2"):
    train.epoch_batches(training, Position(step=3, batch=3))


def test_all_that_training_rests_on_is_fixed_and_named():
  free = {*config_lib.CPU, *config_lib.LIMITS, "train.fit_to_data"}
  unnamed = {*config_lib.CPU, "train.epochs", "train.max_steps"}
  for name in config_lib.FIELDS:
    if name.startswith(config_lib.TRAINING):
      assert name.startswith(config_lib.IDENTITY) != (name in free), name
      assert name.startswith(command.NAMING) != (name in unnamed), name


def test_a_sweep_has_a_workdir_for_each_value(tmp_path):
  values = {
    "train.class_weights": ("balanced",),
    "train.patience": (2, 3),
    "train.eval_every": (5, 6),
  }
  config = tiny(tmp_path)
  names = [command.run_name("c", config, config)]
  for name, some in values.items():
    for value in some:
      other = tiny(tmp_path, {name: value})
      names.append(command.run_name("c", config, other))
  assert len({*names}) == len(names) == 6
  assert all(re.fullmatch(r"c(-[\w.]+=[\w.]+)?", name) for name in names)
