"""Metrics of a split, summed over its batches."""

from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from seqrnn.data.windows import Batches
from seqrnn.experiment import Carry, Experiment, Params, Totals
from seqrnn.inference import metrics
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

# Pending batches; more would take memory and no less time.
_PENDING = 8


def evaluator(
  experiment: Experiment, mesh: Mesh
) -> Callable[..., dict[str, float] | None]:
  """A function params, batches, stop -> metrics, compiled once per experiment.

  The function calls `stop` before each batch; when the result is true, it
  returns None.
  """
  accumulate = accumulator(loss_totals(experiment.loss), experiment, mesh)

  def evaluate(
    params: Params, batches: Batches, stop: Callable[[], Any] = lambda: False
  ) -> dict[str, float] | None:
    sums = accumulate(params, batches, stop)
    return None if sums is None else metrics.finish(sums, experiment.in_bits)

  return evaluate


@lru_cache(CACHED_FUNCTIONS)
def loss_totals(
  loss: Callable[..., Any],
) -> Callable[..., tuple[Carry, Totals]]:
  """A loss as `accumulator` takes it: params, carry, batch -> carry, totals."""
  return lambda params, carry, batch: loss(params, carry, batch, None)[1]


@lru_cache(CACHED_FUNCTIONS)
def adder(
  totals: Callable[..., Any], mesh: Mesh
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Jitted functions that start and extend the sums of batches.

  They map params, carry, batch to sums that are zero, and params, carry, sums,
  batch to carry, sums. Each device has sums of its own rows, because a sum over
  all devices would make them wait for each other at each batch.
  """
  by_rows = sharding.by_rows(mesh)

  @partial(sharding.jit, mesh=mesh, out_shardings=by_rows)
  def zeros(params, carry, batch):
    sums = metrics.zeros(jax.eval_shape(totals, params, carry, batch)[1])
    return jax.tree.map(lambda x: jnp.stack([x] * mesh.size), sums)

  @partial(sharding.jit, mesh=mesh, out_shardings=by_rows)
  @partial(sharding.each_device, mesh=mesh)
  def add(params, carry, sums, batch):
    carry, found = totals(params, carry, batch)
    own = jax.tree.map(lambda x: x[0], sums)
    new = metrics.add(own, found)
    return carry, jax.tree.map(lambda x: x[None], new)

  return zeros, add


def accumulator(
  totals: Callable[..., tuple[Carry, Any]], experiment: Experiment, mesh: Mesh
) -> Callable[..., Any]:
  """A function params, batches, stop -> sums as metrics.add returns them.

  Args:
    totals: params, carry, batch -> carry, the arrays to sum.
    experiment: the task.
    mesh: of the devices.
  """
  zeros, add = adder(totals, mesh)
  start = sharding.carry_init(experiment.carry, mesh)

  def accumulate(
    params: Params, batches: Batches, stop: Callable[[], Any] = lambda: False
  ) -> Any:
    B = batches.batch_size
    sums = None
    carry = ()
    pending = deque()
    for rows in batches.rows(*sharding.local_rows(B, mesh)):
      if stop():
        return None
      batch = sharding.put(rows, B, mesh)
      if sums is None:
        carry = start(batch["inputs"].shape[0])
        sums = zeros(params, carry, batch)
      carry, sums = add(params, carry, sums, batch)
      pending.append(sums)
      if len(pending) > _PENDING:
        jax.block_until_ready(pending.popleft())
    assert sums is not None, "a split has at least one batch"
    return sharding.sum_devices(sums, mesh)

  return accumulate
