"""Runs as Python has them: by which head they sample."""

import pytest

from seqrnn import experiments
from seqrnn.errors import UserError
from tests.conftest import random_params, tiny


def test_a_gap_model_samples_by_its_forward_head(tmp_path):
  fields = {"task": "gap_model", "model.heads": "all"}
  config = tiny(tmp_path, fields)
  experiment = experiments.build(config, None)
  params = random_params(experiment, 0)
  run = experiments.Run(tmp_path, config, experiment, params, 0)
  # No letter but one, whatever comes from the right.
  place = experiment.vocabularies["symbols"].encode("a")[0]
  params["forward_head"]["bias"][place] = 100
  assert run.sample("bc", length=7) == ["bcaaaaaaa"]
  one = run._replace(experiment=experiment._replace(decoder=None))
  with pytest.raises(UserError, match="cannot sample unless model.heads='all'"):
    one.sample("bc")
