"""Symbols and frames of notes, drawn one by one in a compiled loop."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seqrnn.config.read import Config
from seqrnn.data.read import music
from seqrnn.data.vocabulary import END, PAD
from seqrnn.errors import UserError
from seqrnn.experiment import Carry, Decoder, Experiment, Params
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS, padded_length
from seqrnn.sampling import decoding

_CHUNK = 256  # Symbols of one call, at most: text is printed while it grows.
_NOISE = 2**20  # Random numbers drawn at once, at most.
_PRIME = 1024  # The smallest length to which a prime is padded.


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


def prime_carry(
  decoder: Decoder, params: Params, prime_BP: np.ndarray
) -> Carry:
  """The carry before the last symbol of a prime, padded at the start."""
  P = prime_BP.shape[1]
  size = max(_PRIME, padded_length(P))  # Few, as each compiles a program.
  padding = [(0, 0), (0, size - P), (0, 0)][: prime_BP.ndim]
  padded_BP = np.pad(prime_BP.astype(np.int32), padding)
  return prime_reader(decoder)(params, padded_BP, P - 1)


def _step(
  decoder: Decoder,
  applied: tuple[decoding.Processor, ...],
  values: tuple[Params, tuple[Any, ...]],
  state: tuple[Carry, jax.Array, tuple[Any, ...]],
  t: jax.Array,
  choose: Callable[[jax.Array], jax.Array],
) -> tuple[Any, jax.Array, jax.Array]:
  """The state after a symbol, the logits_BV of the model, and those processed.

  Args:
    decoder: of the model.
    applied: the processors, in their order.
    values: the parameters, and the arrays of the processors.
    state: the carry before symbol_B, symbol_B, the memories of the processors.
    t: the place of the next symbol, from 0, after the prime.
    choose: processed logits_BV -> the next symbol_B.
  """
  (params, arrays), (carry, symbol_B, memories) = values, state
  carry, model_BV = decoder.step(params, carry, symbol_B)
  logits_BV, parts = model_BV, [*zip(applied, arrays, memories, strict=True)]
  for one, array, memory in parts:
    logits_BV = one.apply(array, memory, logits_BV, t)
  symbol_B = choose(logits_BV)
  memories = tuple(
    one.advance(array, memory, symbol_B, t) for one, array, memory in parts
  )
  return (carry, symbol_B, memories), model_BV, logits_BV


@lru_cache(CACHED_FUNCTIONS)
def drawer(
  decoder: Decoder,
  how: decoding.Draw = decoding.SYMBOL,
  applied: tuple[decoding.Processor, ...] = (),
  chunk: int = _CHUNK,
  numbers: int = _NOISE,
  mesh: Mesh | None = None,
) -> Callable[..., Any]:
  """A jitted function that draws the symbols from `first` to before `stop`.

  It maps params, state, seed, (settings of `how`, arrays of the processors),
  first, stop to the next state and symbols_BT, whose first stop - first symbols
  are drawn. A state is that of `_step`, and ended_B. A call draws at most
  `chunk` symbols, and at most `numbers` random numbers at once.
  """
  step = partial(_step, decoder, applied)

  @partial(sharding.jit, mesh=mesh)
  def draw(params, state, seed, values, first, stop):
    (carry, symbol_B, _), ended_B = state
    settings, arrays = values
    _, like = jax.eval_shape(decoder.step, params, carry, symbol_B)
    key = jax.random.key(seed)
    many = _part_size(chunk, max(1, numbers // like.size))

    def drawn(index):
      return how.noise(jax.random.fold_in(key, index), like.shape, like.dtype)

    def draw_part(part, loop):
      # The noise of many steps in one call: drawn for each step by itself, it
      # takes longer than the step.
      begin = first + part * many
      noise_NBV = jax.vmap(drawn)(begin + jnp.arange(many))

      def draw_one(n, loop):
        state, symbols_TB = loop
        noise_BV = jax.lax.dynamic_index_in_dim(noise_NBV, n, keepdims=False)
        choose = lambda logits_BV: how.choose(noise_BV, logits_BV, *settings)
        state, *_ = step((params, arrays), state, begin + n, choose)
        symbols_TB = jax.lax.dynamic_update_index_in_dim(
          symbols_TB, state[1], begin + n - first, 0
        )
        return state, symbols_TB

      count = jnp.minimum(stop - begin, many)
      return jax.lax.fori_loop(0, count, draw_one, loop)

    symbols_TB = jnp.zeros((chunk, *symbol_B.shape), jnp.int32)
    parts = (stop - first + many - 1) // many
    state, symbols_TB = jax.lax.fori_loop(
      0, parts, draw_part, (state[0], symbols_TB)
    )
    # After the loop, in which this would be another kernel of a GPU.
    ended_B, shown_TB = _padded_after_end(ended_B, symbols_TB)
    return (state, ended_B), shown_TB.swapaxes(0, 1)

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
  functions = tuple(one.processor for one in applied)
  arrays = tuple(one.arrays for one in applied)
  draw = drawer(decoder, how, functions, _CHUNK, _NOISE)

  def generate(
    params: Params, prime_BP: np.ndarray, seed: int, *settings: Any
  ) -> Iterator[np.ndarray]:
    carry = prime_carry(decoder, params, prime_BP)
    last_B = prime_BP[:, -1].astype(np.int32)
    memories = tuple(one.start(prime_BP) for one in applied)
    state = (carry, last_B, memories), np.zeros(last_B.shape, bool)
    chunk = _part_size(length, _CHUNK)
    for first in range(0, length, chunk):
      stop = min(first + chunk, length)
      state, symbols_BT = draw(
        params, state, np.uint32(seed), (settings, arrays), first, stop
      )
      yield np.asarray(symbols_BT)[:, : stop - first]
      if np.asarray(state[1]).all():
        return

  return generate


@lru_cache(CACHED_FUNCTIONS)
def replayer(
  decoder: Decoder, applied: tuple[decoding.Processor, ...] = ()
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """A jitted function of symbols after a prime -> their log-probabilities.

  It maps params, (carry before the last symbol of the prime, that symbol_B,
  memories), arrays of the processors, symbols_BT to log p of the model and of
  the processed logits, both [B, T].
  """
  step = partial(_step, decoder, applied)

  @sharding.jit
  def replay(params, state, arrays, symbols_BT):
    def score(state, following):
      t, next_B = following
      state, *logits = step((params, arrays), state, t, lambda _: next_B)
      return state, [_log_p(logits_BV, next_B) for logits_BV in logits]

    following = jnp.arange(symbols_BT.shape[1]), symbols_BT.T
    _, (model_TB, after_TB) = jax.lax.scan(score, state, following)
    return model_TB.T, after_TB.T

  return replay


def _log_p(logits_BV: jax.Array, symbol_B: jax.Array) -> jax.Array:
  true_B1 = jnp.take_along_axis(logits_BV, symbol_B[:, None], axis=-1)
  return true_B1[:, 0] - jax.nn.logsumexp(logits_BV, axis=-1)


def prime_frames(data: Config, prime: str) -> np.ndarray:
  """The notes [frames, V] that music continues; without prime, a silent frame.

  Raises:
    UserError: there is no such piece in the test split.
  """
  if not prime:
    return np.zeros((1, music.NOTES), np.uint8)
  pieces = music.read_music(data)["test"]
  match = re.fullmatch(r"([0-9]{1,9})(?::([1-9][0-9]{0,8}))?", prime)
  if not match or int(match[1]) >= len(pieces):
    raise UserError(
      f"config.sample.prime={prime!r}: must be a piece of the test split, 0 to"
      f" {len(pieces) - 1}, or the first frames of one, as 3:16"
    )
  return pieces[int(match[1])][: int(match[2]) if match[2] else None]


def sample_music(
  experiment: Experiment, params: Params, config: Config
) -> list[np.ndarray]:
  """The notes [frames, V] of each piece, in the order of `sample`.

  Raises:
    UserError: no such prime.
  """
  settings = config.sample
  assert experiment.decoder is not None, "checked by the caller"
  prime_PV = prime_frames(config.data, settings.prime)
  prime_BPV = np.tile(prime_PV, (settings.streams, 1, 1))
  how, more = decoding.NOTES, ()
  if config.model.nade is not None:
    how, more = decoding.CHORD, (params["nade"],)
  generate = generator(experiment.decoder, length=settings.length, how=how)
  shown_BPV = prime_BPV if settings.prime else prime_BPV[:, :0]
  pieces = []
  for temperature in settings.temperature:
    chunks = generate(params, prime_BPV, settings.seed, temperature, *more)
    pieces += list(np.concatenate([shown_BPV, *chunks], axis=1))
  return pieces
