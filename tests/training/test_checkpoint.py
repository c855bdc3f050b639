"""Checkpoints: the ones that remain, and that damage is noticed."""

import dataclasses
import math
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.errors import UserError
from seqrnn.runtime import files
from seqrnn.training import checkpoint
from seqrnn.training.checkpoint import Position, find_damage
from seqrnn.training.checkpoint_writer import Checkpoints


def tree(seed):
  a, b = jax.random.split(jax.random.key(seed))
  return {"w": jax.random.normal(a, (64, 65)), "b": jax.random.normal(b, (3,))}


def state(seed):
  return {"leaves": [jnp.int32(seed), tree(seed + 1)["w"]]}


def save_all(folder, losses, keep=2):
  """Saves a checkpoint for each loss, as training does; None: no evaluation."""
  best = Position()
  with Checkpoints(folder, keep) as checkpoints:
    for step, loss in enumerate(losses, 1):
      if loss is not None and loss < best.best:
        best = Position(best_step=step, best=loss)
      position = dataclasses.replace(best, step=step)
      checkpoints.save(tree(step), state(step), position)


def test_a_checkpoint_is_restored_to_the_bit(tmp_path):
  save_all(tmp_path, [1.0])
  assert find_damage(tmp_path / "1") is None
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  for name, saved in (("params", tree), ("state", state)):
    restored = checkpoint.restore(tmp_path / "1" / name, saved(0), place)
    assert jax.tree.structure(restored) == jax.tree.structure(saved(1))
    same = jax.tree.map(np.array_equal, restored, saved(1))
    assert all(jax.tree.leaves(same))
  position = Position(step=1, best_step=1, best=1.0)
  assert checkpoint.read_position(tmp_path / "1") == position


def test_the_latest_and_the_best_remain(tmp_path):
  save_all(tmp_path, [2.0, 1.0, math.inf, 1.5, None, 1.2])
  assert checkpoint.steps(tmp_path) == [2, 5, 6]
  assert checkpoint.select(tmp_path, None) == 2
  assert checkpoint.select(tmp_path, 5) == 5
  assert {path.name for path in tmp_path.iterdir()} == {"2", "5", "6"}
  for name in ("9" * 30, "\u0663", "07", "-1"):
    (tmp_path / name).mkdir()
  assert checkpoint.steps(tmp_path) == [2, 5, 6]
  with Checkpoints(tmp_path) as checkpoints:  # Another process resumes.
    checkpoints.delete_after(5)
    position = Position(step=7, best_step=2, best=1.0)
    checkpoints.save(tree(7), state(7), position)
  assert checkpoint.steps(tmp_path) == [2, 7]


def test_a_checkpoint_is_replaced_only_by_another_position(tmp_path):
  save_all(tmp_path, [1.0])
  mark = tmp_path / "1" / "mark"
  with Checkpoints(tmp_path) as checkpoints:
    mark.touch()
    position = Position(step=1, best_step=1, best=1.0)
    checkpoints.save(tree(1), state(1), position)
    assert mark.exists()
    evaluated = dataclasses.replace(position, best=0.5)
    checkpoints.save(tree(1), state(1), evaluated)
  assert not mark.exists()
  assert [path.name for path in tmp_path.iterdir()] == ["1"]
  assert find_damage(tmp_path / "1") is None


def test_a_killed_process_loses_no_checkpoint(tmp_path):
  """Neither one that it wrote, nor one that it was replacing."""
  save_all(tmp_path, [1.0])
  shutil.copytree(tmp_path / "1", tmp_path / "2.replaced")
  shutil.copytree(tmp_path / "1", tmp_path / "1.replaced")
  (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    assert checkpoint.steps(tmp_path) == [1, 2]
    position = Position(step=3, best_step=1, best=1.0)
    checkpoints.save(tree(3), state(3), position)
  assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "3"}


def test_a_failed_write_is_reported_by_the_next_call(tmp_path, monkeypatch):
  with Checkpoints(tmp_path) as checkpoints:

    def fail(*_):
      raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_sums", fail)
    checkpoints.save(tree(1), state(1), Position(step=1))
    with pytest.raises(UserError, match="cannot be written: .*No space left"):
      checkpoints.wait()
    monkeypatch.undo()
    assert checkpoint.steps(tmp_path) == []


def flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def halve(path):
  os.truncate(path, path.stat().st_size // 2)


def link(path):
  path.rename(path.with_name("more"))
  path.symlink_to("more")


def grow(path):
  path.with_name("more").touch()


def test_what_cannot_be_restored_is_named(tmp_path):
  save_all(tmp_path, [1.0])
  params, like = tmp_path / "1" / "params", tree(1)
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  other = "does not hold the model of config.json"
  for changed, expected in (
    ({**like, "c": like["b"]}, f"{other}: it lacks the array c"),
    ({**like, "b": like["w"]}, f"{other}: b has shape [3], must be [64, 65]"),
  ):
    with pytest.raises(UserError) as error:
      checkpoint.restore(params, changed, place)
    assert str(error.value) == f"{params}: {expected}"
  [data, *_] = (path for path in params.rglob("d/*") if path.is_file())
  data.unlink()
  with pytest.raises(UserError, match=f": cannot be read: .*{data.name}"):
    checkpoint.restore(params, like, place)


def test_damage_to_any_file_is_noticed_and_the_file_is_named(tmp_path):
  save_all(tmp_path, [1.0])
  folder, unnoticed = tmp_path / "1", []
  paths = [path for path in folder.rglob("*/*") if path.is_file()]
  assert len(paths) > 7
  for path in (*paths, folder / files.SUMS):
    content = path.read_bytes()
    changes = [flip, halve, Path.unlink] if content else []
    if path.name != files.SUMS:
      changes += [link, grow]
    for damage in changes:
      damage(path)
      reason = find_damage(folder)
      # A changed list of checksums names the file of the changed line; a new
      # file may come first.
      name = "" if path.name == files.SUMS else os.path.relpath(path, folder)
      if reason is None or not (name in reason or "/more" in reason):
        unnoticed.append((damage.__name__, name, reason))
      path.unlink(missing_ok=True)
      path.with_name("more").unlink(missing_ok=True)
      path.write_bytes(content)
  assert not unnoticed
  assert find_damage(folder) is None
  paths[0].unlink()
  name = os.path.relpath(paths[0], folder)
  assert find_damage(folder) == f"{name} is missing"


def test_the_newest_intact_one_replaces_a_damaged_best(tmp_path, capsys):
  save_all(tmp_path, [1.0, 2.0, 3.0, 4.0], keep=3)
  for step in "14":
    flip(tmp_path / step / "position" / "metadata")
  assert checkpoint.select(tmp_path, None) == 3
  reason = "position/metadata differs from its checksum in sha256"
  assert capsys.readouterr().err == (
    f"checkpoint 4 is damaged: {reason}\n"
    "checkpoint 3 is used instead\n"
    f"checkpoint 1 is damaged: {reason}\n"
    f"checkpoint 4 is damaged: {reason}\n"
    "checkpoint 3 is used instead\n"
  )
  with pytest.raises(UserError, match=f"step=4: {reason}; .* 1, 2, 3, 4"):
    checkpoint.select(tmp_path, 4)
