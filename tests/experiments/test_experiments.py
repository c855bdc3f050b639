"""Tasks by name, and trained runs as Python has them."""

import csv
import json
import shutil

import jax
import pytest

from seqrnn import experiments
from seqrnn.errors import UserError
from seqrnn.runtime import files
from seqrnn.training import train
from tests.conftest import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The workdir of a run of two steps."""
  folder = tmp_path_factory.mktemp("trained")
  config = tiny(folder, {"train.max_steps": 2, "train.eval_every": 1})
  train.fit(experiments.build, config, folder / "run")
  return folder / "run"


@pytest.fixture
def copy(folder, tmp_path):
  """The same, to be changed."""
  shutil.copytree(folder, tmp_path / "run")
  return tmp_path / "run"


def test_a_run_samples_with_its_settings(folder):
  run = experiments.load(folder)
  settings = {"temperature": 1, "streams": 3, "length": 20, "seed": 5}
  texts = run.sample("ab", **settings)
  assert len(texts) == 3 and all(text.startswith("ab") for text in texts)
  assert run.sample("ab", **settings) == texts
  assert run.sample("ab", **{**settings, "seed": 6}) != texts
  assert run.config.sample.prime == ""  # The run stays as it was trained.


def test_a_gap_model_samples_by_its_forward_head(tmp_path):
  fields = {"task": "gap_model", "model.heads": "all"}
  config = tiny(tmp_path, fields)
  experiment = experiments.build(config, None)
  params = jax.jit(experiment.init)(jax.random.key(0))
  run = experiments.Run(tmp_path, config, experiment, params, 0)
  # No letter but one, whatever comes from the right.
  place = experiment.vocabularies["symbols"].encode("a")[0]
  bias_V = params["forward_head"]["bias"]
  params["forward_head"]["bias"] = bias_V.at[place].set(100.0)
  assert run.sample("bc", length=7) == ["bcaaaaaaa"]
  one = run._replace(experiment=experiment._replace(decoder=None))
  with pytest.raises(UserError, match="cannot sample unless model.heads='all'"):
    one.sample("bc")


@pytest.mark.parametrize(
  ("settings", "rule"),
  [
    ({"temprature": 1.0}, "sample.temprature: no such field; did you mean"),
    ({"temperature": -1.0}, "must be numbers, each 0 or at least"),
    ({"top_p": 1.5}, "above 0 and at most 1"),
  ],
)
def test_wrong_settings_are_named(folder, settings, rule):
  with pytest.raises(UserError, match=rule):
    experiments.load(folder).sample(**settings)


def test_a_run_is_shown_in_a_line(copy):
  run = experiments.load(copy, 1)
  count = sum(leaf.size for leaf in jax.tree.leaves(run.params))
  with (copy / "metrics.csv").open() as file:
    loss = float(next(csv.DictReader(file))["validation_loss"])
  text = repr(run)
  assert "\n" not in text and len(text) < 300
  for fact in ("language_model", "step 1", f"{count:,}", f"loss {loss:.4f}"):
    assert fact in text
  (copy / "metrics.csv").write_text("nonsense\n")
  assert "validation" not in repr(run)


def test_a_checkpoint_is_chosen(folder):
  assert experiments.load(folder, 1).step == 1
  assert experiments.load(folder).step in (1, 2)
  with pytest.raises(UserError, match="checkpoints at the steps 1, 2"):
    experiments.load(folder, 7)


def test_a_vocabulary_file_without_the_vocabulary(folder):
  config = experiments.load(folder).config
  with pytest.raises(UserError, match="vocabulary.json: lacks symbols"):
    experiments.build(config, {})


def test_a_vocabulary_that_the_task_does_not_name_is_left_out(folder):
  run = experiments.load(folder)
  known = run.experiment.vocabularies
  more = {"more": known["symbols"], **known}
  assert experiments.build(run.config, more).vocabularies == known


# Of tasks that need labels.
FORMATS = {"classification": "files", "tagging": "spaces"}


def test_every_task_meets_the_contract(tmp_path):
  for task in experiments.TASKS:
    fields = {"task": task, "data.format": FORMATS.get(task, "text")}
    music = {"data.source": "chords"} if task == "polyphony" else {}
    config = tiny(tmp_path, {**fields, **music})
    experiment = experiments.build(config, None)
    again = experiments.build(config, experiment.vocabularies)
    assert again.vocabularies == experiment.vocabularies
    batch = experiment.batches("train", 0)[0]
    assert {"inputs", "targets", "weights", "reset"} <= set(batch)
    assert batch["targets"].shape[:2] == batch["weights"].shape
    T = batch["inputs"].shape[1]
    if experiment.forbidden is not None:
      assert experiment.forbidden(T).shape == (batch["targets"].shape[1], T)


def test_an_unknown_task_is_named(tmp_path):
  with pytest.raises(UserError, match="config.task='nonsense': must be one of"):
    experiments.build(tiny(tmp_path, {"task": "nonsense"}), None)


def test_no_run_no_result(tmp_path):
  with pytest.raises(UserError, match="nothing: has no run"):
    experiments.load(tmp_path / "nothing")
  broken = tmp_path / "broken"
  broken.mkdir()
  (broken / "config.json").write_text(json.dumps([1]))
  with pytest.raises(UserError, match="not a config"):
    experiments.load(broken)


def rewrite(workdir, change):
  """Changes the fields of a run's config by a function of all of them."""
  path = workdir / "config.json"
  fields = json.loads(path.read_text())
  change(fields)
  files.write_checked(workdir, {path.name: json.dumps(fields).encode()})


def test_an_unknown_field_or_type_is_refused(copy):
  rewrite(copy, lambda fields: fields["model"].update({"attention": 4}))
  with pytest.raises(UserError, match="model.attention: no such field"):
    experiments.load(copy)
  rewrite(copy, lambda fields: fields["model"].pop("attention"))
  rewrite(copy, lambda fields: fields["model"].update({"hidden_size": 8.0}))
  with pytest.raises(UserError, match="config.model.hidden_size=8.0: must be"):
    experiments.load(copy)
