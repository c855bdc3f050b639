"""Unlabelled text beside labelled text: one command trains on both."""

import json

import numpy as np
import pytest

import experiments
from seqrnn.errors import Interrupted, UserError
from seqrnn.modes import search, train
from seqrnn.settings import config as config_lib
from seqrnn.training import pretraining
from tests.modes.test_train import Crash, assert_same_run, crash_at
from tests.training.test_transfer import WORDS, config_of


def config_with_text(tmp_path, **fields):
  """A labelled run of 3 steps after an epoch on a text."""
  rng = np.random.default_rng(1)
  text = tmp_path / "plain.txt"
  text.write_text(" ".join(rng.choice([*WORDS, "more"], 120)))
  chosen = {
    "data.pretrain_path": str(text),
    "checkpoint.every": 2,
    "train.pretrain_epochs": 2,
    "train.pretrain_window": 6,
    "train.pretrain_rate": 0.01,
    "model.layers": 1,
    "model.bidirectional": False,
  }
  return config_of(tmp_path, "classification", **(chosen | fields))


def test_the_text_comes_first(tmp_path, capsys):
  config = config_with_text(tmp_path)
  train.run(experiments.build, config, tmp_path / "whole")
  out = capsys.readouterr().out
  assert out.index("language_model:") < out.index("classification:")
  first = experiments.load(tmp_path / "whole" / "pretrained")
  assert (first.config.task, first.config.data.window) == ("language_model", 6)
  assert first.config.optimizer.learning_rate == 0.01
  record = json.loads((tmp_path / "whole" / "start.json").read_text())
  assert record["taken"] == ["embedding", "layer 1 forward"]
  assert record["workdir"] == str(tmp_path / "whole" / "pretrained")
  own = experiments.load(tmp_path / "whole").experiment.vocabularies["symbols"]
  assert "more" in own.symbols  # No labelled text has it.

  # Killed in the first part, and then in the second one.
  killed = tmp_path / "killed"
  for step in (5, 2):
    if step == 2:
      other = config.copy_and_resolve_references()
      other.data.pretrain_path = None
      with pytest.raises(UserError, match="set this field, too"):
        train.run(experiments.build, other, killed)
    with pytest.MonkeyPatch.context() as patch:
      crash_at(patch, step)
      with pytest.raises(Crash):
        train.run(experiments.build, config, killed)
    assert (killed / "config.json").exists() == (step == 2)
  train.run(experiments.build, config, killed)
  assert_same_run(tmp_path / "whole", killed, 3)


def test_errors_and_signals_of_the_text_name_it(tmp_path, monkeypatch):
  config = config_with_text(tmp_path, **{"train.freeze": "layer9"})
  with pytest.raises(UserError, match="the model has no layer9"):
    train.run(experiments.build, config, tmp_path / "run")
  assert not (tmp_path / "run").exists()
  config = config_with_text(tmp_path)
  config.data.pretrain_path = str(tmp_path / "none")
  with pytest.raises(UserError, match="^data.pretrain_path=.*none"):
    train.run(experiments.build, config, tmp_path / "run")
  for name, own in (("data.window", None), ("train.pretrain_window", 2**30)):
    fields = {"data.window": 2**30, "train.pretrain_window": own}
    wide = config_with_text(tmp_path, **fields)
    with pytest.raises(UserError, match=rf"config\.{name}=107"):
      train.run(experiments.build, wide, tmp_path / "run")

  def stopped(*_):
    raise Interrupted("stopped by SIGTERM", 143, "repeat it, or run X")

  monkeypatch.setattr(pretraining, "fit", stopped)
  line = "^pretraining: stopped by SIGTERM; repeat the command to resume$"
  with pytest.raises(Interrupted, match=line):
    train.run(experiments.build, config, tmp_path / "run")


def test_the_pretraining_of_two_directions_is_a_gap_model(tmp_path):
  fields = {"model.bidirectional": True, "train.freeze": "taken"}
  config = pretraining.config_of(config_with_text(tmp_path, **fields))
  assert (config.task, config.model.heads) == ("gap_model", "all")
  assert config.train.freeze is None and not config.model.bidirectional
  experiments.build(config, None)


def test_what_cannot_be_pretrained_is_refused(tmp_path):
  config = config_with_text(tmp_path)
  with pytest.raises(UserError, match="each trial would train on it"):
    search.run(experiments.build, config, tmp_path / "search")
  for name, value, words in (
    ("task", "language_model", "set train.start_from"),
    ("model.parameters", 10_000, "set model.hidden_size"),
    ("data.pretrain_path", None, "there is no text to pretrain on"),
  ):
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict({name: value})
    with pytest.raises(UserError, match=words):
      config_lib.check(other)
