"""Beam search: the most likely continuations of a prime."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seqrnn.data.vocabulary import END, PAD
from seqrnn.experiment import Decoder, Params
from seqrnn.inference import processors
from seqrnn.inference.choice import never_drawn
from seqrnn.inference.sampler import read
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS, padded_length


@lru_cache(CACHED_FUNCTIONS)
def searcher(
  decoder: Decoder,
  width: int,
  room: int,
  applied: tuple[processors.Processor, ...] = (),
  mesh: Mesh | None = None,
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """A jitted function that finds `width` continuations, the best one first.

  It maps params, (carry before the last symbol of the prime, that symbol_B,
  memories), arrays of the processors, length to symbols [B, W, room], padded
  after their end, and scores_BW. A score of -inf marks what is none, where
  there are fewer than `width`.
  """

  @partial(sharding.jit, mesh=mesh)
  def search(params, state, arrays, length):
    B, W = len(state[1]), width
    first_BW = jnp.arange(B)[:, None] * W
    state = jax.tree.map(lambda x: jnp.repeat(x, W, axis=0), state)

    def step(loop):
      t, (carry, symbol_N, memories), score_BW, ended_BW, path = loop
      carry, logits_NV = decoder.step(params, carry, symbol_N)
      logits_NV = processors.apply(applied, arrays, memories, logits_NV, t)
      gain_BWV = _gains(logits_NV, ended_BW.reshape(-1)).reshape(B, W, -1)
      V = gain_BWV.shape[-1]
      total_BN = (score_BW[..., None] + gain_BWV).reshape(B, W * V)
      score_BW, place_BW = jax.lax.top_k(total_BN, W)
      parent_BW, symbol_BW = place_BW // V, place_BW % V
      row_N, symbol_N = (first_BW + parent_BW).ravel(), symbol_BW.ravel()
      carry, memories, ended_N = jax.tree.map(
        lambda x: x[row_N], (carry, memories, ended_BW.ravel())
      )
      memories = processors.advance(applied, arrays, memories, symbol_N, t)
      ended_BW = (ended_N | (symbol_N == END)).reshape(B, W)
      path = jax.tree.map(
        lambda all_TBW, x: jax.lax.dynamic_update_index_in_dim(
          all_TBW, x, t, 0
        ),
        path,
        (symbol_BW, parent_BW),
      )
      return t + 1, (carry, symbol_N, memories), score_BW, ended_BW, path

    def goes_on(loop):
      t, _, score_BW, ended_BW, _ = loop
      return (t < length) & jnp.any(~ended_BW & (score_BW > -jnp.inf))

    # All beams begin alike, so the first one alone counts.
    score_BW = jnp.tile(jnp.where(jnp.arange(W) > 0, -jnp.inf, 0.0), (B, 1))
    self_BW = jnp.tile(jnp.arange(W), (B, 1))
    path = jnp.full((room, B, W), PAD), jnp.tile(self_BW[None], (room, 1, 1))
    loop = 0, state, score_BW, jnp.zeros((B, W), bool), path
    _, _, score_BW, _, path = jax.lax.while_loop(goes_on, step, loop)
    return _traced(self_BW, path), score_BW

  return search


def _gains(logits_NV: jax.Array, ended_N: jax.Array) -> jax.Array:
  """What each next symbol adds to the score; an ended beam is padded freely."""
  total_N1 = jax.nn.logsumexp(logits_NV, axis=-1, keepdims=True)
  never_NV = never_drawn(logits_NV.shape[-1]) | jnp.isneginf(logits_NV)
  gain_NV = jnp.where(never_NV, -jnp.inf, logits_NV - total_N1)
  id_1V = jnp.arange(logits_NV.shape[-1])[None]
  padding_1V = jnp.where(id_1V == PAD, 0.0, -jnp.inf)
  return jnp.where(ended_N[:, None], padding_1V, gain_NV)


def _traced(last_BW: jax.Array, path: tuple[Any, Any]) -> jax.Array:
  """The symbols [B, W, T] of the beams, from their ends to their begins."""

  def back(beam_BW, given):
    symbol_BW, parent_BW = given
    found = jnp.take_along_axis(symbol_BW, beam_BW, axis=1)
    return jnp.take_along_axis(parent_BW, beam_BW, axis=1), found

  _, symbols_TBW = jax.lax.scan(back, last_BW, path, reverse=True)
  return symbols_TBW.transpose(1, 2, 0)


def search(
  decoder: Decoder,
  params: Params,
  prime_BP: np.ndarray,
  length: int,
  width: int,
  applied: Sequence[processors.Applied] = (),
) -> tuple[np.ndarray, np.ndarray]:
  """The continuations of at most `length` symbols that a beam of a width finds.

  The score of a text is the sum of the log-probabilities of its symbols, after
  the processors, as in `replay.log_probabilities`; the end symbol is one. A
  step keeps the `width` beginnings with the largest scores, ended ones among
  them. A beam that is narrower than all beginnings may miss the most likely
  text.

  Returns:
    symbols [B, W, length], padded after the end symbol, best ones first; their
    scores_BW, -inf where there are fewer than W.
  """
  room = padded_length(length)
  state = (
    read(decoder, params, prime_BP),
    prime_BP[:, -1].astype(np.int32),
    tuple(one.start(prime_BP) for one in applied),
  )
  find = searcher(decoder, width, room, tuple(one.processor for one in applied))
  arrays = tuple(one.arrays for one in applied)
  symbols_BWT, score_BW = find(params, state, arrays, np.int32(length))
  return np.asarray(symbols_BWT)[..., :length], np.asarray(score_BW)
