r"""A linear-chain conditional random field over the tags of a sequence.

The score of tags y_1, ..., y_T is

  s(y) = start[y_1] + \sum_t e_t[y_t] + \sum_{t>1} A[y_{t-1}, y_t] + stop[y_T],

where e are the logits of the network, and p(y) = exp(s(y)) / Z with the sum Z
of exp(s) over all C^T sequences of tags (Lafferty et al. 2001; with an LSTM,
Lample et al. 2016). One more letter: C tags.

Positions without a tag, where `mask_BT` is false, are left out. `edges_B2` says
whether a row has the first and the last tag of its document; a row that lacks
one is a window cut out of a sentence, and has no score of a start or a stop.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqrnn.experiment import Params


class TagScores(NamedTuple):
  """The scores that are the same at each position.

  Attributes:
    transitions: A [C, C]; -inf forbids a pair of neighbours.
    start: of the first tag [C].
    stop: of the last tag [C].
  """

  transitions: jax.Array
  start: jax.Array
  stop: jax.Array

  def reversed(self) -> "TagScores":
    """The chain from the last tag to the first."""
    return TagScores(self.transitions.T, self.stop, self.start)


def init(C: int) -> Params:
  """New parameters, C² + 2C: all zero, so that tags are independent."""
  zeros_C = jnp.zeros(C)
  return TagScores(jnp.zeros((C, C)), zeros_C, zeros_C)._asdict()


def _steps(chain: TagScores, logits_BTC, mask_BT, edges_B2):
  """What the loops over time read, time first, and their first carry."""
  first_BT = mask_BT & (jnp.cumsum(mask_BT, axis=1) == 1)
  start_BC = jnp.where(edges_B2[:, :1], chain.start[None], 0)
  each = logits_BTC.swapaxes(0, 1), mask_BT.T, first_BT.T
  return each, start_BC, jnp.zeros_like(start_BC)


def _stopped(chain: TagScores, scores_BC, edges_B2) -> jax.Array:
  return scores_BC + jnp.where(edges_B2[:, 1:], chain.stop[None], 0)


def forward(
  chain: TagScores,
  logits_BTC: jax.Array,
  mask_BT: jax.Array,
  edges_B2: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """The forward algorithm.

  Returns:
    alpha_BTC: log of the sum of exp(s) over all beginnings that end in a tag;
    log_z_B: log Z, 0 in a row without tags.
  """
  each, start_BC, zero_BC = _steps(chain, logits_BTC, mask_BT, edges_B2)

  def step(alpha_BC, at):
    logits_BC, mask_B, first_B = at
    paths_BCC = alpha_BC[:, :, None] + chain.transitions[None]
    before_BC = jax.nn.logsumexp(paths_BCC, axis=1)
    new_BC = jnp.where(first_B[:, None], start_BC, before_BC) + logits_BC
    alpha_BC = jnp.where(mask_B[:, None], new_BC, alpha_BC)
    return alpha_BC, alpha_BC

  last_BC, alpha_TBC = jax.lax.scan(step, zero_BC, each)
  log_z_B = jax.nn.logsumexp(_stopped(chain, last_BC, edges_B2), axis=1)
  log_z_B = jnp.where(jnp.any(mask_BT, axis=1), log_z_B, 0)
  return alpha_TBC.swapaxes(0, 1), log_z_B


def surprisal(
  chain: TagScores, logits_BTC, targets_BT, mask_BT, edges_B2
) -> jax.Array:
  """-log p(tags) of each row in nats, [B].

  A target below 0 is unknown: the sum over its tags takes its place.
  """
  every_C = jnp.arange(logits_BTC.shape[-1])
  own_BTC = targets_BT[..., None] == every_C[None, None]
  allowed_BTC = own_BTC | (targets_BT < 0)[..., None]
  only_BTC = jnp.where(allowed_BTC, logits_BTC, -jnp.inf)
  _, all_B = forward(chain, logits_BTC, mask_BT, edges_B2)
  _, true_B = forward(chain, only_BTC, mask_BT, edges_B2)
  return all_B - true_B


def marginals(chain: TagScores, logits_BTC, mask_BT, edges_B2) -> jax.Array:
  """The log p(tag at t), [B, T, C]: the forward and the backward algorithm."""
  alpha_BTC, _ = forward(chain, logits_BTC, mask_BT, edges_B2)
  back_BTC, _ = forward(
    chain.reversed(), logits_BTC[:, ::-1], mask_BT[:, ::-1], edges_B2[:, ::-1]
  )
  both_BTC = alpha_BTC + back_BTC[:, ::-1] - logits_BTC
  both_BTC = jnp.where(mask_BT[..., None], both_BTC, 0)
  return jax.nn.log_softmax(both_BTC)


def viterbi(chain: TagScores, logits_BTC, mask_BT, edges_B2) -> jax.Array:
  """The sequence of tags with the highest score, [B, T]."""
  each, start_BC, zero_BC = _steps(chain, logits_BTC, mask_BT, edges_B2)
  own_1C = jnp.arange(logits_BTC.shape[-1])[None]

  def step(best_BC, at):
    logits_BC, mask_B, first_B = at
    paths_BCC = best_BC[:, :, None] + chain.transitions[None]
    before_BC = jnp.where(first_B[:, None], start_BC, jnp.max(paths_BCC, 1))
    mask_B1 = mask_B[:, None]
    best_BC = jnp.where(mask_B1, before_BC + logits_BC, best_BC)
    return best_BC, jnp.where(mask_B1, jnp.argmax(paths_BCC, 1), own_1C)

  last_BC, before_TBC = jax.lax.scan(step, zero_BC, each)
  last_B = jnp.argmax(_stopped(chain, last_BC, edges_B2), axis=1)

  def back(tag_B, before_BC):
    return jnp.take_along_axis(before_BC, tag_B[:, None], axis=1)[:, 0], tag_B

  _, tags_TB = jax.lax.scan(back, last_B, before_TBC, reverse=True)
  return tags_TB.T
