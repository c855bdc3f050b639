"""Faults of jaxlib that once computed wrong results here, or crashed.

Versions that have them are excluded in pyproject.toml, notes and all. Rerun at
every version bump.
"""

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
    matrix = np.eye(3, dtype=x.dtype)
    norm = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))
    last = float(np.asarray(norm(x))[-1])
  assert last == (size - 1) ** 2  # A power of 2, exact in either precision.
