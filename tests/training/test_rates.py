"""Parts of a model that do not learn, or at lower rates."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.errors import UserError
from seqrnn.experiment import shapes
from seqrnn.runtime import sharding
from seqrnn.training import rates as rates_lib
from seqrnn.training.transfer import Record
from tests.conftest import tiny

RECORD = Record("runs/lm", 1, ["embedding", "layer 1 forward"], [])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """The config and the experiment of a language model of two layers."""
  fields = {"model.layers": 2, "model.embedding_size": 3}
  config: Any = tiny(tmp_path_factory.mktemp("model"), fields)
  return config, experiments.build(config, None)


def shares(model, record=RECORD, **fields):
  config, experiment = model
  config = config.copy_and_resolve_references()
  config.train.start_from = record and record.workdir
  config.update_from_flattened_dict(fields)
  config_lib.check(config)
  return rates_lib.shares(experiment, config, record)


def rates(factors):
  """The factor of each part, which its arrays share."""
  ones = jax.tree.map(lambda _: np.ones(()), factors)
  rule = rates_lib.scaled(optax.identity(), factors)
  parts, _ = rule.update(ones, rule.init(ones))
  layers = parts.pop("body")
  parts |= {"layer1": layers["layers_0"], "layer2": layers["layers_1"]}
  scales = {
    name: {*map(float, jax.tree.leaves(part))} for name, part in parts.items()
  }
  return {name: scale for name, [scale] in scales.items()}


def test_rates_fall_towards_the_input(model):
  left = rates(shares(model, **{"optimizer.layer_decay": 0.5}))
  assert left == {"head": 1, "layer2": 0.5, "layer1": 0.25, "embedding": 0.125}
  assert shares(model) is None  # All learn at the same rate.


def test_frozen_parts_get_no_gradients_and_do_not_change(model):
  _, experiment = model
  fields = {"train.freeze": "layer2,taken", "optimizer.layer_decay": 0.5}
  factors = shares(model, **fields)
  left = rates(factors)
  assert left == {"head": 1, "layer2": 0, "layer1": 0, "embedding": 0}
  batch = experiment.batches("train", 0)[0]
  params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes(experiment))
  frozen = rates_lib.freeze_parts(experiment, factors)
  gradient = jax.grad(frozen.loss, has_aux=True)
  grads, _ = sharding.jit(gradient)(params, (), batch, jax.random.key(1))
  assert np.any(grads.pop("head")["kernel"])
  assert not any(np.any(x) for x in jax.tree.leaves(grads))
  # A part that was taken without some of its rows learns.
  taken = ["embedding (1 of 2 symbols)", "layer 1 forward"]
  some = RECORD._replace(taken=taken)
  left = rates(shares(model, some, **fields))
  assert left == {"head": 1, "layer2": 0, "layer1": 0, "embedding": 0.125}


def test_mistakes_are_refused_in_a_line(model):
  for fields, words in (
    ("layer3", "the model has no layer3; it has embedding, head,"),
    ("taken", "nothing is taken from another run; set train.start_from"),
    ("layer 1", "must be embedding, letters, convolution, layers, layer1,"),
  ):
    with pytest.raises(UserError, match=r"config\.train\.") as error:
      shares(model, None, **{"train.freeze": fields})
    assert words in str(error.value)
