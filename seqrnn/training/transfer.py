"""The parts of a trained run that a new run starts from (`train.start_from`).

A part is taken if all of its arrays fit. Rows of symbols and labels are found
by name; new rows start near the mean of the known ones. A layer is taken if
those below it are, too. Where it reads more than the trained layer did, as the
other direction, its kernel has zeros, so that it first computes the same.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from seqrnn.config.read import Config, differences, read_run
from seqrnn.data import vocabulary
from seqrnn.data.read import stored
from seqrnn.data.read.words import affix_vocabulary
from seqrnn.data.vocabulary import RESERVED, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Build, Experiment, Params, shapes
from seqrnn.models.parts import ModelPart, part_of
from seqrnn.runtime import files, sharding
from seqrnn.training import checkpoint

RECORD = "start.json"
_LIMIT = 2**20  # Bytes of a record.
_NOISE = 0.1  # Of a new row, in standard deviations of the known rows.
# Fields of which one differs where nothing fits.
_SIZES = ("data.unit", "model.embedding_size", "model.hidden_size")

SourceRows = dict[str, np.ndarray | None]  # As `_source_rows` returns them.


class Record(NamedTuple):
  """What a run has started from: the content of start.json.

  Attributes:
    workdir: of the trained run, as `train.start_from` had it.
    step: of its checkpoint.
    taken: the parts of the model that were taken; of a part with new rows, with
      the share that was taken, as "head (1 of 2 labels)".
    new: its other parts.
  """

  workdir: str
  step: int
  taken: list[str]
  new: list[str]

  def __str__(self) -> str:
    return (
      f"started from {self.workdir}, step {self.step}"
      f"\n  taken: {', '.join(self.taken)}"
      f"\n  new: {', '.join(self.new) or 'nothing'}"
    )

  def encoded(self) -> bytes:
    """Returns the content of start.json."""
    return (json.dumps(self._asdict(), indent=1) + "\n").encode()


def read_record(workdir: Path) -> Record | None:
  """Returns the record of the run that a run has started from, if any.

  Raises:
    UserError: start.json is damaged.
  """
  path = workdir / RECORD
  if not path.exists():
    return None
  files.verify_file(path)
  with stored.reading(path, "train the run again"):
    return Record(**files.read_json(path, _LIMIT))


# The arrays of each part, by their names.
ArraysOfParts = dict[ModelPart, dict[str, np.ndarray]]


def named_parts(experiment: Experiment, params: Params) -> Params:
  """Returns a tree like `params` of the parts that have its arrays.

  Heads of symbols are named by their inputs.
  """
  tree = jax.tree_util.tree_map_with_path(lambda at, _: part_of(at)[0], params)
  if experiment.unit != "symbol":
    return tree
  backward = any(p.direction == "backward" for p in jax.tree.leaves(tree))
  single = "window head" if backward else "forward head"
  names = {
    "head": "joint head" if experiment.fills_gaps else single,
    "forward_head": "forward head",
    "backward_head": "backward head",
  }
  return jax.tree.map(
    lambda p: dataclasses.replace(p, name=names.get(p.name, p.name)), tree
  )


def _arrays(experiment: Experiment, params: Params) -> ArraysOfParts:
  arrays: ArraysOfParts = {}
  named = jax.tree.leaves(named_parts(experiment, params))
  for part, (path, array) in zip(
    named, jax.tree.leaves_with_path(params), strict=True
  ):
    arrays.setdefault(part, {})[part_of(path)[1]] = array
  return arrays


class TrainedRun(NamedTuple):
  """A trained run.

  Attributes:
    workdir: its folder, as `train.start_from` has it.
    step: of its checkpoint.
    config: of the run.
    experiment: of the run.
    params: of the checkpoint.
  """

  workdir: str
  step: int
  config: Config
  experiment: Experiment
  params: Params


def open_source(
  build: Build, config: Config, workdir: Path
) -> TrainedRun | None:
  """Reads the run that a new run starts from.

  Returns:
    None if the run starts from nothing, or if it has a checkpoint.

  Raises:
    UserError: there is no such run, or it has no checkpoint or another cell.
  """
  start = config.train.start_from
  if start is None or checkpoint.steps(workdir / "checkpoints"):
    return None
  field, folder = f"config.train.start_from={start!r}", Path(start)
  if not (folder / "config.json").exists():
    raise UserError(f"{field}: has no run; train it first")
  files.check_links(folder)
  old = read_run(folder)
  if old.model.cell != config.model.cell:
    raise UserError(
      f"{field}: has model.cell={old.model.cell!r}, and this run has"
      f" {config.model.cell!r}; the cells must be the same"
    )
  experiment = build(old, vocabulary.load(folder / "vocabulary.json"))
  # A run that is being trained may have another one a moment later.
  step = sharding.broadcast(checkpoint.select(folder / "checkpoints", None))
  params, _ = checkpoint.restore_params(folder, step, experiment)
  return TrainedRun(start, step, old, experiment, jax.device_get(params))


def widen(
  experiment: Experiment,
  source: TrainedRun,
  rebuild: Callable[[dict[str, Vocabulary]], Experiment],
) -> Experiment:
  """Adds symbols of the source to the vocabulary of a new run.

  A run has the symbols of its own training split. If it predicts labels, it has
  the other symbols of the source, too, because the source can read them.

  Args:
    experiment: of the new run.
    source: the trained run.
    rebuild: makes the experiment with other vocabularies.
  """
  names = experiment.vocabularies.get("symbols")
  old = source.experiment.vocabularies.get("symbols")
  if not (names and old) or names.unit != old.unit:
    return experiment
  more = names.unknown(old.symbols)
  size, common = len(names.symbols), len(old.symbols) - len(more)
  print(
    f"{source.workdir} knows {common:,} of the {size:,} symbols of the"
    f" training split, {common / size:.1%}"
  )
  if experiment.unit == "symbol" or not more:
    return experiment
  print(f"its {len(more):,} other symbols are added to the vocabulary")
  wider = dataclasses.replace(names, symbols=(*names.symbols, *more)).padded()
  return rebuild({**experiment.vocabularies, "symbols": wider})


def transfer(
  source: TrainedRun, experiment: Experiment, config: Config
) -> tuple[Record, Callable[[Params], Params]]:
  """Returns the parts of a trained run that a new run takes.

  The second result replaces new parameters, as a tree of NumPy arrays.

  Raises:
    UserError: no part fits.
  """
  old = _arrays(source.experiment, source.params)
  new = _arrays(experiment, shapes(experiment))
  rows = _source_rows(source, experiment, config)
  rng = np.random.default_rng((config.seed, 1))
  same_task = source.config.task == config.task
  taken: ArraysOfParts = {}
  for part in sorted(new):
    # Inputs, layers and heads of symbols have the same meaning in every task.
    common = not part.is_output or part.name.endswith(" head")
    if (
      part in old
      and part.name != "wide"  # Its rows are of other symbols.
      and (same_task or common)
      and _below(part, new, old) <= taken.keys()
      and old[part].keys() == new[part].keys()
    ):
      arrays = {
        name: array
        for name, like in new[part].items()
        if (array := _moved(part, name, old[part][name], like, rows, rng))
        is not None
      }
      if len(arrays) == len(new[part]):
        taken[part] = arrays
  if not taken:
    differ = differences(source.config, config, _SIZES)
    raise UserError(
      f"config.train.start_from={source.workdir!r}: no part fits:"
      f" {'; '.join(differ) or 'it reads other symbols'}"
    )

  def values(params: Params) -> Params:
    arrays = _arrays(experiment, params) | taken
    return jax.tree_util.tree_map_with_path(
      lambda path, part: arrays[part][part_of(path)[1]],
      named_parts(experiment, params),
    )

  names = [_with_share(part, new[part], rows) for part in taken]
  others = [str(part) for part in sorted({*new} - {*taken})]
  return Record(source.workdir, source.step, names, others), values


def _with_share(part: ModelPart, names: Iterable[str], rows: SourceRows) -> str:
  """A part that is taken; if it has new rows, with the share of known ones."""
  share = ""
  for name in names:
    kind, _ = _named_axis(part, name)
    places = rows.get(kind)
    if places is not None and (fresh := np.count_nonzero(places == -1)):
      known = np.count_nonzero(places >= 0)
      known -= len(RESERVED) * (kind != "labels")
      share = f" ({known:,} of {known + fresh:,} {kind})"
  return f"{part}{share}"


def _below(
  part: ModelPart, parts: ArraysOfParts, old: ArraysOfParts
) -> set[ModelPart]:
  """The parts that a part needs below it."""
  if part.is_input and part.name != "convolution":
    return set()
  if part.depth <= 1 and not part.is_output:
    # Letters may be new; the kernel has zeros for them. A convolution may not.
    fits = lambda p: p in old or p.name == "convolution"
    return {p for p in {*parts, *old} if p.is_input and p < part and fits(p)}
  if part.depth:
    return {dataclasses.replace(part, depth=part.depth - 1)}
  ways = {part.name.removesuffix(" head")} & {"forward", "backward"}
  return {p for p in parts if p.depth and (not ways or p.direction in ways)}


def _source_rows(
  source: TrainedRun, experiment: Experiment, config: Config
) -> SourceRows:
  """The row in the source of each symbol, character, affix and label.

  -1: it is new. None: the source has none of them. A task without such names
  has no entry.
  """
  known = source.experiment.vocabularies
  pairs = {n: (v, known.get(n)) for n, v in experiment.vocabularies.items()}
  new, old = pairs.get("symbols", (None, None))
  if new is not None and old is not None:
    pairs["letters"] = new.characters(), old.characters()
    sizes = config.model.affixes, source.config.model.affixes
    if None not in sizes:
      new, old = map(affix_vocabulary, (new, old), sizes)
      pairs["affixes"] = new, old
  by_name: SourceRows = dict.fromkeys(pairs)
  for name, (new, old) in pairs.items():
    if old is not None and old.unit == new.unit:
      rows = old.ids_of(new)
      if (rows[len(RESERVED) :] >= 0).any():
        by_name[name] = rows
  labels = by_name.get("labels")
  if labels is not None:  # The head has no reserved labels.
    by_name["labels"] = np.maximum(labels[len(RESERVED) :] - len(RESERVED), -1)
  return by_name


def _named_axis(part: ModelPart, name: str) -> tuple[str, int]:
  """What the rows of an array stand for, and their axis; "": for no names."""
  if part.name == "embedding" or name == "input_kernel/embedding":
    return "symbols", 0
  if part.name == "letters" and name.endswith("Embed_0/embedding"):
    return "letters", 0
  if part.name == "letters" and name == "affixes":
    return "affixes", 0
  if part.name in ("head", "crf"):
    return "labels", -1
  return ("symbols", -1) if part.name.endswith(" head") else ("", 0)


def _moved(
  part: ModelPart,
  name: str,
  old: np.ndarray,
  like: np.ndarray,
  rows: SourceRows,
  rng: np.random.Generator,
) -> np.ndarray | None:
  """The values of a new array, from those of the source; None: they do not fit.

  Args:
    part: of the model.
    name: of the array in the part.
    old: the array of the source.
    like: has the shape and the type of the new array.
    rows: of `_source_rows`.
    rng: draws new rows.
  """
  kind, axis = _named_axis(part, name)
  places = rows.get(kind)
  if kind in rows and places is None:
    return None
  if part.name == "crf":  # All axes are tags. New ones score 0 at first.
    at = np.ix_(*[places] * old.ndim)
    known = np.minimum.reduce(np.broadcast_arrays(*at)) >= 0
    return np.where(known, old[at], 0).astype(like.dtype)
  if places is not None:
    sizes = [np.delete(x.shape, axis).tolist() for x in (old, like)]
    if sizes[0] != sizes[1]:
      return None
    old = np.moveaxis(old, axis, 0)
    known = places >= 0
    moved = old[places]
    trained = old if kind == "labels" else old[len(RESERVED) :]
    spread = _NOISE * trained.std(0, keepdims=True)
    noise = spread * rng.standard_normal(moved.shape)
    moved[~known] = (trained.mean(0, keepdims=True) + noise)[~known]
    return np.moveaxis(moved, 0, axis).astype(like.dtype)
  if old.shape == like.shape:
    return old
  more = like.shape[0] - len(old)
  wider = name == "input_kernel/kernel" and old.shape[1:] == like.shape[1:]
  if not wider or more <= 0 or (part.depth > 1 and more != len(old)):
    return None
  moved = np.zeros(like.shape, like.dtype)
  # Both directions of the layer below stand side by side, the forward first.
  last = part.depth > 1 and part.direction == "backward"
  moved[slice(-len(old), None) if last else slice(len(old))] = old
  return moved
