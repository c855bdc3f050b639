"""train: one jitted step over all devices, evaluated, saved, resumable."""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from seqrnn import config as configs
from seqrnn import metrics, optimizers, sharding
from seqrnn.config import Config
from seqrnn.data import vocabulary
from seqrnn.errors import Interrupted, UserError
from seqrnn.evaluate import evaluator
from seqrnn.experiment import Batch, Carry, Experiment, Params
from seqrnn.history import add_row, cut_rows, draw
from seqrnn.probe import probe
from seqrnn.progress import Progress

_DRAW_SECONDS = 10.0  # Between two drawings of history.png.


class State(NamedTuple):
  """All arrays of a run. The step makes the next one of it, in place.

  Attributes:
    step: updates made so far.
    key: of the whole run, as raw data; a step folds its number into it.
    params: of the model.
    optimizer: the optimizer's state.
    carry: handed from batch to batch where `data.stateful`.
    scale: of the learning rate; a plateau lowers it.
    sums: totals since the last evaluation, as metrics.add makes them.
  """

  step: jax.Array
  key: jax.Array
  params: Params
  optimizer: Any
  carry: Carry
  scale: jax.Array
  sums: dict[str, Any]


@dataclass
class Position:
  """Where a run is: what a checkpoint holds beside arrays.

  Attributes:
    step: updates made so far.
    epoch: the running epoch, from 0.
    batch: batches of it that are done.
    evaluated: the step of the last evaluation.
    best: the lowest validation loss.
    best_step: its step.
    waited: evaluations since then.
    stalled: those of them since the plateau schedule last acted.
    crc32: of the training data.
  """

  step: int = 0
  epoch: int = 0
  batch: int = 0
  evaluated: int = 0
  best: float = math.inf
  best_step: int = 0
  waited: int = 0
  stalled: int = 0
  crc32: int = 0


def make_step(
  experiment: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Callable[[State, Batch], tuple[State, jax.Array]]:
  """The jitted step: state, batch -> state, mean loss; `state` is used up."""

  def step(state, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    gradient = jax.value_and_grad(experiment.loss, has_aux=True)
    (loss, (carry, totals)), grads = gradient(
      state.params, state.carry, batch, key
    )
    updates, optimizer_state = optimizer.update(
      grads, state.optimizer, state.params
    )
    updates = jax.tree.map(lambda u: u * state.scale, updates)
    totals["gradient_norm"] = (optax.tree.norm(grads), jnp.ones(()))
    new = State(
      step=state.step + 1,
      key=state.key,
      params=optax.apply_updates(state.params, updates),
      optimizer=optimizer_state,
      carry=carry,
      scale=state.scale,
      sums=metrics.add(state.sums, totals),
    )
    return new, loss

  out = (_shardings(mesh), sharding.replicated(mesh))
  return jax.jit(step, donate_argnums=0, out_shardings=out)


def make_state(
  experiment: Experiment,
  optimizer: optax.GradientTransformation,
  seed: int,
  batch: Batch,
  mesh: Mesh,
) -> State:
  """The state before the first step; `batch` is any one that will train."""

  def init(key):
    params = experiment.init(jax.random.fold_in(key, 0))
    carry = experiment.carry(batch["inputs"].shape[0])
    _, (_, totals) = experiment.loss(params, carry, batch, None)
    totals["gradient_norm"] = (jnp.zeros(()), jnp.zeros(()))
    return State(
      step=jnp.zeros((), jnp.int32),
      key=jax.random.key_data(jax.random.fold_in(key, 1)),
      params=params,
      optimizer=optimizer.init(params),
      carry=carry,
      scale=jnp.ones(()),
      sums=metrics.zeros(totals),
    )

  return jax.jit(init, out_shardings=_shardings(mesh))(jax.random.key(seed))


def _shardings(mesh: Mesh) -> Any:
  """Where a State lives: the carry with its rows, all else on every device."""
  everywhere: Any = sharding.replicated(mesh)
  state = State(*[everywhere] * len(State._fields))
  return state._replace(carry=sharding.split(mesh))


@contextmanager
def _signals() -> Iterator[list[int]]:
  """Collects SIGINT and SIGTERM instead of dying of them."""
  caught: list[int] = []
  if threading.current_thread() is not threading.main_thread():
    yield caught
    return

  def note(number, _):
    if caught and number == signal.SIGINT:
      raise KeyboardInterrupt  # The second one is meant.
    caught.append(number)

  before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield caught
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def claim(config: Config, workdir: Path):
  """Refuses a workdir that belongs to another run.

  Raises:
    UserError: a field of the run's identity differs; all of them are listed.
  """
  path = workdir / "config.json"
  if not path.exists():
    return
  # A field that the run is too old to know has not changed.
  old = {**configs.flat(config), **configs.flat(configs.read_json(path))}
  found = configs.differences(old, config, configs.IDENTITY)
  if found:
    raise UserError(
      f"{workdir}: holds another run, {'; '.join(found)}; name another"
      " --workdir"
    )
  for line in configs.differences(old, config):
    print(f"changed: {line}")


def save(checkpoints, state: State, position: Position, loss: float | None):
  """Hands a checkpoint to Orbax; `loss` is that of an evaluation just made."""
  params, rest = split_state(state)
  checkpoints.save(position.step, params, rest, asdict(position), loss)


def restore(
  checkpoints, state: State, position: Position
) -> tuple[State, Position]:
  """The newest intact checkpoint, or what was given where there is none yet.

  Damaged ones after it are removed, for the run will come by there again.

  Raises:
    UserError: there are checkpoints and none is intact; nothing is removed.
  """
  from seqrnn.checkpoint import Damaged

  steps = checkpoints.steps()
  if not steps:
    return state, position
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    split_state(state),
  )
  damaged = []
  for step in reversed(steps):
    try:
      params, rest, saved = checkpoints.restore(step, *shapes)
    except Damaged as damage:
      print(f"checkpoint {step} is damaged: {damage}", file=sys.stderr)
      damaged.append(step)
      continue
    for later in damaged:
      checkpoints.delete(later)
    structure = jax.tree.structure(state._replace(params=()))
    state = jax.tree.unflatten(structure, rest["leaves"])
    return state._replace(params=params), Position(**saved)
  raise UserError(
    f"checkpoints {', '.join(map(str, steps))}: none is intact; name another"
    " --workdir"
  )


def split_state(state: State) -> tuple[Params, dict[str, list[jax.Array]]]:
  """The parameters, and the other arrays in a row: two parts of a checkpoint.

  Sampling reads the first alone. The second names nothing, since the types of
  an optimizer's state are optax's own affair.
  """
  return state.params, {"leaves": jax.tree.leaves(state._replace(params=()))}


def ended(config: Config, position: Position) -> bool:
  """Whether all epochs, or all steps, are done."""
  limit = config.train.max_steps
  return position.epoch >= config.train.epochs or (
    limit is not None and position.step >= limit
  )


def tired(config: Config, position: Position) -> bool:
  """Whether nothing has gained for as long as `train.patience` waits."""
  patience = config.train.patience
  return patience is not None and position.waited >= patience


def due(config: Config, position: Position) -> bool:
  """Whether an evaluation belongs here and has not been made."""
  if position.evaluated == position.step:
    return False
  if ended(config, position):
    return True
  if config.train.eval_every is None:
    return position.batch == 0
  return position.step % config.train.eval_every == 0


def loop(
  experiment: Experiment,
  config: Config,
  workdir: Path,
  *,
  mesh: Mesh,
  step: Callable[[State, Batch], tuple[State, jax.Array]],
  learning_rate: optax.Schedule,
  state: State,
  position: Position,
  total_steps: int,
  checkpoints,
  caught: list[int],
):
  """Trains until the steps are done, nothing gains, or a signal is caught.

  `position` is brought up to date. What happens after a step follows from
  the position alone, so going on repeats it to the bit.

  Raises:
    Interrupted: a signal was caught, and a checkpoint is on disk.
  """
  evaluate = evaluator(experiment, mesh)
  validation = experiment.batches("validation", 0)
  batches = experiment.batches("train", position.epoch)
  drawn = -math.inf
  with Progress(total_steps, position.step) as progress:
    while True:
      if due(config, position):
        seconds, symbols = progress.lap()
        figures = evaluate(state.params, validation, lambda: bool(caught))
        if figures is not None:
          rate = float(learning_rate(position.step - 1) * state.scale)
          row = figure_row(position, rate, metrics.finish(state.sums), figures)
          add_row(workdir / "metrics.csv", row)
          evaluation_seconds, _ = progress.lap()
          add_row(
            workdir / "timing.csv",
            {
              "step": position.step,
              "symbols": int(symbols),
              "seconds": seconds,
              "symbols_per_second": symbols / max(seconds, 1e-9),
              "evaluation_seconds": evaluation_seconds,
            },
          )
          state = take_note(config, state, position, figures["loss"])
          save(checkpoints, state, position, figures["loss"])
          progress.line(figure_line(row, position))
          if time.monotonic() - drawn > _DRAW_SECONDS:
            draw(workdir)
            drawn = time.monotonic()
      if caught or ended(config, position) or tired(config, position):
        break
      batch = batches[position.batch]
      state, loss = step(state, sharding.put(batch, mesh))
      progress.step(loss, float(batch["weights"].sum()))
      position.step += 1
      position.batch += 1
      if position.batch == len(batches):
        position.epoch, position.batch = position.epoch + 1, 0
        batches = experiment.batches("train", position.epoch)
      every = config.checkpoint.every
      now = every is not None and position.step % every == 0
      if now and not due(config, position):
        save(checkpoints, state, position, None)
  if caught:
    save(checkpoints, state, position, None)
  checkpoints.wait()
  draw(workdir)
  if caught:
    name = signal.Signals(caught[0]).name
    raise Interrupted(
      f"stopped by {name} and saved at step {position.step}; the same command,"
      f" or --workdir={workdir}, goes on from there",
      status=128 + caught[0],
    )


def take_note(
  config: Config, state: State, position: Position, loss: float
) -> State:
  """What an evaluation changes: best, patience, plateau, the sums."""
  position.evaluated = position.step
  position.waited += 1
  position.stalled += 1
  if loss < position.best:
    position.best, position.best_step = loss, position.step
    position.waited = position.stalled = 0
  state = state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums))
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


def figure_line(row: dict[str, Any], position: Position) -> str:
  """The row as a person reads it."""
  return (
    f"step {row['step']}  epoch {row['epoch']}"
    f"  train {row['train_loss']:.4f}"
    f"  validation {row['validation_loss']:.4f} nats"
    f"  {row['validation_bits_per_symbol']:.3f} bits/symbol"
    f"  accuracy {row['validation_accuracy']:.1%}"
    + ("  best" if position.best_step == position.step else "")
  )


def describe(
  experiment: Experiment, config: Config, params: Params, mesh: Mesh
):
  """Prints what is about to be trained, on what and where."""
  for split in ("train", "validation"):
    facts = experiment.facts(split)
    print(
      f"{split}: {facts['symbols']:,} symbols in {facts['documents']:,}"
      " documents"
    )
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  names = ", ".join(
    f"{len(v)} {name}" for name, v in experiment.vocabularies.items()
  )
  device = mesh.devices.flat[0]
  print(
    f"{config.task}: {count:,} parameters, {names}, {mesh.size}"
    f" {device.platform} device{'s' if mesh.size > 1 else ''}"
  )


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> dict[str, Any]:
  """Trains, or goes on training, until the epochs are done or nothing gains.

  Args:
    build: config, vocabularies or None -> Experiment.
    config: of the run.
    workdir: where its files are.

  Returns:
    the fields of the last Position.

  Raises:
    UserError: the workdir holds another run, the data are not those it began
      with, or the model leaks.
    Interrupted: SIGINT or SIGTERM came.
  """
  claim(config, workdir)
  names = workdir / "vocabulary.json"
  known = vocabulary.load(names) if names.exists() else None
  experiment = build(config, known)
  mesh = sharding.mesh()
  first = experiment.batches("train", 0)
  experiment.batches("validation", 0)  # An empty one is better known now.
  total_steps = config.train.epochs * len(first)
  if config.train.max_steps is not None:
    total_steps = min(total_steps, config.train.max_steps)
  learning_rate = optimizers.schedule(config, len(first), total_steps)
  optimizer = optimizers.optimizer(config, learning_rate)
  state = make_state(
    experiment, optimizer, config.seed, sharding.pad(first[0], mesh), mesh
  )
  facts = experiment.facts("train")

  from seqrnn.checkpoint import Checkpoints  # Orbax takes a second to import.

  workdir.mkdir(parents=True, exist_ok=True)
  checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
  try:
    state, position = restore(
      checkpoints, state, Position(crc32=facts["crc32"])
    )
    if position.crc32 != facts["crc32"]:
      raise UserError(
        f"{workdir}: the training data have changed since this run began; name"
        " another --workdir"
      )
    done = not due(config, position) and (
      ended(config, position) or tired(config, position)
    )
    step = make_step(experiment, optimizer, mesh)
    if experiment.forbidden is not None and not done:
      probe(
        step,
        state,
        first[0],
        experiment.forbidden(first[0]["inputs"].shape[1]),
        len(experiment.vocabularies["symbols"]),
        mesh,
      )
    if known is None:
      vocabulary.save(names, experiment.vocabularies)
    configs.save(config, workdir / "config.json")
    describe(experiment, config, state.params, mesh)
    if position.step and not done:
      print(f"going on from step {position.step}")
    cut_rows(workdir / "metrics.csv", position.evaluated)
    with _signals() as caught:
      loop(
        experiment,
        config,
        workdir,
        mesh=mesh,
        step=step,
        learning_rate=learning_rate,
        state=state,
        position=position,
        total_steps=total_steps,
        checkpoints=checkpoints,
        caught=caught,
      )
    print(
      f"{workdir}: finished at step {position.step}; best validation loss"
      f" {position.best:.4f} nats at step {position.best_step}"
    )
    return asdict(position)
  finally:
    checkpoints.close()
