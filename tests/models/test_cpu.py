"""What only the CPU's compiler needs is traced for a CPU and nothing else."""

import inspect

import jax
import numpy as np
import optax
import pytest

from seqrnn import experiments
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.models import cpu
from seqrnn.runtime import sharding
from seqrnn.training.step import make_start, make_step, state_shapes
from tests.conftest import tiny
from tests.stablehlo import mesh_of

SYMBOLS = {"symbols": Vocabulary("char", tuple("abcde"))}
FUNCTIONS = [
  name
  for name, function in inspect.getmembers(cpu, inspect.isfunction)
  if function.__module__ == cpu.__name__
]
B, T = 8, 64  # B * T rows are enough for a bias row in the head's kernel.
ROUNDED = {"model.products": "bfloat16"}
MODELS = {
  "lstm": {"model.embedding_size": 4, "model.layers": 2, "model.dropout": 0.5},
  "gru": {"model.cell": "gru", "model.tied": True, "model.embedding_size": 8},
  "two products": {"model.cell": "mgu"},
  "parallel": {"model.cell": "min_gru"},
  "norm": {"model.cell": "layer_norm_lstm", **ROUNDED},
  "towers": {"task": "gap_model", "model.heads": "all", **ROUNDED},
}


def batch_of(B, T):
  return {
    "inputs": np.ones((B, T), np.int32),
    "targets": np.ones((B, T), np.int32),
    "weights": np.ones((B, T), np.float32),
    "reset": np.ones(B, bool),
    "heads": np.ones((B, 3), np.float32),
  }


def trace(tmp_path, fields):
  """The program of the loss and its gradients, as text."""
  fields = {"data.path": str(tmp_path), "data.window": T, **fields}
  experiment = experiments.build(tiny(tmp_path, fields), SYMBOLS)
  params = jax.eval_shape(experiment.init, jax.random.key(0))
  batch = batch_of(B, T)
  loss = lambda p: experiment.loss(p, (), batch, jax.random.key(1))[0]
  return str(jax.make_jaxpr(jax.value_and_grad(loss))(params))


@pytest.fixture
def called(monkeypatch):
  """The names of the functions of cpu.py that are called, in order."""
  names = []

  def spy(name, function):
    def called(*args, **more):
      names.append(name)
      return function(*args, **more)

    return called

  for name in FUNCTIONS:
    monkeypatch.setattr(cpu, name, spy(name, getattr(cpu, name)))
  return names


def test_plain_models_call_none_of_it_and_others_all(tmp_path, called):
  for fields in MODELS.values():
    trace(tmp_path, {**fields, "model.scan": "plain"})
  assert called == []
  for fields in MODELS.values():
    trace(tmp_path, fields)
  assert set(called) == set(FUNCTIONS)


def marks(program):
  """What a program has of the operations that only a CPU needs."""
  names = ("layout_constraint", "dynamic_update_slice")
  return [name for name in names if name in program]


def test_other_platforms_get_plain_jax(tmp_path):
  """The platform is the mesh's, not the one of this process."""
  for model, fields in MODELS.items():
    traces = {}
    for platform in ("cpu", "tpu"):
      with jax.sharding.use_abstract_mesh(mesh_of(platform)):
        traces[platform] = marks(trace(tmp_path, fields))
    assert traces["tpu"] == [], model
    assert model == "parallel" or traces["cpu"], model


def test_a_training_step_is_traced_for_its_mesh(tmp_path):
  experiment = experiments.build(
    tiny(tmp_path, {"data.path": str(tmp_path)}), SYMBOLS
  )
  batch = batch_of(4, 8)
  mesh = sharding.mesh()
  state = state_shapes(make_start(experiment, optax.sgd, batch, mesh), mesh)
  for platform in ("cpu", "tpu"):
    step = make_step(experiment, optax.sgd, mesh_of(platform))
    jaxpr = str(step.trace(state, batch, 0.1).jaxpr)
    assert bool(marks(jaxpr)) == (platform == "cpu")
