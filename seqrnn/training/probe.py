"""The leak probe: does a prediction depend on an input it must not see?"""

from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from seqrnn.data.vocabulary import PAD
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Experiment
from seqrnn.runtime import private, sharding
from seqrnn.runtime.sharding import ArrayTree
from seqrnn.training.step import Step, TrainState


def probe(step: Step, state: TrainState, experiment: Experiment, mesh: Mesh):
  """Trains one step twice, with and without changed forbidden inputs.

  In each row, one output of one head has weight, and every input that this
  output must not depend on is changed. The loss, all gradients and so the new
  parameters must be equal bit for bit. The probe runs the compiled, sharded
  step that will train; the given state is left unchanged. Where results differ,
  both steps are repeated: a device that adds in no fixed order is not a leak.

  Args:
    step: state, batch -> state, loss.
    state: the training state.
    experiment: the task; without `forbidden`, nothing is probed.
    mesh: the devices of the step.

  Raises:
    UserError: the results differ, or are not finite, or the device does not
      repeat a step bit for bit.
  """
  if experiment.forbidden is None:
    return
  batch = experiment.batches("train", 0)[0]
  B, T, *_ = batch["inputs"].shape
  symbols = experiment.vocabularies.get("symbols")
  pairs = _pairs(
    batch, experiment.forbidden(T), None if symbols is None else len(symbols)
  )
  places = jax.tree.map(lambda x: x.sharding, state)
  local = slice(*sharding.local_rows(B, mesh))

  def after(batch):
    # Unlike jnp.copy, this compiles no program for each shape.
    copy = jax.device_put(state, places, may_alias=False)
    rows = jax.tree.map(lambda x: x[local], batch)
    new, _ = step(copy, sharding.put(rows, B, mesh))
    # Without the carry, which may depend on all inputs.
    return jax.device_get((new.params, new.optimizer, new.sums))

  for first, second in pairs:
    one, other = after(first), after(second)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(one)):
      raise UserError(
        "the loss or a gradient of the first step is not finite: see"
        " model.initial_scale, optimizer.learning_rate, optimizer.epsilon"
      )
    if not _equal(one, other):
      if not (_equal(one, after(first)) and _equal(other, after(second))):
        raise UserError(
          "this device gives different results for two equal training steps,"
          " so a run could not be resumed exactly, nor checked for leaks; on a"
          " GPU, set XLA_FLAGS=--xla_gpu_deterministic_ops=true"
        )
      raise UserError(
        "the model leaks: a prediction depends on inputs it must not see, so"
        " its loss would be meaningless; the model was not trained"
      )


def _equal(one: ArrayTree, other: ArrayTree) -> bool:
  """Returns whether two trees are equal bit for bit."""
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def _pairs(
  batch: Batch, forbidden_NT: np.ndarray, vocabulary_size: int | None
) -> Iterator[tuple[Batch, Batch]]:
  """Yields pairs of random batches that differ only in forbidden inputs."""
  B, T, *notes = batch["inputs"].shape
  N = len(forbidden_NT)  # T for each head.
  rng = np.random.default_rng(0)

  def symbols(like):
    if np.issubdtype(like.dtype, np.floating):
      return rng.normal(size=like.shape).astype(like.dtype)
    if vocabulary_size is None:
      return rng.integers(0, 2, like.shape, like.dtype)
    return rng.integers(PAD + 1, vocabulary_size, like.shape, like.dtype)

  # With JAX_DISABLE_JIT, only the first ones, which already take seconds.
  for first in range(0, B if private.jax_setting("jax_disable_jit") else N, B):
    # The surplus rows of the last pair repeat the last output.
    n_B = np.minimum(first + np.arange(B), N - 1)
    inputs_BT, other_BT = (symbols(batch["inputs"]) for _ in range(2))
    weights_BT = np.zeros((B, T), np.float32)
    weights_BT[np.arange(B), n_B % T] = 1
    base = {
      **batch,
      "inputs": inputs_BT,
      "targets": symbols(batch["targets"]),
      "weights": weights_BT,
    }
    if "heads" in batch:
      base["heads"] = np.eye(N // T, dtype=np.float32)[n_B // T]
    changed_BT = forbidden_NT[n_B].reshape(B, T, *[1] * len(notes))
    yield base, {**base, "inputs": np.where(changed_BT, other_BT, inputs_BT)}
