"""Checkpoints: what is kept, and that damage is noticed."""

import contextlib
import math
import os
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.errors import MachineError, UserError
from seqrnn.runtime.checkpoint import (
  Damaged,
  entries,
  read_position,
  restore,
  select,
  steps,
  verify,
)
from seqrnn.runtime.checkpoint_writer import Checkpoints


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
  """Saves a checkpoint for each loss, as training does; None: no evaluation."""
  best, lowest = 0, math.inf
  with Checkpoints(folder, keep) as checkpoints:
    for step, loss in enumerate(losses, 1):
      if loss is not None and loss < lowest:
        best, lowest = step, loss
      position = {"best_step": best, "best": lowest}
      checkpoints.save(step, tree(step), rest(step), position, best)


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
  save_all(tmp_path, [1.0])
  verify(tmp_path / "1")
  params, others = restore(tmp_path / "1", shapes(tree(0)), shapes(rest(0)))
  assert_equal(params, tree(1))
  assert_equal(others, rest(1))
  assert read_position(tmp_path / "1") == {"best_step": 1, "best": 1.0}
  alone, nothing = restore(tmp_path / "1", shapes(tree(0)))
  assert_equal(alone, tree(1))
  assert nothing is None


def test_the_latest_and_the_best_are_kept(tmp_path):
  save_all(tmp_path, [2.0, 1.0, math.inf, 1.5, None, 1.2])
  assert steps(tmp_path) == [2, 5, 6]
  assert select(tmp_path, None) == 2
  assert select(tmp_path, 5) == 5
  assert {path.name for path in tmp_path.iterdir()} == {"2", "5", "6"}


def test_a_checkpoint_is_written_again_only_where_its_position_differs(
  tmp_path,
):
  save_all(tmp_path, [1.0])
  mark = tmp_path / "1" / "mark"
  with Checkpoints(tmp_path) as checkpoints:
    mark.touch()
    checkpoints.save(1, tree(1), rest(1), {"best_step": 1, "best": 1.0}, 1)
    assert mark.exists()
    checkpoints.save(1, tree(1), rest(1), {"best_step": 1, "best": 0.5}, 1)
  assert not mark.exists()
  verify(tmp_path / "1")


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
  save_all(tmp_path, [1.0])
  usage = shutil.disk_usage(tmp_path)._replace(free=510_000)
  with Checkpoints(tmp_path) as checkpoints:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="no room for a checkpoint: 0.5 MB are"):
      checkpoints.save(2, tree(2), rest(2), {}, 2)
    monkeypatch.undo()
    assert steps(tmp_path) == [1]
    checkpoints.save(2, tree(2), rest(2), {}, 2)
  assert steps(tmp_path) == [2]


def test_what_cannot_be_written_is_told_by_the_next_call(tmp_path, monkeypatch):
  with Checkpoints(tmp_path) as checkpoints:

    def fail(*_):
      raise OSError(28, "No space left on device")

    monkeypatch.setattr("seqrnn.runtime.checkpoint_writer.checksums", fail)
    checkpoints.save(1, tree(1), rest(1), {}, 1)
    with pytest.raises(UserError, match="cannot be written: .*No space left"):
      checkpoints.wait()
    monkeypatch.undo()
    assert steps(tmp_path) == []


def test_what_a_killed_process_left_is_told_and_removed(tmp_path, capsys):
  save_all(tmp_path, [1.0])
  (tmp_path / "unfinished-2-0123abcd").mkdir()
  (tmp_path / "unfinished-2-0123abcd.orbax-checkpoint-tmp").mkdir()
  (tmp_path / "unfinished-thesis").mkdir()
  with Checkpoints(tmp_path):
    pass
  assert steps(tmp_path) == [1]
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {"1", "unfinished-thesis"}
  assert capsys.readouterr().err.count("removed, it was not finished") == 2


def flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def halve(path):
  os.truncate(path, path.stat().st_size // 2)


def link(path):
  path.rename(path.parent.parent / "elsewhere")
  path.symlink_to(path.parent.parent / "elsewhere")


def grow(path):
  path.with_name("more").touch()


@pytest.mark.parametrize("damage", [flip, halve, Path.unlink, link, grow])
def test_no_damage_to_any_file_goes_unnoticed(tmp_path, damage):
  save_all(tmp_path / "good", [1.0])
  names = [name for name, _ in entries(tmp_path / "good" / "1")]
  assert len(names) > 8
  for number, name in enumerate(names):
    folder = tmp_path / str(number)
    shutil.copytree(tmp_path / "good" / "1", folder)
    if (folder / name).stat().st_size:
      damage(folder / name)
      with pytest.raises(Damaged):
        verify(folder)


def test_an_empty_folder_is_no_checkpoint(tmp_path):
  (tmp_path / "1").mkdir()
  with pytest.raises(Damaged, match="manifest.json is missing"):
    verify(tmp_path / "1")


def test_the_newest_intact_one_stands_in_for_the_best(tmp_path, capsys):
  save_all(tmp_path, [1.0, 2.0, 3.0, 4.0], keep=3)
  flip(tmp_path / "1" / "position" / "metadata")
  flip(tmp_path / "4" / "position" / "metadata")
  assert select(tmp_path, None) == 3
  metadata = os.path.join("position", "metadata")
  assert capsys.readouterr().err == (
    f"checkpoint 4 is damaged: {metadata} differs from its checksum\n"
    "checkpoint 3 is used instead\n"
    f"checkpoint 1, the best, is damaged: {metadata} differs from its"
    " checksum\n"
    "checkpoint 3 is used instead\n"
  )
  with pytest.raises(UserError, match="is damaged, .* at the steps 1, 2, 3, 4"):
    select(tmp_path, 4)
  for step in "123":
    shutil.rmtree(tmp_path / step)
  with pytest.raises(
    UserError, match="no checkpoint is intact, checkpoint 4 is damaged"
  ):
    select(tmp_path, None)


@pytest.mark.parametrize("name", ["a[b]c", "a\\b", "a*b", "a?b"])
def test_a_folder_that_orbax_would_not_find_again_is_refused(tmp_path, name):
  with pytest.raises(UserError, match="must have no backslash, "):
    Checkpoints(tmp_path / name)
  assert not list(tmp_path.iterdir())
  with Checkpoints(tmp_path / "a]" / "b[c" / "$x$"):
    pass


def test_writes_that_end_late_leave_nothing_in_a_removed_folder(tmp_path):
  directory = tmp_path / "run" / "checkpoints"
  late = directory / "unfinished-1-00000000.tmp" / "params" / "d"

  def check():
    raise MachineError("removed")

  checkpoints = Checkpoints(directory, check=check)
  shutil.rmtree(tmp_path / "run")

  # As tensorstore does, whose other writes go on after one has failed.
  def write():
    with contextlib.suppress(FileNotFoundError):  # Removed while it is made.
      late.mkdir(parents=True)

  writer = threading.Timer(0.1, write)
  writer.start()
  with pytest.raises(MachineError, match="removed"):
    checkpoints._check_owner(directory / "unfinished-1-00000000")
  writer.join()
  assert not (tmp_path / "run").exists()
