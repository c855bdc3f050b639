"""A training and its run: owner, config, checkpoint to resume from, files."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from seqrnn.config import derived
from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.config.resolve import ADAPTED, read_words, resolve
from seqrnn.data import splits, vectors, vocabulary
from seqrnn.data.batches.windows import Batches
from seqrnn.data.documents import nouns
from seqrnn.data.read import words
from seqrnn.data.sources import corpora
from seqrnn.errors import MachineError, UserError, counted
from seqrnn.experiment import Build, Experiment, Params, shapes
from seqrnn.models import cell
from seqrnn.runtime import files, private, sharding
from seqrnn.training import checkpoint, transfer
from seqrnn.training.checkpoint import Others, Position
from seqrnn.training.history import MetricsRow
from seqrnn.training.step import Step, TrainState
from seqrnn.training.transfer import Record, TrainedRun

SEED = np.uint32(0)  # Any seed, for the shapes of the state.


class Training(NamedTuple):
  """The parts of a training that stay the same from step to step.

  Attributes:
    config: the settings of the run, as `resolve` returns them.
    experiment: the task.
    workdir: the folder of the run.
    record: of the run that it has started from; None: from nothing.
    values: a function that replaces new parameters, as trees of NumPy arrays,
      by those of that run; None: there is none, or a checkpoint has them.
    mesh: the devices.
    validation: the batches of the validation split.
    step: a function state, batch -> next state, mean loss.
    start: a jitted function of the seed: the state before the first step.
    lower_step: traces the step; the result can be compiled.
    learning_rate: a function of the step; the state's scale multiplies it.
    total_steps: the number of steps in all epochs.
    checkpoints: the Checkpoints of the run, while it is trained.
    should_stop: called with each row of metrics.csv; True ends training.
  """

  config: Config
  experiment: Experiment
  workdir: Path
  record: Record | None
  values: Callable[[Params], Params] | None
  mesh: Mesh
  validation: Batches
  step: Step
  start: sharding.Jitted
  lower_step: Callable[[], jax.stages.Lowered]
  learning_rate: Callable[[int], Any]
  total_steps: int
  checkpoints: Any = None
  should_stop: Callable[[MetricsRow], bool] = lambda _: False

  @property
  def unit(self) -> str:
    """The noun for a target in messages."""
    unit = self.experiment.unit
    return nouns(self.config.data.unit)[0] if unit == "symbol" else unit

  def diverged(self, state: TrainState, step: int) -> UserError:
    """Returns the error for a value that is not finite at a step."""
    rate = float(self.learning_rate(step - 1)) * float(state.scale)
    return UserError(
      f"config.optimizer.learning_rate={self.config.optimizer.learning_rate}:"
      f" at step {step}, with a learning rate of {rate:.3g}, a loss, gradient"
      " or parameter is not finite, and was not saved; train in another"
      " --workdir with a lower optimizer.learning_rate or optimizer.clip_norm"
    )


def check_owner(config: Config, workdir: Path) -> Config:
  """Refuses a workdir that belongs to another run.

  Returns:
    the config, with the fields that the run in this workdir has resolved; of a
    new run, with those that its files determine.

  Raises:
    UserError: fields of `config.IDENTITY` differ; the error lists them.
  """
  if not (workdir / "config.json").exists():
    return corpora.settled(config, sharding.is_first())
  old = config_lib.read_run(workdir)
  config = derived.merge(config, run=config_lib.flat(old))
  differing = config_lib.differences(old, config, config_lib.IDENTITY)
  if differing:
    raise UserError(
      f"{workdir}: holds another run, {'; '.join(differing)}; name another"
      f" --workdir, because only {', '.join(config_lib.LIMITS)} may change"
    )
  return config


def resolved(
  build: Build, config: Config, workdir: Path, source: TrainedRun | None
) -> tuple[Config, Experiment]:
  """Returns the config and the experiment of a run, and prints what changed.

  A run that has started keeps its vocabularies and its config.
  """
  names = workdir / "vocabulary.json"
  known = vocabulary.load(names) if names.exists() else None
  lines = []
  if known is None:
    config, lines = read_words(config)
  experiment = build(config, known)
  if known is None and source is not None:
    experiment = transfer.widen(experiment, source, partial(build, config))
  if (workdir / "config.json").exists():
    return config, experiment
  # No experiment depends on the fields of ADAPTED.
  key = lambda config: tuple(
    item for item in config_lib.flat(config).items() if item[0] not in ADAPTED
  )
  built = {key(config): experiment}

  def experiment_of(config: Config) -> Experiment:
    if key(config) not in built:
      built[key(config)] = build(config, experiment.vocabularies)
    return built[key(config)]

  def parameters(config: Config) -> int:
    leaves = jax.tree.leaves(shapes(experiment_of(config)))
    return sum(leaf.size for leaf in leaves)

  def epoch(config: Config) -> tuple[int, int, int]:
    batches = experiment_of(config).batches("train", 0)
    rows, distinct = batches.batch_size, batches.distinct
    return len(batches), rows, 0 if distinct is None else len(distinct)

  config, more = resolve(config, parameters, epoch)
  print("".join(f"{line}\n" for line in (*lines, *more)), end="")
  return config, experiment_of(config)


def print_summary(experiment: Experiment, config: Config, params: Params):
  """Prints the data and the model of the training."""
  symbol, document = nouns(config.data.unit)
  if "symbols" not in experiment.vocabularies:
    symbol = experiment.reads
  for split in ("train", "validation"):
    facts = experiment.facts(split)
    documents = counted(facts["documents"], document)
    origin = f" of {facts['origin']}" if "origin" in facts else ""
    line = (
      f"{split}: {counted(facts['symbols'], symbol)} in {documents}{origin}"
    )
    if "distinct_documents" in facts:
      line += f", {facts['distinct_documents']:,} different ones"
    print(line)
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  names = "".join(
    # A model predicts reserved symbols, but no reserved labels.
    f", {len(v.symbols)} {f'{symbol}s' if name == 'symbols' else name}"
    + f" and {len(vocabulary.RESERVED)} special ones" * (name == "symbols")
    + f", in {v.rows:,} rows" * bool(v.rows)
    for name, v in experiment.vocabularies.items()
    if name != "terms"
  )
  print(f"{config.task}: {count:,} parameters{names}")
  for line in experiment.remarks():
    print(line)


def restore(training: Training) -> tuple[TrainState | None, Position]:
  """Restores the newest intact checkpoint; None: there is none.

  It removes newer, damaged checkpoints, because training will write checkpoints
  of these steps again.

  Raises:
    UserError: there are checkpoints and none is intact (none is removed), the
      training data or the user's own cell have changed since the run began, or
      the parameters are those of an export.
  """
  workdir, mesh = training.workdir, training.mesh
  crc32 = training.experiment.facts("train")["crc32"]
  name = training.config.model.cell
  code = cell.source_crc32(name)
  directory = workdir / "checkpoints"
  # No checkpoint has step 0.
  step = checkpoint.newest(directory) if sharding.is_first() else 0
  step = sharding.broadcast(step)
  if not step:
    return None, Position(crc32=crc32, cell=code)
  folder = directory / str(step)
  position = checkpoint.read_position(folder)
  if position.crc32 is None:
    raise UserError(
      f"{workdir}: has the parameters of an export, without the state of"
      " an optimizer; start a new run from it, with"
      f" --config.train.start_from={workdir}"
    )
  if position.cell not in (0, code):
    raise UserError(
      f"{workdir}: the code of model.cell={name!r} has changed since this run"
      " began; name another --workdir"
    )
  # The config may describe arrays that exceed the memory: compare their shapes
  # with the checkpoint before allocating them.
  state = training.start.eval_shape(SEED)
  checkpoint.open_arrays(folder / "params", state.params)
  if position.crc32 != crc32:
    raise MachineError(
      f"{workdir}: the training data have changed since this run began; name"
      " another --workdir"
    )
  training.checkpoints.delete_after(step)
  size = training.config.train.batch_size
  parts = jax.eval_shape(lambda state: pack(state, size, mesh), state)
  params, others = (
    checkpoint.restore(folder / name, part, sharding.replicated(mesh))
    for name, part in zip(("params", "state"), parts, strict=True)
  )
  return unpack(params, others, state, mesh), position


def few() -> int | None:
  """Steps and validation batches of a training; None: all.

  An operation at a time, as with JAX_DISABLE_JIT, takes seconds for each.
  """
  return 2 if private.jax_setting("jax_disable_jit") else None


def data_changed(workdir: Path, step: int, experiment: Experiment) -> bool:
  """Returns whether the training data, if they can be read, have changed."""
  trained = checkpoint.read_position(workdir / "checkpoints" / str(step)).crc32
  with suppress(UserError):
    return trained not in (None, experiment.facts("train")["crc32"])
  return False


def initial_embedding(
  config: Config, experiment: Experiment
) -> Callable[[Params], Params] | None:
  """Replaces the embedding of new parameters; None: it is random."""
  model = config.model
  if model.embedding_path is None and config.data.unlabelled_path is None:
    return None
  names = experiment.vocabularies["symbols"]
  if model.embedding_path is not None:
    table_VD = words.initial_embedding(config, names, sharding.is_first())
  else:
    pieces = splits.reader(config)("train")
    pieces = vectors.with_unlabelled(pieces, config.data)
    table_VD = vectors.of_pieces(pieces, names, model.embedding_size)
  return lambda p: {**p, "embedding": {"embedding": table_VD}}


def all_finite(state: TrainState) -> bool:
  """Returns whether all parameters and sums are finite."""
  # By NumPy, which compiles nothing; each device has all of them.
  leaves = jax.tree.leaves((state.params, state.sums))
  return all(np.isfinite(leaf.addressable_data(0)).all() for leaf in leaves)


def pack(
  state: TrainState, batch_size: int, mesh: Mesh
) -> tuple[Params, Others]:
  """Returns the two parts of a checkpoint: eval_params, and the other arrays.

  Sampling reads only the parameters. The other arrays form a list without
  names, because the types of an optimizer's state are internal to optax. The
  carry is cut to the rows of the batch, so that a run can resume on another
  number of devices.
  """
  place = sharding.replicated(mesh)  # Of no arrays it would compile, too.
  carry = state.carry and sharding.resize(state.carry, batch_size, place)
  others = state.with_eval_params(())._replace(carry=carry)
  return state.eval_params, {"leaves": jax.tree.leaves(others)}


def unpack(
  params: Params, others: Others, shapes: TrainState, mesh: Mesh
) -> TrainState:
  """Inverts `pack`; `shapes` are those of the state."""
  structure = jax.tree.structure(shapes.with_eval_params(()))
  new = jax.tree.unflatten(structure, others["leaves"])
  rows = [leaf.shape[0] for leaf in jax.tree.leaves(shapes.carry)]
  if rows:
    carry = sharding.resize(new.carry, rows[0], sharding.by_rows(mesh))
    new = new._replace(carry=carry)
  return new.with_eval_params(params)


def save(training: Training, state: TrainState, position: Position):
  """Starts writing a checkpoint in the background.

  Raises:
    UserError: the state is not finite; nothing is written.
  """
  if not all_finite(state):
    raise training.diverged(state, position.step)
  arrays = pack(state, training.config.train.batch_size, training.mesh)
  if jax.process_count() == 1:  # Orbax would cut what several devices have.
    arrays = jax.tree.map(lambda x: x.addressable_data(0), arrays)
  training.checkpoints.save(*arrays, position)


def write_record(
  config: Config,
  experiment: Experiment,
  workdir: Path,
  record: Record | None = None,
):
  """Writes config.json, start.json, and vocabulary.json if it is missing.

  Raises:
    MachineError: a file cannot be written.
  """
  path = workdir / "vocabulary.json"
  content = vocabulary.encoded(experiment.vocabularies)
  if path.exists():  # A run keeps its vocabulary.
    content = path.read_bytes()
  contents = {path.name: content, "config.json": config_lib.encoded(config)}
  if record is not None:
    contents = {transfer.RECORD: record.encoded()} | contents
  files.write_checked(workdir, contents)
