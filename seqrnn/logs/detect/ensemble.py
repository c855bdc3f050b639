"""An ensemble: models of the same task that score events together."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.experiment import Batch, Carry, Experiment, Params, shapes
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.scoring import scoring
from seqrnn.training.checkpoint import restore_params


class Ensemble(NamedTuple):
  """K models of the same shapes and vocabulary.

  Attributes:
    params: a tree of arrays [K, ...], replicated over all devices.
    seen: bool [K, V], the symbols in the training sessions of each. A model
      reads and scores all other symbols as the unknown one.
  """

  params: Params
  seen: Any


def restore(
  experiment: Experiment, members: Sequence[tuple[Path, int | None]]
) -> tuple[Params, list[int]]:
  """The parameters of models, a tree of arrays [K, ...], and their steps."""
  found = [
    restore_params(folder, step, shapes(experiment)) for folder, step in members
  ]
  stack = lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves])
  params = jax.tree.map(stack, *(params for params, _ in found))
  return params, [step for _, step in found]


@lru_cache(CACHED_FUNCTIONS)
def carry_of(
  carry: Callable[[int], Carry], count: int
) -> Callable[[int], Carry]:
  """The initial carry of all members: arrays [B, K, ...]."""

  def start(batch_size):
    one = carry(batch_size)
    return jax.tree.map(lambda x: jnp.stack([x] * count, axis=1), one)

  return start


def mean_logits(total_BNV: jax.Array, count: int) -> jax.Array:
  """The logits of the mean of predictions, given the sum of probabilities."""
  least = jnp.finfo(total_BNV.dtype).tiny  # Log of 0 is not finite.
  return jnp.log(jnp.maximum(total_BNV / count, least))


@lru_cache(CACHED_FUNCTIONS)
def event_scorer(
  head: Callable[..., tuple[Carry, jax.Array]], top_k: int
) -> Callable[[Ensemble, Carry, Batch], tuple[Carry, dict[str, jax.Array]]]:
  """A function for `scoring.scorer`, whose params are an Ensemble.

  Its values are the `target_scores` of the mean of the members' predictions
  [B, N, ...], `member_nll` and `member_rank` [B, N, K], and the id of each
  event, `targets`.

  The members compute one after the other, in one compiled program.

  Args:
    head: of `Experiment.heads`.
    top_k: as in `target_scores`.
  """

  def score(ensemble, carry, batch):
    by_member = lambda x: jnp.moveaxis(x, 1, 0)

    def one(member):
      params, seen_V, carry = member
      seen = dict(batch)
      for name in ("inputs", "targets"):
        seen[name] = jnp.where(seen_V[batch[name]], batch[name], UNKNOWN)
      carry, logits_BNV = head(params, carry, seen)
      scores = scoring.target_scores(logits_BNV, seen["targets"])
      return jax.nn.softmax(logits_BNV), carry, scores

    def add(total_BNV, member):
      chances_BNV, carry, scores = one(member)
      kept = carry, scores["nll"], scores["rank"]
      return total_BNV + chances_BNV, kept

    members = *ensemble, jax.tree.map(by_member, carry)
    first = jax.tree.map(lambda x: x[0], members)
    chances = jax.eval_shape(one, first)[0]
    total_BNV, (carry, nll_KBN, rank_KBN) = jax.lax.scan(
      add, jnp.zeros(chances.shape, chances.dtype), members
    )
    mean_BNV = mean_logits(total_BNV, len(ensemble.seen))
    values = {
      **scoring.target_scores(mean_BNV, batch["targets"], top_k),
      "member_nll": jnp.moveaxis(nll_KBN, 0, -1),
      "member_rank": jnp.moveaxis(rank_KBN, 0, -1),
      "targets": batch["targets"],
    }
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), carry), values

  return score
