"""Saves and restores the state and the position of a training."""

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from seqrnn.config import command
from seqrnn.config.read import Config
from seqrnn.errors import Interrupted, MachineError, UserError
from seqrnn.experiment import Batch, Experiment, Params
from seqrnn.runtime import checkpoint, sharding
from seqrnn.runtime.checkpoint_writer import Checkpoints
from seqrnn.training.position import Position, evaluation_due, limits_reached
from seqrnn.training.started import Record
from seqrnn.training.step import (
  State,
  all_finite,
  pack,
  state_shapes,
  unpack,
)


class Training(NamedTuple):
  """The parts of a training that stay the same from step to step.

  Attributes:
    experiment: the task.
    config: the settings of the run.
    workdir: the folder of the run.
    mesh: the devices.
    step: a function state, batch -> next state, mean loss.
    start: a jitted function of the seed: the state before the first step.
    lower_step: traces the step; the result can be compiled.
    learning_rate: a function of the step; the state's scale multiplies it.
    total_steps: the number of steps in all epochs.
    crc32: the checksum of the training data.
    checkpoints: the checkpoints of the run.
    check: raises MachineError once another process owns the workdir.
    should_stop: called with each row of metrics.csv; True ends training.
    tensorboard: opens the TensorBoard writer, given the last valid step.
    values: functions that replace new parameters, as trees of NumPy arrays,
      before the first step, one after the other; a checkpoint needs none.
    origin: the run that it has started from; None: from nothing.
  """

  experiment: Experiment
  config: Config
  workdir: Path
  mesh: Mesh
  step: Callable[[State, Batch], tuple[State, jax.Array]]
  start: Any
  lower_step: Callable[[], jax.stages.Lowered]
  learning_rate: optax.Schedule
  total_steps: int
  crc32: int
  checkpoints: Checkpoints
  check: Callable[[], None]
  should_stop: Callable[[dict[str, Any]], bool] = lambda _: False
  tensorboard: Callable[[int], AbstractContextManager[Callable[..., None]]] = (
    lambda _: nullcontext(lambda *_: None)
  )
  values: tuple[Callable[[Params], Params], ...] = ()
  origin: Record | None = None

  def initial(self) -> State:
    """Returns the state before the first step."""
    state = self.start(np.uint32(self.config.seed))
    if not self.values:
      return state
    params = jax.tree.map(lambda x: np.array(x), state.params)
    for replaced in self.values:
      params = replaced(params)
    state = state._replace(params=sharding.put_all(params, self.mesh))
    if state.average:  # With arrays of its own: the step donates all.
      state = state.with_eval_params(sharding.put_all(params, self.mesh))
    return state


def diverged(training: Training, state: State, step: int) -> UserError:
  """Returns the error for a value that is not finite at a step."""
  rate = float(training.learning_rate(step - 1) * state.scale)
  return UserError(
    f"config.optimizer.learning_rate={training.config.optimizer.learning_rate}:"
    f" at step {step}, with a learning rate of {rate:.3g}, a loss, gradient or"
    " parameter is not finite, and was not saved; train in another --workdir"
    " with a lower optimizer.learning_rate or optimizer.clip_norm"
  )


def save(training: Training, state: State, position: Position):
  """Starts writing a checkpoint in the background.

  Raises:
    UserError: the state is not finite; nothing is written.
  """
  if not all_finite(state):
    raise diverged(training, state, position.step)
  params, rest = pack(state, training.config.train.batch_size, training.mesh)
  training.checkpoints.save(
    position.step, params, rest, asdict(position), position.best_step
  )


def restore(
  training: Training, initial: Callable[[], State]
) -> tuple[State, Position]:
  """Restores the newest intact checkpoint.

  It removes newer, damaged checkpoints, because training will write checkpoints
  of these steps again.

  Args:
    training: the run.
    initial: makes the state if there is no checkpoint.

  Raises:
    UserError: there are checkpoints and none is intact (none is removed), the
      training data have changed since the run began, or the run was made of a
      PyTorch model.
  """
  directory = training.workdir / "checkpoints"
  step = 0  # No checkpoint has step 0.
  if sharding.is_first():
    step = checkpoint.newest(directory)
  step = sharding.broadcast(step)
  if not step:
    return initial(), Position(crc32=training.crc32)
  folder = directory / str(step)
  if "crc32" not in checkpoint.read_position(folder):
    raise UserError(
      f"{training.workdir}: has a model that seqrnn did not train, without the"
      " state of an optimizer; start a new run from it, with"
      f" --config.train.start_from={training.workdir}"
    )
  # The config may describe arrays that exceed the memory: compare their shapes
  # with the checkpoint before allocating them.
  mesh = training.mesh
  shapes = state_shapes(training.start, mesh)
  checkpoint.check_shapes(folder, shapes.params)
  training.checkpoints.delete_after(step)
  packed = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding.replicated(mesh)
    ),
    jax.eval_shape(
      lambda state: pack(state, training.config.train.batch_size, mesh), shapes
    ),
  )
  params, rest = checkpoint.restore(folder, *packed)
  position = read_position(folder)
  if position.crc32 != training.crc32:
    raise MachineError(
      f"{training.workdir}: the training data have changed since this run"
      " began; name another --workdir"
    )
  return unpack(params, rest, shapes, mesh), position


def read_position(folder: Path) -> Position:
  """Returns the position stored in a checkpoint.

  Raises:
    UserError: the file's fields are not those of a Position.
  """
  try:
    return Position(**checkpoint.read_position(folder))
  except TypeError as error:
    raise UserError(f"{folder / 'position'}: {error}") from None


def interrupted(
  training: Training, position: Position, number: int
) -> Interrupted:
  """Returns the exception for a signal; the position is on disk."""
  due = evaluation_due(training.config, position)
  if not due and limits_reached(training.config, position):
    return Interrupted(
      f"{training.workdir}: finished at step {position.step}; the training had"
      f" ended before {signal.Signals(number).name}",
      status=128 + number,
    )
  where, program = "before the first step", command.program(sys.argv[0])
  if position.step:
    where = f"and saved at step {position.step}"
  return Interrupted(
    f"stopped by {signal.Signals(number).name} {where}",
    128 + number,
    f"repeat the command, or run `{program} --workdir={training.workdir}`, to"
    " resume",
  )
