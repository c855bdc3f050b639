"""Scores of each symbol of many documents: the same ones once, side by side."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from seqrnn import sharding
from seqrnn.data.encoding import Document
from seqrnn.experiment import Experiment, Params

# Rows that a device scores at once. What so few need fits a core's cache; many
# batches on their way keep all cores busy.
ROWS = 64
_AHEAD = 8  # Batches on their way.


class Scores(NamedTuple):
  """What is said of each target, document by document.

  Attributes:
    values: a tree of arrays [targets, ...], those of equal documents once.
    bounds: int64 [distinct + 1]; n has values[bounds[n] : bounds[n + 1]].
    distinct: int64 [documents]: which of them each document is.
  """

  values: Any
  bounds: np.ndarray
  distinct: np.ndarray

  def document(self, j: int) -> Any:
    """The values of a document."""
    n = self.distinct[j]
    part = slice(*self.bounds[n : n + 2])
    return jax.tree.map(lambda x: x[part], self.values)


def scorer(
  experiment: Experiment, mesh: Mesh, score: Callable | None = None
) -> Callable[..., Scores]:
  """A function params, split or documents -> Scores; compiled once a length.

  Args:
    experiment: the task.
    mesh: of the devices, all of this process.
    score: params, carry, batch -> carry, a tree of [B, N, ...]: all that comes
      back from the devices; None: the task's own, surprisal in nats.
  """
  assert experiment.score is not None, "a task that cannot score"
  batched = sharding.split(mesh)
  one = jax.jit(score or experiment.score, out_shardings=(batched, batched))

  def run(params: Params, split: str | list[Document]) -> Scores:
    batches = experiment.batches(split, 0, batch_size=ROWS * mesh.size)
    B = batches.batch_size
    start = partial(experiment.carry, sharding.rows(B, mesh))
    carry = jax.jit(start, out_shardings=batched)()
    origins, parts, on_way = [], [], deque()

    def fetch():
      some_BN, values = on_way.popleft()
      parts.append(jax.tree.map(lambda x: np.asarray(x)[:B][some_BN], values))

    for batch in batches:
      some_BN = batch["weights"] > 0
      origin = batch.pop("document"), batch.pop("place"), some_BN.sum(axis=1)
      origins.append(np.stack(origin))
      batch["weights"] = some_BN.astype(np.float32)  # However many are equal.
      carry, values = one(params, carry, sharding.put(batch, B, mesh))
      on_way.append((some_BN, values))
      if len(on_way) > _AHEAD:
        fetch()
    while on_way:
      fetch()

    # Batches come by length; rows of no target are of no document.
    document, place, sizes = np.concatenate(origins, axis=1)
    order = np.argsort(place, kind="stable")
    begins = (np.cumsum(sizes) - sizes)[order]
    sizes, document = sizes[order], document[order]
    moved = begins - (np.cumsum(sizes) - sizes)
    index = np.repeat(moved, sizes) + np.arange(sizes.sum())
    values = jax.tree.map(lambda *xs: np.concatenate(xs)[index], *parts)
    documents = batches.distinct.max() + 1
    counts = np.bincount(document, weights=sizes, minlength=documents)
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Scores(values, bounds, batches.distinct)

  return run
