"""Functions are traced for the devices of a mesh, not of the process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from seqrnn.experiment import Decoder
from seqrnn.models import arrays
from seqrnn.runtime import sharding
from seqrnn.sampling import sampler
from seqrnn.scoring import evaluation

B, V = 3, 9
ABSENT = AbstractMesh(
  (3,),
  ("data",),
  axis_types=(AxisType.Auto,),
  abstract_device=AbstractDevice("none", num_cores=None, platform="tpu"),
)
INPUTS = np.ones((B, 5), np.int32)
BATCH = {"inputs": INPUTS, "targets": INPUTS}


@pytest.fixture
def seen():
  """Platform and number of devices, whenever the model is traced."""
  return []


@pytest.fixture
def model(seen):
  """A function params, carry, batch -> carry, logits, or totals."""

  def model(params, carry, batch):
    seen.append((arrays.platform(), arrays.device_count()))
    return carry, jax.nn.one_hot(batch["inputs"], V) * params

  return model


@pytest.fixture
def decoder(model):
  def step(params, carry, symbol_B):
    carry, logits_BV = model(params, carry, {"inputs": symbol_B})
    return carry + 1, logits_BV

  return Decoder(lambda rows: jnp.zeros((rows, 3)), step)


STATE = jnp.zeros((B, 3)), jnp.zeros(B, jnp.int32), ()


def totals_of(model):
  """As evaluation.totals, the sum of the outputs over rows and time."""

  def totals(params, carry, batch):
    carry, y_BTV = model(params, carry, batch)
    return carry, (jnp.sum(y_BTV, axis=(0, 1)), ())

  return totals


MAKERS = {
  "evaluation": lambda model, _: (
    evaluation.adder(totals_of(model), ABSENT)[1],
    ((), jnp.zeros((3, V)), BATCH),
  ),
  "drawer": lambda _, decoder: (
    sampler.drawer(decoder, mesh=ABSENT),
    ((STATE, jnp.zeros(B, bool)), np.uint32(0), ((1.0,), ()), 0, 5),
  ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_function_is_traced_for_devices_that_are_not_there(
  name, model, decoder, seen
):
  function, args = MAKERS[name](model, decoder)
  function.trace(jnp.ones(()), *args)
  # Each device evaluates its own rows, and knows of no other device.
  assert set(seen) == {("tpu", 1 if name == "evaluation" else 3)}


def test_devices_do_not_wait_for_each_other_in_an_evaluation(model):
  """Each sums its own rows, and the sums are added at the end."""
  mesh = sharding.mesh()
  rows = 2 * mesh.size
  batch = {"inputs": np.arange(5 * rows, dtype=np.int32).reshape(rows, 5) % V}
  zeros, add = evaluation.adder(totals_of(model), mesh)
  params = jnp.float32(2)
  sums = zeros(params, (), batch)
  compiled = add.lower(params, (), sums, batch).compile().as_text()
  assert "all-reduce" not in compiled and "all-gather" not in compiled
  for _ in range(2):
    _, sums, _ = add(params, (), sums, batch)
  value_V, _ = sharding.sum_devices(sums, mesh)
  counts_V = np.bincount(batch["inputs"].ravel(), minlength=V)
  np.testing.assert_array_equal(value_V, 2 * 2 * counts_V)
