"""Rows of a text with gaps: drawn, and their log-probabilities."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN
from seqrnn.experiment import Carry, Decoder, Experiment, Filler, Params
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS, padded_length
from seqrnn.sampling.choice import Choice
from seqrnn.sampling.primes import padded_prime
from seqrnn.sampling.processors import Processor
from seqrnn.sampling.replay import replayer
from seqrnn.sampling.sampler import drawer, reader

OPEN = -1  # The id of a symbol in a gap.
_POSITIONS = 2**15  # Positions of the rows of a program, at most.
_LOGITS = 2**22  # Logits of a step of all these rows, at most.


def _at(x_BT: jax.Array, t: jax.Array) -> jax.Array:
  return jax.lax.dynamic_index_in_dim(x_BT, t, axis=1)


def _allowed(fixed_BT, memory, logits_BV, t) -> jax.Array:
  """The logits of what may stand in a gap, or of the symbol of the text."""
  del memory
  fixed_B1, id_1V = _at(fixed_BT, t), jnp.arange(logits_BV.shape[-1])[None]
  allowed_BV = jnp.where(fixed_B1 == OPEN, id_1V > UNKNOWN, id_1V == fixed_B1)
  return jnp.where(allowed_BV, logits_BV, -jnp.inf)


def _draw_allowed(noise_BV: jax.Array, logits_BV: jax.Array) -> jax.Array:
  return jnp.argmax(logits_BV + noise_BV, axis=-1).astype(jnp.int32)


_CHOICE = Choice(jax.random.gumbel, _draw_allowed)
_IN_GAPS = Processor(_allowed, lambda *args: args[1])


class Reader(NamedTuple):
  """How a model reads rows.

  Attributes:
    model: its step draws and scores.
    params: of the model.
    V: the size of the vocabulary.
    begin: ids_BT -> the carry before the symbol before the rows, that symbol_B.
  """

  model: Decoder | Filler
  params: Params
  V: int
  begin: Callable[[np.ndarray], tuple[Carry, np.ndarray]]

  def _blocks(
    self, fixed_NT: np.ndarray, ids_NT: np.ndarray
  ) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[Carry, np.ndarray]]]:
    """Blocks of rows [B, W] of a few sizes, as each compiles a program."""
    N, T = ids_NT.shape
    W = padded_length(T)
    B = 1 << (N - 1).bit_length()
    B = max(min(B, _LOGITS // self.V, _POSITIONS // W), 1)
    for first in range(0, N, B):
      block = [x[first : first + B] for x in (fixed_NT, ids_NT)]
      missing = B - len(block[0])
      fixed_BW, ids_BW = (np.pad(x, [(0, missing), (0, W - T)]) for x in block)
      yield fixed_BW, ids_BW, self.begin(ids_BW)

  def draw(
    self, fixed_NT: np.ndarray, ids_NT: np.ndarray, rng: np.random.Generator
  ) -> np.ndarray:
    """The rows with each symbol of a gap drawn from left to right.

    Args:
      fixed_NT: the symbols of the text, OPEN in gaps.
      ids_NT: the symbols that a model of both sides reads on the right of a
        position.
      rng: of the seeds.
    """
    N, T = ids_NT.shape
    drawn = []
    for fixed_BW, ids_BW, begin in self._blocks(fixed_NT, ids_NT):
      B, W = ids_BW.shape
      # Drawing and replaying need the step alone.
      draw = drawer(cast(Decoder, self.model), _CHOICE, (_IN_GAPS,), W)
      state = *begin, np.zeros(B, bool), ((),)
      seed = np.uint32(rng.integers(2**32))
      _, drawn_BW = draw(self.params, state, seed, ((), (fixed_BW,)), 0, T)
      drawn.append(np.asarray(drawn_BW)[:, :T])
    return np.concatenate(drawn)[:N]

  def log_p(
    self, fixed_NT: np.ndarray, ids_NT: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """The log p of rows by the model, and by what `draw` drew them from [N].

    Padding and the boundaries of a document do not count, nor do unknown
    symbols of the text, whose probability no training has learned.

    Args:
      fixed_NT: the symbols of the text, OPEN in gaps.
      ids_NT: the filled rows.
    """
    replay, blocks = replayer(cast(Decoder, self.model), (_IN_GAPS,)), []
    for fixed_BW, ids_BW, begin in self._blocks(fixed_NT, ids_NT):
      each: Any = replay(self.params, (*begin, ((),)), (fixed_BW,), ids_BW)
      some_BW = ~np.isin(ids_BW, (PAD, BEGIN, END, UNKNOWN))
      blocks.append(
        [np.where(some_BW, x, 0).sum(1, dtype=np.float64) for x in each]
      )
    model_N, drawn_N = np.concatenate(blocks, axis=1)[:, : len(ids_NT)]
    return model_N, drawn_N


def forward_reader(
  experiment: Experiment, params: Params, left_P: np.ndarray
) -> Reader:
  """How a language model reads rows after a text."""
  decoder = experiment.decoder
  assert decoder is not None, "checked by the caller"
  carry = reader(decoder)(params, padded_prime(left_P[None]), len(left_P) - 1)

  def begin(ids_BT):
    B = len(ids_BT)
    tiled = jax.tree.map(lambda x: np.repeat(x, B, axis=0), carry)
    return tiled, np.full(B, left_P[-1], np.int32)

  V = len(experiment.vocabularies["symbols"])
  return Reader(decoder, params, V, begin)


@lru_cache(CACHED_FUNCTIONS)
def _starter(start):
  return sharding.jit(start)


def both_sides_reader(experiment: Experiment, params: Params) -> Reader:
  """How a gap model reads rows."""
  filler = experiment.filler
  assert filler is not None, "checked by the caller"
  start = _starter(filler.start)
  return Reader(
    filler,
    params,
    len(experiment.vocabularies["symbols"]),
    lambda ids_BT: (start(params, ids_BT), np.zeros(len(ids_BT), np.int32)),
  )
