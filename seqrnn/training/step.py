"""The training step: its state, its optimizer, and one jitted function."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike
from optax import GradientTransformation

from seqrnn.config.read import Config, flat
from seqrnn.experiment import Batch, Carry, Experiment, Params, Totals
from seqrnn.models import losses
from seqrnn.models.cell import code_of
from seqrnn.models.layers import step_rate
from seqrnn.runtime import private, sharding
from seqrnn.runtime.sharding import Jitted
from seqrnn.training import rates
from seqrnn.training.transfer import Record

# Begins of the fields that programs depend on, beside the functions of a task.
_COMPILED = "optimizer.", "schedule.", "train.freeze", "train.start_from"
_kept: deque[tuple[Any, tuple[Jitted, Jitted]]] = deque(maxlen=4)
# A function of the base learning rate, which may be traced.
Optimizer = Callable[[ArrayLike], GradientTransformation]


class Average(NamedTuple):
  """A weighted mean of the parameters after each update.

  Attributes:
    params: the mean.
    weight: the total weight, where the newest parameters have weight 1.
  """

  params: Params
  weight: jax.Array


class TrainState(NamedTuple):
  """All arrays of a run; the step donates the old state to the new one.

  Attributes:
    step: the number of updates so far.
    key: the run's random key, as raw data; each step folds its number into it.
    params: the parameters of the model.
    optimizer: the optimizer's state.
    carry: the carry that `data.stateful` passes from batch to batch.
    scale: the factor of the learning rate; the plateau schedule lowers it.
    sums: totals since the last evaluation, as losses.add_totals makes them.
    average: the averaged parameters, which are evaluated and saved instead of
      `params`; () if parameters are not averaged.
  """

  step: jax.Array
  key: jax.Array
  params: Params
  optimizer: optax.OptState
  carry: Carry
  scale: jax.Array
  sums: Totals
  average: Average | tuple[()] = ()

  @property
  def eval_params(self) -> Params:
    """The parameters to evaluate: the average if there is one, else params."""
    return self.average.params if self.average else self.params

  def with_eval_params(self, params: Params) -> "TrainState":
    """Returns the state with its eval_params replaced."""
    if self.average:
      return self._replace(average=self.average._replace(params=params))
    return self._replace(params=params)


# A function state, batch -> next state, mean loss.
Step = Callable[[TrainState, Batch], tuple[TrainState, jax.Array]]


class Length(NamedTuple):
  """What a schedule depends on, and no program: they are arguments of a step.

  Attributes:
    rate: the base learning rate.
    epoch: the steps of an epoch.
    total: the steps of the training.
  """

  rate: ArrayLike
  epoch: ArrayLike
  total: ArrayLike


def make_schedule(config: Config, length: Length) -> Callable[[Any], Any]:
  """Returns the function step -> learning rate.

  For `plateau` the function is constant: train.record_evaluation lowers the
  state's scale instead. The schedules of optax need numbers that are known when
  they are traced.
  """
  plan, (rate, epoch, total) = config.schedule, length
  warmup, factor = plan.warmup_steps, plan.factor

  def schedule(step):
    xp = jnp if isinstance(step, jax.Array) else np  # Compiles nothing.
    times, left = 0, xp.maximum(total - warmup, 1)
    if plan.name == "exponential":
      # As char-rnn: the rate decays at the end of epoch `after` and every later
      # epoch.
      times = step // epoch - max(plan.after - 1, 0)
    elif plan.name == "step":
      times = step // (plan.after * epoch)
    share = xp.minimum(step - warmup, left) / left
    factors = {"linear": 1 - share, "cosine": (1 + xp.cos(np.pi * share)) / 2}
    main = rate * factors.get(plan.name, factor ** xp.maximum(times, 0))
    return xp.where(step < warmup, rate * (step + 1) / max(warmup, 1), main)

  return schedule


def make_optimizer(
  config: Config, learning_rate: optax.Schedule
) -> GradientTransformation:
  """Chains gradient clipping, weight decay and the update rule.

  AdamW applies weight decay after its rule, decoupled from the gradient.

  RMSprop divides by sqrt(mean square) + epsilon, epsilon outside the root, as
  in Keras, PyTorch and char-rnn. Adagrad is optax's: its sum of squares starts
  at 0.1, and epsilon is inside the root.
  """
  fields = config.optimizer
  epsilon = {"eps": fields.epsilon}
  momentum = {"momentum": fields.momentum or None}
  arguments = {
    "sgd": {"nesterov": fields.nesterov, **momentum},
    "rmsprop": {
      "decay": fields.decay,
      "eps_in_sqrt": False,
      **epsilon,
      **momentum,
    },
    "adagrad": epsilon,
    "adam": epsilon,
    "adamw": {"weight_decay": fields.weight_decay, **epsilon},
  }
  rule = getattr(optax, fields.name)
  parts: list[GradientTransformation] = []
  if fields.clip_value is not None:
    parts.append(optax.clip(fields.clip_value))
  if fields.clip_norm is not None:
    parts.append(optax.clip_by_global_norm(fields.clip_norm))
  if fields.weight_decay and fields.name != "adamw":
    parts.append(optax.add_decayed_weights(fields.weight_decay))
  if fields.dampened:
    parts.append(optax.scale(1 - fields.momentum))
  return optax.chain(*parts, rule(learning_rate, **arguments[fields.name]))


def make_step(
  experiment: Experiment, optimizer: Optimizer, mesh: Mesh
) -> Jitted:
  """Returns the jitted step: state, batch, rate -> state, mean loss.

  The step donates `state`. The learning rate is an argument: if it were a
  constant, every trial of a search would compile its own program. So are the
  `decay` of the weights in the average, if the state has one, and `dropout`,
  the rate of `model.dropout`; None: that of the model.

  Args:
    experiment: the task.
    optimizer: a function of the learning rate, or of a Length.
    mesh: the devices.
  """
  loss_of = experiment.loss  # The experiment has the data.

  def step(state, batch, rate, decay=1.0, dropout=None):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    # A function of its own: JAX keeps what it has traced of an equal one, with
    # the rate of another step.
    gradient = jax.value_and_grad(lambda *x: loss_of(*x), has_aux=True)
    context = copy_context()
    context.run(step_rate.set, dropout)
    (loss, (carry, totals)), grads = context.run(
      gradient, state.params, state.carry, batch, key
    )
    updates, optimizer_state = optimizer(rate).update(
      grads, state.optimizer, state.params
    )
    updates = jax.tree.map(lambda u: u * state.scale, updates)
    totals["gradient_norm"] = (optax.tree.norm(grads), jnp.ones(()))
    params = optax.apply_updates(state.params, updates)
    new = TrainState(
      step=state.step + 1,
      key=state.key,
      params=params,
      optimizer=optimizer_state,
      carry=carry,
      scale=state.scale,
      sums=losses.add_totals(state.sums, totals),
      average=state.average and _averaged(state.average, params, decay),
    )
    return new, loss

  out = (_shardings(mesh), sharding.replicated(mesh))
  options = _compiler_options(mesh)
  return sharding.jit(
    step, mesh, donate_argnums=0, out_shardings=out, **options
  )


def _compiler_options(mesh: Mesh) -> dict[str, dict[str, int]]:
  """Returns options of jax.jit: on CPUs, LLVM optimizes less than it could.

  Compilation takes a quarter less time, and a step the same time: XLA
  vectorizes its loops at any level above 0, and products are in libraries.
  """
  on_cpu = private.mesh_platform(mesh) == "cpu"
  return private.fast_compilation() if on_cpu else {}


def _averaged(average: Average, params: Params, decay: float) -> Average:
  """Returns the average, updated with the newest parameters."""
  weight = decay * average.weight + 1
  mean = optax.incremental_update(params, average.params, 1 / weight)
  return Average(mean, weight)


def make_start(
  experiment: Experiment,
  optimizer: Optimizer,
  batch: Batch,
  mesh: Mesh,
  average: bool = False,
) -> Jitted:
  """Returns a jitted function of the seed: the state before the first step.

  The seed is a np.uint32, so that all seeds share one program. `eval_shape` of
  the function has the shardings of the state, too.

  Args:
    experiment: the task.
    optimizer: the optimizer of the step.
    batch: a training batch, of which only the shapes are used.
    mesh: the devices.
    average: whether parameters are averaged.
  """
  rows = len(batch["inputs"])
  new_params, loss, carry = experiment.init, experiment.loss, experiment.carry

  def init(seed):
    key = jax.random.key(seed)
    params = new_params(jax.random.fold_in(key, 0))
    # The shapes of the totals do not depend on the number of rows.
    _, (_, totals) = jax.eval_shape(
      lambda params: loss(params, carry(rows), batch, None), params
    )
    totals["gradient_norm"] = (jnp.zeros(()), jnp.zeros(()))
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      key=jax.random.key_data(jax.random.fold_in(key, 1)),
      params=params,
      optimizer=optimizer(0.0).init(params),
      carry=carry(sharding.padded_size(rows, mesh)),
      scale=jnp.ones(()),
      sums=losses.zero_sums(totals),
      average=Average(params, jnp.ones(())) if average else (),
    )

  options = _compiler_options(mesh)
  return sharding.jit(init, mesh, out_shardings=_shardings(mesh), **options)


def _shardings(mesh: Mesh) -> TrainState:
  """Returns the shardings of a state: all replicated but the carry's rows."""
  replicated = [sharding.replicated(mesh)] * len(TrainState._fields)
  return TrainState._make(replicated)._replace(carry=sharding.by_rows(mesh))


def programs(
  experiment: Experiment, config: Config, mesh: Mesh, record: Record | None
) -> tuple[Jitted, Jitted]:
  """Returns the jitted functions of `make_step` and `make_start`.

  The last ones are kept: trainings trace and compile them once if they differ
  only in learning rate, dropout, seed, number of steps, and data of equal
  sizes.
  """
  batches, train = experiment.batches("train", 0), config.train
  fields = flat(config) | {"optimizer.learning_rate": None}
  key = (
    *(experiment.loss, experiment.init, experiment.carry, mesh, record),
    *(train.ema is None, train.choice == "best", config.model.dropout > 0),
    *(batches.batch_size, code_of(config.model.cell)),
    {n: x for n, x in fields.items() if n.startswith(_COMPILED)},
  )
  for other, programs in _kept:
    if other == key:
      return programs
  factors = rates.shares(experiment, config, record)
  if factors is not None:
    experiment = rates.freeze_parts(experiment, factors)

  def optimizer(length):  # Called without one for its initial state.
    schedule = lambda step: make_schedule(config, length)(step)
    rule = make_optimizer(config, schedule)
    return rule if factors is None else rates.scaled(rule, factors)

  step = make_step(experiment, optimizer, mesh)
  average = train.ema is not None
  start = make_start(experiment, optimizer, batches[0], mesh, average)
  _kept.append((key, (step, start)))
  return step, start


def compile_programs(
  initial: jax.stages.Lowered, lower_step: Callable[[], jax.stages.Lowered]
):
  """Compiles the initial state, and the step, which is traced meanwhile.

  Threads compile: Python handles signals in this one, but not in a compiler.
  """

  def run(lowered: jax.stages.Lowered):
    with suppress(Exception):  # The program's first call raises it again.
      lowered.compile()

  threads = []
  for lower in (lambda: initial, lower_step):
    thread = threading.Thread(target=run, args=(lower(),), daemon=True)
    thread.start()
    threads.append(thread)
  for thread in threads:
    thread.join()
