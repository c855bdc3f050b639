"""Tasks by name, and trained runs as Python has them."""

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.errors import UserError
from seqrnn.experiment import shapes
from tests.conftest import tiny
from tests.models.test_cells import normal


def test_a_run_samples_with_its_settings(trained):
  run = experiments.load(trained())
  settings = {"temperature": 1, "streams": 3, "length": 20, "seed": 5}
  texts = run.sample("ab", **settings)
  assert len(texts) == 3 and all(text.startswith("ab") for text in texts)
  assert run.sample("ab", **settings) == texts
  assert run.sample("ab", **{**settings, "seed": 6}) != texts
  assert run.config.sample.prime == ""  # The run stays as it was trained.
  with pytest.raises(UserError, match="sample.temprature: no such field; did"):
    run.sample(temprature=1.0)


def test_a_gap_model_samples_by_its_forward_head(tmp_path):
  fields = {"task": "gap_model", "model.heads": "all"}
  config = tiny(tmp_path, fields)
  experiment = experiments.build(config, None)
  params = normal(np.random.default_rng(0), shapes(experiment))
  params = jax.tree.map(np.float32, params)
  run = experiments.Run(tmp_path, config, experiment, params, 0)
  # No letter but one, whatever comes from the right.
  place = experiment.vocabularies["symbols"].encode("a")[0]
  params["forward_head"]["bias"][place] = 100
  assert run.sample("bc", length=7) == ["bcaaaaaaa"]
  one = run._replace(experiment=experiment._replace(decoder=None))
  with pytest.raises(UserError, match="cannot sample unless model.heads='all'"):
    one.sample("bc")
