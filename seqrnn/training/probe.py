"""The leak probe: does a prediction depend on what it must not see?"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seqrnn.data.vocabulary import PAD
from seqrnn.errors import UserError
from seqrnn.experiment import Batch
from seqrnn.runtime import sharding


def probe(
  step: Callable,
  state,
  batch: Batch,
  forbidden_NT: np.ndarray,
  vocabulary_size: int | None,
  mesh: Mesh,
):
  """Trains one step twice, with and without changed forbidden inputs.

  Row by row one output of one head alone has weight, and every input that it
  must not depend on is changed. The loss, all gradients and so the new
  parameters must then be equal to the bit. This goes through the compiled,
  sharded step that will train; the state given is left as it is.

  Args:
    step: state, batch -> state, loss.
    state: the training state.
    batch: one of the shape that will train.
    forbidden_NT: for each output, the inputs that it must not depend on.
    vocabulary_size: V; None: the inputs are notes of frames.
    mesh: of the step.

  Raises:
    UserError: something differs, or is not finite.
  """
  B, T, *notes = batch["inputs"].shape
  N = len(forbidden_NT)  # T, or of several heads as many each.
  own = sharding.local_rows(B, mesh)
  rng = np.random.default_rng(0)

  def symbols(like):
    if np.issubdtype(like.dtype, np.floating):
      return rng.normal(size=like.shape).astype(like.dtype)
    if vocabulary_size is None:
      return rng.integers(0, 2, like.shape, like.dtype)
    return rng.integers(PAD + 1, vocabulary_size, like.shape, like.dtype)

  def after(batch):
    copy = jax.tree.map(jnp.copy, state)
    rows = jax.tree.map(lambda x: x[slice(*own)], batch)
    new, _ = step(copy, sharding.put(rows, B, mesh))
    # The carry is handed on to what comes later: it may depend on all inputs.
    return jax.device_get((new.params, new.optimizer, new.sums))

  for first in range(0, N, B):
    # Where fewer outputs than rows are left, some are probed twice.
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
    changed = np.where(changed_BT, other_BT, inputs_BT)
    one, other = after(base), after({**base, "inputs": changed})
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(one)):
      raise UserError(
        "the loss or a gradient of the first step is not finite: see"
        " model.initial_scale, optimizer.learning_rate, optimizer.epsilon"
      )
    if not all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other))):
      raise UserError(
        "the model leaks: a prediction depends on inputs it must not see, so"
        " its loss would mean nothing; nothing was trained"
      )
