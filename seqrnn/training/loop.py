"""The training loop, and the modules that a step passes, from flag to kernel.

run.py turns flags into a config and calls modes/train.py, which calls `fit`:
1. experiments/ builds the Experiment, pure functions: data, loss, prediction.
2. training/fit.py resumes the newest checkpoint and calls `loop`, below.
3. data/windows.py gives the next batch of symbol ids, inputs [B, T].
4. runtime/sharding.py splits its rows over the devices of the mesh.
5. training/step.py, jitted once, computes loss, gradients, update and sums.
6. models/losses.py computes the cross-entropy of models/network.py.
7. models/layers.py scans a cell over time, with models/scan.py;
   models/loops.py lays out the arrays of the steps.
8. models/cells.py computes the gates, with products of models/products.py.
After a step, training/position.py decides whether the loop evaluates the model
(scoring/evaluation.py), and whether it writes a row of metrics.csv and a
checkpoint (training/saving.py).
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from seqrnn.config.read import Config
from seqrnn.data.batches.windows import Batches
from seqrnn.data.documents import nouns
from seqrnn.errors import UserError, escaped
from seqrnn.runtime import sharding
from seqrnn.runtime.signals import Signals, catch_signals
from seqrnn.sampling.texts import excerpts
from seqrnn.scoring import metrics
from seqrnn.scoring.evaluation import evaluator
from seqrnn.training.history import (
  add_row,
  draw_history,
  metrics_line,
  metrics_row,
  record_tables,
)
from seqrnn.training.position import (
  Position,
  evaluation_due,
  out_of_patience,
  reached_end,
  save_due,
)
from seqrnn.training.progress import Progress
from seqrnn.training.saving import Training, diverged, interrupted, save
from seqrnn.training.step import State

_DRAW_SECONDS = 10.0  # The minimum time between two drawings of history.png.


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


def loop(training: Training, state: State, position: Position, caught: Signals):
  """Trains until the last step, early stopping, or a signal.

  `position` is updated in place. It alone determines what the loop does after
  a step, so a resumed run repeats an uninterrupted run bit for bit.

  Raises:
    Interrupted: a signal was received; a checkpoint is on disk.
    KeyboardInterrupt: a signal was received while the first step compiled.
    UserError: a value is not finite; it was not saved.
  """
  config, experiment = training.config, training.experiment
  B, batches = epoch_batches(training, position)
  first_step = position.step
  signal_number = _agreed_signal(training.mesh, caught)
  with (
    Progress(
      training.total_steps,
      position.step,
      _unit(training),
      experiment.in_bits,
      position.best,
    ) as progress,
    training.tensorboard(position.evaluated) as write_tensorboard,
  ):
    reporting = Reporting(
      _validation(training, signal_number),
      progress,
      excerpts(experiment, config),
      write_tensorboard,
      _drawer(training),
    )
    ended = new_epoch = False
    while True:
      if evaluation_due(config, position):
        state, ended = evaluate_and_save(training, reporting, state, position)
      stopped = signal_number()
      if stopped or ended or reached_end(config, position):
        break
      if out_of_patience(config, position):
        break
      if new_epoch:  # The previous epoch has been evaluated and saved.
        B, batches = epoch_batches(training, position)
      # The first step may compile for minutes. There is nothing to save before
      # it, so a signal ends the process at once.
      caught.at_once = position.step == first_step and jax.process_count() == 1
      rows: Any = batches[position.batch]
      progress.shapes([array.shape for array in rows.values()])
      state, loss = training.step(state, sharding.put(rows, B, training.mesh))
      caught.at_once = False
      symbols = float(rows["weights"].sum()) * jax.process_count()
      finished_loss = progress.step(loss, symbols)
      if finished_loss is not None and not math.isfinite(finished_loss):
        raise diverged(training, state, position.step - 1)
      new_epoch = position.advance(len(batches))
      if save_due(config, position):
        save(training, state, position)
  finish(training, state, position, stopped)


def _unit(training: Training) -> str:
  """The noun for a target in messages."""
  unit = training.experiment.unit
  return nouns(training.config.data.unit)[0] if unit == "symbol" else unit


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


def _agreed_signal(mesh: Mesh, caught: Signals) -> Callable[[], int]:
  """Returns a function that gives the signal all processes act on, or 0."""
  agree = sharding.Agreement(mesh)
  agreed = 0

  def signal_number() -> int:
    nonlocal agreed
    agreed = agreed or agree(caught[0] if caught else 0)
    return agreed

  return signal_number


def _validation(
  training: Training, stop: Callable[[], int]
) -> Callable[[Any], dict[str, float] | None]:
  """Returns a function params -> metrics of the validation split."""
  evaluate = evaluator(training.experiment, training.mesh)
  batches = training.experiment.batches("validation", 0)
  return lambda params: evaluate(params, batches, stop)


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
  training: Training, reporting: Reporting, state: State, position: Position
) -> tuple[State, bool]:
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
    raise diverged(training, state, position.step)
  sample = ""
  if sharding.is_first() and (progress.live or config.train.tensorboard):
    # Parameters are replicated, so the first process needs no other process.
    params = jax.tree.map(lambda x: x.addressable_data(0), state.eval_params)
    sample = reporting.excerpt(params)
    reporting.write_tensorboard(row, params, sample)
  evaluation_seconds, _ = progress.lap()
  state = record_evaluation(config, state, position, figures["loss"])
  if sharding.is_first():
    write_rows(training, row, symbols, seconds, evaluation_seconds)
  save(training, state, position)
  progress.best = position.best
  progress.line(
    metrics_line(row, position, experiment.loss_unit, _unit(training))
  )
  if sample and progress.live:
    progress.line(f"  sample: {escaped(sample)}")
  reporting.draw()
  return state, training.should_stop(row)


def finish(training: Training, state: State, position: Position, stopped: int):
  """Waits for the last checkpoint and draws history.png.

  Args:
    training: the run.
    state: its state.
    position: its position.
    stopped: the number of the signal that ends the run, or 0.

  Raises:
    Interrupted: a signal ends the run.
  """
  if stopped and position.step:
    save(training, state, position)
  training.checkpoints.wait()
  if sharding.is_first():
    training.check()
    draw_history(training.workdir, training.experiment.measure)
  if stopped:
    raise interrupted(training, position, stopped)


def train(training: Training, state: State, position: Position) -> Position:
  """Runs the loop; returns the last position.

  Raises:
    UserError, Interrupted: as `loop`.
  """
  with catch_signals() as caught:
    try:
      loop(training, state, position, caught)
    except KeyboardInterrupt:
      if not caught.at_once:
        raise
      raise interrupted(training, position, caught[-1]) from None
  return position


def write_rows(
  training: Training,
  row: dict[str, Any],
  symbols: float,
  seconds: float,
  evaluation_seconds: float,
):
  """Appends to metrics.csv and timing.csv, and records their checksums.

  Raises:
    MachineError: a file cannot be written, or another process owns the workdir.
  """
  workdir = training.workdir
  training.check()
  add_row(workdir / "metrics.csv", row)
  add_row(
    workdir / "timing.csv",
    {
      "step": row["step"],
      "symbols": int(symbols),
      "seconds": seconds,
      "symbols_per_second": symbols / max(seconds, 1e-9),
      "evaluation_seconds": evaluation_seconds,
    },
  )
  record_tables(workdir)


def record_evaluation(
  config: Config, state: State, position: Position, loss: float
) -> State:
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
