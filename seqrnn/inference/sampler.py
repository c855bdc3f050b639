"""Text and music, drawn symbol by symbol in a compiled scan."""

import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config import Config
from seqrnn.data import music
from seqrnn.data.corpora import from_text
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Carry, Decoder, Experiment, Params
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

_CHUNK = 256  # Symbols drawn by one call at most: text appears as it is made.
_NOISE = 2**20  # Numbers of noise at once, at most.
_PRIME = 1024  # Symbols for which a prime has room, at least.


def choose_symbol(
  noise_BV: jax.Array, logits_BV: jax.Array, temperature: jax.Array
) -> jax.Array:
  """Draws symbol_B from softmax(logits / temperature).

  Args:
    noise_BV: of the Gumbel distribution: adding it and taking the largest is
      to draw.
    logits_BV: of the model.
    temperature: 0 takes the most likely symbol.
  """
  return _draw_symbol(noise_BV, _scaled(logits_BV, temperature), temperature)


def choose_likely_symbol(
  noise_BV: jax.Array,
  logits_BV: jax.Array,
  temperature: jax.Array,
  top_k: jax.Array,
  top_p: jax.Array,
) -> jax.Array:
  """Draws symbol_B as `choose_symbol`, from the most likely symbols only.

  Args:
    noise_BV: as there.
    logits_BV: as there.
    temperature: as there.
    top_k: how many symbols, 1 or more; symbols as likely as the last are
      drawn from, too.
    top_p: the probability that the symbols drawn from have together at least,
      the fewest that have it at this temperature (Holtzman et al. 2020); 1 or
      more leaves none out.
  """
  scaled_BV = _scaled(logits_BV, temperature)
  V = scaled_BV.shape[-1]
  order_BV = jnp.argsort(-scaled_BV, axis=-1)
  sorted_BV = jnp.take_along_axis(scaled_BV, order_BV, axis=-1)
  kth_B1 = jax.lax.dynamic_slice_in_dim(
    sorted_BV, jnp.minimum(top_k, V) - 1, 1, axis=-1
  )
  sorted_BV = jnp.where(sorted_BV < kth_B1, -jnp.inf, sorted_BV)
  chances_BV = jax.nn.softmax(sorted_BV, axis=-1)
  # A symbol stays while those before it have less than top_p together.
  before_BV = jnp.cumsum(chances_BV, axis=-1) - chances_BV
  outside_BV = (before_BV >= top_p) & (top_p < 1)
  sorted_BV = jnp.where(outside_BV, -jnp.inf, sorted_BV)
  noise_BV = jnp.take_along_axis(noise_BV, order_BV, axis=-1)
  place_B1 = _draw_symbol(noise_BV, sorted_BV, temperature)[:, None]
  return jnp.take_along_axis(order_BV, place_B1, axis=-1)[:, 0]


def _scaled(logits_BV: jax.Array, temperature: jax.Array) -> jax.Array:
  """Returns logits / temperature; padding, begin and unknown are never drawn.

  `where` and not .at[].set: XLA's scatter is slow on a CPU, and this runs for
  every symbol.
  """
  id_1V = jnp.arange(logits_BV.shape[-1])[None]
  never_1V = (id_1V == PAD) | (id_1V == BEGIN) | (id_1V == UNKNOWN)
  logits_BV = jnp.where(never_1V, -jnp.inf, logits_BV)
  return logits_BV / jnp.where(temperature > 0, temperature, 1)


def _draw_symbol(
  noise_BV: jax.Array, scaled_BV: jax.Array, temperature: jax.Array
) -> jax.Array:
  """Returns the symbol_B of the largest sum of logit and noise.

  The first maximum, without argmax: on a CPU, XLA's argmax takes as long as a
  layer.
  """
  noisy_BV = scaled_BV + jnp.where(temperature > 0, noise_BV, 0)
  largest_B1 = jnp.max(noisy_BV, axis=-1, keepdims=True)
  V = noisy_BV.shape[-1]
  id_1V = jnp.arange(V)[None]
  return jnp.min(jnp.where(noisy_BV == largest_B1, id_1V, V - 1), axis=-1)


def choose_notes(
  noise_BV: jax.Array, logits_BV: jax.Array, temperature: jax.Array
) -> jax.Array:
  """Draws a frame of notes, each by itself, from sigmoid(logits / temperature).

  The noise is from 0 to 1. Temperature 0 takes the notes that are more likely
  than not.
  """
  scaled_BV = logits_BV / jnp.where(temperature > 0, temperature, 1)
  drawn_BV = noise_BV < jax.nn.sigmoid(scaled_BV)
  notes_BV = jnp.where(temperature > 0, drawn_BV, logits_BV > 0)
  return notes_BV.astype(jnp.int32)


def _even(total: int, most: int) -> int:
  """The size of equal parts of `total`, at most `most`; the last: the rest."""
  return -(-total // -(-total // most))


@lru_cache(CACHED_FUNCTIONS)
def _reader(decoder: Decoder) -> Callable[..., tuple[Carry, jax.Array]]:
  """A jitted function params, prime_BP, length -> carry, logits_BV.

  What stands in the prime from `length` on is not read.
  """

  @jax.jit
  def read(params, prime_BP, length):
    def step(t, state):
      carry, _ = state
      symbol_B = jax.lax.dynamic_index_in_dim(prime_BP, t, 1, keepdims=False)
      return decoder.step(params, carry, symbol_B)

    carry = decoder.start(prime_BP.shape[0])
    symbol_B = prime_BP[:, 0]
    _, like = jax.eval_shape(decoder.step, params, carry, symbol_B)
    state = carry, jnp.zeros(like.shape, like.dtype)
    return jax.lax.fori_loop(0, length, step, state)

  return read


@lru_cache(CACHED_FUNCTIONS)
def _drawer(
  decoder: Decoder,
  noise: Callable[..., jax.Array],
  pick: Callable[..., jax.Array],
  chunk: int,
  numbers: int,
) -> Callable[..., Any]:
  """A jitted function that draws symbols, at most `chunk`; see `generator`.

  It takes params, a state, seed, what `pick` draws by, and the numbers of the
  first symbol and of the one after the last. It gives the state after them and
  symbols_BT, of which only those asked for were drawn. A state is carry,
  logits_BV and ended_B.
  """

  @jax.jit
  def draw(params, state, seed, settings, first, stop):
    _, logits_BV, _ = state
    key = jax.random.key(seed)
    many = _even(chunk, max(1, numbers // logits_BV.size))

    def drawn(index):
      key_i = jax.random.fold_in(key, index)
      return noise(key_i, logits_BV.shape, logits_BV.dtype)

    def some(part, loop):
      # Noise for many steps at once: one by one, it takes longer than they do.
      begin = first + part * many
      noise_NBV = jax.vmap(drawn)(begin + jnp.arange(many))

      def step(n, loop):
        (carry, logits_BV, ended_B), symbols_TB = loop
        noise_BV = jax.lax.dynamic_index_in_dim(noise_NBV, n, keepdims=False)
        symbol_B = pick(noise_BV, logits_BV, *settings)
        shown_B = jnp.where(ended_B, PAD, symbol_B)
        ended_B |= symbol_B == END
        carry, logits_BV = decoder.step(params, carry, symbol_B)
        symbols_TB = jax.lax.dynamic_update_index_in_dim(
          symbols_TB, shown_B, part * many + n, 0
        )
        return (carry, logits_BV, ended_B), symbols_TB

      return jax.lax.fori_loop(0, jnp.minimum(stop - begin, many), step, loop)

    ended_B = state[2]
    symbols_TB = jnp.zeros((chunk, *ended_B.shape), jnp.int32)
    parts = (stop - first + many - 1) // many
    state, symbols_TB = jax.lax.fori_loop(0, parts, some, (state, symbols_TB))
    return state, symbols_TB.swapaxes(0, 1)

  return draw


def generator(
  decoder: Decoder,
  *,
  length: int,
  noise: Callable[..., jax.Array] = jax.random.gumbel,
  pick: Callable[..., jax.Array] = choose_symbol,
) -> Callable[..., Iterator[np.ndarray]]:
  """A function params, prime_BP, seed, *settings of `pick` -> chunks.

  A chunk of symbols is int32 [B, n]; together they are `length` long. Where a
  stream has drawn the end symbol, padding follows. What is drawn depends on
  the seed, not on the chunks. For a decoder and a `pick` it compiles twice,
  for the prime and for a chunk, whatever their lengths and the settings.

  A symbol may be a frame of notes, with one axis more. These are 0 or 1, and
  so never the end symbol.

  Args:
    decoder: of the model.
    length: symbols to draw.
    noise: key, shape, type -> what `pick` draws with.
    pick: noise_BV, logits_BV, *settings -> symbol_B.
  """
  read = _reader(decoder)
  draw = _drawer(decoder, noise, pick, _CHUNK, _NOISE)

  def generate(
    params: Params, prime_BP: np.ndarray, seed: int, *settings: float
  ) -> Iterator[np.ndarray]:
    padded_BP = np.zeros(
      (len(prime_BP), _room(prime_BP.shape[1]), *prime_BP.shape[2:]), np.int32
    )
    padded_BP[:, : prime_BP.shape[1]] = prime_BP
    carry, logits_BV = read(params, padded_BP, prime_BP.shape[1])
    state = carry, logits_BV, np.zeros(prime_BP[:, 0].shape, bool)
    chunk = _even(length, _CHUNK)
    for first in range(0, length, chunk):
      stop = min(first + chunk, length)
      state, symbols_BT = draw(
        params, state, np.uint32(seed), settings, first, stop
      )
      yield np.asarray(symbols_BT)[:, : stop - first]
      if np.asarray(state[2]).all():
        return

  return generate


def _room(length: int) -> int:
  """Symbols for which the prime has room: of few sizes, as it compiles anew."""
  size = _PRIME
  while size < length:
    size *= 4
  return size


def prime_ids(
  symbols: Vocabulary, prime: str, boundaries: bool, streams: int, seed: int
) -> tuple[np.ndarray, list[str]]:
  """The symbols [B, P] that a text starts from, and those that are unknown.

  A model that knows where documents begin starts there. Another one needs a
  symbol to start from: without a prime each stream draws its own.

  Raises:
    UserError: the prime is not one sequence: sessions are lines.
  """
  documents = from_text(prime, symbols.unit) if prime else []
  if prime and len(documents) != 1:
    raise UserError(
      f"config.sample.prime={prime!r}: has {len(documents)} sequences of"
      f" data.unit={symbols.unit}; a sample has one to go on from"
    )
  tokens = documents[0].symbols if documents else ""
  ids = symbols.encode(tokens)
  if boundaries:
    ids = np.concatenate([np.array([BEGIN], np.int32), ids])
  if len(ids):
    return np.tile(ids, (streams, 1)), symbols.unknown(tokens)
  rng = np.random.default_rng(seed)
  drawn = rng.integers(UNKNOWN + 1, len(symbols), (streams, 1), np.int32)
  return drawn, []


def excerpts(experiment: Experiment, config: Config) -> Callable[[Params], str]:
  """A function params -> the beginning of what `sample` makes of them.

  It is of `train.sample_length` symbols, and empty where a task has no texts.
  """
  settings, length = config.sample, config.train.sample_length
  if not length or not experiment.writes_text:
    return lambda _: ""
  generate, prime_BP, _ = _begin(experiment, config, length, streams=1)

  def excerpt(params: Params) -> str:
    chunks = generate(params, prime_BP, settings.seed, settings.temperature[0])
    [ids] = np.concatenate([prime_BP, *chunks], axis=1)
    return experiment.vocabularies["symbols"].text(ids)

  return excerpt


def _begin(
  experiment: Experiment, config: Config, length: int, streams: int
) -> tuple[Callable[..., Iterator[np.ndarray]], np.ndarray, list[str]]:
  """What `prime_ids` gives, after a function that draws texts.

  It takes params, prime_BP, seed, temperature and gives chunks of symbols.
  """
  settings, symbols = config.sample, experiment.vocabularies["symbols"]
  assert experiment.decoder is not None, "the caller has asked"
  pick, limits = choose_symbol, ()
  if (settings.top_k, settings.top_p) != (None, None):
    pick = choose_likely_symbol
    limits = settings.top_k or len(symbols), settings.top_p or 1.0
  generate = generator(experiment.decoder, length=length, pick=pick)
  prime = prime_ids(
    symbols, settings.prime, config.data.boundaries, streams, settings.seed
  )
  return lambda *given: generate(*given, *limits), *prime


def sample(
  experiment: Experiment,
  params: Params,
  config: Config,
  show: Callable[[str], None] = lambda _: None,
) -> list[str]:
  """The texts of `config.sample`, temperature by temperature, prime included.

  Args:
    experiment: with a decoder.
    params: of its model.
    config: of the run.
    show: is given each piece of text as it is made.
  """
  settings = config.sample
  symbols = experiment.vocabularies["symbols"]
  generate, prime_BP, unknown = _begin(
    experiment, config, settings.length, settings.streams
  )
  if unknown:
    print(
      f"sample.prime: read as unknown: {' '.join(map(repr, unknown))}",
      file=sys.stderr,
    )
  texts = []
  for temperature in settings.temperature:
    if len(settings.temperature) > 1:
      show(f"----- temperature {temperature:g}\n")
    ids_BT = prime_BP
    shown = 0  # Characters of the one stream that were shown.
    for chunk_BT in generate(params, prime_BP, settings.seed, temperature):
      ids_BT = np.concatenate([ids_BT, chunk_BT], axis=1)
      if settings.streams == 1:
        # A byte that ends a chunk may be the first of a longer character.
        text = symbols.text(ids_BT[0]).rstrip("\ufffd")
        show(text[shown:])
        shown = max(shown, len(text))
    made = [symbols.text(ids) for ids in ids_BT]
    if settings.streams == 1:
      show(made[0][shown:] + "\n")
    else:
      for number, text in enumerate(made, 1):
        show(f"----- stream {number}\n{text}\n")
    texts += made
  return texts


def prime_frames(data: Config, prime: str) -> np.ndarray:
  """The notes [frames, V] that music starts from; a silent frame without prime.

  Raises:
    UserError: there is no such piece in the test split.
  """
  if not prime:
    return np.zeros((1, music.NOTES), np.uint8)
  pieces = music.read(data)["test"]
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
  """The notes [frames, V] of `config.sample`, in the order that `sample` has.

  Raises:
    UserError: no such prime, or settings that need symbols.
  """
  settings = config.sample
  assert experiment.decoder is not None, "the caller has asked"
  for name in ("top_k", "top_p"):
    if settings[name] is not None:
      raise UserError(
        f"config.sample.{name}={settings[name]}: must be none for music, whose"
        " notes are drawn each by itself"
      )
  prime_PV = prime_frames(config.data, settings.prime)
  prime_BPV = np.tile(prime_PV, (settings.streams, 1, 1))
  generate = generator(
    experiment.decoder,
    length=settings.length,
    noise=jax.random.uniform,
    pick=choose_notes,
  )
  shown_BPV = prime_BPV if settings.prime else prime_BPV[:, :0]
  made = []
  for temperature in settings.temperature:
    chunks = generate(params, prime_BPV, settings.seed, temperature)
    made += list(np.concatenate([shown_BPV, *chunks], axis=1))
  return made
