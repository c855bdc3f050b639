"""The optimizers and learning rates that the config names.

Parts of a model may learn at their own rates: frozen parts (`train.freeze`) do
not learn, and with `optimizer.layer_decay` each layer learns at a share of the
rate of the one above it (ULMFiT: Howard & Ruder 2018).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from seqrnn.config.read import Config
from seqrnn.config.resolve import total_steps
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.models.parts import ModelPart
from seqrnn.training.transfer import Record, named_parts


def schedule(
  config: Config, steps_per_epoch: int, rate: ArrayLike
) -> optax.Schedule:
  """Returns the function step -> learning rate.

  For `plateau` the function is constant: train.record_evaluation lowers the
  state's scale instead.
  """
  plan = config.schedule
  warmup = plan.warmup_steps
  decay = partial(
    optax.exponential_decay, rate, decay_rate=plan.factor, staircase=True
  )
  left = max(total_steps(config, steps_per_epoch) - warmup, 1)
  constant = lambda: optax.constant_schedule(rate)
  after: dict[str, Callable[[], optax.Schedule]] = {
    "constant": constant,
    "plateau": constant,
    # As char-rnn: the rate decays at the end of epoch `after` and every later
    # epoch.
    "exponential": lambda: decay(
      steps_per_epoch,
      transition_begin=max((plan.after - 1) * steps_per_epoch, 0),
    ),
    "step": lambda: decay(plan.after * steps_per_epoch),
    "linear": lambda: optax.linear_schedule(rate, 0.0, left),
    "cosine": lambda: optax.cosine_decay_schedule(rate, left),
  }
  main = after[plan.name]()
  if not warmup:
    return main
  if plan.name in ("exponential", "step"):  # Epochs count from the first step.
    tail = lambda step: main(step + warmup)
  else:
    tail = main
  return optax.join_schedules(
    [optax.linear_schedule(rate / warmup, rate, warmup - 1), tail], [warmup]
  )


def optimizer(
  config: Config, learning_rate: optax.Schedule
) -> optax.GradientTransformation:
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
  parts: list[optax.GradientTransformation] = []
  if fields.clip_value is not None:
    parts.append(optax.clip(fields.clip_value))
  if fields.clip_norm is not None:
    parts.append(optax.clip_by_global_norm(fields.clip_norm))
  if fields.weight_decay and fields.name != "adamw":
    parts.append(optax.add_decayed_weights(fields.weight_decay))
  if fields.dampened:
    parts.append(optax.scale(1 - fields.momentum))
  return optax.chain(*parts, rule(learning_rate, **arguments[fields.name]))


def shares(
  experiment: Experiment, config: Config, record: Record | None
) -> Params | None:
  """Returns the factor of each array's learning rate; 0: it does not learn.

  Args:
    experiment: of the run.
    config: of the run.
    record: of the run that it has started from; None: from nothing.

  Returns:
    a tree like the parameters; None: all learn at the same rate.

  Raises:
    UserError: a part to freeze does not exist, or no part learns.
  """
  freeze, decay = config.train.freeze, config.optimizer.layer_decay
  if freeze is None and decay == 1:
    return None
  tree = named_parts(experiment, shapes(experiment))
  parts = {*jax.tree.leaves(tree)}
  layers = max(part.depth for part in parts)

  def names(part: ModelPart) -> set[str]:
    if part.depth:
      return {"layers", f"layer{part.depth}"}
    return {part.name if part.is_input else "head"}

  def factor(part: ModelPart) -> float:
    above = layers + 1 - part.depth  # Heads, then layers, the last one first.
    return 0.0 if part in frozen else decay ** (above * (not part.is_output))

  field, frozen = f"config.train.freeze={freeze!r}", set()
  for name in freeze.split(",") if freeze else ():
    if name == "taken":  # As a whole; a part with new rows learns.
      taken = [] if record is None else record.taken
      frozen |= {part for part in parts if str(part) in taken}
    elif named := {part for part in parts if name in names(part)}:
      frozen |= named
    else:
      known = sorted({name for part in parts for name in names(part)})
      raise UserError(
        f"{field}: the model has no {name}; it has {', '.join(known)}"
      )
  if frozen == parts:
    raise UserError(f"{field}: no part is left that learns; freeze fewer parts")
  return jax.tree.map(factor, tree)


def freeze_parts(experiment: Experiment, factors: Params) -> Experiment:
  """Returns the experiment; arrays of factor 0 get no gradients."""

  def loss(params, *more):
    stopped = lambda factor, x: x if factor else jax.lax.stop_gradient(x)
    return experiment.loss(jax.tree.map(stopped, factors, params), *more)

  return experiment._replace(loss=loss)


def scale_updates(factors: Params) -> optax.GradientTransformation:
  """Returns the last part of an optimizer, which scales the updates."""
  scaled = lambda factor, x: factor * x if factor else jnp.zeros_like(x)
  return optax.stateless(lambda new, _: jax.tree.map(scaled, factors, new))
