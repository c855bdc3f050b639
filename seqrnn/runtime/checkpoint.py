"""Checkpoints: everything a run is, with checksums, through Orbax.

A checkpoint is a folder named by its step:

  params/    what sampling needs          rest/   the other arrays
  position/  JSON: place in the data, best loss and the like
  manifest.json   size and SHA-256 of each of its files

A folder that is not what its manifest says is damaged, and nothing of it is
used: Orbax itself loads flipped bits without a word.

Anyone may have made a checkpoint, and its manifest with it. So Orbax writes,
but tensorstore reads: arrays of the model's shapes, whatever the files say.
"""

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tensorstore as ts

from seqrnn.errors import MachineError, UserError, visible
from seqrnn.runtime import files, processes, sharding

_MANIFEST = "manifest.json"
Params = Any  # A tree of arrays.
_TEMPORARY = "unfinished-"  # Before the step, in the name of a folder.
_SMALL_FILES = 500_000  # Bytes beside the arrays: metadata, block by block.
_SWEEPS = 10  # Of what is still written to a folder that was removed,
_MOMENT = 0.05  # and seconds between two of them.
_JSON_LIMIT = 2**23  # Bytes of a manifest or a position.
_ZARR = {  # How Orbax has its arrays described, beside shape, type and blocks.
  "compressor": {"id": "zstd", "level": 1},
  "dimension_separator": ".",
  "fill_value": None,
  "filters": None,
  "order": "C",
  "zarr_format": 2,
}
_COPIES = 4  # Of an array in a checkpoint, at most; Orbax makes two.
_OVERHEAD = 2**16  # Bytes of metadata for an array, at most.


class Damaged(Exception):
  """A checkpoint that is not what was saved."""


class Checkpoints:
  """Writes the checkpoints of a run: the latest `keep`, and the best one.

  A checkpoint is written under a temporary name, gets its manifest, takes its
  place, and only then an older one goes: whenever the process is killed, the
  last that was finished is there.
  """

  def __init__(
    self,
    directory: Path,
    keep: int = 1,
    check: Callable[[], None] = lambda: None,
  ):
    """Removes what a killed process did not finish.

    Args:
      directory: of the checkpoints.
      keep: how many of the latest stay.
      check: raises MachineError where another process writes there by now, or
        the folder was removed.

    Raises:
      UserError: Orbax would write to another folder than this one.
    """
    self.directory = directory.absolute()
    if re.search(r"\\|\[[^/]*\]", str(self.directory)):
      raise UserError(
        f"{self.directory}: must have no backslash and no [...] in its name,"
        " which Orbax takes for patterns; name another --workdir"
      )
    self._keep = keep
    self._check = check
    self._thread: threading.Thread | None = None
    self._failed: Exception | None = None
    if jax.process_index() == 0:
      self.directory.mkdir(parents=True, exist_ok=True)
      for folder in self.directory.glob(f"{_TEMPORARY}*"):
        print(f"{folder}: was not finished; removed", file=sys.stderr)
        shutil.rmtree(folder)

  @cached_property
  def _writer(self) -> Any:
    # It takes a second to import, and the first steps need none.
    import orbax.checkpoint as ocp

    return ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())

  def save(
    self,
    step: int,
    params: Params,
    rest: Any,
    position: dict[str, Any],
    best: int,
  ):
    """Writes in the background; nothing where it is there already.

    Args:
      step: names the checkpoint.
      params: the parameters.
      rest: the other arrays.
      position: what JSON can hold.
      best: the step whose checkpoint is never removed.

    Raises:
      MachineError: the disk has no room for it, the one before failed, or the
        folder is another's.
    """
    self.wait()
    self._check()
    folder = self.directory / str(step)
    # Where a signal put an evaluation off, its arrays are there already. The
    # first process puts them there; the others may be faster and not see them.
    there = folder.exists() and read_position(folder) == position
    if sharding.broadcast(there):
      return
    self._check_room(params, rest)
    from orbax.checkpoint import args

    # No other process, in whatever folder has this name, writes there, too.
    token = sharding.broadcast(secrets.randbits(32))
    temporary = self.directory / f"{_TEMPORARY}{step}-{token:08x}"
    self._writer.save(
      temporary,
      args=args.Composite(
        params=args.StandardSave(params),
        rest=args.StandardSave(rest),
        position=args.JsonSave(position),
      ),
    )
    self._thread = threading.Thread(
      target=self._finish, args=(temporary, folder, best)
    )
    self._thread.start()

  def _finish(self, temporary: Path, folder: Path, best: int):
    """Waits for the files of a checkpoint and puts it in its place."""
    try:
      try:
        self._writer.wait_until_finished()
      finally:
        self._check_place(temporary)
      if jax.process_index() == 0:
        manifest = temporary / _MANIFEST
        manifest.write_text(json.dumps(_contents(temporary), indent=1), "utf-8")
        _sync(manifest)
        self._check_place(temporary)
        if folder.exists():
          shutil.rmtree(folder)
        temporary.replace(folder)
        _sync(self.directory)
        for step in steps(self.directory)[: -self._keep]:
          if step != best:
            shutil.rmtree(self.directory / str(step))
    except Exception as error:  # tensorstore raises bare Exceptions
      self._failed = error

  def _check_place(self, temporary: Path):
    """Leaves nothing in a folder that was removed while Orbax wrote there.

    Raises:
      MachineError: it was, or is another's.
    """
    try:
      self._check()
    except MachineError:
      # Orbax raises at the first write that fails; the others go on.
      for _ in range(_SWEEPS):
        for path in self.directory.glob(f"{temporary.name}*"):
          shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # Orbax has made them anew, and they are empty.
          self.directory.rmdir()
          self.directory.parent.rmdir()
        time.sleep(_MOMENT)
      raise

  def _check_room(self, *trees: Any):
    """Orbax fails late and in a hundred lines where a disk is full."""
    need = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) + _SMALL_FILES
    free = shutil.disk_usage(self.directory).free
    if free < need:
      raise MachineError(
        f"{self.directory}: no room for a checkpoint: {need / 1e6:.1f} MB are"
        f" needed, {free / 1e6:.1f} MB are free; make room and go on"
      )

  def delete_after(self, step: int):
    """Removes those after a step; all processes call it."""
    self.wait()
    if jax.process_index() == 0:
      for later in steps(self.directory):
        if later > step:
          shutil.rmtree(self.directory / str(later))

  def wait(self):
    """Returns when all that was saved is on disk.

    Raises:
      MachineError: it could not be written.
      Exception: another process of this run was lost.
    """
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    if self._failed is not None:
      error, self._failed = self._failed, None
      if isinstance(error, MachineError) or processes.lost(error):
        raise error
      raise MachineError(
        f"{self.directory}: a checkpoint cannot be written: {_line(error)}"
      )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: type | None, *_):
    if kind is KeyboardInterrupt:  # A second Ctrl-C waits for nothing.
      return
    try:
      self.wait()
      if "_writer" in vars(self):
        self._writer.close()
    except Exception:  # Orbax tells once more what has failed.
      if kind is None:  # Or it would hide what ended the run.
        raise


def _sync(path: Path):
  """Returns when a file, or the names in a folder, are on the disk itself."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _line(error: Exception) -> str:
  text = str(error).strip() or type(error).__name__
  full = os.strerror(errno.ENOSPC)  # In the midst of many lines.
  return full if full in text else text.split("\n")[0][:200]


def entries(folder: Path) -> list[tuple[str, os.DirEntry]]:
  """All files in a folder and below, by relative name, sorted.

  Raises:
    Damaged: something is neither file nor folder: a link could lead anywhere.
  """
  found = []
  for entry in files.walk(folder):
    name = os.path.relpath(entry.path, folder)
    if not entry.is_file(follow_symlinks=False):
      raise Damaged(f"{name} is no file")
    found.append((name, entry))
  return sorted(found, key=lambda item: item[0])


def _contents(folder: Path) -> dict[str, list]:
  """Size and SHA-256 of every file but the manifest."""
  return {
    name: [entry.stat().st_size, _sha256(Path(entry.path))]
    for name, entry in entries(folder)
    if name != _MANIFEST
  }


def _sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def verify(folder: Path):
  """Compares a checkpoint with its manifest.

  Raises:
    Damaged: a file is missing, changed or not in the manifest.
  """
  manifest = folder / _MANIFEST
  try:
    found = {n: entry.stat().st_size for n, entry in entries(folder)}
    saved = files.read_json(manifest, _JSON_LIMIT)
  except FileNotFoundError:
    raise Damaged(f"{_MANIFEST} is missing") from None
  except UserError:
    raise Damaged(f"{_MANIFEST} is broken") from None
  if not isinstance(saved, dict):
    raise Damaged(f"{_MANIFEST} is broken")
  found.pop(_MANIFEST)
  for name in sorted(saved.keys() | found.keys()):
    if name not in found:
      raise Damaged(f"{name} is missing")
    if name not in saved:
      raise Damaged(f"{name} is not in {_MANIFEST}")
    size, sha256 = found[name], None
    if isinstance(saved[name], list) and saved[name][:1] == [size]:
      sha256 = _sha256(folder / name)  # Only then it is worth reading.
    if saved[name] != [size, sha256]:
      raise Damaged(f"{name} is not what was saved")


def steps(directory: Path) -> list[int]:
  """The steps of the checkpoints there are, oldest first."""
  if not directory.is_dir():
    return []
  names = [p.name for p in directory.iterdir() if p.is_dir()]
  # Not "07": it would be read as 7.
  found = (int(n) for n in names if n.isdecimal() and str(int(n)) == n)
  return sorted(step for step in found if step < 2**31)


def find_damage(folder: Path) -> str | None:
  """What is wrong with a checkpoint; None where it is intact."""
  try:
    verify(folder)
  except Damaged as reason:
    return visible(str(reason))
  return None


def newest(directory: Path) -> int:
  """The newest intact checkpoint; 0 where there is none at all.

  Damaged ones after it are told on stderr.

  Raises:
    MachineError: there are some and none is intact.
  """
  told = []
  for step in reversed(steps(directory)):
    reason = find_damage(directory / str(step))
    if reason is None:
      if told:
        print("\n".join(told), file=sys.stderr)
        print(f"checkpoint {step} is used instead", file=sys.stderr)
      return step
    told.append(f"checkpoint {step} is damaged: {reason}")
  if told:
    raise MachineError(
      f"{directory}: none is intact, {'; '.join(told)}; name another --workdir"
    )
  return 0


def restore(
  folder: Path, params: Params, rest: Any | None = None
) -> tuple[Params, Any]:
  """The arrays of a checkpoint: params, and rest, None unless asked for.

  Args:
    folder: of a checkpoint that `verify` found intact.
    params: the shapes expected, with shardings.
    rest: likewise; None: not read.

  Raises:
    UserError: the arrays are not of these shapes.
  """

  def read(shape, array):
    return jax.make_array_from_callback(
      shape.shape, shape.sharding, lambda index: array[index].read().result()
    )

  arrays = _arrays(folder / "params", params)
  others = None if rest is None else _arrays(folder / "rest", rest)
  try:
    params = jax.tree.map(read, params, arrays)
    if rest is not None:
      rest = jax.tree.map(read, rest, others)
  except Exception as error:  # tensorstore raises bare Exceptions
    raise UserError(f"{folder}: cannot be read: {_line(error)}") from None
  return params, rest


def check_shapes(folder: Path, params: Params):
  """Refuses a checkpoint that `restore` would refuse, and reads no array.

  Raises:
    UserError: its parameters have other shapes.
  """
  _arrays(folder / "params", params)


def _arrays(folder: Path, shapes: Any) -> Any:
  """The arrays in a part of a checkpoint, opened but not read.

  What reading them takes follows from the shapes alone: the files are not much
  larger than these, and no block is larger than its array.

  Raises:
    UserError: they are not there, or not of these shapes.
  """
  folder = folder.absolute()
  leaves = jax.tree.leaves(shapes)
  need = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
  size = sum(entry.stat().st_size for _, entry in entries(folder))

  def open_one(path, shape):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    base = {"driver": "file", "path": f"{folder}/"}
    store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    # Read here first: tensorstore aborts the process over some of what may
    # stand there.
    found = json.loads(ts.KvStore.open(store).result()[".zarray"])
    chunks = found.pop("chunks")
    expected = {**_ZARR, "dtype": shape.dtype.str, "shape": [*shape.shape]}
    if found != expected:
      raise Damaged(f"{name} is {found}, must be {expected}")
    if len(chunks) != len(shape.shape) or not all(
      type(c) is int and 1 <= c <= n
      for c, n in zip(chunks, shape.shape, strict=True)
    ):
      raise Damaged(f"{name} has blocks of {chunks}, larger than itself")
    return ts.open({"driver": "zarr", "kvstore": store}, read=True).result()

  try:
    if size > _COPIES * need + _OVERHEAD * (1 + len(leaves)):
      raise Damaged(f"{size:,} bytes for {need:,} bytes of arrays")
    return jax.tree_util.tree_map_with_path(open_one, shapes)
  except Exception as error:  # tensorstore raises bare Exceptions
    raise UserError(
      f"{folder}: does not hold the model of config.json: {_line(error)}"
    ) from None


def read_position(folder: Path) -> dict[str, Any]:
  """The position in a checkpoint that `verify` found intact.

  Raises:
    UserError: it is no JSON object of numbers, or of another step.
  """
  path = folder / "position" / "metadata"
  position = files.read_json(path, _JSON_LIMIT)
  if not isinstance(position, dict):
    raise UserError(f"{path}: must be an object of numbers")
  for name, value in position.items():
    if name == "best":
      holds = type(value) in (int, float) and not math.isnan(value)
    else:
      holds = type(value) is int and 0 <= value < 2**32
    if not holds:
      raise UserError(f"{path}: {name}={value!r} is not possible")
  if str(position.get("step", folder.name)) != folder.name:
    raise UserError(f"{path}: step={position['step']} is not its folder's")
  return position


class Restored(NamedTuple):
  """Parameters, and the step of the checkpoint that they come from."""

  params: Params
  step: int


def restore_params(
  workdir: Path,
  step: int | None,
  shapes: Params,
  sharding: jax.sharding.Sharding | None = None,
) -> Restored:
  """The parameters of the checkpoint of a step, or of the best one.

  Where the best is damaged, the newest intact one stands in for it, and that
  is told. They come to `sharding`, or to one device, wherever they were saved
  from.

  Raises:
    UserError: there is no such checkpoint, or none is intact.
  """
  directory = workdir / "checkpoints"
  step = select(directory, step)
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
  )
  return Restored(restore(directory / str(step), shapes)[0], step)


def select(directory: Path, step: int | None) -> int:
  """The step asked for, or that of the best checkpoint, once verified.

  Raises:
    UserError: it is not there or damaged; or, where none is asked for, none is
      intact.
  """
  there = steps(directory)
  if step is not None:
    listed = ", ".join(map(str, there)) or "none"
    if step not in there:
      raise UserError(
        f"config.checkpoint.step={step}: no such checkpoint; there are {listed}"
      )
    if reason := find_damage(directory / str(step)):
      raise UserError(
        f"{directory / str(step)}: is damaged, {reason}; there are {listed}"
      )
    return step
  latest = newest(directory)
  if not latest:
    raise UserError(
      f"{directory.parent}: no checkpoint there; train this run first"
    )
  best = read_position(directory / str(latest)).get("best_step")
  if best in there and best != latest:
    reason = find_damage(directory / str(best))
    if reason is None:
      return best
    print(
      f"checkpoint {best}, the best, is damaged: {reason}\n"
      f"checkpoint {latest} is used instead",
      file=sys.stderr,
    )
  return latest
