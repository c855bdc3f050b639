"""The cost of a training step: estimated from shapes, or measured."""

import itertools
import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from seqrnn.experiment import Batch, Experiment
from seqrnn.models import network
from seqrnn.models.anatomy import Model
from seqrnn.models.products import Products
from seqrnn.runtime import sharding
from seqrnn.settings.config import Config
from seqrnn.training import optimizers
from seqrnn.training.step import (
  Optimizer,
  make_start,
  make_step,
  state_shapes,
)

MEASURED_STEPS = 3


class Cost(NamedTuple):
  """The memory and the time of a training step.

  Attributes:
    state: bytes of the training state, on each device.
    temporary: bytes of the arrays that live only within a step, on each device.
    seconds: the time of a step.
  """

  state: int
  temporary: int
  seconds: float


def _bytes(tree: Any) -> int:
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _initial(
  experiment: Experiment, config: Config, batch: Batch, mesh: Mesh
) -> tuple[Optimizer, Any]:
  """Returns the optimizer, and a function that makes the initial state."""

  def optimizer(rate):  # The schedule does not change the time of a step.
    return optimizers.optimizer(config, optax.constant_schedule(rate))

  average = optimizers.average_weight(config)
  return optimizer, make_start(experiment, optimizer, batch, mesh, average)


def estimate(
  model: Model, experiment: Experiment, config: Config, batch: Batch, mesh: Mesh
) -> Cost:
  """Estimates a step's cost from the sizes of its arrays and matrix products.

  The backward pass has two products for each product of the forward pass.
  Other operations count as free. The speed is that of a product of the first
  layer's size, which is timed.
  """
  B, T, *_ = model.inputs
  _, N, V = model.outputs
  carry = jax.tree.leaves(jax.eval_shape(lambda: model.cell.initial_carry(1)))
  # A gate has an input, a value and a gradient; a logit has itself, its
  # probability and its gradient.
  arrays = 3 * model.cell.gate_count + len(carry)
  units = sum(layer.units for layer in model.layers)
  heads = [
    own["kernel"].size
    for name, own in model.params.items()
    if name.endswith("head")
  ] or [model.width * V]  # The head is tied, or has another name.
  kept = B * T * arrays * units + 3 * B * N * V * len(heads)
  products = sum(layer.products for layer in model.layers)
  operations = 6 * B * (T * products + N * sum(heads))
  _, start = _initial(experiment, config, batch, mesh)
  H = model.layers[0].units if model.layers else model.width
  rows = sharding.padded_size(B, mesh) // mesh.size
  speed = mesh.size * _speed(rows, H, network.products(config.model))
  return Cost(
    state=_bytes(state_shapes(start, mesh)),
    temporary=_bytes(model.params) + 4 * kept // mesh.size,
    seconds=operations / speed,
  )


def _speed(rows: int, H: int, products: Products) -> float:
  """Returns operations a second of products [rows, H] @ [H, H] on a device."""
  once = 2 * rows * H * H
  count = 1 + 2**28 // once
  h_BH, R_HH = jnp.zeros((rows, H)), jnp.zeros((H, H))
  repeat = sharding.jit(
    lambda h, R: jax.lax.fori_loop(
      0, count, lambda _, h: products.product(h, R), h
    )
  )
  repeat(h_BH, R_HH).block_until_ready()
  begin = time.perf_counter()
  repeat(h_BH, R_HH).block_until_ready()
  return count * once / (time.perf_counter() - begin)


def measure(
  experiment: Experiment, config: Config, batch: Batch, mesh: Mesh
) -> tuple[Cost, float]:
  """Measures a step's cost, and the seconds of its compilation.

  `temporary` is the memory that XLA allocates for the compiled step.
  """
  optimizer, start = _initial(experiment, config, batch, mesh)
  step: Any = make_step(experiment, optimizer, mesh, config.train.ema or 1.0)
  state = start(np.uint32(config.seed))
  size = _bytes(state)
  rows = sharding.put(batch, len(batch["inputs"]), mesh)
  times = [time.perf_counter()]
  rate = config.optimizer.learning_rate
  compiled = step.lower(state, rows, rate).compile()
  for _ in range(1 + MEASURED_STEPS):  # The first step warms up.
    times.append(time.perf_counter())
    state, loss = compiled(state, rows, rate)
    loss.block_until_ready()
  times.append(time.perf_counter())
  compiling, _, *seconds = (b - a for a, b in itertools.pairwise(times))
  temporary = compiled.memory_analysis().temp_size_in_bytes
  return Cost(size, temporary, statistics.median(seconds)), compiling
