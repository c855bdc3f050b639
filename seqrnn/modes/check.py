"""check: checks the loss, updates, units and gradients before a training."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import PAD
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Build, Experiment, Params
from seqrnn.models.cell import Cell
from seqrnn.models.parts import part_of
from seqrnn.runtime import private, sharding
from seqrnn.training import linear, train
from seqrnn.training.probe import probe
from seqrnn.training.setup import Training
from seqrnn.training.step import TrainState
from seqrnn.training.transfer import named_parts

_ROWS, _STEPS, _RATE = 4, 100, 0.01  # Of the batch that is overfitted.
_UPDATES = 10  # The update of this step is compared with the weights.
_DEAD = 0.01  # The share of the median gradient of a layer's gate inputs.
_DISTANCES = (1, 4, 16, 64)

Checks = dict[str, dict[str, float]]  # By check, and by part of the model.
START, FIT = "loss at the start / log V", "after 100 steps on 4 rows / log V"
UPDATE, DEAD, GRADIENT = "update / weights", "dead units", "gradient at"
# The least and the largest value of a check, and the cause of others.
RANGES = {
  START: (0.8, 1.2, "see model.initial_scale and model.embedding_scale"),
  FIT: (0, 0.5, "the model is too small, or its targets have other inputs"),
  UPDATE: (1e-4, 2, "change optimizer.learning_rate"),
  DEAD: (0, 0.1, "they get no gradient: lower model.initial_scale"),
  GRADIENT: (0, 10, "it grows with the distance: lower model.initial_scale"),
}


def run(build: Build, config: Config, workdir: Path) -> Checks:
  """Prints the checks; those out of their range with a sentence.

  The model is that of a training before its first step. Nothing is written.

  Raises:
    UserError: the config is invalid for its task, or the data are missing.
  """
  training = train.make_training(build, config, workdir)
  experiment = training.experiment
  fits = linear.is_fitted(experiment, training.config)
  if fits:  # The layers alone; the wide part stays.
    state = training.start(np.uint32(config.seed))
  else:
    state = train.initial_state(training)
  params = jax.device_get(state.params)
  rows = experiment.batches("train", 0)[0]
  batch = {name: x[:_ROWS] for name, x in rows.items()}
  leak = "passed" if experiment.forbidden else "no input is a target"
  try:
    probe(training.step, state, experiment, training.mesh)
  except UserError as error:
    leak = str(error)
  figures = {
    **_losses(experiment, params, batch),
    UPDATE: _updates(training, state),
    **_layers(experiment, params, batch),
  }
  if fits:
    figures[UPDATE].pop("wide")
  for check, column in figures.items():
    values = (f"{part} {x:.2g}".strip() for part, x in column.items())
    print(f"{check}: {', '.join(values)}")
    least, largest, cause = RANGES.get(check, RANGES[GRADIENT])
    if not all(least <= x <= largest for x in column.values()):
      print(f"  should be {least:g} to {largest:g}: {cause}")
  print(f"leak probe: {leak}")
  return figures


def _losses(experiment: Experiment, params: Params, batch: Batch) -> Checks:
  """The loss before and after training on a few rows, without dropout.

  It is divided by that of a model that knows nothing: log V, of a frame log 2
  for each note. A loss of numbers is divided by the first one.
  """
  rule = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(_RATE))
  carry = experiment.carry(len(batch["inputs"]))

  @sharding.jit
  def step(params, state):
    gradient = jax.value_and_grad(experiment.loss, has_aux=True)
    (loss, _), grads = gradient(params, carry, batch, None)
    updates, state = rule.update(grads, state)
    return optax.apply_updates(params, updates), state, loss

  state, losses = rule.init(params), []
  for _ in range(_STEPS):
    params, state, loss = step(params, state)
    losses.append(loss)
  first, last = float(losses[0]), float(losses[-1])
  if experiment.gives == "linear":
    return {FIT: {"": last / first}}
  names, chance = experiment.names, batch["targets"].shape[-1] * math.log(2)
  if names is not None:  # No label is a reserved symbol.
    chance = math.log(len(names if experiment.in_bits else names.symbols))
  return {START: {"": first / chance}, FIT: {"": last / chance}}


def _updates(training: Training, state: TrainState) -> dict[str, float]:
  """The norm of an update at the full rate, divided by the first weights'."""
  mesh, batches = training.mesh, training.experiment.batches("train", 0)
  size = batches.batch_size
  rows = batches.rows(*sharding.local_rows(size, mesh))
  start = old = jax.device_get(state.params)
  updates = min(_UPDATES, training.total_steps)  # Later rates may be 0.
  for n in range(updates):
    if n == updates - 1:
      old = jax.device_get(state.params)
    batch = sharding.put(rows[n % len(rows)], size, mesh)
    state, _ = training.step(state, batch)
  new = jax.device_get(state.params)
  full = training.config.optimizer.learning_rate
  scale = float(full / training.learning_rate(updates - 1))
  names = jax.tree.leaves(named_parts(training.experiment, start))

  def norm(tree, part):
    leaves = zip(names, jax.tree.leaves(tree), strict=True)
    return float(optax.tree.norm([x for name, x in leaves if name == part]))

  step = jax.tree.map(np.subtract, new, old)
  ratio = lambda part: scale * norm(step, part) / (norm(start, part) or 1)
  return {str(part): ratio(part) for part in sorted(set(names))}


def _layers(experiment: Experiment, params: Params, batch: Batch) -> Checks:
  """The share of units without a gradient, and gradients by distance.

  Gradients are those of the loss by what cells read, z_TBK. A distance is that
  from the last step of the longest row, whose last target alone has a loss.
  """
  carry = experiment.carry(len(batch["inputs"]))

  def loss(noise, batch):
    read = {}

    def note(call, args, kwargs, context):
      z, cell = call(*args, **kwargs), context.module
      if not isinstance(cell, Cell) or context.method_name != "inputs":
        return z
      keys = *private.module_path(cell), ""
      if "letters" in keys:  # It reads characters of words.
        return z
      part = str(part_of(tuple(map(jax.tree_util.DictKey, keys)))[0])
      read[part] = z
      return z + noise[part] if noise else z

    with nn.intercept_methods(note):
      return experiment.loss(params, carry, batch, None)[0], read

  _, read = jax.eval_shape(sharding.jit(loss), {}, batch)
  zeros = jax.tree.map(jnp.zeros_like, read)
  gradients = sharding.jit(jax.grad(loss, has_aux=True))
  inputs, weights_BN = batch["inputs"], np.zeros_like(batch["weights"])
  length_B = (inputs != PAD).reshape(*inputs.shape[:2], -1).any(2).sum(1)
  row, last = length_B.argmax(), length_B.max() - 1
  weights_BN[row, min(last, weights_BN.shape[1] - 1)] = 1
  figures: Checks = {DEAD: {}}
  for part, z_TBK in gradients(zeros, batch)[0].items():
    size_K = np.linalg.norm(z_TBK, axis=(0, 1))
    dead_K = size_K <= _DEAD * np.median(size_K)
    figures[DEAD][part] = float(dead_K.mean())
  last_alone = {**batch, "weights": weights_BN}
  for part, z_TBK in gradients(zeros, last_alone)[0].items():
    size_T = np.linalg.norm(z_TBK[:, row], axis=1)
    nearest = size_T[max(last - 1, 0) : last + 1].max() or 1
    for distance in (n for n in _DISTANCES if n <= last):
      column = figures.setdefault(f"{GRADIENT} {distance}", {})
      column[part] = float(size_T[last - distance] / nearest)
  return figures
