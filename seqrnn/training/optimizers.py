"""The optimizers and learning-rate schedules that the config names."""

from collections.abc import Callable

import optax
from jax.typing import ArrayLike

from seqrnn.config.read import Config


def schedule(
  config: Config, steps_per_epoch: int, total_steps: int, rate: ArrayLike
) -> optax.Schedule:
  """Returns the function step -> learning rate.

  For `plateau` the function is constant: loop.record_evaluation lowers the
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
