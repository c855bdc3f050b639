"""Figures of a split, summed over its batches."""

from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
from jax.sharding import Mesh

from seqrnn.data.windows import Batches
from seqrnn.experiment import Carry, Experiment, Params, Totals
from seqrnn.inference import metrics
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

# Batches under way. From 32 on, XLA makes the next one wait on a thread that
# CPU devices need to end those before: several of them would never end.
_AHEAD = 8


def evaluator(
  experiment: Experiment, mesh: Mesh
) -> Callable[..., dict[str, float] | None]:
  """A function params, batches -> figures, compiled once an experiment.

  Its third argument is asked before each batch: where it says true, the
  evaluation ends at once and gives None.
  """
  add_up = accumulator(_totals(experiment.loss), experiment, mesh)

  def evaluate(
    params: Params, batches: Batches, stop: Callable[[], Any] = lambda: False
  ) -> dict[str, float] | None:
    sums = add_up(params, batches, stop)
    return None if sums is None else metrics.finish(sums, experiment.in_bits)

  return evaluate


@lru_cache(CACHED_FUNCTIONS)
def _totals(
  loss: Callable[..., Any],
) -> Callable[..., tuple[Carry, Totals]]:
  """What `summed` takes, of an experiment's loss."""
  return lambda params, carry, batch: loss(params, carry, batch, None)[1]


@lru_cache(CACHED_FUNCTIONS)
def _adder(
  totals: Callable[..., Any], mesh: Mesh
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Jitted functions params, carry, batch -> sums of nothing, and `add`.

  That is params, carry, sums, batch -> carry, sums.
  """
  everywhere, batched = sharding.replicated(mesh), sharding.by_rows(mesh)

  @partial(jax.jit, out_shardings=everywhere)
  def zeros(params, carry, batch):
    return metrics.zeros(jax.eval_shape(totals, params, carry, batch)[1])

  @partial(jax.jit, out_shardings=(batched, everywhere))
  @partial(sharding.traced_for, mesh)
  def add(params, carry, sums, batch):
    carry, found = totals(params, carry, batch)
    return carry, metrics.add(sums, found)

  return zeros, add


def accumulator(
  totals: Callable[..., tuple[Carry, Any]], experiment: Experiment, mesh: Mesh
) -> Callable[..., Any]:
  """A function params, batches, stop -> sums as metrics.add makes them.

  Args:
    totals: params, carry, batch -> carry, what is summed.
    experiment: the task.
    mesh: of the devices.
  """
  zeros, add = _adder(totals, mesh)
  start = sharding.carry_init(experiment.carry, mesh)

  def add_up(
    params: Params, batches: Batches, stop: Callable[[], Any] = lambda: False
  ) -> Any:
    B = batches.batch_size
    sums = None
    carry = ()
    under_way = deque()
    for rows in batches.rows(*sharding.local_rows(B, mesh)):
      if stop():
        return None
      batch = sharding.put(rows, B, mesh)
      if sums is None:
        carry = start(batch["inputs"].shape[0])
        sums = zeros(params, carry, batch)
      carry, sums = add(params, carry, sums, batch)
      under_way.append(sums)
      if len(under_way) > _AHEAD:
        jax.block_until_ready(under_way.popleft())
    assert sums is not None, "a split has at least one batch"
    return sums

  return add_up
