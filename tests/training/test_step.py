"""The training step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqrnn.experiment import Experiment
from seqrnn.runtime import sharding
from seqrnn.training.step import make_start, make_step


def test_every_step_has_random_numbers_of_its_own():
  """They depend on the seed and on the number of the step alone."""

  def loss(params, carry, batch, key):
    weight = batch["weights"].sum()
    noise = 0 * weight if key is None else jax.random.uniform(key)
    return 0 * params + noise, (carry, {"loss": (noise * weight, weight)})

  unused = dict.fromkeys(("facts", "batches", "predict", "forbidden"))
  experiment = Experiment({}, lambda _: jnp.ones(()), loss, **unused)
  batch = {n: np.ones((4, 2), np.float32) for n in ("inputs", "weights")}
  mesh = sharding.mesh()
  start = make_start(experiment, optax.sgd, batch, mesh)
  step = make_step(experiment, optax.sgd, mesh)

  def losses(seed: int, first: int) -> list[float]:
    state, values = start(np.uint32(seed)), []
    number = jax.device_put(np.int32(first), state.step.sharding)
    state = state._replace(step=number)
    for _ in range(4):
      state, value = step(state, sharding.put(batch, 4, mesh), 0.1)
      values.append(float(value))
    return values

  whole = losses(0, 0)
  assert len({*whole}) == 4
  assert losses(0, 2)[:2] == whole[2:]
  assert not {*losses(1, 0)} & {*whole}
