"""Symbols and frames of notes, drawn one by one in a compiled loop."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seqrnn.data.vocabulary import END, PAD
from seqrnn.experiment import Carry, Decoder, Filler, Params
from seqrnn.models.losses import surprisal
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS, padded_length
from seqrnn.sampling import decoding

_CHUNK = 256  # Symbols of one call, at most: text is printed while it grows.
_NOISE = 2**20  # Random numbers drawn at once, at most.
_PRIME = 1024  # The smallest length to which a prime is padded.


class Streams(NamedTuple):
  """Rows of symbols that are drawn at the same time, between two symbols.

  Attributes:
    carry: of the model, before the last symbol.
    symbol_B: the last symbol.
    memories: of the processors, after the last symbol.
    ended_B: whether a row has had the end symbol before.
  """

  carry: Carry
  symbol_B: jax.Array | np.ndarray
  memories: tuple
  ended_B: jax.Array | np.ndarray


def _part_size(total: int, limit: int) -> int:
  """The size of equal parts of `total`, at most `limit`, as few as possible."""
  return -(-total // -(-total // limit))


@lru_cache(CACHED_FUNCTIONS)
def prime_reader(decoder: Decoder) -> Callable[..., Carry]:
  """A jitted function params, prime_BP, length -> carry.

  It reads the first `length` symbols of the prime. It skips padding at the
  start, so that primes of several lengths end at one place.
  """

  @sharding.jit
  def read(params, prime_BP, length):
    def step(t, carry):
      symbol_B = jax.lax.dynamic_index_in_dim(prime_BP, t, 1, keepdims=False)
      after = decoder.step(params, carry, symbol_B)[0]
      if prime_BP.ndim > 2:  # Frames have no padding.
        return after

      def skip(old, new):
        axes = range(1, new.ndim)
        return jnp.where(jnp.expand_dims(symbol_B == PAD, axes), old, new)

      return jax.tree.map(skip, carry, after)

    return jax.lax.fori_loop(0, length, step, decoder.start(len(prime_BP)))

  return read


def read_prime(decoder: Decoder, params: Params, prime_BP: np.ndarray) -> Carry:
  """The carry before the last symbol of a prime, padded at the start."""
  P = prime_BP.shape[1]
  size = max(_PRIME, padded_length(P))  # Each size compiles a program.
  padding = [(0, 0), (0, size - P), (0, 0)][: prime_BP.ndim]
  padded_BP = np.pad(prime_BP.astype(np.int32), padding)
  return prime_reader(decoder)(params, padded_BP, P - 1)


def _step(
  decoder: Decoder | Filler,
  processors: tuple[decoding.Processor, ...],
  params_and_values: tuple[Params, tuple],
  streams: Streams,
  t: jax.Array,
  choose: Callable[[jax.Array], jax.Array],
) -> tuple[Streams, jax.Array, jax.Array]:
  """The streams after a symbol, the logits_BV of the model, those processed.

  Args:
    decoder: of the model.
    processors: in their order.
    params_and_values: the parameters, and the values of the processors.
    streams: before the symbol.
    t: the place of the next symbol, from 0, after the prime.
    choose: processed logits_BV -> the next symbol_B.
  """
  params, values = params_and_values
  symbol_B = jnp.asarray(streams.symbol_B)
  carry, model_BV = decoder.step(params, streams.carry, symbol_B)
  each = [*zip(processors, values, streams.memories, strict=True)]
  logits_BV = model_BV
  for processor, value, memory in each:
    logits_BV = processor.apply(value, memory, logits_BV, t)
  symbol_B = choose(logits_BV)
  memories = tuple(
    processor.advance(value, memory, symbol_B, t)
    for processor, value, memory in each
  )
  after = Streams(carry, symbol_B, memories, streams.ended_B)
  return after, model_BV, logits_BV


@lru_cache(CACHED_FUNCTIONS)
def drawer(
  decoder: Decoder | Filler,
  how: decoding.Draw = decoding.SYMBOL,
  processors: tuple[decoding.Processor, ...] = (),
  chunk: int = _CHUNK,
  numbers: int = _NOISE,
  mesh: Mesh | None = None,
) -> Callable[..., tuple[Streams, jax.Array]]:
  """A jitted function that draws the symbols from `first` to before `stop`.

  It maps params, streams, seed, (settings of `how`, values of the processors),
  first, stop to the next streams and symbols_BT, whose first stop - first
  symbols are drawn. A call draws at most `chunk` symbols, and at most `numbers`
  random numbers at once.
  """
  step = partial(_step, decoder, processors)

  @partial(sharding.jit, mesh=mesh)
  def draw(params, streams, seed, settings_and_values, first, stop):
    settings, values = settings_and_values
    carry, symbol_B, _, ended_B = streams
    _, like = jax.eval_shape(decoder.step, params, carry, symbol_B)
    key = jax.random.key(seed)
    many = _part_size(chunk, max(1, numbers // like.size))

    def drawn(index):
      return how.noise(jax.random.fold_in(key, index), like.shape, like.dtype)

    def draw_part(part, loop):
      # One call draws the noise of many steps: a call for each step would take
      # longer than the step.
      begin = first + part * many
      noise_NBV = jax.vmap(drawn)(begin + jnp.arange(many))

      def draw_one(n, loop):
        streams, symbols_TB = loop
        noise_BV = jax.lax.dynamic_index_in_dim(noise_NBV, n, keepdims=False)
        choose = lambda logits_BV: how.choose(noise_BV, logits_BV, *settings)
        streams, *_ = step((params, values), streams, begin + n, choose)
        symbols_TB = jax.lax.dynamic_update_index_in_dim(
          symbols_TB, streams.symbol_B, begin + n - first, 0
        )
        return streams, symbols_TB

      count = jnp.minimum(stop - begin, many)
      return jax.lax.fori_loop(0, count, draw_one, loop)

    symbols_TB = jnp.zeros((chunk, *symbol_B.shape), jnp.int32)
    rounds = (stop - first + many - 1) // many
    streams, symbols_TB = jax.lax.fori_loop(
      0, rounds, draw_part, (streams, symbols_TB)
    )
    # Within the loop, this would be one more kernel of a GPU for each symbol.
    ended_B, shown_TB = _padded_after_end(ended_B, symbols_TB)
    return streams._replace(ended_B=ended_B), shown_TB.swapaxes(0, 1)

  return draw


def _padded_after_end(
  ended_B: jax.Array, symbols_TB: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Whether each stream has ended, and its symbols, padded after their end."""
  t = jnp.arange(len(symbols_TB)).reshape(-1, *[1] * ended_B.ndim)
  end_B = jnp.min(jnp.where(symbols_TB == END, t, len(t)), axis=0)
  shown_TB = jnp.where(ended_B[None] | (t > end_B[None]), PAD, symbols_TB)
  return ended_B | (end_B < len(t)), shown_TB


def generator(
  decoder: Decoder,
  *,
  length: int,
  how: decoding.Draw = decoding.SYMBOL,
  applied: Sequence[decoding.Applied] = (),
) -> Callable[..., Iterator[np.ndarray]]:
  """A function params, prime_BP, seed, *settings of `how` -> chunks.

  A chunk of symbols is int32 [B, n]; all chunks together have `length`
  symbols. After the end symbol a stream is padded. The symbols depend on the
  seed and not on the size of the chunks. A decoder compiles two programs, one
  for the prime and one for a chunk; other lengths and settings reuse them.

  Shorter primes are padded at the start, which is not read.

  A symbol may be a frame of notes, with one more axis. Notes are 0 or 1, so
  none is the end symbol.

  Args:
    decoder: of the model.
    length: symbols to draw.
    how: a symbol, or a frame of notes, is drawn.
    applied: processors of the logits, in their order.
  """
  processors = tuple(one.processor for one in applied)
  values = tuple(one.values for one in applied)
  draw = drawer(decoder, how, processors, _CHUNK, _NOISE)

  def generate(
    params: Params, prime_BP: np.ndarray, seed: int, *settings
  ) -> Iterator[np.ndarray]:
    carry = read_prime(decoder, params, prime_BP)
    last_B = prime_BP[:, -1].astype(np.int32)
    memories = tuple(one.start(prime_BP) for one in applied)
    streams = Streams(carry, last_B, memories, np.zeros(last_B.shape, bool))
    chunk = _part_size(length, _CHUNK)
    for first in range(0, length, chunk):
      stop = min(first + chunk, length)
      streams, symbols_BT = draw(
        params, streams, np.uint32(seed), (settings, values), first, stop
      )
      yield np.asarray(symbols_BT)[:, : stop - first]
      if np.asarray(streams.ended_B).all():
        return

  return generate


@lru_cache(CACHED_FUNCTIONS)
def replayer(
  decoder: Decoder | Filler, processors: tuple[decoding.Processor, ...] = ()
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """A jitted function of symbols after a prime -> their log-probabilities.

  It maps params, streams after the prime, values of the processors, symbols_BT
  to log p of the model and of the processed logits, both [B, T].
  """
  step = partial(_step, decoder, processors)

  @sharding.jit
  def replay(params, streams, values, symbols_BT):
    def score(streams, following):
      t, next_B = following
      streams, *logits = step((params, values), streams, t, lambda _: next_B)
      return streams, [-surprisal(logits_BV, next_B) for logits_BV in logits]

    following = jnp.arange(symbols_BT.shape[1]), symbols_BT.T
    _, (model_TB, after_TB) = jax.lax.scan(score, streams, following)
    return model_TB.T, after_TB.T

  return replay
