"""Trains a run, or resumes it: what is checked before, written and printed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from seqrnn import config as configs
from seqrnn.config import Config
from seqrnn.data import vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params
from seqrnn.models import budget
from seqrnn.runtime import files, manifest, sharding
from seqrnn.runtime.checkpoint import Checkpoints
from seqrnn.training import changes, optimizers
from seqrnn.training.history import cut_tables
from seqrnn.training.loop import Training, restore, train_with_rollback
from seqrnn.training.position import (
  evaluation_due,
  out_of_patience,
  reached_end,
)
from seqrnn.training.probe import probe
from seqrnn.training.step import make_state, make_step


def check_owner(config: Config, workdir: Path) -> Config:
  """Refuses a workdir that belongs to another run.

  Returns:
    the config, with the hidden size of the run that is there.

  Raises:
    UserError: a field of the run's identity differs; all of them are listed.
  """
  path = workdir / "config.json"
  if not path.exists():
    return config
  manifest.verify(path)
  # A field that the run is too old to know has not changed.
  old = {**configs.flat(config), **configs.flat(configs.read_json(path))}
  config = configs.sized(config, old)
  found = configs.differences(old, config, configs.IDENTITY)
  if found:
    raise UserError(
      f"{workdir}: holds another run, {'; '.join(found)}; name another"
      " --workdir"
    )
  return config


@contextmanager
def locked(workdir: Path) -> Iterator[Callable[[], None]]:
  """Keeps a second training out; gives what checks that it still does.

  Raises:
    MachineError: another training has the workdir.
  """
  if not sharding.is_first():
    yield lambda: None
    return
  with files.locked(workdir / "lock", "trained") as held:
    yield held.check


def print_summary(
  experiment: Experiment, config: Config, params: Params, mesh: Mesh
):
  """Prints what is about to be trained, on what and where."""
  for split in ("train", "validation"):
    facts = experiment.facts(split)
    origin = f" of {facts['origin']}" if "origin" in facts else ""
    print(
      f"{split}: {facts['symbols']:,} {experiment.reads}s in"
      f" {facts['documents']:,} documents{origin}"
      + (
        f", {facts['distinct_documents']:,} of them distinct"
        if "distinct_documents" in facts
        else ""
      )
    )
    if facts.get("left_out_symbols"):
      print(
        f"{split}: data.offset={config.data.offset} leaves out"
        f" {facts['left_out_symbols']:,} {experiment.reads}s, among them"
        f" {facts['left_out_documents']:,} whole documents"
      )
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  names = "".join(
    # Of symbols the reserved ones are known, too; of labels they are none.
    f"{len(v) if name == 'symbols' else len(v.symbols)} {name}, "
    for name, v in experiment.vocabularies.items()
  )
  device = mesh.devices.flat[0]
  print(
    f"{config.task}: {count:,} parameters, {names}{mesh.size}"
    f" {device.platform} device{'s' if mesh.size > 1 else ''}"
  )


def write_record(config: Config, experiment: Experiment, workdir: Path):
  """Writes config.json, and vocabulary.json where there is none.

  Raises:
    MachineError: they cannot be written.
  """
  names = workdir / "vocabulary.json"
  vocabularies = vocabulary.encoded(experiment.vocabularies)
  if names.exists():  # Maybe by an older version, which wrote it otherwise.
    vocabularies = names.read_bytes()
  contents = {names.name: vocabularies, "config.json": configs.encoded(config)}
  manifest.write(workdir, contents)


def fit(
  build: Callable[..., Experiment],
  config: Config,
  workdir: Path,
  should_stop: Callable[[dict[str, Any]], bool] = lambda _: False,
) -> dict[str, Any]:
  """Trains, or goes on training, until the epochs are done or nothing gains.

  Args:
    build: config, vocabularies or None -> Experiment.
    config: of the run.
    workdir: where its files are.
    should_stop: called with each row of metrics.csv; training ends once it
      returns true.

  Returns:
    the fields of the last Position.

  Raises:
    UserError: the workdir holds another run or is being trained, the data are
      not those it began with, the model leaks, its loss is not finite, or a
      finished run is asked for with other settings of training.
    Interrupted: SIGINT or SIGTERM came.
  """
  board = lambda _: nullcontext(lambda *_: None)
  if config.train.tensorboard and sharding.is_first():
    from seqrnn.training import tensorboard

    board = partial(tensorboard.open_writer, workdir)
  config = check_owner(config, workdir)
  config, experiment = budget.settle(build, config, workdir)
  mesh = sharding.mesh()
  first = experiment.batches("train", 0)
  experiment.batches("validation", 0)  # An empty one is better known now.
  total_steps = config.train.epochs * len(first)
  if config.train.max_steps is not None:
    total_steps = min(total_steps, config.train.max_steps)
  rate = config.optimizer.learning_rate
  schedule = partial(optimizers.schedule, config, len(first), total_steps)
  optimizer = lambda rate: optimizers.optimizer(config, schedule(rate))
  ema, asgd = config.train.ema, config.train.asgd
  average = None  # That of `asgd` begins later.
  if ema is not None or asgd is not None:
    average = 0.0 if ema is None else 1.0

  workdir.mkdir(parents=True, exist_ok=True)
  with locked(workdir) as check:
    directory = workdir / "checkpoints"
    keep = config.checkpoint.keep
    with Checkpoints(directory, keep, check) as checkpoints:
      training = Training(
        experiment=experiment,
        config=config,
        workdir=workdir,
        mesh=mesh,
        step=partial(
          make_step(experiment, optimizer, mesh, ema or 1.0), rate=rate
        ),
        start=partial(
          make_state,
          experiment,
          optimizer,
          config.seed,
          first[0],
          mesh,
          average,
        ),
        learning_rate=schedule(rate),
        total_steps=total_steps,
        crc32=experiment.facts("train")["crc32"],
        checkpoints=checkpoints,
        check=check,
        should_stop=should_stop,
        board=board,
      )
      # The first process writes them once all processes are at this checkpoint.
      trained = changes.settings_of(workdir, config)
      state, position = restore(training)
      done = not evaluation_due(config, position) and (
        reached_end(config, position) or out_of_patience(config, position)
      )
      symbols = experiment.vocabularies.get("symbols")
      if experiment.forbidden is not None and not done:
        probe(
          training.step,
          state,
          first[0],
          experiment.forbidden(first[0]["inputs"].shape[1]),
          None if symbols is None else len(symbols),
          mesh,
        )
      recorded = changes.apply_settings(workdir, config, position, trained)
      if sharding.is_first():
        cut_tables(workdir, position.evaluated)
        write_record(recorded, experiment, workdir)
      print_summary(experiment, config, state.params, mesh)
      if position.step and not done:
        print(f"going on from step {position.step}")
      position = train_with_rollback(training, state, position)
  print(
    f"{workdir}: finished at step {position.step}; best validation loss"
    f" {position.best:.4f} {experiment.loss_unit} at step"
    f" {position.best_step}"
  )
  return asdict(position)
