"""Checkpoints: what is kept, and that damage is noticed."""

import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.checkpoint import Checkpoints, checksums
from seqrnn.errors import UserError


def tree(seed):
  a, b = jax.random.split(jax.random.key(seed))
  return {"w": jax.random.normal(a, (64, 65)), "b": jax.random.normal(b, (3,))}


def shapes(value):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), value
  )


def rest(seed):
  return {"leaves": [jnp.int32(seed), tree(seed + 1)["w"]]}


def save_all(folder, losses, keep=2):
  checkpoints = Checkpoints(folder, keep)
  for step, loss in enumerate(losses, 1):
    checkpoints.save(step, tree(step), rest(step), {"step": step}, loss)
    checkpoints.wait()
  return checkpoints


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
  checkpoints = save_all(tmp_path, [1.0])
  params, others, position = checkpoints.restore(
    1, shapes(tree(0)), shapes(rest(0))
  )
  assert checksums(params) == checksums(tree(1))
  assert checksums(others) == checksums(rest(1))
  assert position == {"step": 1}
  alone, nothing, _ = checkpoints.restore(1, shapes(tree(0)))
  assert checksums(alone) == checksums(tree(1)) and nothing is None
  checkpoints.close()


def test_the_latest_and_the_best_are_kept(tmp_path):
  losses = [2.0, 1.0, math.nan, 1.5, None, 1.2]
  checkpoints = save_all(tmp_path, losses)
  assert checkpoints.steps() == [2, 5, 6]
  assert checkpoints.best() == 2
  checkpoints.close()


def test_a_nan_never_becomes_the_best(tmp_path):
  checkpoints = save_all(tmp_path, [math.nan, 3.0, math.nan], keep=1)
  assert checkpoints.best() == 2
  checkpoints.close()


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
  checkpoints = save_all(tmp_path, [1.0])
  usage = shutil.disk_usage(tmp_path)._replace(free=510_000)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
  with pytest.raises(UserError, match="no room for a checkpoint: 0.5 MB are"):
    checkpoints.save(2, tree(2), rest(2), {}, 0.5)
  monkeypatch.undo()
  assert checkpoints.steps() == [1]
  checkpoints.save(2, tree(2), rest(2), {}, 0.5)
  assert checkpoints.best() == 2
  checkpoints.close()


def test_checksums_see_one_bit():
  value = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
  other = value.copy()
  other.view(np.uint32)[3, 2] ^= 1
  assert checksums({"w": value}) != checksums({"w": other})
