"""The loop around a step: evaluated, saved, resumable."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from seqrnn.config import Config
from seqrnn.errors import Interrupted, MachineError, UserError, escaped
from seqrnn.experiment import Batch, Experiment
from seqrnn.inference import metrics
from seqrnn.inference.evaluation import evaluator
from seqrnn.inference.sampler import excerpts
from seqrnn.runtime import checkpoint, sharding
from seqrnn.runtime.checkpoint import Checkpoints
from seqrnn.training import changes
from seqrnn.training.history import (
  add_row,
  cut_tables,
  draw_history,
  record_tables,
)
from seqrnn.training.position import (
  Position,
  evaluation_due,
  out_of_patience,
  reached_end,
)
from seqrnn.training.progress import Progress
from seqrnn.training.step import State, all_finite, pack, unpack

_DRAW_SECONDS = 10.0  # Between drawings of history.png; the end has one.


class Training(NamedTuple):
  """What stays the same from step to step.

  Attributes:
    experiment: the task.
    config: of the run.
    workdir: where its files are.
    mesh: of the devices.
    step: state, batch -> state, mean loss.
    start: the state before the first step.
    learning_rate: of a step, before the state's scale.
    total_steps: until all epochs are done.
    crc32: of the training data.
    checkpoints: of the run.
    check: refuses to write in a workdir that is no longer this process's own.
    should_stop: as in `run`.
    board: last step that counts -> what tells TensorBoard of the next ones.
  """

  experiment: Experiment
  config: Config
  workdir: Path
  mesh: Mesh
  step: Callable[[State, Batch], tuple[State, jax.Array]]
  start: Callable[[], State]
  learning_rate: optax.Schedule
  total_steps: int
  crc32: int
  checkpoints: Checkpoints
  check: Callable[[], None]
  should_stop: Callable[[dict[str, Any]], bool]
  board: Callable[[int], AbstractContextManager[Callable[..., None]]]


class Diverged(Exception):
  """A loss, a gradient or a parameter is not finite.

  Attributes:
    step: where that was seen.
  """

  def __init__(self, step: int):
    super().__init__(step)
    self.step = step


class Signals(list[int]):
  """Signals that came, by their numbers.

  Attributes:
    at_once: whether the next one raises KeyboardInterrupt.
  """

  at_once = False


@contextmanager
def catch_signals() -> Iterator[Signals]:
  """Collects SIGINT and SIGTERM instead of dying of them.

  One that was caught around this context and not yet heeded counts here, too.
  """
  caught = Signals()
  if threading.current_thread() is not threading.main_thread():
    yield caught
    return

  def note(number, _):
    again = bool(caught) and number == signal.SIGINT
    caught.append(number)
    if again or caught.at_once:
      raise KeyboardInterrupt

  note.caught = caught
  caught += getattr(signal.getsignal(signal.SIGTERM), "caught", ())
  before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield caught
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def save(training: Training, state: State, position: Position):
  """Hands a checkpoint to Orbax.

  Raises:
    Diverged: something in it is not finite; nothing was written.
  """
  if not all_finite(state):
    raise Diverged(position.step)
  params, rest = pack(state, training.config.train.batch_size, training.mesh)
  training.checkpoints.save(
    position.step, params, rest, asdict(position), position.best_step
  )


def restore(training: Training) -> tuple[State, Position]:
  """The newest intact checkpoint, or the start where there is none yet.

  Damaged ones after it are removed, for the run will come by there again.

  Raises:
    UserError: there are checkpoints and none is intact, and nothing is
      removed; or the data are not those that the run began with.
  """
  directory = training.workdir / "checkpoints"
  step = 0  # Of which there is never a checkpoint.
  if sharding.is_first():
    step = checkpoint.newest(directory)
  step = sharding.broadcast(step)
  if not step:
    return training.start(), Position(crc32=training.crc32)
  folder = directory / str(step)
  # Before any array is made: the config may call for others, larger than any
  # memory, than the checkpoint holds.
  checkpoint.check_shapes(folder, jax.eval_shape(training.start).params)
  state = training.start()
  training.checkpoints.delete_after(step)
  config, mesh = training.config, training.mesh
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    pack(state, config.train.batch_size, mesh),
  )
  params, rest = checkpoint.restore(folder, *shapes)
  position = read_position(folder)
  if position.crc32 != training.crc32:
    raise MachineError(
      f"{training.workdir}: the training data have changed since this run"
      " began; name another --workdir"
    )
  return unpack(params, rest, state, mesh), position


def read_position(folder: Path) -> Position:
  """The position in a checkpoint.

  Raises:
    UserError: it is none.
  """
  try:
    return Position(**checkpoint.read_position(folder))
  except TypeError as error:
    raise UserError(f"{folder / 'position'}: {error}") from None


def loop(training: Training, state: State, position: Position, caught: Signals):
  """Trains until the steps are done, nothing gains, or a signal is caught.

  `position` is brought up to date. What happens after a step follows from
  the position alone, so going on repeats it to the bit.

  Raises:
    Interrupted: a signal was caught, and a checkpoint is on disk.
    KeyboardInterrupt: it came while the first step was compiled.
    Diverged: something is not finite, and nothing of it is on disk.
    UserError: the position is in no epoch of this config.
  """
  experiment, config, mesh = training.experiment, training.config, training.mesh
  evaluate = evaluator(experiment, mesh)
  validation = experiment.batches("validation", 0)
  batches = experiment.batches("train", position.epoch)
  B = batches.batch_size  # At most that of the config.
  own = sharding.local_rows(B, mesh)

  def epoch_batches():
    return experiment.batches("train", position.epoch).rows(*own)

  batches = batches.rows(*own)
  if position.batch >= len(batches):
    raise UserError(
      f"{training.workdir}: was saved at batch {position.batch} of an epoch,"
      f" which has {len(batches)}: train.samples_per_epoch and"
      " train.batches_per_epoch must be what they were"
    )
  agree = sharding.Agreement(mesh)
  first = sharding.is_first()
  begun = position.step
  stopped = 0
  enough = False
  drawn = time.monotonic()

  def stop() -> int:
    nonlocal stopped
    stopped = stopped or agree(caught[0] if caught else 0)
    return stopped

  excerpt = excerpts(experiment, config)
  with (
    Progress(
      training.total_steps, position.step, experiment, position.best
    ) as progress,
    training.board(position.evaluated) as show,
  ):
    while True:
      if evaluation_due(config, position):
        seconds, symbols = progress.lap()
        figures = evaluate(state.eval_params, validation, stop)
        if figures is not None:
          rate = float(training.learning_rate(position.step - 1) * state.scale)
          trained = metrics.finish(state.sums, experiment.in_bits)
          row = figure_row(position, rate, trained, figures)
          if not all(math.isfinite(figure) for figure in row.values()):
            raise Diverged(position.step)
          sample = ""
          if first and (progress.live or config.train.tensorboard):
            # All processes have all parameters: this one goes on alone.
            shown = jax.tree.map(
              lambda x: x.addressable_data(0), state.eval_params
            )
            sample = excerpt(shown)
            show(row, shown, sample)
          evaluation_seconds, _ = progress.lap()
          state = record_evaluation(config, state, position, figures["loss"])
          if first:
            write_rows(training, row, symbols, seconds, evaluation_seconds)
          save(training, state, position)
          progress.best = position.best
          progress.line(figure_line(row, position, experiment.loss_unit))
          if sample and progress.live:
            progress.line(f"  sample: {escaped(sample)}")
          if first and time.monotonic() - drawn > _DRAW_SECONDS:
            training.check()
            draw_history(training.workdir, experiment.measure)
            drawn = time.monotonic()
          enough = training.should_stop(row)
      if (
        stop()
        or reached_end(config, position)
        or out_of_patience(config, position)
      ):
        break
      if enough:
        break
      if batches is None:  # The epoch before is evaluated and saved by now.
        batches = epoch_batches()
      rows = batches[position.batch]
      # Compiling may take minutes, after which nothing is there to be saved.
      caught.at_once = position.step == begun and jax.process_count() == 1
      state, loss = training.step(state, sharding.put(rows, B, mesh))
      caught.at_once = False
      symbols = float(rows["weights"].sum()) * jax.process_count()
      earlier = progress.step(loss, symbols)
      if earlier is not None and not math.isfinite(earlier):
        raise Diverged(position.step - 1)
      position.step += 1
      position.batch += 1
      if position.batch == len(batches):
        position.epoch, position.batch = position.epoch + 1, 0
        batches = None
      every = config.checkpoint.every
      now = every is not None and position.step % every == 0
      if now and not evaluation_due(config, position):
        save(training, state, position)
  if stopped and position.step:
    save(training, state, position)
  training.checkpoints.wait()
  if first:
    training.check()
    draw_history(training.workdir, experiment.measure)
  if stopped:
    raise interrupted(training, position, stopped)


def interrupted(
  training: Training, position: Position, number: int
) -> Interrupted:
  """What to say of a signal that ends a run, whose position is on disk."""
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
  """The loop, and the way back where a loss is not finite.

  Raises:
    UserError: it is not finite, and `train.on_nonfinite` says to stop, or
      going back has not helped.
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
  """The last good checkpoint, with a lower learning rate.

  Args:
    training: the run.
    step: where something was not finite.
    rollbacks: how often the run went back before.

  Raises:
    UserError: it may not go back, or not again.
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
  # Those since this checkpoint count, too, or it would go on for ever.
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
    MachineError: they cannot be written, or the workdir is another's.
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
  """What an evaluation changes: best, patience, plateau, average, the sums."""
  position.evaluated = position.step
  position.waited += 1
  position.stalled += 1
  if loss < position.best:
    position.best, position.best_step = loss, position.step
    position.waited = position.stalled = 0
  state = state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums))
  average, asgd = state.average, config.train.asgd
  if average and asgd is not None and position.waited >= asgd:
    # It begins, if it has not. (Merity et al. also begin where a loss is worse
    # than the best before the last n, though one of these n was the best.)
    weight = jnp.maximum(average.weight, 1)
    state = state._replace(average=average._replace(weight=weight))
  plan = config.schedule
  if plan.name == "plateau" and position.stalled >= plan.patience:
    position.stalled = 0
    state = state._replace(scale=state.scale * plan.factor)
  return state


def figure_row(
  position: Position,
  learning_rate: float,
  training: dict[str, float],
  validation: dict[str, float],
) -> dict[str, Any]:
  """A row of metrics.csv."""
  return {
    "step": position.step,
    "epoch": position.epoch,
    "learning_rate": learning_rate,
    "gradient_norm": training.pop("gradient_norm"),
    **{f"train_{name}": value for name, value in training.items()},
    **{f"validation_{name}": value for name, value in validation.items()},
  }


def figure_line(row: dict[str, Any], position: Position, loss_unit: str) -> str:
  """The row as a person reads it."""
  bits = row.get("validation_bits_per_symbol")
  accuracy = row.get("validation_accuracy")
  return (
    f"step {row['step']}  epoch {row['epoch']}"
    f"  train {row['train_loss']:.4f}"
    f"  validation {row['validation_loss']:.4f} {loss_unit}"
    + ("" if bits is None else f"  {bits:.3f} bits/symbol")
    + ("" if accuracy is None else f"  accuracy {accuracy:.1%}")
    + ("  best" if position.best_step == position.step else "")
  )
