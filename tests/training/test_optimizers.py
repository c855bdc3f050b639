"""Update rules against their equations, schedules against counted steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqrnn.configs import base
from seqrnn.training import step as step_lib
from tests.models.test_cells import close

RATE, DECAY, MOMENTUM, EPSILON, WEIGHT_DECAY = 0.1, 0.8, 0.6, 1e-2, 0.3
BETA1, BETA2 = 0.9, 0.999


def configure(**fields):
  config = base.get_config()
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in fields.items()}
  )
  return config


SGD, MOVING = {"name": "sgd"}, {"momentum": MOMENTUM}
DECAYED = {"weight_decay": WEIGHT_DECAY}
RULES = {
  "sgd": SGD,
  "sgd_decayed": SGD | DECAYED,
  "sgd_momentum": SGD | MOVING,
  "sgd_nesterov": SGD | MOVING | {"nesterov": True},
  "sgd_dampened": SGD | MOVING | {"nesterov": True, "dampened": True},
  "rmsprop": {"name": "rmsprop"},
  "rmsprop_momentum": {"name": "rmsprop"} | MOVING,
  "adagrad": {"name": "adagrad"},
  "adam": {"name": "adam"},
  "adamw": {"name": "adamw"} | DECAYED,
}


def updates_by_equations(fields, grads, params):
  """The updates of an array for gradients, one after another."""
  name, momentum = fields["name"], fields.get("momentum", 0)
  decay = fields.get("weight_decay", 0)
  mean, updates = np.zeros(len(params)), []
  # The sum of Adagrad starts at 0.1, as in TensorFlow.
  squares = np.full(len(params), 0.1 if name == "adagrad" else 0)
  for n, g in enumerate(grads, 1):
    if name != "adamw":
      g = g + decay * params
    if "dampened" in fields:
      g = (1 - MOMENTUM) * g
    if name == "adagrad":
      squares = squares + g**2
      step = g / np.sqrt(squares + EPSILON)
    elif name == "rmsprop":
      squares = DECAY * squares + (1 - DECAY) * g**2
      # Epsilon outside the root, as Keras, PyTorch and char-rnn do.
      mean = momentum * mean + g / (np.sqrt(squares) + EPSILON)
      step = mean
    elif name == "sgd":
      mean = momentum * mean + g
      step = g + momentum * mean if "nesterov" in fields else mean
    else:
      mean = BETA1 * mean + (1 - BETA1) * g
      squares = BETA2 * squares + (1 - BETA2) * g**2
      root = np.sqrt(squares / (1 - BETA2**n)) + EPSILON
      step = mean / (1 - BETA1**n) / root + decay * params
    updates.append(-RATE * step)
    params = params - RATE * step
  return updates


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rule", RULES)
def test_first_two_updates_equal_equations(rule):
  fields = {"decay": DECAY, "epsilon": EPSILON, **RULES[rule]}
  config = configure(**{f"optimizer__{k}": v for k, v in fields.items()})
  rng = np.random.default_rng(0)
  params, *grads = rng.normal(size=(3, 6))
  expected = updates_by_equations(RULES[rule], grads, params)

  optimizer = step_lib.make_optimizer(config, optax.constant_schedule(RATE))
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


def clipped(grads, **fields):
  """The gradients that the update rule gets."""
  config = configure(optimizer__name="sgd", **fields)
  optimizer = step_lib.make_optimizer(config, optax.constant_schedule(1.0))
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
  length = step_lib.Length(RATE, per_epoch, total or steps)
  schedule = step_lib.make_schedule(config, length)
  found = np.array([float(schedule(step)) for step in range(steps)])
  at = lambda n: step_lib.make_schedule(config, n)(jnp.arange(steps))
  traced = jax.jit(at)  # As a step computes them.
  close(np.broadcast_to(traced(length), found.shape), found, 1e-6)
  return found


def test_constant_with_and_without_warmup():
  for name in ("constant", "plateau"):
    close(rates(9, name=name), np.full(9, RATE), 1e-6)
  for warmup in (1, 5):  # The first rate is not zero.
    expected = RATE * np.minimum(np.arange(1, 13) / warmup, 1)
    close(rates(12, name="constant", warmup_steps=warmup), expected, 1e-6)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_exponential_is_char_rnns(after):
  """Its loop lowers the rate at the end of epoch `after` and of later ones."""
  rate, expected = RATE, []
  for i in range(1, 22):
    expected.append(rate)
    if i % 3 == 0 and i / 3 >= after:
      rate *= 0.97
  falling = rates(21, name="exponential", factor=0.97, after=after)
  close(falling, np.array(expected), 1e-6)


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
