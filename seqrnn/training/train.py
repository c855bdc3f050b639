"""Trains or resumes a run, and the modules that a step passes.

1. run.py starts the program; cli.py turns flags into a config and calls the
   `run` of a mode, here of modes/train.py, which calls `fit`.
2. `make_training`, here in training/train.py, resolves the config, builds the
   Experiment of a task and makes its step. `loop` takes the next batch of
   symbol ids, inputs [B, T].
3. training/step.py, jitted once over the devices of runtime/sharding.py,
   computes loss and gradients, and updates the parameters.
4. The loss, of experiments/language_model.py, calls models/network.py: embed,
   layers, head; and models/losses.py.
5. models/layers.py is the stack, with dropout between layers;
   models/scan/__init__.py scans a cell over time.
6. models/cell.py has the products of a step, which models/products.py computes,
   and models/cells/classic.py its gates.
After a step, the loop evaluates the model where this is due
(scoring/evaluation.py), writes a row of metrics.csv, and saves a checkpoint.
"""

import io
import math
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np

from seqrnn.config import command, derived
from seqrnn.config.read import Config
from seqrnn.config.resolve import total_steps
from seqrnn.data.batches.windows import Batches
from seqrnn.errors import Interrupted, UserError, counted
from seqrnn.experiment import Build
from seqrnn.models import losses
from seqrnn.runtime import devices, sharding
from seqrnn.runtime.signals import Signals, catch_signals
from seqrnn.scoring.evaluation import examiner
from seqrnn.training import checkpoint, history, linear, setup, transfer
from seqrnn.training import step as step_lib
from seqrnn.training.checkpoint import Position
from seqrnn.training.checkpoint_writer import open_checkpoints
from seqrnn.training.history import MetricsRow
from seqrnn.training.probe import probe
from seqrnn.training.progress import Progress, summary_writer
from seqrnn.training.setup import Training, few, save
from seqrnn.training.step import TrainState


def fit(
  build: Build,
  config: Config,
  workdir: Path,
  should_stop: Callable[[MetricsRow], bool] = lambda _: False,
) -> dict[str, float | None]:
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
  if config.train.tensorboard:
    summary_writer()  # Refuses a missing package.
  config = setup.check_owner(config, workdir)
  training = make_training(build, config, workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  position = Position()
  with (
    open_checkpoints(workdir, training.config.checkpoint.keep) as checkpoints,
    catch_signals() as caught,
  ):
    steps = f"; JAX_DISABLE_JIT: {few()} steps" * (few() is not None)
    print(f"devices: {devices.words(training.mesh)}{steps}")
    training = training._replace(
      checkpoints=checkpoints, should_stop=should_stop
    )
    # The programs may compile for minutes. Until the first step is done there
    # is nothing to save, so a signal ends a single process at once.
    caught.at_once = jax.process_count() == 1
    try:
      state, position = setup.restore(training)
      state = initial_state(training) if state is None else state
      if _begin(training, state, position):
        state = loop(training, state, position, caught)
    except KeyboardInterrupt:
      if not (caught and caught.at_once):
        raise
      raise _interrupted(training, position, caught[-1]) from None
  print(
    f"{workdir}: finished at step {position.step};"
    f" {training.config.train.choice.replace('all', 'last')} validation loss"
    f" {position.best:.4f} {training.experiment.loss_unit} at step"
    f" {position.best_step}"
  )
  config = training.config
  chosen = config.model.logit_weights is None
  if chosen and linear.is_fitted(training.experiment, config):
    weights = tuple(np.array(state.eval_params["wide"]["weights"]).tolist())
    config = derived.copy(config, {"model.logit_weights": weights})
    print(linear.describe(weights))
  if config.train.refit and position.best_step:
    _refit(build, config, workdir, position.best_step)
  return asdict(position)


def _refit(build: Build, config: Config, workdir: Path, steps: int):
  """Trains again, on training and validation texts, unless it is done.

  A folder gets its name when its training has finished.
  """
  done = workdir / checkpoint.REFIT
  if done.exists():
    return
  begun = done.with_suffix(".part")
  begun.mkdir(exist_ok=True)
  shutil.copyfile(workdir / "vocabulary.json", begun / "vocabulary.json")
  print(
    f"train.refit: training again for {counted(steps, 'step')}, on training and"
    " validation texts; other modes will read these parameters",
    flush=True,
  )
  try:
    with redirect_stdout(io.StringIO()):
      fit(build, derived.refit(config, steps), begun)
  except Interrupted as stop:
    event = " within train.refit, and saved"
    raise Interrupted(stop.number, event) from None
  if sharding.is_first():
    begun.rename(done)


def make_training(build: Build, config: Config, workdir: Path) -> Training:
  """Resolves the config of a run, and makes its jitted step and its schedule.

  Raises:
    UserError: `train.start_from` names no run of which a part fits, or a split
      is empty.
  """
  source = transfer.open_source(build, config, workdir)
  config, experiment = setup.resolved(build, config, workdir, source)
  if source is None:
    record, values = transfer.read_record(workdir), None
  else:
    record, values = transfer.transfer(source, experiment, config)
  mesh = sharding.mesh()
  batches = experiment.batches("train", 0)
  rate, most = config.optimizer.learning_rate, total_steps(config, len(batches))
  step, start = step_lib.programs(experiment, config, mesh, record)
  length = step_lib.Length(rate, len(batches), most)
  rates = length, config.train.ema or 1.0, config.model.dropout

  def lower_step():
    rows = batches.rows(*sharding.local_rows(batches.batch_size, mesh))[0]
    batch = sharding.put(rows, batches.batch_size, mesh)
    return step.lower(start.eval_shape(setup.SEED), batch, *rates)

  return Training(
    config=config,
    experiment=experiment,
    workdir=workdir,
    record=record,
    values=values,
    mesh=mesh,
    validation=experiment.batches("validation", 0)[: few()],
    step=lambda state, batch: step(state, batch, *rates),
    start=start,
    lower_step=lower_step,
    learning_rate=step_lib.make_schedule(config, length),
    total_steps=most,
  )


def initial_state(training: Training) -> TrainState:
  """Compiles the programs, and returns the state before the first step."""
  config, replaced = training.config, training.values
  if replaced is None:
    replaced = setup.initial_embedding(config, training.experiment)
  seed = np.uint32(config.seed)
  if few() is None:  # Else every loop would be unrolled.
    step_lib.compile_programs(training.start.lower(seed), training.lower_step)
  state = training.start(seed)
  fits = linear.is_fitted(training.experiment, config)
  if replaced is None and not fits:
    return state
  params = jax.tree.map(np.array, state.params)
  params = params if replaced is None else replaced(params)
  if fits:
    params = linear.fitted(training.experiment, params)
  state = state._replace(params=sharding.put_all(params, training.mesh))
  if state.average:  # With arrays of its own: the step donates all.
    state = state.with_eval_params(sharding.put_all(params, training.mesh))
  return state


def _begin(training: Training, state: TrainState, position: Position) -> bool:
  """Checks and describes a training; returns whether it has more to do."""
  config, workdir = training.config, training.workdir
  limits = limits_reached(config, position)
  finished = bool(limits) and not evaluation_due(config, position)
  if not finished:
    probe(training.step, state, training.experiment, training.mesh)
  if sharding.is_first():
    history.cut_tables(workdir, position.evaluated)
    if not finished:
      for folder in workdir.glob(f"{checkpoint.REFIT}*"):
        shutil.rmtree(folder)  # Of fewer steps.
      setup.write_record(config, training.experiment, workdir, training.record)
  setup.print_summary(training.experiment, config, state.params)
  if training.record is not None:
    print(training.record)
  if finished:
    print(f"the training has ended by {' and '.join(limits)}")
  elif position.step:
    print(f"resuming from step {position.step}")
  return not finished


def limits_reached(config: Config, position: Position) -> list[str]:
  """Returns the fields whose limits the position has reached."""
  train = config.train
  patience = math.inf if train.patience is None else train.patience
  limits = {
    "train.epochs": position.epoch >= train.epochs,
    "train.max_steps": position.step >= (train.max_steps or few() or math.inf),
    "train.patience": position.waited >= patience,
  }
  return [name for name, reached in limits.items() if reached]


def evaluation_due(config: Config, position: Position) -> bool:
  """Returns whether this step is to be evaluated and has not been yet."""
  if position.evaluated == position.step:
    return False
  if {*limits_reached(config, position)} - {"train.patience"}:
    return True
  if config.train.eval_every is None:
    return position.batch == 0
  return position.step % config.train.eval_every == 0


def loop(
  training: Training, state: TrainState, position: Position, caught: Signals
) -> TrainState:
  """Trains until the last step, early stopping, or a signal.

  `position` is updated in place. It alone determines what the loop does after
  a step, so a resumed run repeats an uninterrupted run bit for bit.

  Raises:
    Interrupted: a signal was received; a checkpoint is on disk.
    KeyboardInterrupt: a signal was received while the first step compiled.
    UserError: a value is not finite; it was not saved.
  """
  config, mesh = training.config, training.mesh
  B, batches = epoch_batches(training, position)
  save_every = config.checkpoint.every or math.inf
  agree = sharding.Agreement(mesh)
  # The number of the signal that all processes act on, or 0.
  stop = lambda: agree(caught[0] if caught else 0)
  ended = new_epoch = False
  with Progress(training, position) as progress:
    while True:
      if evaluation_due(config, position):
        state, ended = evaluate_and_save(
          training, progress, state, position, stop
        )
      stopped = stop()
      if stopped or ended or limits_reached(config, position):
        break
      if new_epoch:  # The previous epoch has been evaluated and saved.
        B, batches = epoch_batches(training, position)
      rows = batches[position.batch]
      state, loss = training.step(state, sharding.put(rows, B, mesh))
      caught.at_once = False
      # A weight is the number of equal documents, of which one is computed.
      symbols = int(np.count_nonzero(rows["weights"])) * jax.process_count()
      finished_loss = progress.step(loss, symbols)
      if finished_loss is not None and not math.isfinite(finished_loss):
        raise training.diverged(state, position.step - 1)
      new_epoch = position.advance(len(batches))
      # An evaluation saves, too.
      due = position.step % save_every == 0
      if due and not evaluation_due(config, position):
        save(training, state, position)
  if limits_reached(config, position) == ["train.patience"]:
    print(
      f"train.patience={config.train.patience}: the last"
      f" {counted(position.waited, 'evaluation')} had no lower loss"
    )
  if stopped and position.step:
    save(training, state, position)
  training.checkpoints.wait()
  if sharding.is_first():
    training.checkpoints.check()
    if config.train.choice != "all":  # A refit has no curve.
      history.draw_history(training.workdir, training.experiment.measure)
  if stopped:
    raise _interrupted(training, position, stopped)
  return state


def _interrupted(
  training: Training, position: Position, number: int
) -> Interrupted:
  """Returns the exception for a signal; the position is on disk."""
  event, resuming = " before the first step", "repeat the command"
  if position.step:
    event = f" and saved at step {position.step}"
    program = command.program(sys.argv[0])
    resuming += f", or run `{program} --workdir={training.workdir}`, to resume"
  return Interrupted(number, event, resuming)


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


def evaluate_and_save(
  training: Training,
  progress: Progress,
  state: TrainState,
  position: Position,
  stop: Callable[[], int],
) -> tuple[TrainState, bool]:
  """Evaluates the model, writes a row of metrics.csv, and saves a checkpoint.

  A signal discards a running evaluation; the resumed run repeats it.

  Returns:
    the state after the evaluation, and whether `should_stop` ends training.
  """
  experiment = training.experiment
  seconds, symbols = progress.lap()
  if linear.is_fitted(experiment, training.config):
    joined = _with_weights(training, state, stop)
    if joined is None:
      return state, False
    state = joined
  examine = examiner(experiment, training.mesh)
  examined = examine(state.eval_params, training.validation, stop)
  if examined is None:
    return state, False
  figures, _ = examined
  trained = losses.means(state.sums, experiment.in_bits)
  rate = float(training.learning_rate(position.step - 1)) * float(state.scale)
  row = {
    "step": position.step,
    "epoch": position.epoch,
    "learning_rate": rate,
    "gradient_norm": trained.pop("gradient_norm"),
    **{f"train_{name}": value for name, value in trained.items()},
    **{f"validation_{name}": value for name, value in figures.items()},
  }
  if not all(math.isfinite(figure) for figure in row.values()):
    raise training.diverged(state, position.step)
  progress.write_tensorboard(row)
  evaluation_seconds, _ = progress.lap()
  state = record_evaluation(training.config, state, position, figures["loss"])
  if sharding.is_first():
    training.checkpoints.check()
    history.add_row(training.workdir / "metrics.csv", row)
    timing = {
      "step": row["step"],
      "symbols": int(symbols),
      "seconds": seconds,
      "symbols_per_second": symbols / max(seconds, 1e-9),
      "evaluation_seconds": evaluation_seconds,
    }
    history.add_row(training.workdir / "timing.csv", timing)
  save(training, state, position)
  is_best = position.waited == 0 and training.config.train.choice == "best"
  line = history.metrics_line(row, experiment.loss_unit, training.unit, is_best)
  progress.line(line)
  return state, training.should_stop(row)


def _with_weights(
  training: Training, state: TrainState, stop: Callable[[], int]
) -> TrainState | None:
  """The state with the weights of logits that fit validation best.

  None: it was stopped.
  """
  examine = examiner(training.experiment, training.mesh)

  def having(weights_2: np.ndarray) -> TrainState:
    new = state._replace(params=linear.with_weights(state.params, weights_2))
    average = linear.with_weights(new.eval_params, weights_2)
    return new.with_eval_params(average)

  texts = training.experiment.facts("validation")["documents"]
  weights_2 = linear.choose_weights(
    training.config,
    texts,
    lambda weights_2: examine(
      having(weights_2).eval_params, training.validation, stop
    ),
  )
  return None if weights_2 is None else having(weights_2)


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
  if loss < position.best or config.train.choice != "best":
    position.best, position.best_step = loss, position.step
    position.waited = position.stalled = 0
  zeros = lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)
  state = state._replace(sums=jax.tree.map(zeros, state.sums))
  plan = config.schedule
  if plan.name == "plateau" and position.stalled >= plan.after:
    position.stalled = 0
    state = state._replace(scale=state.scale * plan.factor)
  return state
