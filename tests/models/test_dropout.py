"""Dropout against what it promises of shares, sizes and keys."""

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.models.layers import Dropout, keep_mask

SHAPES = ((3, 64, 257), (50_001,), (200, 1, 250), (64, 800))


def test_the_share_is_kept():
  for share, shape in [(0.703, shape) for shape in SHAPES] + [
    (share, SHAPES[0]) for share in (0.5, 0.01)
  ]:
    mask = np.asarray(keep_mask(jax.random.key(0), share, shape))
    assert mask.shape == shape and mask.dtype == bool
    # Five standard deviations of a binomial share.
    spread = 5 * (share * (1 - share) / mask.size) ** 0.5
    assert abs(mask.mean() - share) < spread, (share, shape)
  for share in (1e-9, 1 - 1e-9):  # They do not wrap round.
    mask = np.asarray(keep_mask(jax.random.key(0), share, (100, 100)))
    assert abs(mask.mean() - share) < 1e-3


def test_rows_do_not_depend_on_how_many_alive_are():
  x = jnp.ones((6, 5, 9))
  drop = lambda x: Dropout(0.3).apply(
    {}, x, deterministic=False, rng=jax.random.key(5)
  )
  np.testing.assert_array_equal(drop(x)[:4], drop(x[:4]))
  mask = keep_mask(jax.random.key(5), 0.7, x.shape)
  np.testing.assert_array_equal(drop(x) != 0, mask)


def test_numbers_of_one_draw_are_independent():
  mask = np.asarray(keep_mask(jax.random.key(1), 0.5, (4000, 32))).astype(float)
  correlation = np.corrcoef(mask.T) - np.eye(32)
  assert np.abs(correlation).max() < 5 / 4000**0.5
  other = np.asarray(keep_mask(jax.random.key(2), 0.5, (4000, 32)))
  assert 0.48 < np.mean(mask == other) < 0.52


def test_what_is_left_is_scaled_and_so_is_its_gradient():
  x = jax.random.normal(jax.random.key(0), (40, 30))
  module = Dropout(0.3)

  def left(x):
    return module.apply({}, x, deterministic=False, rng=jax.random.key(4))

  y, back = jax.vjp(left, x)
  alive = np.asarray(y != 0)
  np.testing.assert_allclose(y, np.where(alive, x / 0.7, 0), rtol=1e-6)
  (dx,) = back(jnp.ones_like(y))
  np.testing.assert_allclose(dx, np.where(alive, 1 / 0.7, 0), rtol=1e-6)
  assert 0.6 < alive.mean() < 0.8


def test_evaluation_and_rate_zero_need_no_key():
  x = jnp.arange(12.0).reshape(3, 4)
  assert Dropout(0.0).apply({}, x, deterministic=False) is x
  assert Dropout(0.5).apply({}, x, deterministic=True) is x


def test_an_axis_shares_its_draws():
  x = jnp.ones((8, 9, 10))
  for axis in range(3):
    y = Dropout(0.5, broadcast_dims=(axis,)).apply(
      {}, x, deterministic=False, rngs={"dropout": jax.random.key(3)}
    )
    first = np.take(y, [0], axis)
    np.testing.assert_array_equal(y, np.broadcast_to(first, y.shape))
    assert 0.2 < np.mean(first == 0) < 0.8
