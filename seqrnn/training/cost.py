"""The cost of a training step: estimated from shapes, or measured."""

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from seqrnn.config import Config
from seqrnn.experiment import Batch, Experiment
from seqrnn.models.anatomy import Model
from seqrnn.runtime import sharding
from seqrnn.training import optimizers
from seqrnn.training.step import Optimizer, make_state, make_step

MEASURED_STEPS = 3


class Cost(NamedTuple):
  """What a training step takes.

  Attributes:
    state: bytes of all that is kept from step to step, on each device.
    passing: bytes that come and go within a step, on each device.
    seconds: a step.
  """

  state: int
  passing: int
  seconds: float


def _bytes(tree: Any) -> int:
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _start(
  experiment: Experiment, config: Config, batch: Batch, mesh: Mesh
) -> tuple[Optimizer, Callable[[], Any]]:
  """The optimizer, and what makes the state before the first step."""

  def optimizer(rate):  # As fast as with any schedule.
    return optimizers.optimizer(config, optax.constant_schedule(rate))

  average = optimizers.average_weight(config)
  args = experiment, optimizer, config.seed, batch, mesh, average
  return optimizer, partial(make_state, *args)


def estimate(
  model: Model, experiment: Experiment, config: Config, batch: Batch, mesh: Mesh
) -> Cost:
  """What a step should take, by counting arrays and products.

  The backward pass has two products for each one of the forward pass; all else
  takes no time here. A product of the first layer's size is timed.
  """
  B, T, *_ = model.inputs
  _, N, V = model.outputs
  carry = jax.tree.leaves(jax.eval_shape(lambda: model.cell.initial_carry(1)))
  # Of a gate: its input, its value and its gradient. Of a logit: itself, its
  # probability and its gradient.
  arrays = 3 * model.cell.gate_count + len(carry)
  units = sum(layer.units for layer in model.layers)
  heads = [
    own["kernel"].size
    for name, own in model.params.items()
    if name.endswith("head")
  ] or [model.width * V]  # Tied, or of another name.
  kept = B * T * arrays * units + 3 * B * N * V * len(heads)
  products = sum(layer.products for layer in model.layers)
  operations = 6 * B * (T * products + N * sum(heads))
  _, start = _start(experiment, config, batch, mesh)
  H = model.layers[0].units if model.layers else model.width
  speed = mesh.size * _speed(sharding.padded_size(B, mesh) // mesh.size, H)
  return Cost(
    state=_bytes(jax.eval_shape(start)),
    passing=_bytes(model.params) + 4 * kept // mesh.size,
    seconds=operations / speed,
  )


def _speed(rows: int, H: int) -> float:
  """Operations a second of products [rows, H] @ [H, H] on one device."""
  once = 2 * rows * H * H
  count = 1 + 2**28 // once
  h_BH, R_HH = jnp.zeros((rows, H)), jnp.zeros((H, H))
  repeat = jax.jit(
    lambda h, R: jax.lax.fori_loop(0, count, lambda _, h: h @ R, h)
  )
  repeat(h_BH, R_HH).block_until_ready()
  begin = time.perf_counter()
  repeat(h_BH, R_HH).block_until_ready()
  return count * once / (time.perf_counter() - begin)


def measure(
  experiment: Experiment, config: Config, batch: Batch, mesh: Mesh
) -> tuple[Cost, float]:
  """What a step takes, and how many seconds compiling it.

  The bytes within a step are those that XLA sets aside for it.
  """
  optimizer, start = _start(experiment, config, batch, mesh)
  step: Any = make_step(experiment, optimizer, mesh, config.train.ema or 1.0)
  state = start()
  size = _bytes(state)
  rows = sharding.put(batch, len(batch["inputs"]), mesh)
  times = [time.perf_counter()]
  rate = config.optimizer.learning_rate
  compiled = step.lower(state, rows, rate).compile()
  for _ in range(1 + MEASURED_STEPS):  # The first one warms up.
    times.append(time.perf_counter())
    state, loss = compiled(state, rows, rate)
    loss.block_until_ready()
  times.append(time.perf_counter())
  compiling, _, *seconds = (b - a for a, b in itertools.pairwise(times))
  passing = compiled.memory_analysis().temp_size_in_bytes
  return Cost(size, passing, statistics.median(seconds)), compiling
