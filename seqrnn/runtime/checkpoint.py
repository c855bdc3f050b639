"""Reads and verifies the checkpoints that runtime/checkpoint_writer.py writes.

A checkpoint is a folder named by its step:

  params/    the parameters, which sampling needs
  rest/      the other arrays of the training state
  position/  JSON: the fields of training/position.py's Position
  manifest.json   size and SHA-256 of each file of the checkpoint

A checkpoint that differs from its manifest is damaged and is not used, because
Orbax loads flipped bits without an error.

The arrays are read with tensorstore, not with Orbax. An attacker can make a
manifest that matches a hostile checkpoint, and some metadata make tensorstore
abort the process. Therefore shapes, sizes and chunks are compared with those of
the model before an array is opened or allocated.
"""

import errno
import json
import math
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tensorstore as ts

from seqrnn.errors import MachineError, UserError, visible
from seqrnn.runtime import files, manifest

MANIFEST = "manifest.json"
Params = Any  # A tree of arrays.
_JSON_LIMIT = 2**23  # Bytes of a manifest or a position.
_ZARR = {  # The metadata of an Orbax array, without shape, dtype and chunks.
  "compressor": {"id": "zstd", "level": 1},
  "dimension_separator": ".",
  "fill_value": None,
  "filters": None,
  "order": "C",
  "zarr_format": 2,
}
_COPIES = 4  # The maximum copies of an array; Orbax writes two.
_OVERHEAD = 2**16  # The maximum bytes of metadata of an array.


class Damaged(Exception):
  """A checkpoint differs from its manifest, or from the model."""


def first_line(error: Exception) -> str:
  """Returns the first line of an error; for a full disk, only the reason."""
  text = str(error).strip() or type(error).__name__
  full = os.strerror(errno.ENOSPC)  # Orbax's text has it in a later line.
  return full if full in text else text.split("\n")[0][:200]


def entries(folder: Path) -> list[tuple[str, os.DirEntry]]:
  """Returns all files in a folder and its subfolders, by relative name.

  Raises:
    Damaged: an entry is neither a file nor a folder; a link, for example,
      could point outside of the checkpoint.
  """
  found = []
  for entry in files.walk(folder):
    name = os.path.relpath(entry.path, folder)
    if not entry.is_file(follow_symlinks=False):
      raise Damaged(f"{name} is not a file")
    found.append((name, entry))
  return sorted(found, key=lambda item: item[0])


def checksums(folder: Path) -> dict[str, list]:
  """Returns the size and SHA-256 of every file except the manifest."""
  return {
    name: manifest.checksum(Path(entry.path))
    for name, entry in entries(folder)
    if name != MANIFEST
  }


def verify(folder: Path):
  """Compares a checkpoint with its manifest.

  Raises:
    Damaged: a file is missing, changed or not in the manifest.
  """
  try:
    found = {n: entry.stat().st_size for n, entry in entries(folder)}
    saved = files.read_json(folder / MANIFEST, _JSON_LIMIT)
  except FileNotFoundError:
    raise Damaged(f"{MANIFEST} is missing") from None
  except UserError:
    raise Damaged(f"{MANIFEST} is broken") from None
  if not isinstance(saved, dict):
    raise Damaged(f"{MANIFEST} is broken")
  found.pop(MANIFEST)
  for name in sorted(saved.keys() | found.keys()):
    if name not in found:
      raise Damaged(f"{name} is missing")
    if name not in saved:
      raise Damaged(f"{name} is not in {MANIFEST}")
    same_size = isinstance(saved[name], list) and saved[name][:1] == [
      found[name]
    ]
    if not same_size or saved[name] != manifest.checksum(folder / name):
      raise Damaged(f"{name} differs from its checksum")


def steps(directory: Path) -> list[int]:
  """Returns the steps of the checkpoints in a folder, oldest first."""
  if not directory.is_dir():
    return []
  names = [p.name for p in directory.iterdir() if p.is_dir()]
  # "07" is not a checkpoint: its step would name the folder "7".
  found = (int(n) for n in names if n.isdecimal() and str(int(n)) == n)
  return sorted(step for step in found if step < 2**31)


def find_damage(folder: Path) -> str | None:
  """Returns a description of a checkpoint's damage; None if it is intact."""
  try:
    verify(folder)
  except Damaged as reason:
    return visible(str(reason))
  return None


def newest(directory: Path) -> int:
  """Returns the step of the newest intact checkpoint; 0 if there is none.

  Warns on stderr about newer, damaged checkpoints.

  Raises:
    MachineError: there are checkpoints, and all are damaged.
  """
  warnings = []
  for step in reversed(steps(directory)):
    reason = find_damage(directory / str(step))
    if reason is None:
      if warnings:
        print("\n".join(warnings), file=sys.stderr)
        print(f"checkpoint {step} is used instead", file=sys.stderr)
      return step
    warnings.append(f"checkpoint {step} is damaged: {reason}")
  if warnings:
    raise MachineError(
      f"{directory}: no checkpoint is intact, {'; '.join(warnings)}; name"
      " another --workdir"
    )
  return 0


def restore(
  folder: Path, params: Params, rest: Any | None = None
) -> tuple[Params, Any]:
  """Returns the arrays of a checkpoint: params and rest.

  Args:
    folder: a checkpoint that `verify` found intact.
    params: the expected shapes, with shardings.
    rest: the expected shapes of the other arrays; None: do not read them.

  Raises:
    UserError: the arrays have other shapes.
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
    raise UserError(f"{folder}: cannot be read: {first_line(error)}") from None
  return params, rest


def check_shapes(folder: Path, params: Params):
  """Compares the shapes of a checkpoint's parameters, without reading them.

  Raises:
    UserError: the parameters have other shapes.
  """
  _arrays(folder / "params", params)


def _arrays(folder: Path, shapes: Any) -> Any:
  """Opens the arrays in one folder of a checkpoint, without reading them.

  To bound the memory of reading, the files must not be much larger than the
  expected arrays, and no chunk may be larger than its array.

  Raises:
    UserError: an array is missing, or has another shape.
  """
  folder = folder.absolute()
  leaves = jax.tree.leaves(shapes)
  need = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
  size = sum(entry.stat().st_size for _, entry in entries(folder))

  def open_one(path, shape):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    base = {"driver": "file", "path": f"{folder}/"}
    store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    # Check the metadata before opening the array: some invalid values make
    # tensorstore abort the process.
    found = json.loads(ts.KvStore.open(store).result()[".zarray"])
    chunks = found.pop("chunks")
    expected = {**_ZARR, "dtype": shape.dtype.str, "shape": [*shape.shape]}
    if found != expected:
      raise Damaged(f"{name} is {found}, must be {expected}")
    if len(chunks) != len(shape.shape) or not all(
      type(c) is int and 1 <= c <= n
      for c, n in zip(chunks, shape.shape, strict=True)
    ):
      raise Damaged(f"{name} has chunks {chunks}, larger than the array")
    return ts.open({"driver": "zarr", "kvstore": store}, read=True).result()

  try:
    if size > _COPIES * need + _OVERHEAD * (1 + len(leaves)):
      raise Damaged(f"{size:,} bytes for {need:,} bytes of arrays")
    return jax.tree_util.tree_map_with_path(open_one, shapes)
  except Exception as error:  # tensorstore raises bare Exceptions
    raise UserError(
      f"{folder}: does not hold the model of config.json: {first_line(error)}"
    ) from None


def read_position(folder: Path) -> dict[str, Any]:
  """Returns the position in a checkpoint that `verify` found intact.

  Raises:
    UserError: it is not a JSON object of numbers, or has another step.
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
      raise UserError(f"{path}: {name}={value!r} is not valid")
  if str(position.get("step", folder.name)) != folder.name:
    raise UserError(f"{path}: step={position['step']} is not the folder's name")
  return position


class Restored(NamedTuple):
  """Parameters, and the step of their checkpoint."""

  params: Params
  step: int


def restore_params(
  workdir: Path,
  step: int | None,
  shapes: Params,
  sharding: jax.sharding.Sharding | None = None,
) -> Restored:
  """Returns the parameters of a checkpoint, by default of the best.

  Args:
    workdir: the folder of the run.
    step: the step of the checkpoint, or None for `select`'s choice.
    shapes: the shapes of the parameters.
    sharding: the sharding of the arrays; None: all on the first device.

  Raises:
    UserError: there is no such checkpoint, or none is intact.
  """
  directory = workdir / "checkpoints"
  step = select(directory, step)
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
  )
  return Restored(restore(directory / str(step), shapes)[0], step)


def select(directory: Path, step: int | None) -> int:
  """Verifies a checkpoint and returns its step, by default the best one's.

  If the best checkpoint is damaged, warns on stderr and selects the newest
  intact one.

  Raises:
    UserError: the checkpoint of `step` is missing or damaged; or `step` is None
      and no checkpoint is intact.
  """
  there = steps(directory)
  if step is not None:
    listed = ", ".join(map(str, there)) or "none"
    saved = f"the run has checkpoints at the steps {listed}"
    if step not in there:
      raise UserError(
        f"config.checkpoint.step={step}: no such checkpoint; {saved}"
      )
    if reason := find_damage(directory / str(step)):
      raise UserError(f"{directory / str(step)}: is damaged, {reason}; {saved}")
    return step
  latest = newest(directory)
  if not latest:
    raise UserError(
      f"{directory.parent}: has no checkpoint; train this run first"
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
