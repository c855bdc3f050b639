"""No other test has a program of these: none is written to the shared cache."""

import jax
import pytest

LEAST = "jax_persistent_cache_min_compile_time_secs"


@pytest.fixture(scope="package", autouse=True)
def unwritten():
  before = getattr(jax.config, LEAST)
  jax.config.update(LEAST, 3600)
  yield
  jax.config.update(LEAST, before)
