"""The probability of given symbols, from the decoder that would draw them."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seqrnn.data.vocabulary import PAD
from seqrnn.experiment import Decoder, Params
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS, padded_length
from seqrnn.sampling import processors
from seqrnn.sampling.sampler import read


@lru_cache(CACHED_FUNCTIONS)
def replayer(
  decoder: Decoder,
  applied: tuple[processors.Processor, ...] = (),
  mesh: Mesh | None = None,
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """A jitted function of symbols after a prime -> their log-probabilities.

  It maps params, (carry before the last symbol of the prime, that symbol_B,
  memories), arrays of the processors, symbols_BT to log p of the model and of
  the processed logits, both [B, T].
  """

  @partial(sharding.jit, mesh=mesh)
  def replay(params, state, arrays, symbols_BT):
    def step(state, given):
      carry, symbol_B, memories = state
      t, next_B = given
      carry, logits_BV = decoder.step(params, carry, symbol_B)
      after_BV = processors.apply(applied, arrays, memories, logits_BV, t)
      memories = processors.advance(applied, arrays, memories, next_B, t)
      found = _log_p(logits_BV, next_B), _log_p(after_BV, next_B)
      return (carry, next_B, memories), found

    given = jnp.arange(symbols_BT.shape[1]), symbols_BT.T
    _, (model_TB, after_TB) = jax.lax.scan(step, state, given)
    return model_TB.T, after_TB.T

  return replay


def _log_p(logits_BV: jax.Array, symbol_B: jax.Array) -> jax.Array:
  true_B1 = jnp.take_along_axis(logits_BV, symbol_B[:, None], axis=-1)
  # A symbol that is not allowed has -inf, also where none is allowed.
  total_B = jax.nn.logsumexp(logits_BV, axis=-1)
  return jnp.where(
    jnp.isneginf(true_B1[:, 0]), -jnp.inf, true_B1[:, 0] - total_B
  )


def log_probabilities(
  decoder: Decoder,
  params: Params,
  prime_BP: np.ndarray,
  symbols_BT: np.ndarray,
  applied: Sequence[processors.Applied] = (),
) -> tuple[np.ndarray, np.ndarray]:
  """The log p of each symbol after the prime, in nats [B, T]; 0 for padding.

  Args:
    decoder: of the model.
    params: of the model.
    prime_BP: the symbols before, at least one; padded at the start.
    symbols_BT: padded at the end.
    applied: processors of the logits.

  Returns:
    of the model; of the logits after the processors, which are those of the
    sampler at temperature 1.
  """
  carry = read(decoder, params, prime_BP)
  memories = tuple(one.start(prime_BP) for one in applied)
  replay = replayer(decoder, tuple(one.processor for one in applied))
  T = symbols_BT.shape[1]
  padded_BT = np.pad(symbols_BT, [(0, 0), (0, padded_length(T) - T)])
  found = replay(
    params,
    (carry, prime_BP[:, -1], memories),
    tuple(one.arrays for one in applied),
    padded_BT,
  )
  model_BT, after_BT = (np.asarray(x)[:, :T] for x in found)
  some_BT = symbols_BT != PAD
  return np.where(some_BT, model_BT, 0), np.where(some_BT, after_BT, 0)
