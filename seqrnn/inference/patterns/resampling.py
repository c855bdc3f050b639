r"""Texts under a pattern, closer to the model's distribution given a match.

A constrained sample has the probability \(p(x) / \prod_t Z_t\), and the model
conditioned on a match \(p(x) / \sum_m p(m)\). Of K candidates, one is kept with
a probability in proportion to \(\prod_t Z_t\) (importance resampling, Rubin
1987). As K grows, its distribution becomes that of rejection sampling, which
draws whole texts until one matches.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.data.vocabulary import END, PAD, RESERVED
from seqrnn.experiment import Decoder, Params
from seqrnn.inference.processors import Applied, Processor
from seqrnn.inference.sampler import read
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS, padded_length

Draw = Callable[..., Iterator[np.ndarray]]


def resampled(draw: Draw, decoder: Decoder, one: Applied, count: int) -> Draw:
  """Draws `count` candidates of each text and keeps one, as one chunk.

  Args:
    draw: params, prime_BP, seed, *settings -> chunks of symbols, under `one`.
    decoder: of the model.
    one: the constraint of a pattern.
    count: the candidates of a text.
  """

  def keep(
    params: Params, prime_BP: np.ndarray, seed: int, *settings: Any
  ) -> Iterator[np.ndarray]:
    prime_NP = np.repeat(prime_BP, count, axis=0)
    chunks = [*draw(params, prime_NP, seed, *settings)]
    drawn_NT = np.concatenate(chunks, axis=1)
    masses_N = log_masses(decoder, params, prime_NP, drawn_NT, one)
    rng = np.random.default_rng([seed, count])
    noise_N = rng.gumbel(size=len(masses_N))
    best_B = (masses_N + noise_N).reshape(-1, count).argmax(axis=1)
    yield drawn_NT[np.arange(len(prime_BP)) * count + best_B]

  return keep


def log_masses(
  decoder: Decoder,
  params: Params,
  prime_NP: np.ndarray,
  drawn_NT: np.ndarray,
  one: Applied,
) -> np.ndarray:
  """The sum of log Z_t of texts that were drawn under a constraint [N]."""
  N, T = drawn_NT.shape
  drawn_NT = np.pad(drawn_NT, [(0, 0), (0, padded_length(T) - T)])
  carry = read(decoder, params, prime_NP)
  state = carry, prime_NP[:, -1], one.start(prime_NP), np.zeros(N, np.float32)
  weigh = _weigher(decoder, one.processor)
  return np.asarray(weigh(params, state, one.arrays, drawn_NT))


@lru_cache(CACHED_FUNCTIONS)
def _weigher(
  decoder: Decoder, processor: Processor
) -> Callable[..., jax.Array]:
  @sharding.jit
  def weigh(params, state, arrays, drawn_NT):
    temperature = jnp.where(arrays.temperature > 0, arrays.temperature, 1)

    def step(state, given):
      carry, symbol_N, memory, total_N = state
      t, next_N = given
      carry, logits_NV = decoder.step(params, carry, symbol_N)
      id_1V = jnp.arange(logits_NV.shape[-1])[None]
      # Without boundaries the end symbol stands for others.
      drawable_1V = id_1V >= len(RESERVED)
      drawable_1V |= (id_1V == END) & arrays.boundaries
      all_NV = jnp.where(drawable_1V, logits_NV, -jnp.inf)
      kept_NV = processor.apply(arrays, memory, logits_NV, t)
      memory = processor.advance(arrays, memory, next_N, t)
      mass_N = _total(kept_NV / temperature) - _total(all_NV / temperature)
      total_N += jnp.where(next_N == PAD, 0, mass_N)
      return (carry, next_N, memory, total_N), None

    given = jnp.arange(drawn_NT.shape[1]), drawn_NT.T
    (_, _, _, total_N), _ = jax.lax.scan(step, state, given)
    return total_N

  return weigh


def _total(logits_NV: jax.Array) -> jax.Array:
  return jax.nn.logsumexp(logits_NV, axis=-1)
