"""The training loop, and the way of one step from a flag to the kernel.

run.py turns flags into a config and calls modes/train.py, which calls `fit`:
1. experiments/ builds the Experiment, pure functions: data, loss, prediction.
2. training/fit.py resumes the newest checkpoint and calls `loop`, below.
3. data/windows.py gives the next batch of symbol ids, inputs [B, T].
4. runtime/sharding.py splits its rows over the devices of the mesh.
5. training/step.py, jitted once: loss, gradients, optimizer update, sums.
6. models/losses.py: cross-entropy of models/network.py: embedding, body, head.
7. models/layers.py scans a cell over time, by the compiled models/scan.py.
8. models/cells.py: gates(carry, z, u), with products from models/products.py.
After the step, the loop evaluates (inference/evaluation.py), writes a row of
metrics.csv and a checkpoint (training/saving.py) where the position says so.
"""

import math
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from seqrnn.config import Config
from seqrnn.data.windows import Batches
from seqrnn.errors import Interrupted, UserError, escaped
from seqrnn.inference import metrics
from seqrnn.inference.evaluation import evaluator
from seqrnn.inference.sampler import excerpts
from seqrnn.runtime import sharding
from seqrnn.runtime.signals import Signals, catch_signals
from seqrnn.training import changes
from seqrnn.training.history import (
  add_row,
  cut_tables,
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
from seqrnn.training.saving import Diverged, Training, restore, save
from seqrnn.training.step import State

_DRAW_SECONDS = 10.0  # Least time between two drawings of history.png.


class Reporting(NamedTuple):
  """What an evaluation calls; made once, as the loop starts.

  Attributes:
    evaluate: a function params -> validation figures; None after a signal.
    progress: the progress bar.
    excerpt: a function params -> the beginning of a sample.
    write_tensorboard: a function row, params, excerpt.
    draw: draws history.png, unless it was drawn a moment ago.
  """

  evaluate: Callable[[Any], dict[str, float] | None]
  progress: Progress
  excerpt: Callable[[Any], str]
  write_tensorboard: Callable[..., None]
  draw: Callable[[], None]


def loop(training: Training, state: State, position: Position, caught: Signals):
  """Trains until the last step, early stopping, or a signal.

  `position` is updated in place. Everything that happens after a step follows
  from the position alone, so a resumed run repeats it to the bit.

  Raises:
    Interrupted: a signal was received; a checkpoint is on disk.
    KeyboardInterrupt: a signal was received while the first step compiled.
    Diverged: a value is not finite; it was not saved.
    UserError: the position lies outside the epochs of this config.
  """
  config, experiment = training.config, training.experiment
  B, batches = epoch_batches(training, position)
  first_step = position.step
  signal_number = _agreed_signal(training.mesh, caught)
  with (
    Progress(
      training.total_steps, position.step, experiment, position.best
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
    enough = new_epoch = False
    while True:
      if evaluation_due(config, position):
        state, enough = evaluate_and_save(training, reporting, state, position)
      stopped = signal_number()
      if stopped or enough or reached_end(config, position):
        break
      if out_of_patience(config, position):
        break
      if new_epoch:  # The epoch before is evaluated and saved by now.
        B, batches = epoch_batches(training, position)
      # The first step may compile for minutes, with nothing to be saved yet.
      caught.at_once = position.step == first_step and jax.process_count() == 1
      rows: Any = batches[position.batch]
      state, loss = training.step(state, sharding.put(rows, B, training.mesh))
      caught.at_once = False
      symbols = float(rows["weights"].sum()) * jax.process_count()
      earlier = progress.step(loss, symbols)
      if earlier is not None and not math.isfinite(earlier):
        raise Diverged(position.step - 1)
      new_epoch = position.advance(len(batches))
      if save_due(config, position):
        save(training, state, position)
  finish(training, state, position, stopped)


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
      f"{training.workdir}: was saved at batch {position.batch} of an epoch,"
      f" which has {len(batches)}: train.samples_per_epoch and"
      " train.batches_per_epoch must be what they were"
    )
  B = batches.batch_size  # At most the config's.
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
  """Returns a function params -> figures of the validation split."""
  evaluate = evaluator(training.experiment, training.mesh)
  batches = training.experiment.batches("validation", 0)
  return lambda params: evaluate(params, batches, stop)


def _drawer(training: Training) -> Callable[[], None]:
  """Returns a function that draws history.png at most every few seconds."""
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
  """Evaluates, writes a row and a checkpoint, and reports both.

  A signal during the evaluation discards it: the resumed run repeats it.

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
    raise Diverged(position.step)
  sample = ""
  if sharding.is_first() and (progress.live or config.train.tensorboard):
    # Every process has all parameters: this one works with its own copy.
    params = jax.tree.map(lambda x: x.addressable_data(0), state.eval_params)
    sample = reporting.excerpt(params)
    reporting.write_tensorboard(row, params, sample)
  evaluation_seconds, _ = progress.lap()
  state = record_evaluation(config, state, position, figures["loss"])
  if sharding.is_first():
    write_rows(training, row, symbols, seconds, evaluation_seconds)
  save(training, state, position)
  progress.best = position.best
  progress.line(metrics_line(row, position, experiment.loss_unit))
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


def interrupted(
  training: Training, position: Position, number: int
) -> Interrupted:
  """Returns the exception for a signal; the position is on disk."""
  where = "before the first step"
  if position.step:
    where = f"and saved at step {position.step}"
  return Interrupted(
    f"stopped by {signal.Signals(number).name} {where}; the same command, or"
    f" --workdir={training.workdir}, goes on from there",
    status=128 + number,
  )


def train_with_rollback(
  training: Training, state: State, position: Position
) -> Position:
  """Runs the loop, and rolls back where a value is not finite.

  Raises:
    UserError: a value is not finite, and `train.on_nonfinite` says to stop, or
      rolling back has not helped.
    Interrupted: as `loop`.
  """
  rollbacks = position.rollbacks
  with catch_signals() as caught:
    while True:
      try:
        loop(training, state, position, caught)
        return position
      except KeyboardInterrupt:
        if not caught.at_once:
          raise
        raise interrupted(training, position, caught[-1]) from None
      except Diverged as diverged:
        training.checkpoints.wait()
        state, position = roll_back(training, diverged.step, rollbacks)
        rollbacks = position.rollbacks


def roll_back(
  training: Training, step: int, rollbacks: int
) -> tuple[State, Position]:
  """Returns the last checkpoint, with a lower learning rate.

  Args:
    training: the run.
    step: the step at which a value was not finite.
    rollbacks: the number of rollbacks before this one.

  Raises:
    UserError: rolling back is not allowed, or not once more.
  """
  config, settings = training.config, training.config.train
  wrong = (
    f"config.optimizer.learning_rate={config.optimizer.learning_rate}: at step"
    f" {step} a loss, gradient or parameter is not finite"
  )
  if settings.on_nonfinite == "stop":
    raise UserError(
      f"{wrong}; nothing of it was saved: lower it, set optimizer.clip_norm, or"
      " let train.on_nonfinite=rollback lower it"
    )
  if rollbacks == settings.rollbacks:
    raise UserError(
      f"{wrong}, after train.rollbacks={rollbacks} ways back; the last good"
      " checkpoint stays"
    )
  state, position = restore(training)
  # The checkpoint does not know of the rollbacks since it was saved. Without
  # them, the run would return to the same learning rate without end.
  factor = settings.rollback_factor ** (rollbacks + 1 - position.rollbacks)
  position.rollbacks = rollbacks + 1
  print(
    f"step {step}: not finite; back to step {position.step} with the learning"
    f" rate times {factor:g} ({position.rollbacks} of {settings.rollbacks})"
  )
  if sharding.is_first():
    cut_tables(training.workdir, position.evaluated)
    changes.rewind(training.workdir, config, position.step)
  return state._replace(scale=state.scale * factor), position


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

  The best loss, the counters of early stopping and of the plateau schedule,
  the weight average of `train.asgd`, and the sums since the last evaluation.
  """
  position.evaluated = position.step
  position.waited += 1
  position.stalled += 1
  if loss < position.best:
    position.best, position.best_step = loss, position.step
    position.waited = position.stalled = 0
  state = state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums))
  average, asgd = state.average, config.train.asgd
  if average and asgd is not None and position.waited >= asgd:
    # Averaging begins here, once. (Merity et al. also begin where a loss is
    # worse than the best before the last n, though one of these n was best.)
    weight = jnp.maximum(average.weight, 1)
    state = state._replace(average=average._replace(weight=weight))
  plan = config.schedule
  if plan.name == "plateau" and position.stalled >= plan.patience:
    position.stalled = 0
    state = state._replace(scale=state.scale * plan.factor)
  return state
