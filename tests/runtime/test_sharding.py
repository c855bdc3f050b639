"""Sums over the devices of a mesh."""

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.runtime import sharding
from seqrnn.scoring import evaluation
from seqrnn.training import setup

V = 9


def totals_of(params, carry, batch):
  """As evaluation.totals, the sum of the outputs over rows and time."""
  y_BTV = jax.nn.one_hot(batch["inputs"], V) * params
  return carry, (jnp.sum(y_BTV, axis=(0, 1)), ())


def test_devices_do_not_wait_for_each_other_in_an_evaluation():
  """Each sums its own rows, and the sums are added at the end."""
  mesh = sharding.mesh()
  rows = 2 * mesh.size
  batch = {"inputs": np.arange(5 * rows, dtype=np.int32).reshape(rows, 5) % V}
  zeros, add = evaluation.adder(totals_of, mesh)
  params = jnp.float32(2)
  sums = zeros(params, (), batch)
  compiled = add.lower(params, (), sums, batch).compile().as_text()
  assert "all-reduce" not in compiled and "all-gather" not in compiled
  for _ in range(2):
    _, sums, _ = add(params, (), sums, batch)
  value_V, _ = sharding.own_rows(sums).sum(axis=0)
  counts_V = np.bincount(batch["inputs"].ravel(), minlength=V)
  np.testing.assert_array_equal(value_V, 2 * 2 * counts_V)


def test_a_block_without_jit_has_one_device_and_few_steps_and_it_alone():
  with jax.disable_jit():
    assert (sharding.mesh().size, setup.few()) == (1, 2)
  assert (sharding.mesh().size, setup.few()) == (4, None)
