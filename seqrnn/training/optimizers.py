"""The optimizers and learning rates that the config names.

Parts of a model may learn at their own rates: frozen parts (`train.freeze`) do
not learn, and with `optimizer.layer_decay` each layer learns at a share of the
rate of the one above it (ULMFiT: Howard & Ruder 2018).
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from seqrnn.config.read import Config
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.training.transfer import (
  Place,
  Record,
  named_places,
  rows_to_learn,
)


def schedule(
  config: Config, steps_per_epoch: int, total_steps: int, rate: ArrayLike
) -> optax.Schedule:
  """Returns the function step -> learning rate.

  For `plateau` the function is constant: train.record_evaluation lowers the
  state's scale instead.
  """
  plan = config.schedule
  warmup = plan.warmup_steps
  after: dict[str, Callable[[], optax.Schedule]] = {
    "constant": lambda: optax.constant_schedule(rate),
    "plateau": lambda: optax.constant_schedule(rate),
    # As char-rnn: the rate decays at the end of epoch `after` and every later
    # epoch.
    "exponential": lambda: optax.exponential_decay(
      rate,
      transition_steps=steps_per_epoch,
      decay_rate=plan.factor,
      transition_begin=max((plan.after - 1) * steps_per_epoch, 0),
      staircase=True,
    ),
    "step": lambda: optax.exponential_decay(
      rate,
      transition_steps=plan.after * steps_per_epoch,
      decay_rate=plan.factor,
      staircase=True,
    ),
    "linear": lambda: optax.linear_schedule(
      rate, 0.0, max(total_steps - warmup, 1)
    ),
    "cosine": lambda: optax.cosine_decay_schedule(
      rate, max(total_steps - warmup, 1)
    ),
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
  rules = {
    "sgd": lambda: optax.sgd(
      learning_rate, momentum=fields.momentum or None, nesterov=fields.nesterov
    ),
    "rmsprop": lambda: optax.rmsprop(
      learning_rate,
      decay=fields.decay,
      eps=fields.epsilon,
      momentum=fields.momentum or None,
      eps_in_sqrt=False,
    ),
    "adagrad": lambda: optax.adagrad(learning_rate, eps=fields.epsilon),
    "adam": lambda: optax.adam(learning_rate, eps=fields.epsilon),
    "adamw": lambda: optax.adamw(
      learning_rate,
      eps=fields.epsilon,
      weight_decay=fields.weight_decay,
    ),
  }
  parts: list[optax.GradientTransformation] = []
  if fields.clip_value is not None:
    parts.append(optax.clip(fields.clip_value))
  if fields.clip_norm is not None:
    parts.append(optax.clip_by_global_norm(fields.clip_norm))
  if fields.weight_decay and fields.name != "adamw":
    parts.append(optax.add_decayed_weights(fields.weight_decay))
  if fields.dampened:
    parts.append(optax.scale(1 - fields.momentum))
  return optax.chain(*parts, rules[fields.name]())


class Shares(NamedTuple):
  """How each array of a model learns, as trees like its parameters.

  Attributes:
    factor: of the updates.
    learns: whether an array learns. An array of bools, broadcast, where only
      new rows of a frozen part learn.
  """

  factor: Any
  learns: Any

  def count_frozen(self, experiment: Experiment) -> int:
    """Returns the number of parameters that do not learn."""
    sizes = jax.tree.map(
      lambda learns, x: (
        x.size - np.count_nonzero(np.broadcast_to(learns, x.shape))
      ),
      self.learns,
      shapes(experiment),
    )
    return sum(jax.tree.leaves(sizes))

  def frozen(self, experiment: Experiment) -> Experiment:
    """Returns the experiment; arrays that do not learn get no gradients."""

    def stopped(learns, x):
      if not np.any(learns):
        return jax.lax.stop_gradient(x)
      if np.all(learns):
        return x
      return jnp.where(learns, x, jax.lax.stop_gradient(x))

    def loss(params: Params, *more: Any) -> Any:
      return experiment.loss(jax.tree.map(stopped, self.learns, params), *more)

    return experiment._replace(loss=loss)

  def scale(self) -> optax.GradientTransformation:
    """Returns the last part of an optimizer, which scales the updates."""

    def scaled(factor, learns, update):
      if not np.any(learns):
        return jnp.zeros_like(update)
      share = factor if np.all(learns) else jnp.where(learns, factor, 0.0)
      return share * update

    return optax.stateless(
      lambda updates, _: jax.tree.map(scaled, self.factor, self.learns, updates)
    )


def shares(
  experiment: Experiment, config: Config, record: Record | None
) -> Shares | None:
  """Returns how the parts of a run's model learn; None: all at the same rate.

  Args:
    experiment: of the run.
    config: of the run.
    record: of the run that it has started from; None: from nothing.

  Raises:
    UserError: a part to freeze does not exist, or no part learns.
  """
  decay = config.optimizer.layer_decay
  if config.train.freeze is None and decay == 1:
    return None
  tree = named_places(experiment, shapes(experiment))
  parts = {place.whole for place in jax.tree.leaves(tree)}
  layers = max(part.depth for part in parts)
  named, taken = _frozen(config.train.freeze, parts, record)

  def learns(place: Place, array: Any) -> Any:
    if place.whole in named:
      return False
    if record is None or place.whole not in taken:
      return True
    fresh = rows_to_learn(place, array.shape, record)
    return False if fresh is None else fresh

  learning = jax.tree.map(learns, tree, shapes(experiment))
  if not any(np.any(part) for part in jax.tree.leaves(learning)):
    why = "no part is left that learns"
    if record is not None and not (record.new or record.new_rows):
      why = f"{record.workdir} has all parts of this model, so none learns"
    raise UserError(
      f"config.train.freeze={config.train.freeze!r}: {why}; freeze fewer parts"
    )
  return Shares(
    factor=jax.tree.map(lambda place: decay ** place.level(layers), tree),
    learns=learning,
  )


def _frozen(
  freeze: str | None, parts: Iterable[Place], record: Record | None
) -> tuple[set[Place], set[Place]]:
  """The parts that `train.freeze` names, and those that it names as taken."""
  field, frozen = f"config.train.freeze={freeze!r}", (set(), set())
  for name in freeze.split(",") if freeze else ():
    if name == "taken":
      of_source = record.taken if record else []
      named = {part for part in parts if str(part) in of_source}
    else:
      named = {part for part in parts if name in part.names}
    if not named:
      known = sorted({name for part in parts for name in part.names})
      raise UserError(
        f"{field}: the model has no {name}; it has {', '.join(known)}"
      )
    frozen[name == "taken"].update(named)
  return frozen
