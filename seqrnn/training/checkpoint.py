"""The checkpoints of a run, as they are selected, verified and read.

checkpoint_writer.py writes them. A checkpoint is a folder named by its step:

  params/    the parameters, which sampling needs
  state/     the other arrays of the training state
  position/  JSON: the fields of a Position
  sha256     size and SHA-256 of each of these files

A checkpoint that differs from its checksums is damaged and is not used, because
Orbax loads flipped bits without an error.

The arrays are read with tensorstore. A checkpoint of others may be hostile, and
some metadata make tensorstore abort the process or leave the folder. Therefore
links are refused, and the metadata of each array must be those of the model.
"""

import errno
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import jax
import tensorstore as ts

from seqrnn.errors import MachineError, UserError, report, visible
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.runtime import files, private
from seqrnn.runtime.files import SUMS
from seqrnn.runtime.sharding import ArrayTree

REFIT = "refit"  # The folder of the training on all labels, once it is done.
_JSON_LIMIT = 2**23  # Bytes of a position, or of the checksums.
_COPIES = 4  # The maximum copies of an array; Orbax writes two.
_OVERHEAD = 2**16  # The maximum bytes of metadata of an array.
Others = dict[str, list[jax.Array]]  # As setup.pack returns them.


@dataclass
class Position:
  """The numbers that a checkpoint holds beside its arrays.

  Attributes:
    step: the number of updates so far.
    epoch: the current epoch, from 0.
    batch: the number of batches done in this epoch.
    evaluated: the step of the last evaluation.
    best: the lowest validation loss.
    best_step: the step of the lowest validation loss.
    waited: the number of evaluations since best_step.
    stalled: like `waited`, but reset where the plateau schedule lowers the
      learning rate.
    crc32: the checksum of the training data; None: the parameters are those of
      an export, without the state of an optimizer.
    cell: the checksum of the code of a cell of the user's own, or 0.
  """

  step: int = 0
  epoch: int = 0
  batch: int = 0
  evaluated: int = 0
  best: float = math.inf
  best_step: int = 0
  waited: int = 0
  stalled: int = 0
  crc32: int | None = None
  cell: int = 0

  def advance(self, batches: int) -> bool:
    """Counts a step; returns whether it ends an epoch of `batches` batches."""
    self.step += 1
    self.batch += 1
    if self.batch < batches:
      return False
    self.epoch, self.batch = self.epoch + 1, 0
    return True


def read_position(folder: Path) -> Position:
  """Returns the position in a checkpoint without damage.

  Raises:
    UserError: it is not a JSON object of numbers, or has another step.
  """
  path = folder / "position" / "metadata"
  content = files.read_json(path, _JSON_LIMIT)
  try:
    position = Position(**content)
  except TypeError:
    position = Position()  # Step 0, which no checkpoint has.
  counts = {**vars(position), "crc32": position.crc32 or 0}
  best = counts.pop("best")
  if (
    str(position.step) != folder.name
    or any(type(n) is not int or not 0 <= n < 2**32 for n in counts.values())
    or type(best) is not float
  ):
    raise UserError(f"{path}: {content} is not valid in this checkpoint")
  return position


def find_damage(folder: Path) -> str | None:
  """Returns how a checkpoint differs from its checksums; None: it does not."""
  entries = _entries(folder)
  try:
    sums = files.read_sums(folder)
  except (OSError, UserError):
    return f"{SUMS} is missing or broken"
  for name in sorted({*sums, *entries}):
    if (
      name not in entries
      or name not in sums
      # A link may lead out of the checkpoint.
      or not entries[name].is_file(follow_symlinks=False)
      or not files.has_checksum(folder / name, sums[name])
    ):
      rule = f"differs from its checksum in {SUMS}"
      return visible(f"{name} {rule if name in entries else 'is missing'}")
  return None


def _entries(folder: Path) -> dict[str, os.DirEntry]:
  """Returns the entries in the folders of a checkpoint, by their paths.

  Beside the folders, Orbax has files with times, which are not read.
  """
  return {
    os.path.relpath(entry.path, folder): entry
    for part in ("params", "state", "position")
    for entry in files.walk(folder / part)
  }


def write_sums(folder: Path):
  """Writes the checksums of a checkpoint."""
  names = sorted(_entries(folder))
  files.write_sums(folder, [(files.checksum_of(folder / n), n) for n in names])


def steps(directory: Path) -> list[int]:
  """Returns the steps of the checkpoints in a folder, oldest first."""
  names = [path.name for path in directory.glob("*") if path.is_dir()]
  # "07" is not a checkpoint: its step would name the folder "7".
  return sorted(int(n) for n in names if re.fullmatch("[1-9][0-9]{0,8}", n))


def newest(directory: Path, first: int = 0) -> int:
  """Returns the step of the newest intact checkpoint; 0 if there is none.

  The checkpoint of step `first` is chosen before newer ones. Damaged ones that
  would be chosen are reported on stderr.

  Raises:
    MachineError: there are checkpoints, and all are damaged.
  """
  warnings = []
  order = sorted(steps(directory), key=lambda step: (step != first, -step))
  for step in order:
    reason = find_damage(directory / str(step))
    if reason is None:
      if warnings:
        for line in (*warnings, f"checkpoint {step} is used instead"):
          report(line)
      return step
    warnings.append(f"checkpoint {step} is damaged: {reason}")
  if warnings:
    raise MachineError(
      f"{directory}: no checkpoint is intact, {'; '.join(warnings)}; name"
      " another --workdir"
    )
  return 0


def select(directory: Path, step: int | None) -> int:
  """Verifies a checkpoint and returns its step, by default the best one's.

  If the best checkpoint is damaged, warns on stderr and selects the newest
  intact one.

  Raises:
    UserError: the checkpoint of `step` is missing or damaged; or `step` is None
      and no checkpoint is intact.
  """
  saved = steps(directory)
  if step is not None:
    missing = None if step in saved else "no such checkpoint"
    if reason := missing or find_damage(directory / str(step)):
      listed = ", ".join(map(str, saved)) or "none"
      raise UserError(
        f"config.checkpoint.step={step}: {reason}; {directory.parent} has"
        f" checkpoints at the steps {listed}"
      )
    return step
  latest = newest(directory)
  if not latest:
    raise UserError(
      f"{directory.parent}: has no checkpoint; train this run first"
    )
  best = read_position(directory / str(latest)).best_step
  return latest if best in (latest, 0) else newest(directory, best)


def folder_of(workdir: Path, step: int | None) -> Path:
  """The checkpoints to choose from; without a step those of `train.refit`."""
  refit = workdir / REFIT / "checkpoints"
  return refit if step is None and refit.exists() else workdir / "checkpoints"


def restore_params(
  workdir: Path,
  step: int | None,
  experiment: Experiment,
  sharding: jax.sharding.Sharding | None = None,
) -> tuple[Params, int]:
  """Returns the parameters of a checkpoint, by default of the best; its step.

  Args:
    workdir: the folder of the run.
    step: the step of the checkpoint, or None for `select`'s choice.
    experiment: of the run.
    sharding: the sharding of the arrays; None: all on the first device.

  Raises:
    UserError: there is no such checkpoint, or none is intact.
  """
  directory = folder_of(workdir, step)
  step = select(directory, step)
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  folder = directory / str(step) / "params"
  return restore(folder, shapes(experiment), sharding), step


def restore(
  folder: Path, like: ArrayTree, sharding: jax.sharding.Sharding
) -> ArrayTree:
  """Returns the arrays in `params` or `state` of a checkpoint without damage.

  Raises:
    UserError: the arrays have other shapes.
  """

  def read_array(array):
    return jax.make_array_from_callback(
      array.shape, sharding, lambda index: array[index].read().result()
    )

  arrays = open_arrays(folder, like)
  try:
    leaves = [read_array(array) for array in arrays]
  except Exception as error:  # tensorstore raises bare Exceptions
    raise UserError(f"{folder}: cannot be read: {first_line(error)}") from None
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


def open_arrays(folder: Path, like: Params) -> list[ts.TensorStore]:
  """Opens the arrays in a folder of a checkpoint, without reading them.

  To bound the memory of reading, the files must not be much larger than the
  expected arrays, and no chunk may be larger than its array.

  Raises:
    UserError: an array is missing, unreadable or not as the model has it.
  """
  folder = folder.absolute()
  other = f"{folder}: does not hold the model of config.json:"
  leaves = jax.tree.leaves(like)
  need = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
  size = sum(entry.stat().st_size for entry in files.walk(folder))

  def open_one(path, shape):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    store = private.array_store(folder, name)
    # Check the metadata before opening the array: some invalid values make
    # tensorstore abort the process.
    try:
      metadata = json.loads(ts.KvStore.open(store).result()[".zarray"])
    except KeyError:
      raise UserError(f"{other} it lacks the array {name}") from None
    chunks = metadata.pop("chunks")
    expected = private.array_metadata(shape.shape, shape.dtype.str)
    for key in {**expected, **metadata}:
      has, must = (m.get(key, "absent") for m in (metadata, expected))
      if has != must:
        raise UserError(f"{other} {name} has {key} {has}, must be {must}")
    if len(chunks) != len(shape.shape) or not all(
      type(c) is int and 1 <= c <= n
      for c, n in zip(chunks, shape.shape, strict=True)
    ):
      raise UserError(f"{other} {name} has chunks {chunks}, larger than it")
    return ts.open({"driver": "zarr", "kvstore": store}, read=True).result()

  try:
    if size > _COPIES * need + _OVERHEAD * (1 + len(leaves)):
      raise UserError(f"{other} {size:,} bytes for {need:,} bytes of arrays")
    return [open_one(*leaf) for leaf in jax.tree.leaves_with_path(like)]
  except UserError:
    raise
  except Exception as error:  # tensorstore raises bare Exceptions
    raise UserError(f"{folder}: cannot be read: {first_line(error)}") from None


def first_line(error: Exception) -> str:
  """Returns the first line of an error; for a full disk, only the reason."""
  text = str(error).strip() or type(error).__name__
  full = os.strerror(errno.ENOSPC)  # Orbax's text has it in a later line.
  return full if full in text else text.split("\n")[0][:200]
