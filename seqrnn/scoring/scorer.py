"""Scores of each symbol of many documents, in batches of similar length.

Equal documents are scored once.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seqrnn.data.documents import Document
from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.experiment import Batch, Experiment, Params
from seqrnn.models import losses
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import padded_length

# Rows that a device scores at once. The arrays of so few rows fit in a core's
# cache; several pending batches keep all cores busy.
ROWS = 64
_PENDING = 8  # Pending batches.
UNRANKED = np.int32(2**31 - 1)  # The rank of the unknown symbol.


class Scores(NamedTuple):
  """The scores of each target, document by document.

  Attributes:
    values: a tree of arrays [targets, ...]; equal documents occur once.
    bounds: int64 [distinct + 1]; distinct document n has the values bounds[n] :
      bounds[n + 1].
    distinct: int64 [documents]: index of the distinct document of each.
  """

  values: Any
  bounds: np.ndarray
  distinct: np.ndarray

  def document(self, j: int) -> Any:
    """The values of a document."""
    n = self.distinct[j]
    part = slice(*self.bounds[n : n + 2])
    return jax.tree.map(lambda x: x[part], self.values)


def target_scores(
  logits_BNV: jax.Array, targets_BN: jax.Array, top_k: int = 0
) -> dict[str, jax.Array]:
  """Scores each target by the logits, which may have any axes before V.

  Args:
    logits_BNV: of the model.
    targets_BN: the true symbols.
    top_k: number of most likely symbols to return; they take longer than all
      other scores.

  Returns:
    nll: -log p(target) in nats. An unknown symbol, which may not be a target in
      training, has at least the surprisal of a uniform guess, log V.
    rank: 1 plus the number of likelier symbols; UNRANKED for unknown symbols.
    entropy: of the prediction, in nats.
    ids, chances: with top_k > 0, the most likely symbols, best first, and their
      probabilities [B, N, top_k].
  """
  V = logits_BNV.shape[-1]
  true_BN1 = jnp.take_along_axis(logits_BNV, targets_BN[..., None], axis=-1)
  rank_BN = 1 + jnp.sum(logits_BNV > true_BN1, axis=-1)
  nll_BN = losses.surprisal(logits_BNV, targets_BN)
  unknown_BN = targets_BN == UNKNOWN
  scores = {
    "nll": jnp.where(unknown_BN, jnp.maximum(nll_BN, jnp.log(V)), nll_BN),
    "rank": jnp.where(unknown_BN, UNRANKED, rank_BN),
    "entropy": losses.entropy(logits_BNV),
  }
  if top_k:
    chances_BNV = jax.nn.softmax(logits_BNV)
    scores["chances"], scores["ids"] = jax.lax.top_k(chances_BNV, min(top_k, V))
  return scores


def in_few_lengths(experiment: Experiment) -> Experiment:
  """The experiment, with batches of few lengths, as each compiles a program."""
  batches = experiment.batches
  return experiment._replace(
    batches=lambda *split, **how: batches(*split, **how).map(pad_time)
  )


def pad_time(batch: Batch) -> Batch:
  """The batch with its time axis padded to a power of two.

  Texts of many lengths then need few compiled programs. Padding has weight 0,
  and leaves the carry unchanged.
  """
  T = batch["inputs"].shape[1]
  width = padded_length(T)

  def one(x):
    if T == 1 or x.ndim < 2 or x.shape[1] != T:  # One target per sequence.
      return x
    return np.pad(x, [(0, 0), (0, width - T)] + [(0, 0)] * (x.ndim - 2))

  return {name: one(x) for name, x in batch.items()}


def scorer(
  experiment: Experiment,
  mesh: Mesh,
  score: Callable | None = None,
  rows: int = ROWS,
) -> Callable[..., Scores]:
  """A function params, split or documents -> Scores; compiled once per length.

  Args:
    experiment: the task.
    mesh: of the devices, all of this process.
    score: params, carry, batch -> carry, a tree of [B, N, ...]. Only this tree
      is copied from the devices. None: the task's score, surprisal in nats.
    rows: sequences of a batch on each device.
  """
  score = score or experiment.score
  assert score is not None, "the task has no score"
  by_rows = sharding.by_rows(mesh)
  score_batch = sharding.cached_jit(score, mesh, out_shardings=by_rows)

  def run(params: Params, split: str | list[Document]) -> Scores:
    batches = experiment.batches(split, 0, batch_size=rows * mesh.size)
    B = batches.batch_size
    start = sharding.carry_init(experiment.carry, mesh)
    carry = start(sharding.padded_size(B, mesh))
    origins, parts, pending = [], [], deque()

    def fetch():
      real_BN, values = pending.popleft()
      parts.append(jax.tree.map(lambda x: np.asarray(x)[:B][real_BN], values))

    for batch in batches:
      real_BN = batch["weights"] > 0
      origin = batch.pop("document"), batch.pop("place"), real_BN.sum(axis=1)
      origins.append(np.stack(origin))
      # Without the counts of equal documents.
      batch["weights"] = real_BN.astype(np.float32)
      carry, values = score_batch(params, carry, sharding.put(batch, B, mesh))
      pending.append((real_BN, values))
      if len(pending) > _PENDING:
        fetch()
    while pending:
      fetch()

    # Batches are sorted by length. Rows without a target have no document.
    document, place, sizes = np.concatenate(origins, axis=1)
    order = np.argsort(place, kind="stable")
    begins = (np.cumsum(sizes) - sizes)[order]
    sizes, document = sizes[order], document[order]
    moved = begins - (np.cumsum(sizes) - sizes)
    index = np.repeat(moved, sizes) + np.arange(sizes.sum())
    values = jax.tree.map(lambda *xs: np.concatenate(xs)[index], *parts)
    assert batches.distinct is not None, "a scorer asks for equal rows once"
    documents = batches.distinct.max() + 1
    counts = np.bincount(document, weights=sizes, minlength=documents)
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Scores(values, bounds, batches.distinct)

  return run
