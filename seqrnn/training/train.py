"""Trains or resumes a run, and the modules that a step passes.

run.py turns flags into a config and calls modes/train.py, which calls `fit`:
1. experiments/ builds the Experiment, pure functions: data, loss, prediction.
2. training/setup.py resolves the config and restores the newest checkpoint.
3. `loop` takes the next batch of symbol ids, inputs [B, T], from data/batches/.
4. runtime/sharding.py splits its rows over the devices of the mesh.
5. training/step.py, jitted once, computes loss, gradients, update and sums.
6. models/losses.py computes the cross-entropy of models/network.py.
7. models/layers.py scans a cell over time, with models/scan.py.
8. models/cells.py computes the gates.
After a step, training/position.py decides whether the loop evaluates the model
(scoring/evaluation.py), writes a row of metrics.csv, and saves a checkpoint.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqrnn.config.read import Config
from seqrnn.data.batches.windows import Batches
from seqrnn.data.documents import nouns
from seqrnn.errors import UserError, counted, escaped
from seqrnn.experiment import Experiment, Params
from seqrnn.runtime import devices, files, sharding
from seqrnn.runtime.signals import Signals, catch_signals
from seqrnn.sampling.texts import excerpts
from seqrnn.scoring import metrics
from seqrnn.scoring.evaluation import evaluator
from seqrnn.training.checkpoint import Checkpoints
from seqrnn.training.history import (
  add_row,
  cut_tables,
  draw_history,
  metrics_line,
  metrics_row,
)
from seqrnn.training.position import (
  Position,
  evaluation_due,
  limits_reached,
  save_due,
)
from seqrnn.training.probe import probe
from seqrnn.training.progress import Progress
from seqrnn.training.setup import (
  Training,
  check_owner,
  locked,
  make_training,
  restore,
  save,
  settle,
  word_vectors,
  write_record,
)
from seqrnn.training.step import TrainState

_DRAW_SECONDS = 10.0  # The minimum time between two drawings of history.png.


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
  optional: dict[str, Any] = {"should_stop": should_stop}
  if config.train.tensorboard and sharding.is_first():
    from seqrnn.training import tensorboard

    optional["tensorboard"] = partial(tensorboard.open_writer, workdir)
  config = check_owner(config, workdir)
  start = settle(build, config, workdir)
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
    values = start.values or word_vectors(experiment, config, workdir)
    training = make_training(start, workdir, checkpoints, check)
    training = training._replace(values=values, **optional)
    position = resume(training)
  print(
    f"{workdir}: finished at step {position.step}; best validation loss"
    f" {position.best:.4f} {experiment.loss_unit} at step"
    f" {position.best_step}"
  )
  return asdict(position)


def resume(training: Training) -> Position:
  """Restores the newest checkpoint, if there is one, and trains to the end.

  Returns:
    the last position.

  Raises:
    UserError, Interrupted: as `fit`.
  """
  config, workdir = training.config, training.workdir
  state, position = restore(training)
  limits = limits_reached(config, position)
  finished = bool(limits) and not evaluation_due(config, position)
  if not finished:
    _refuse_leak(training, state)
  if sharding.is_first():
    cut_tables(workdir, position.evaluated)
    if not finished:
      write_record(config, training.experiment, workdir, training.origin)
  print_summary(training.experiment, config, state.params)
  if training.origin is not None:
    print("\n".join(training.origin.lines()))
  if finished:
    print(f"the training has ended by {' and '.join(limits)}")
  elif position.step:
    print(f"resuming from step {position.step}")
  with catch_signals() as caught:
    try:
      loop(training, state, position, caught)
    except KeyboardInterrupt:
      if not caught.at_once:
        raise
      raise training.interrupted(position, caught[-1]) from None
  return position


def _refuse_leak(training: Training, state: TrainState):
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
      line += f", {facts['distinct_documents']:,} of them distinct"
    print(line)
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  names = "".join(
    # A model predicts reserved symbols, but no reserved labels.
    f", {len(v.symbols)} {f'{symbol}s' if name == 'symbols' else name}"
    + f" and {len(v) - len(v.symbols)} special ones" * (name == "symbols")
    for name, v in experiment.vocabularies.items()
  )
  print(f"{config.task}: {count:,} parameters{names}")


class Reporting(NamedTuple):
  """Functions that an evaluation calls; the loop makes them once.

  Attributes:
    evaluate: a function params -> validation metrics; None after a signal.
    progress: the progress bar.
    excerpt: a function params -> the beginning of a sample.
    write_tensorboard: a function row, params, excerpt.
    draw: draws history.png, at most once in _DRAW_SECONDS.
  """

  evaluate: Callable[[Any], dict[str, float] | None]
  progress: Progress
  excerpt: Callable[[Any], str]
  write_tensorboard: Callable[..., None]
  draw: Callable[[], None]


def loop(
  training: Training, state: TrainState, position: Position, caught: Signals
):
  """Trains until the last step, early stopping, or a signal.

  `position` is updated in place. It alone determines what the loop does after
  a step, so a resumed run repeats an uninterrupted run bit for bit.

  Raises:
    Interrupted: a signal was received; a checkpoint is on disk.
    KeyboardInterrupt: a signal was received while the first step compiled.
    UserError: a value is not finite; it was not saved.
  """
  config, experiment, mesh = training.config, training.experiment, training.mesh
  B, batches = epoch_batches(training, position)
  first_step = position.step
  agree = sharding.Agreement(mesh)
  # The number of the signal that all processes act on, or 0.
  stop = lambda: agree(caught[0] if caught else 0)
  with (
    Progress(
      training.total_steps,
      position.step,
      training.unit,
      experiment.in_bits,
      position.best,
    ) as progress,
    training.tensorboard(position.evaluated) as write_tensorboard,
  ):
    evaluate = evaluator(experiment, mesh)
    validation = experiment.batches("validation", 0)
    reporting = Reporting(
      lambda params: evaluate(params, validation, stop),
      progress,
      excerpts(experiment, config),
      write_tensorboard,
      _drawer(training),
    )
    ended = new_epoch = False
    while True:
      if evaluation_due(config, position):
        state, ended = evaluate_and_save(training, reporting, state, position)
      stopped = stop()
      if stopped or ended or limits_reached(config, position):
        break
      if new_epoch:  # The previous epoch has been evaluated and saved.
        B, batches = epoch_batches(training, position)
      # The first step may compile for minutes. There is nothing to save before
      # it, so a signal ends the process at once.
      caught.at_once = position.step == first_step and jax.process_count() == 1
      rows: Any = batches[position.batch]
      progress.shapes([array.shape for array in rows.values()])
      state, loss = training.step(state, sharding.put(rows, B, mesh))
      caught.at_once = False
      symbols = float(rows["weights"].sum()) * jax.process_count()
      finished_loss = progress.step(loss, symbols)
      if finished_loss is not None and not math.isfinite(finished_loss):
        raise training.diverged(state, position.step - 1)
      new_epoch = position.advance(len(batches))
      if save_due(config, position):
        save(training, state, position)
  if stopped and position.step:
    save(training, state, position)
  training.checkpoints.wait()
  if sharding.is_first():
    training.check()
    draw_history(training.workdir, experiment.measure)
  if stopped:
    raise training.interrupted(position, stopped)


def epoch_batches(
  training: Training, position: Position
) -> tuple[int, Batches]:
  """Returns the batch size, and this process's rows of an epoch's batches.

  Raises:
    UserError: the epoch has no batch of the position's number.
  """
  batches = training.experiment.batches("train", position.epoch)
  if position.batch >= len(batches):
    raise UserError(
      f"{training.workdir}: the checkpoint is of batch {position.batch} of an"
      f" epoch, which has {len(batches)} batches"
    )
  B = batches.batch_size  # At most train.batch_size.
  return B, batches.rows(*sharding.local_rows(B, training.mesh))


def _drawer(training: Training) -> Callable[[], None]:
  """Returns a function that draws history.png if _DRAW_SECONDS have passed."""
  drawn = time.monotonic()

  def draw():
    nonlocal drawn
    if sharding.is_first() and time.monotonic() - drawn > _DRAW_SECONDS:
      training.check()
      draw_history(training.workdir, training.experiment.measure)
      drawn = time.monotonic()

  return draw


def evaluate_and_save(
  training: Training,
  reporting: Reporting,
  state: TrainState,
  position: Position,
) -> tuple[TrainState, bool]:
  """Evaluates the model, writes a row of metrics.csv, and saves a checkpoint.

  A signal discards a running evaluation; the resumed run repeats it.

  Returns:
    the state after the evaluation, and whether `should_stop` ends training.
  """
  config, experiment = training.config, training.experiment
  progress = reporting.progress
  seconds, symbols = progress.lap()
  figures = reporting.evaluate(state.eval_params)
  if figures is None:
    return state, False
  rate = float(training.learning_rate(position.step - 1) * state.scale)
  trained = metrics.finish(state.sums, experiment.in_bits)
  row = metrics_row(position, rate, trained, figures)
  if not all(math.isfinite(figure) for figure in row.values()):
    raise training.diverged(state, position.step)
  sample = ""
  if sharding.is_first() and (progress.live or config.train.tensorboard):
    # Parameters are replicated, so the first process needs no other process.
    params = jax.tree.map(lambda x: x.addressable_data(0), state.eval_params)
    sample = reporting.excerpt(params)
    reporting.write_tensorboard(row, params, sample)
  evaluation_seconds, _ = progress.lap()
  state = record_evaluation(config, state, position, figures["loss"])
  if sharding.is_first():
    training.check()
    add_row(training.workdir / "metrics.csv", row)
    timing = {
      "step": row["step"],
      "symbols": int(symbols),
      "seconds": seconds,
      "symbols_per_second": symbols / max(seconds, 1e-9),
      "evaluation_seconds": evaluation_seconds,
    }
    add_row(training.workdir / "timing.csv", timing)
  save(training, state, position)
  progress.best = position.best
  line = metrics_line(row, position, experiment.loss_unit, training.unit)
  progress.line(line)
  if sample and progress.live:
    progress.line(f"  sample: {escaped(sample)}")
  reporting.draw()
  return state, training.should_stop(row)


def record_evaluation(
  config: Config, state: TrainState, position: Position, loss: float
) -> TrainState:
  """Updates position and state after an evaluation.

  It updates the best loss and the counters of early stopping and of the plateau
  schedule, and clears the state's sums.
  """
  position.evaluated = position.step
  position.waited += 1
  position.stalled += 1
  if loss < position.best:
    position.best, position.best_step = loss, position.step
    position.waited = position.stalled = 0
  state = state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums))
  plan = config.schedule
  if plan.name == "plateau" and position.stalled >= plan.after:
    position.stalled = 0
    state = state._replace(scale=state.scale * plan.factor)
  return state
