"""What only the CPU's compiler needs is traced for a CPU and nothing else."""

import inspect

import jax
import numpy as np

from seqrnn import experiments
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.models import cpu
from tests.conftest import FUSED, tiny
from tests.stablehlo import absent

SYMBOLS = {"symbols": Vocabulary("char", tuple("abcde"))}
FUNCTIONS = [
  name
  for name, function in inspect.getmembers(cpu, inspect.isfunction)
  if function.__module__ == cpu.__name__
]
B, T = 8, 64  # B * T rows are enough for a bias row in the head's kernel.
MODELS = {
  "tied": {"model.cell": "gru", "model.tied": True, "model.embedding_size": 8},
  "two products": {"model.cell": "mgu"},
  "towers": {
    "task": "gap_model",
    "model.heads": "all",
    "model.products": "bfloat16",
  },
}


def trace(tmp_path, fields):
  """The program of the loss and its gradients, as text."""
  fields = {**FUSED, "data.path": str(tmp_path), "data.window": T, **fields}
  experiment = experiments.build(tiny(tmp_path, fields), SYMBOLS)
  params = jax.eval_shape(experiment.init, jax.random.key(0))
  batch = {
    "inputs": np.ones((B, T), np.int32),
    "targets": np.ones((B, T), np.int32),
    "weights": np.ones((B, T), np.float32),
    "reset": np.ones(B, bool),
    "heads": np.ones((B, 3), np.float32),
  }
  loss = lambda p: experiment.loss(p, (), batch, jax.random.key(1))[0]
  return str(jax.make_jaxpr(jax.value_and_grad(loss))(params))


def marks(program):
  """What a program has of the operations that only a CPU needs."""
  names = ("layout_constraint", "dynamic_update_slice")
  return [name for name in names if name in program]


def test_plain_models_call_none_of_it_and_others_all(tmp_path, monkeypatch):
  names = []

  def spy(name, function):
    def called(*args, **more):
      names.append(name)
      return function(*args, **more)

    return called

  for name in FUNCTIONS:
    monkeypatch.setattr(cpu, name, spy(name, getattr(cpu, name)))
  for fields in MODELS.values():
    trace(tmp_path, {**fields, "model.scan": "plain"})
  assert names == []
  for model, fields in MODELS.items():
    assert marks(trace(tmp_path, fields)), model
  assert set(names) == set(FUNCTIONS)


def test_other_platforms_get_plain_jax(tmp_path):
  """The platform is the mesh's, not the one of this process."""
  for model, fields in MODELS.items():
    with absent("tpu"):
      assert marks(trace(tmp_path, fields)) == [], model
