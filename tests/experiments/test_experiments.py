"""Runs as Python has them: by which head they sample."""

import pytest

from seqrnn.errors import UserError
from tests.conftest import untrained


def test_a_gap_model_samples_by_its_forward_head(tmp_path):
  run = untrained(tmp_path, {"task": "gap_model", "model.heads": "all"})
  # No letter but one, whatever comes from the right.
  place = run.experiment.vocabularies["symbols"].encode("a")[0]
  run.params["forward_head"]["bias"][place] = 100
  assert run.sample("bc", length=7) == ["bcaaaaaaa"]
  one = run._replace(experiment=run.experiment._replace(decoder=None))
  with pytest.raises(UserError, match="cannot sample unless model.heads='all'"):
    one.sample("bc")
