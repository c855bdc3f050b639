"""Tasks by name, and trained runs as Python has them."""

import json

import pytest
from conftest import tiny

import experiments
from seqrnn import train
from seqrnn.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The workdir of a run of two steps."""
  folder = tmp_path_factory.mktemp("trained")
  config = tiny(folder, {"train.max_steps": 2, "train.eval_every": 1})
  train.run(experiments.build, config, folder / "run")
  return folder / "run"


def test_a_run_samples_as_it_is_told(folder):
  run = experiments.load(folder)
  settings = {"temperature": 1, "streams": 3, "length": 20, "seed": 5}
  texts = run.sample("ab", **settings)
  assert len(texts) == 3 and all(text.startswith("ab") for text in texts)
  assert run.sample("ab", **settings) == texts
  assert run.sample("ab", **{**settings, "seed": 6}) != texts
  assert run.config.sample.prime == ""  # The run stays as it was trained.


@pytest.mark.parametrize(
  ("settings", "rule"),
  [
    ({"temprature": 1.0}, "sample.temprature: no such field; did you mean"),
    ({"temperature": -1.0}, "must be one or several numbers from 0"),
    ({"top_p": 1.5}, "above 0 and at most 1"),
  ],
)
def test_wrong_settings_are_named(folder, settings, rule):
  with pytest.raises(UserError, match=rule):
    experiments.load(folder).sample(**settings)


def test_a_checkpoint_is_chosen(folder):
  assert experiments.load(folder, 1).step == 1
  assert experiments.load(folder).step in (1, 2)
  with pytest.raises(UserError, match="no such checkpoint; there are 1, 2"):
    experiments.load(folder, 7)


def test_a_vocabulary_file_without_the_vocabulary(folder):
  config = experiments.load(folder).config
  with pytest.raises(UserError, match="vocabulary.json: lacks symbols"):
    experiments.build(config, {})


def test_every_task_meets_the_contract(tmp_path):
  for task in experiments.TASKS:
    config = tiny(tmp_path, {"task": task})
    experiment = experiments.build(config, None)
    again = experiments.build(config, experiment.vocabularies)
    assert again.vocabularies == experiment.vocabularies
    batch = experiment.batches("train", 0)[0]
    assert {"inputs", "targets", "weights", "reset"} <= set(batch)
    assert batch["targets"].shape == batch["weights"].shape
    T = batch["inputs"].shape[1]
    if experiment.forbidden is not None:
      assert experiment.forbidden(T).shape == (batch["targets"].shape[1], T)


def test_an_unknown_task_is_named(tmp_path):
  with pytest.raises(UserError, match="config.task='nonsense': must be one of"):
    experiments.build(tiny(tmp_path, {"task": "nonsense"}), None)


def test_no_run_no_result(tmp_path):
  with pytest.raises(UserError, match="config.json"):
    experiments.load(tmp_path / "nothing")
  broken = tmp_path / "broken"
  broken.mkdir()
  (broken / "config.json").write_text(json.dumps([1]))
  with pytest.raises(UserError, match="not a config"):
    experiments.load(broken)
