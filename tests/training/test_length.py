"""Fields that the length of a training limits."""

from typing import Any

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.config.resolve import Facts, resolve
from seqrnn.configs import base, brnn, rnn, text_generation
from seqrnn.training import setup
from tests.conftest import tiny


def limited(config, steps_per_epoch, total_steps):
  config = config.copy_and_resolve_references()
  config.train.epochs = config.train.max_steps = total_steps
  facts = Facts(epoch=lambda _: (steps_per_epoch, 1))
  changes = config_lib.changes(config, resolve(config, facts)[0])
  return {name: new for name, (_, new) in changes.items()}


def test_a_short_training_is_evaluated_each_epoch():
  config: Any = rnn.get_config()
  assert limited(config, 36, 288) == {
    "train.eval_every": 36,
    "schedule.warmup_steps": 28,
    "train.ema": 0.9826,
  }
  assert limited(config, 1, 2) == {
    "train.eval_every": 1,
    "schedule.warmup_steps": 0,
    "train.ema": 0.5,
  }
  config.train.adapt_to_length = False
  assert limited(config, 36, 288) == {}
  assert limited(base.get_config(), 1, 1) == {}


def test_the_corpus_of_a_recipe_limits_nothing():
  for recipe in (rnn, brnn, text_generation):
    config: Any = recipe.get_config()
    config_lib.check(config)
    batches = len(experiments.build(config, None).batches("train", 0))
    # The library of another Python may be a little smaller.
    batches = round(batches * 1.02)
    assert limited(config, batches, batches * config.train.epochs) == {}


def test_a_run_records_the_fields_that_it_limits(tmp_path, capsys):
  fields = {
    "train.adapt_to_length": True,
    "train.batches_per_epoch": 2,
    "train.eval_every": 100,
    "train.epochs": 3,
  }
  config: Any = tiny(tmp_path, fields)
  workdir = tmp_path / "run"
  workdir.mkdir()
  started = setup.make_training(experiments.build, config, workdir)
  assert started.config.train.eval_every == 2
  assert (
    "for only 6 steps, the model is evaluated every 2 steps, not 100"
    " (train.eval_every; train.adapt_to_length)\n"
  ) in capsys.readouterr().out
  setup.write_record(started.config, started.experiment, workdir)
  # A longer training, too: the run keeps them.
  config.train.epochs = 60
  _, [line] = resolve(config, Facts(run=config_lib.flat(started.config)))
  assert line.startswith("train.eval_every=2 is that of the run's first length")
  config = setup.check_owner(config, workdir)
  resumed = setup.make_training(experiments.build, config, workdir)
  assert resumed.config.train.eval_every == 2
  assert resumed.total_steps == 120
