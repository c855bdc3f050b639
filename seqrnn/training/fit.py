"""Trains or resumes a run: its checks, files and messages around the loop."""

import copy
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.config.resolve import Facts, resolve, total_steps
from seqrnn.data import vocabulary
from seqrnn.data.documents import nouns
from seqrnn.data.read import vectors
from seqrnn.data.sources import corpora
from seqrnn.errors import Interrupted, UserError, counted
from seqrnn.experiment import Experiment, Params
from seqrnn.runtime import devices, files, manifest, sharding
from seqrnn.runtime.checkpoint import steps
from seqrnn.runtime.checkpoint_writer import Checkpoints
from seqrnn.runtime.signals import catch_signals
from seqrnn.training import (
  length,
  optimizers,
  programs,
  started,
  transfer,
)
from seqrnn.training.history import cut_tables
from seqrnn.training.loop import train
from seqrnn.training.position import (
  Position,
  evaluation_due,
  limits_reached,
)
from seqrnn.training.probe import probe
from seqrnn.training.saving import Training, restore
from seqrnn.training.step import State, state_shapes

_PATIENCE = 5.0  # Seconds until a user at a terminal is told of the compiler.


def check_owner(config: Config, workdir: Path) -> Config:
  """Refuses a workdir that belongs to another run.

  Returns:
    the config, with what the run in this workdir has found for it; a new run
    finds the format of its log.

  Raises:
    UserError: fields of `config.IDENTITY` differ; the error lists them.
  """
  if not (workdir / "config.json").exists():
    if config.data.fold is None and sharding.is_first():
      corpora.describe_format(config)
    facts = Facts(log_format=corpora.log_format(config))
    return resolve(config, facts)[0]
  old = config_lib.read_run(workdir)
  config, _ = resolve(config, Facts(run=config_lib.flat(old)))
  found = config_lib.differences(old, config, config_lib.IDENTITY)
  if found:
    raise UserError(
      f"{workdir}: holds another run, {'; '.join(found)}; name another"
      f" --workdir, because only {', '.join(config_lib.LIMITS)} may change"
    )
  return config


@contextmanager
def locked(workdir: Path) -> Iterator[Callable[[], None]]:
  """Locks the workdir; yields a function that checks the lock.

  Raises:
    MachineError: another training has the workdir.
  """
  if not sharding.is_first():
    yield lambda: None
    return
  with files.locked(workdir / "lock", "trained") as held:
    yield held.check


def print_summary(experiment: Experiment, config: Config, params: Params):
  """Prints the data and the model of the training."""
  symbol, document = nouns(config.data.unit)
  if "symbols" not in experiment.vocabularies:
    symbol = experiment.reads
  for split in ("train", "validation"):
    facts = experiment.facts(split)
    documents = counted(facts["documents"], document)
    origin = f" of {facts['origin']}" if "origin" in facts else ""
    print(
      f"{split}: {counted(facts['symbols'], symbol)} in {documents}{origin}"
      + (
        f", {facts['distinct_documents']:,} of them distinct"
        if "distinct_documents" in facts
        else ""
      )
    )
    if facts.get("left_out_symbols"):
      print(
        f"{split}: data.offset={config.data.offset} leaves out"
        f" {counted(facts['left_out_symbols'], symbol)}, among them"
        f" {facts['left_out_documents']:,} whole {document}s"
      )
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  names = "".join(
    # A model predicts reserved symbols, but no reserved labels.
    f", {len(v.symbols)} {f'{symbol}s' if name == 'symbols' else name}"
    + f" and {len(v) - len(v.symbols)} special ones" * (name == "symbols")
    for name, v in experiment.vocabularies.items()
  )
  print(f"{config.task}: {count:,} parameters{names}")


def write_record(
  config: Config,
  experiment: Experiment,
  workdir: Path,
  origin: started.Record | None = None,
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
  if origin is not None:
    contents = {started.RECORD: started.encoded(origin)} | contents
  manifest.write(workdir, contents)


def make_training(
  experiment: Experiment,
  config: Config,
  workdir: Path,
  checkpoints: Checkpoints,
  check: Callable[[], None],
  origin: started.Record | None = None,
) -> Training:
  """Makes the jitted step, the schedule and the initial state.

  Args:
    experiment: the task.
    config: the settings of the run.
    workdir: the folder of the run.
    checkpoints: the checkpoints of the run.
    check: raises MachineError once another process owns the workdir.
    origin: the run that it has started from; None: from nothing.
  """
  mesh = sharding.mesh()
  batches = experiment.batches("train", 0)
  total = total_steps(config, len(batches))
  rate = config.optimizer.learning_rate
  schedule = partial(optimizers.schedule, config, len(batches), total)
  step, start = programs.programs(experiment, config, schedule, mesh, origin)

  def lower_step():
    rows = batches.rows(*sharding.local_rows(batches.batch_size, mesh))[0]
    batch = sharding.put(rows, batches.batch_size, mesh)
    return step.lower(state_shapes(start, mesh), batch, rate=rate)

  return Training(
    experiment=experiment,
    config=config,
    workdir=workdir,
    mesh=mesh,
    step=partial(step, rate=rate),
    start=start,
    lower_step=lower_step,
    learning_rate=schedule(rate),
    total_steps=total,
    crc32=experiment.facts("train")["crc32"],
    checkpoints=checkpoints,
    check=check,
    origin=origin,
  )


def _begin(training: Training) -> State:
  """Compiles the programs, and returns the initial state.

  Raises:
    Interrupted: a signal was received; there is nothing to save.
  """
  if jax.process_count() > 1:  # One process must not end without the others.
    _compile(training)
    return training.initial()
  with catch_signals() as caught:
    caught.at_once = True
    try:
      _compile(training)
    except KeyboardInterrupt:
      name = signal.Signals(caught[-1]).name
      raise Interrupted(  # The workdir may have no config.json yet.
        f"stopped by {name} before the first step",
        128 + caught[-1],
        "repeat the command",
      ) from None
  return training.initial()


def _compile(training: Training):
  """Compiles the initial state, and the step, which is traced meanwhile.

  Threads compile: Python handles signals in this one, but not in a compiler.
  """

  def start(lowered: Any) -> threading.Thread:
    def run():
      with suppress(Exception):  # The program's first call raises it again.
        lowered.compile()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread

  initial = start(training.start.lower(np.uint32(training.config.seed)))
  step = start(training.lower_step())
  initial.join()
  step.join(_PATIENCE)
  if step.is_alive() and sharding.is_first() and sys.stdout.isatty():
    print("compiling the training step ...")
  step.join()


def _probe(training: Training, state: State):
  """Refuses a model that leaks, as training/probe.py defines it."""
  experiment = training.experiment
  if experiment.forbidden is None:
    return
  batch = experiment.batches("train", 0)[0]
  symbols = experiment.vocabularies.get("symbols")
  probe(
    training.step,
    state,
    batch,
    experiment.forbidden(batch["inputs"].shape[1]),
    None if symbols is None else len(symbols),
    training.mesh,
  )


def resume(training: Training) -> Position:
  """Restores the newest checkpoint, if there is one, and trains to the end.

  Returns:
    the last position.

  Raises:
    UserError, Interrupted: as `fit`.
  """
  config, workdir = training.config, training.workdir
  # Before `restore`, which synchronizes the processes: the first process writes
  # config.json after it.
  before = config
  if (workdir / "config.json").exists():
    before = config_lib.read_run(workdir)
  state, position = restore(training, partial(_begin, training))
  limits = limits_reached(config, position)
  finished = bool(limits) and not evaluation_due(config, position)
  if not finished:
    _probe(training, state)
  if sharding.is_first():
    cut_tables(workdir, position.evaluated)
    if not finished:
      write_record(config, training.experiment, workdir, training.origin)
  print_summary(training.experiment, config, state.params)
  if training.origin is not None:
    print("\n".join(training.origin.lines()))
  for line in length.few_steps(config, training.total_steps):
    print(line)
  if position.step and not finished:
    print(f"resuming from step {position.step}")
    _warn_of_decay(training, before, position)
  if finished:
    print(f"the training has ended by {' and '.join(limits)}")
  return train(training, state, position)


def _warn_of_decay(training: Training, before: Config, position: Position):
  """Warns if new limits change the learning rate that a run resumes with.

  Args:
    training: the run.
    before: the config until now.
    position: from which training resumes.
  """
  config = training.config
  old = copy.deepcopy(config)
  old.train.epochs = before.train.epochs
  old.train.max_steps = before.train.max_steps
  batches = len(training.experiment.batches("train", 0))
  total = total_steps(old, batches)
  rates = optimizers.schedule(
    old, batches, total, config.optimizer.learning_rate
  )
  decayed: Any = rates(position.step - 1)
  now: Any = training.learning_rate(position.step)
  # A run that had ended resumes with the decayed rate of its last step.
  expected: Any = decayed if position.step >= total else rates(position.step)
  if math.isclose(expected, now, rel_tol=0.01):
    return
  if sharding.is_first():
    print(
      f"warning: schedule.name={config.schedule.name!r}: the learning rate had"
      f" decayed to {float(decayed):.3g} and is {float(now):.3g} now; for one"
      " schedule over all epochs, train again in another --workdir",
      file=sys.stderr,
    )


def _own_vectors(
  experiment: Experiment, config: Config, workdir: Path
) -> list[Callable[[Params], Params]]:
  """How a new run gets the vectors of `model.embedding_path`."""
  if config.model.embedding_path is None or steps(workdir / "checkpoints"):
    return []  # A checkpoint has them.
  names = experiment.vocabularies["symbols"]
  first = workdir if sharding.is_first() else None
  table_VD = vectors.of_run(config, names, first).table(config.seed)
  return [lambda params: {**params, "embedding": {"embedding": table_VD}}]


def fit(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  should_stop: Callable[[dict[str, Any]], bool] = lambda _: False,
) -> dict[str, Any]:
  """Trains or resumes a run until the last step or early stopping.

  Args:
    build: a function config, vocabularies or None -> Experiment.
    config: the settings of the run.
    workdir: the folder of the run.
    should_stop: called with each row of metrics.csv; training ends once it
      returns true.

  Returns:
    the fields of the last Position.

  Raises:
    UserError: the workdir holds another run or is in use, the data have
      changed, the model leaks, or its loss is not finite.
    Interrupted: SIGINT or SIGTERM was received.
  """
  optional = {}
  if config.train.tensorboard and sharding.is_first():
    from seqrnn.training import tensorboard

    optional["tensorboard"] = partial(tensorboard.open_writer, workdir)
  config = check_owner(config, workdir)
  start = transfer.settle(build, config, workdir)
  config, experiment = start.config, start.experiment
  for split in ("train", "validation"):
    experiment.batches(split, 0)  # Refuses an empty split.
  files.make_workdir(workdir)
  with (
    locked(workdir) as check,
    Checkpoints(
      workdir / "checkpoints", config.checkpoint.keep, check
    ) as checkpoints,
  ):
    print(f"devices: {devices.words(sharding.mesh())}")
    # Before labels and tags are read, whose faults are reported.
    values = start.values or _own_vectors(experiment, config, workdir)
    training = make_training(
      experiment, config, workdir, checkpoints, check, start.record
    )
    training = training._replace(
      should_stop=should_stop,
      values=values,
      **optional,
    )
    position = resume(training)
  print(
    f"{workdir}: finished at step {position.step}; best validation loss"
    f" {position.best:.4f} {experiment.loss_unit} at step"
    f" {position.best_step}"
  )
  return asdict(position)
