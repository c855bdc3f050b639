"""Faults of jaxlib that once computed wrong results here, crashed or crawled.

Versions that have them are excluded in pyproject.toml, notes and all. Rerun at
every version bump.
"""

import math
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.mark.parametrize(("size", "double"), [(32_769, False), (16_385, True)])
def test_products_and_sums_under_vmap_are_right(size, double):
  """jax-ml/jax#39103: jaxlib 0.10.2 is wrong by 0.2 per cent from this size."""
  with jax.enable_x64(double):
    x = np.zeros((size, 3), np.float64 if double else np.float32)
    x[:, 0] = np.arange(size)
    matrix = jnp.eye(3, dtype=x.dtype)

    @jax.jit
    @jax.vmap
    def norm(row):
      return jnp.sum((matrix @ row) ** 2)

    last = float(norm(x)[-1])
  assert last == (size - 1) ** 2  # A power of 2, exact in either precision.


def test_products_and_sums_of_seven_axes_run():
  """jax-ml/jax#40412, #39257: jaxlib 0.10.2 dies of it, so in a process."""
  code = """
import jax, numpy as np
rng = np.random.default_rng(0)
a, b = rng.normal(size=(2, 3, 1, 2, 2, 8, 8, 8)).astype(np.float32)
c = jax.block_until_ready(jax.jit(lambda a, b: (a * b).sum(3))(a, b))
np.testing.assert_allclose(c, (a * b).sum(3), 1e-5, 1e-5)
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr


def test_a_scan_that_stacks_its_outputs_is_linear():
  """jax-ml/jax#40101: jaxlib 0.11.1 rewrites the whole stack at each step.

  8 times the steps take 8 times as long where it is linear, 64 times where it
  is quadratic: there 160,000 steps took 12 seconds, not a millisecond.
  """

  def seconds(steps):
    @jax.jit
    def run(start):
      def step(carry, _):
        return carry * 3 + 1, carry  # Wraps around; no closed form.

      return jax.lax.scan(step, start, None, length=steps)

    jax.block_until_ready(run(jnp.int32(0)))  # Compiles.
    best = math.inf
    for start in range(1, 6):
      begin = time.perf_counter()
      jax.block_until_ready(run(jnp.int32(start)))
      best = min(best, time.perf_counter() - begin)
      if best > 0.5:  # It is the fault: no need to suffer it five times.
        break
    return best

  # A floor of 5 ms, so that a busy machine's jitter is no failure.
  assert seconds(160_000) < 32 * max(seconds(20_000), 0.005)
