"""Update rules against their equations, schedules against counted steps."""

import math

import jax
import numpy as np
import optax
import pytest

from seqrnn.configs import base
from seqrnn.training import optimizers
from tests.models.test_cells import close

RATE, DECAY, MOMENTUM, EPSILON, WEIGHT_DECAY = 0.1, 0.8, 0.6, 1e-2, 0.3
BETA1, BETA2 = 0.9, 0.999


def configure(**fields):
  config = base.get_config()
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in fields.items()}
  )
  return config


def sgd(grads, _):
  return [-RATE * g for g in grads]


def sgd_decayed(grads, params):
  u1 = -RATE * (grads[0] + WEIGHT_DECAY * params)
  return [u1, -RATE * (grads[1] + WEIGHT_DECAY * (params + u1))]


def sgd_momentum(grads, _):
  v1 = grads[0]
  v2 = MOMENTUM * v1 + grads[1]
  return [-RATE * v1, -RATE * v2]


def sgd_nesterov(grads, _):
  v1 = grads[0]
  v2 = MOMENTUM * v1 + grads[1]
  return [
    -RATE * (grads[0] + MOMENTUM * v1),
    -RATE * (grads[1] + MOMENTUM * v2),
  ]


def sgd_dampened(grads, params):
  return sgd_nesterov([(1 - MOMENTUM) * g for g in grads], params)


def rmsprop(grads, _):
  s1 = (1 - DECAY) * grads[0] ** 2
  s2 = DECAY * s1 + (1 - DECAY) * grads[1] ** 2
  # Epsilon outside the root, as Keras, PyTorch and char-rnn do.
  return [
    -RATE * grads[0] / (np.sqrt(s1) + EPSILON),
    -RATE * grads[1] / (np.sqrt(s2) + EPSILON),
  ]


def rmsprop_momentum(grads, params):
  u1, u2 = rmsprop(grads, params)
  return [u1, MOMENTUM * u1 + u2]


def adagrad(grads, _):
  s1 = 0.1 + grads[0] ** 2  # The sum starts at 0.1, as in TensorFlow.
  s2 = s1 + grads[1] ** 2
  return [
    -RATE * grads[0] / np.sqrt(s1 + EPSILON),
    -RATE * grads[1] / np.sqrt(s2 + EPSILON),
  ]


def adam(grads, _):
  m1, v1 = (1 - BETA1) * grads[0], (1 - BETA2) * grads[0] ** 2
  m2 = BETA1 * m1 + (1 - BETA1) * grads[1]
  v2 = BETA2 * v1 + (1 - BETA2) * grads[1] ** 2
  return [
    -RATE * (m / (1 - BETA1**n)) / (np.sqrt(v / (1 - BETA2**n)) + EPSILON)
    for n, m, v in ((1, m1, v1), (2, m2, v2))
  ]


def adamw(grads, params):
  u1, u2 = adam(grads, params)
  u1 = u1 - RATE * WEIGHT_DECAY * params
  u2 = u2 - RATE * WEIGHT_DECAY * (params + u1)
  return [u1, u2]


EQUATIONS = {
  "sgd": (sgd, {"name": "sgd"}),
  "sgd_decayed": (sgd_decayed, {"name": "sgd", "weight_decay": WEIGHT_DECAY}),
  "sgd_momentum": (sgd_momentum, {"name": "sgd", "momentum": MOMENTUM}),
  "sgd_nesterov": (
    sgd_nesterov,
    {"name": "sgd", "momentum": MOMENTUM, "nesterov": True},
  ),
  "sgd_dampened": (
    sgd_dampened,
    {"name": "sgd", "momentum": MOMENTUM, "nesterov": True, "dampened": True},
  ),
  "rmsprop": (rmsprop, {"name": "rmsprop"}),
  "rmsprop_momentum": (
    rmsprop_momentum,
    {"name": "rmsprop", "momentum": MOMENTUM},
  ),
  "adagrad": (adagrad, {"name": "adagrad"}),
  "adam": (adam, {"name": "adam"}),
  "adamw": (adamw, {"name": "adamw", "weight_decay": WEIGHT_DECAY}),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rule", EQUATIONS)
def test_first_two_updates_equal_equations(rule):
  equations, fields = EQUATIONS[rule]
  fields = {
    "learning_rate": RATE,
    "decay": DECAY,
    "epsilon": EPSILON,
    **fields,
  }
  config = configure(**{f"optimizer__{k}": v for k, v in fields.items()})
  rng = np.random.default_rng(0)
  params, *grads = rng.normal(size=(3, 6))
  expected = equations(grads, params)

  optimizer = optimizers.optimizer(config, optax.constant_schedule(RATE))
  update = jax.jit(optimizer.update)
  tree = {"kernel": params[:4].reshape(2, 2), "bias": params[4:]}
  state = optimizer.init(tree)
  for gradient, change in zip(grads, expected, strict=True):
    gradient = {"kernel": gradient[:4].reshape(2, 2), "bias": gradient[4:]}
    updates, state = update(gradient, state, tree)
    flat = np.concatenate([updates["kernel"].ravel(), updates["bias"]])
    # The schedule's rate is a float32.
    close(flat, change, 1e-7)
    tree = optax.apply_updates(tree, updates)


def test_the_rate_follows_the_schedule():
  config = configure(optimizer__name="sgd")
  optimizer = optimizers.optimizer(config, lambda step: 0.5 / (step + 1))
  params = np.float32(np.random.default_rng(1).normal(size=3))
  state = optimizer.init(params)
  for rate in (0.5, 0.25, 0.5 / 3):
    updates, state = optimizer.update(params, state, params)
    close(updates, -np.float32(rate) * params, 1e-6)


def clipped(grads, **fields):
  """The gradients that the update rule gets."""
  config = configure(optimizer__name="sgd", **fields)
  optimizer = optimizers.optimizer(config, optax.constant_schedule(1.0))
  updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
  return jax.tree.map(np.negative, updates)


def test_values_are_clipped_before_the_norm_of_all_and_the_weight_decay():
  grads = {"a": np.float32([3, 0]), "b": np.float32([0, -4])}  # Norm 5.
  two = {"a": np.array([1.2, 0]), "b": np.array([0, -1.6])}
  close(clipped(grads, optimizer__clip_norm=2.0), two, 1e-6)
  close(clipped(grads, optimizer__clip_norm=5.5), grads, 0)
  params = np.float32([3, -0.5])  # Which are the gradients, too.
  decay = clipped(
    params, optimizer__clip_value=1.0, optimizer__weight_decay=0.5
  )
  close(decay, np.array([1 + 1.5, -0.5 - 0.25]), 1e-6)
  grads = {"a": np.float32([9, 0]), "b": np.float32([0, 4])}
  both = clipped(grads, optimizer__clip_norm=2.5, optimizer__clip_value=3.0)
  side = 2.5 / math.sqrt(2)
  close(both, {"a": np.array([side, 0]), "b": np.array([0, side])}, 1e-6)


def rates(steps, *, per_epoch=3, total=None, **fields):
  """The learning rate of each step."""
  config = configure(**{f"schedule__{k}": v for k, v in fields.items()})
  schedule = optimizers.schedule(config, per_epoch, total or steps, RATE)
  return np.array([float(schedule(step)) for step in range(steps)])


def test_constant_with_and_without_warmup():
  for name in ("constant", "plateau"):
    close(rates(9, name=name), np.full(9, RATE), 1e-6)
  for warmup in (1, 5):  # The first rate is not zero.
    expected = RATE * np.minimum(np.arange(1, 13) / warmup, 1)
    close(rates(12, name="constant", warmup_steps=warmup), expected, 1e-6)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_exponential_is_char_rnns(after):
  """Its loop: `rate` is lowered at the end of epoch `after` and of later ones.

  With 0-based epochs: rate * factor ** max(0, epoch - after + 1), but never
  before the first epoch is over.
  """
  per_epoch, rate, expected = 3, RATE, []
  for i in range(1, 7 * per_epoch + 1):
    expected.append(rate)
    epoch = i / per_epoch
    if i % per_epoch == 0 and epoch >= after:
      rate *= 0.97
  found = rates(
    7 * per_epoch,
    per_epoch=per_epoch,
    name="exponential",
    factor=0.97,
    after=after,
  )
  close(found, np.array(expected), 1e-6)
  if after:
    epoch = np.arange(7 * per_epoch) // per_epoch
    close(found, RATE * 0.97 ** np.maximum(0, epoch - after + 1), 1e-6)


def test_step_cosine_and_linear():
  step = rates(14, name="step", factor=0.5, after=2)  # 3 steps an epoch.
  expected = [RATE] * 6 + [RATE / 2] * 6 + [RATE / 4] * 2
  close(step, np.array(expected), 1e-6)
  cosine = rates(13, total=12, name="cosine")
  close(cosine[[0, 6, 12]], RATE * np.array([1, 0.5, 0]), 1e-6)
  close(cosine[3], RATE * (1 + math.cos(math.pi / 4)) / 2, 1e-6)
  for name in ("linear", "cosine"):  # The slanted triangle is linear.
    warmed = rates(21, total=20, name=name, warmup_steps=4)
    close(warmed[:5], RATE * np.array([0.25, 0.5, 0.75, 1, 1]), 1e-6)
    close(warmed[[4, 12, 20]], RATE * np.array([1, 0.5, 0]), 1e-6)
