"""Dropout against what it promises of shares, sizes and keys."""

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.models.layers import Dropout, keep_mask
from tests.models.test_cells import quick_jit


def drop(rate, x, key):
  return Dropout(rate).apply({}, x, deterministic=False, rng=key)


def test_the_share_is_kept():
  shapes = (3, 64, 257), (50_001,), (200, 1, 250)
  cases = [(0.703, shape) for shape in shapes]
  # The smallest and the largest share do not wrap round.
  cases += [(share, shapes[0]) for share in (0.5, 0.01, 1e-9, 1 - 1e-9)]
  draw = quick_jit(lambda key: [keep_mask(key, *case) for case in cases])
  for (share, shape), mask in zip(cases, draw(jax.random.key(0)), strict=True):
    assert mask.shape == shape and mask.dtype == bool
    # Five standard deviations of a binomial share.
    spread = 5 * (share * (1 - share) / mask.size) ** 0.5
    error = abs(np.mean(mask) - share)
    assert error < max(spread, 1e-3), (share, shape)


def test_numbers_of_one_draw_are_independent():
  keys = jax.random.split(jax.random.key(1), 2)
  draw = quick_jit(lambda keys: [keep_mask(k, 0.5, (4000, 32)) for k in keys])
  mask, other = map(np.float64, draw(keys))
  correlation = np.corrcoef(mask.T) - np.eye(32)
  assert np.abs(correlation).max() < 5 / 4000**0.5
  assert 0.48 < np.mean(mask == other) < 0.52


def test_rows_do_not_depend_on_how_many_alive_are():
  x = np.ones((6, 5, 9), np.float32)
  run = quick_jit(
    lambda key: (
      drop(0.3, x, key),
      drop(0.3, x[:4], key),
      keep_mask(key, 0.7, x.shape),
    )
  )
  whole, part, mask = map(np.asarray, run(jax.random.key(5)))
  np.testing.assert_array_equal(whole[:4], part)
  np.testing.assert_array_equal(whole != 0, mask)


def test_what_is_left_is_scaled_and_so_is_its_gradient():
  x = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)

  @quick_jit
  def run(x, key):
    y, back = jax.vjp(lambda x: drop(0.3, x, key), x)
    return y, back(jnp.ones_like(y))[0]

  y, dx = map(np.asarray, run(x, jax.random.key(4)))
  alive = y != 0
  np.testing.assert_allclose(y, np.where(alive, x / 0.7, 0), rtol=1e-6)
  np.testing.assert_allclose(dx, np.where(alive, 1 / 0.7, 0), rtol=1e-6)
  assert 0.6 < alive.mean() < 0.8
  # Evaluation and rate zero need no key.
  assert Dropout(0.0).apply({}, x, deterministic=False) is x
  assert Dropout(0.5).apply({}, x, deterministic=True) is x
