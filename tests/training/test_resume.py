"""What may change when a run resumes: its limits."""

import re

import pytest

from seqrnn import experiments
from seqrnn.config import command
from seqrnn.config import read as config_lib
from seqrnn.errors import UserError
from seqrnn.run import load_run
from seqrnn.training import train


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
    ("optimizer.learning_rate", 0.1, "optimizer.learning_rate: 0.002 -> 0.1"),
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
  settings = load_run(workdir).config.train
  assert (settings.max_steps, settings.patience) == (5, 9)


def test_all_that_training_rests_on_is_fixed_and_named():
  free = {*config_lib.CPU, *config_lib.LIMITS, "train.fit_to_data"}
  unnamed = {*config_lib.CPU, "train.epochs", "train.max_steps"}
  for name in config_lib.FIELDS:
    if name.startswith(config_lib.TRAINING):
      assert name.startswith(config_lib.IDENTITY) != (name in free), name
      assert name.startswith(command.NAMING) != (name in unnamed), name
