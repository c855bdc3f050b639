"""Parts of a model that do not learn, or at lower rates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.errors import UserError
from seqrnn.experiment import shapes
from seqrnn.runtime import sharding
from seqrnn.training import optimizers
from seqrnn.training.transfer import Record
from tests.conftest import tiny

TAKEN = {"embedding": "", "layer 1 forward": ""}
RECORD = Record("runs/lm", 1, TAKEN, [], [], {})


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
  return optimizers.shares(experiment, config, record)


def updates(model, shares):
  """The scaled updates of 1, by parts."""
  ones = jax.tree.map(lambda x: jnp.ones(x.shape), shapes(model[1]))
  rule = shares.scale()
  left, _ = rule.update(ones, rule.init(ones))
  parts = {
    "embedding": left["embedding"],
    "layer1": left["body"]["layers_0"],
    "layer2": left["body"]["layers_1"],
    "head": left["head"],
  }
  for name, tree in parts.items():
    leaves = [np.unique(leaf) for leaf in jax.tree.leaves(tree)]
    [parts[name]] = {float(x) for x in np.concatenate(leaves)}
  return parts


def test_rates_fall_towards_the_input(model):
  left = updates(model, shares(model, **{"optimizer.layer_decay": 0.5}))
  assert left == {"head": 1, "layer2": 0.5, "layer1": 0.25, "embedding": 0.125}


def test_frozen_parts_get_no_gradients_and_do_not_change(model):
  config, experiment = model
  fields = {"train.freeze": "layer2,taken", "optimizer.layer_decay": 0.5}
  left = updates(model, shares(model, **fields))
  assert left == {"head": 1, "layer2": 0, "layer1": 0, "embedding": 0}
  batch = experiment.batches("train", 0)[0]
  new = int(batch["inputs"].max())  # A row that the other run lacked.
  found = shares(model, RECORD._replace(new_rows={"symbols": [new]}), **fields)
  rule = found.scale()
  ones = jax.tree.map(lambda x: jnp.ones(x.shape), shapes(experiment))
  left, _ = rule.update(ones, rule.init(ones))
  table = np.zeros_like(left["embedding"]["embedding"])
  table[new] = 0.125
  np.testing.assert_array_equal(left["embedding"]["embedding"], table)
  params = experiment.init(jax.random.key(0))
  gradient = jax.value_and_grad(found.frozen(experiment).loss, has_aux=True)
  _, grads = sharding.jit(gradient)(params, (), batch, jax.random.key(1))
  assert not any(np.any(x) for x in jax.tree.leaves(grads["body"]))
  rows = np.any(grads["embedding"]["embedding"], axis=1)
  assert np.flatnonzero(rows).tolist() == [new]
  assert np.any(grads["head"]["kernel"])
  D, whole = table.shape[1], shares(model, **fields)
  frozen = whole.count_frozen(experiment)
  assert frozen == found.count_frozen(experiment) + D


def test_a_run_in_which_nothing_learns_is_refused(model):
  config, experiment = model
  config = config.copy_and_resolve_references()
  config.train.start_from, config.train.freeze = "runs/lm", "taken"
  every = [*TAKEN, "layer 2 forward", "forward head"]
  record = RECORD._replace(taken=dict.fromkeys(every, ""))
  named = r"freeze='taken': runs/lm has all parts of this model, so none learns"
  with pytest.raises(UserError, match=named):
    optimizers.shares(experiment, config, record)
  some = record._replace(new_rows={"symbols": [5]})
  assert optimizers.shares(experiment, config, some)


def test_without_these_fields_nothing_is_scaled(model):
  assert shares(model) is None


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    (
      {"train.freeze": "layer3"},
      "the model has no layer3; it has embedding, head,",
    ),
    ({"train.freeze": "layers,embedding,head"}, "no part is left that learns"),
    (
      {"train.freeze": "taken"},
      "nothing is taken from another run; set train.start_from",
    ),
    (
      {"train.freeze": "layer 1"},
      "must be embedding, letters, layers, layer1,",
    ),
  ],
)
def test_mistakes_are_refused_in_a_line(model, fields, words):
  with pytest.raises(UserError) as error:
    shares(model, None, **fields)
  assert words in str(error.value)
  assert "config.train." in str(error.value)
