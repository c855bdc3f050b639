"""How the next symbol is chosen from logits, and where a text ends.

Logits processors change the logits before a symbol is drawn: a pattern, a
penalty of repeats. They run inside the compiled loop. Values that differ from
call to call, such as the table of an automaton, are arrays, so that other
values of the same shapes reuse the program.
"""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.experiment import Params
from seqrnn.models.losses import nade
from seqrnn.runtime.compiled import padded_length
from seqrnn.runtime.sharding import platform

_PART = "\ufffd"  # Stands for a byte that may begin a character.


class Limits(NamedTuple):
  """Which symbols `choose_symbol` may draw.

  A limit that is None is not compiled. The limits hold one after another, in
  this order, which is that of Hugging Face's transformers: each one sees the
  probabilities, at the temperature, of the symbols that those before it leave.
  Symbols as likely as the last one that a limit keeps are kept, too.

  Attributes:
    top_k: the number of most likely symbols, at least 1.
    top_p: the fewest most likely symbols whose probabilities sum to this or
      more (Holtzman et al. 2020); 1 includes all. Without top_k it is unused.
    min_p: symbols with at least this part of the probability of the most likely
      one (Nguyen et al. 2024).
  """

  top_k: jax.Array | int | None = None
  top_p: jax.Array | float = 1.0
  min_p: jax.Array | float | None = None


ALL = Limits()


def choose_symbol(
  noise_BV: jax.Array,
  logits_BV: jax.Array,
  temperature: jax.Array,
  limits: Limits = ALL,
) -> jax.Array:
  """Draws symbol_B from softmax(logits / temperature), within limits.

  Args:
    noise_BV: of the Gumbel distribution: the largest sum of logit and noise
      is a draw from the softmax (the Gumbel-max trick).
    logits_BV: of the model.
    temperature: 0 chooses the most likely symbol.
    limits: of the symbols that may be drawn.
  """
  scaled_BV = _scaled(logits_BV, temperature)
  if limits.top_k is not None:
    likely_BV = _likely(scaled_BV, limits.top_k, limits.top_p)
    scaled_BV = jnp.where(likely_BV, scaled_BV, -jnp.inf)
  if limits.min_p is not None:
    largest_B1 = jnp.max(scaled_BV, axis=-1, keepdims=True)
    least_B1 = largest_B1 + jnp.log(limits.min_p)
    scaled_BV = jnp.where(scaled_BV >= least_B1, scaled_BV, -jnp.inf)
  # On a CPU, XLA's argmax takes as long as a layer.
  noisy_BV = scaled_BV + jnp.where(temperature > 0, noise_BV, 0)
  if platform() != "cpu":
    return jnp.argmax(noisy_BV, axis=-1).astype(jnp.int32)
  largest_B1 = jnp.max(noisy_BV, axis=-1, keepdims=True)
  V = noisy_BV.shape[-1]
  id_1V = jnp.arange(V)[None]
  return jnp.min(jnp.where(noisy_BV == largest_B1, id_1V, V - 1), axis=-1)


def _likely(
  scaled_BV: jax.Array, top_k: jax.Array | int, top_p: jax.Array | float
) -> jax.Array:
  """Returns whether a symbol is among those to draw from, [B, V]."""
  sorted_BV = jnp.sort(scaled_BV, axis=-1, descending=True)
  place = jnp.minimum(top_k, sorted_BV.shape[-1]) - 1
  kth_B1 = jax.lax.dynamic_slice_in_dim(sorted_BV, place, 1, axis=-1)
  kept_BV = jnp.where(sorted_BV < kth_B1, -jnp.inf, sorted_BV)
  chances_BV = jax.nn.softmax(kept_BV, axis=-1)
  # A symbol stays while those before it have less than top_p together.
  before_BV = jnp.cumsum(chances_BV, axis=-1) - chances_BV
  inside_BV = (before_BV < top_p) | (top_p >= 1)
  kept_BV = jnp.where(inside_BV, sorted_BV, jnp.inf)
  last_B1 = jnp.min(kept_BV, axis=-1, keepdims=True)
  return scaled_BV >= jnp.maximum(kth_B1, last_B1)


def _scaled(logits_BV: jax.Array, temperature: jax.Array) -> jax.Array:
  """Returns logits / temperature; padding, begin and unknown are never drawn.

  `where` and not .at[].set: XLA's scatter is slow on a CPU, and this runs for
  every symbol.
  """
  never_1V = never_drawn(logits_BV.shape[-1])
  logits_BV = jnp.where(never_1V, -jnp.inf, logits_BV)
  return logits_BV / jnp.where(temperature > 0, temperature, 1)


def never_drawn(V: int) -> jax.Array:
  """Whether a symbol is padding, begin or unknown, [1, V]."""
  id_1V = jnp.arange(V)[None]
  return (id_1V == PAD) | (id_1V == BEGIN) | (id_1V == UNKNOWN)


def choose_notes(
  noise_BV: jax.Array, logits_BV: jax.Array, temperature: jax.Array
) -> jax.Array:
  """Draws each note independently from sigmoid(logits / temperature).

  The noise is uniform from 0 to 1. Temperature 0 chooses the notes whose
  probability is above one half.
  """
  scaled_BV = logits_BV / jnp.where(temperature > 0, temperature, 1)
  drawn_BV = noise_BV < jax.nn.sigmoid(scaled_BV)
  notes_BV = jnp.where(temperature > 0, drawn_BV, logits_BV > 0)
  return notes_BV.astype(jnp.int32)


def choose_chord(
  noise_BO: jax.Array,
  biases_BO: jax.Array,
  temperature: jax.Array,
  params: Params,
) -> jax.Array:
  """Draws the notes of frames one after another, as `choose_notes` does.

  Args:
    noise_BO: uniform from 0 to 1; it has a number for each note, and more.
    biases_BO: as in `nade`.
    temperature: of each note.
    params: of Nade.
  """
  choose = lambda logits_B, noise_B: choose_notes(
    noise_B, logits_B, temperature
  )
  V = len(params["note_kernel"])
  return nade(params, biases_BO, noise_BO[:, :V], choose)[1]


class Draw(NamedTuple):
  """How the next symbol or frame is drawn.

  Attributes:
    noise: key, shape, type -> random numbers.
    choose: noise_BV, logits_BV, *settings -> symbol_B, or notes_BV.
  """

  noise: Callable[..., jax.Array]
  choose: Callable[..., jax.Array]


SYMBOL = Draw(jax.random.gumbel, choose_symbol)
NOTES = Draw(jax.random.uniform, choose_notes)
CHORD = Draw(jax.random.uniform, choose_chord)


Values = TypeVar("Values")  # A tree of arrays, the same for all streams.
Memory = TypeVar("Memory")  # A tree of arrays [B, ...].


class Processor(NamedTuple, Generic[Values, Memory]):
  """Functions that are traced; they are compared by identity.

  Attributes:
    apply: values, memory, logits_BV, t -> logits_BV of the symbol t, from 0,
      after the prime. -inf: it is not drawn.
    advance: values, memory, symbol_B, t -> the memory after the symbol t.
  """

  apply: Callable[[Values, Memory, jax.Array, jax.Array], jax.Array]
  advance: Callable[[Values, Memory, jax.Array, jax.Array], Memory]


class Applied(NamedTuple, Generic[Values, Memory]):
  """A processor with its values.

  Attributes:
    processor: its functions.
    values: that the functions read.
    start: prime_BP, padded at the start -> the memory before the first symbol.
  """

  processor: Processor[Values, Memory]
  values: Values
  start: Callable[[np.ndarray], Memory]


def repetition_penalty(penalty: float, size: int) -> Applied:
  """Divides positive logits of symbols that are in the prime or the sample.

  Negative ones are multiplied (Keskar et al. 2019, CTRL, as Hugging Face's
  transformers apply it to logits of both signs). The memory is seen_BV.

  Args:
    penalty: above 1 makes repeats less likely.
    size: V.
  """

  def start(prime_BP: np.ndarray) -> np.ndarray:
    seen_BV = np.zeros((len(prime_BP), size), bool)
    np.put_along_axis(seen_BV, prime_BP, True, axis=1)
    seen_BV[:, PAD] = False
    return seen_BV

  return Applied(_PENALTY, np.float32(penalty), start)


def _penalised(penalty, seen_BV, logits_BV, _t):
  less_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
  return jnp.where(seen_BV, less_BV, logits_BV)


def _seen(_penalty, seen_BV, symbol_B, _t):
  id_1V = jnp.arange(seen_BV.shape[1])[None]
  return seen_BV | (id_1V == symbol_B[:, None])


_PENALTY = Processor(_penalised, _seen)


class History(NamedTuple):
  """The symbols of prime and sample, as `no_repeat` needs them.

  Attributes:
    symbols_BL: ids, padded at the end.
    common_BL: for each place, the number of equal symbols before it and before
      the next symbol.
    count_B: the number of symbols.
  """

  symbols_BL: jax.Array | np.ndarray
  common_BL: jax.Array | np.ndarray
  count_B: jax.Array | np.ndarray


def no_repeat(n: int, length: int) -> Applied:
  """Forbids each symbol that would complete an n-gram for the second time.

  The n-grams of the prime count. Where the processors before leave no other
  symbol, nothing is forbidden. The symbol of a place is forbidden if n - 1 or
  more symbols before it are those before the next symbol.

  Args:
    n: of the n-grams.
    length: the most symbols that are drawn.
  """

  def start(prime_BP: np.ndarray) -> History:
    B, P = prime_BP.shape
    none_BL = np.zeros((B, padded_length(P + length)), np.int32)
    history = History(none_BL, none_BL, np.zeros(B, np.int32))
    for symbol_B in prime_BP.T:
      history = _append(n, history, symbol_B, 0)
    return history

  return Applied(_NO_REPEAT, np.int32(n), start)


def _unrepeated(n, history, logits_BV, _t):
  symbols_BL, common_BL, _ = history
  V = logits_BV.shape[1]
  # A place that forbids nothing has the id V, which is dropped.
  place_BL = jnp.where(
    (common_BL >= n - 1) & (symbols_BL != PAD), symbols_BL, V
  )
  row_B1 = jnp.arange(len(symbols_BL))[:, None]
  repeats_BV = jnp.zeros(logits_BV.shape, bool)
  repeats_BV = repeats_BV.at[row_B1, place_BL].set(True, mode="drop")
  left_BV = ~(repeats_BV | never_drawn(V)) & (logits_BV > -jnp.inf)
  yields_B1 = ~jnp.any(left_BV, axis=1, keepdims=True)
  return jnp.where(repeats_BV & ~yields_B1, -jnp.inf, logits_BV)


def _appended(_n, history, symbol_B, _t):
  symbols_BL, common_BL, count_B = history
  same_BL = symbols_BL == symbol_B[:, None]
  common_BL = jnp.where(same_BL, common_BL + 1, 0)
  first_B1 = jnp.zeros_like(common_BL[:, :1])
  common_BL = jnp.concatenate([first_B1, common_BL[:, :-1]], axis=1)
  new_BL = jnp.arange(symbols_BL.shape[1])[None] == count_B[:, None]
  symbols_BL = jnp.where(new_BL, symbol_B[:, None], symbols_BL)
  return History(symbols_BL, common_BL, count_B + 1)


_append = jax.jit(_appended)  # It reads a prime, outside of the loop.
_NO_REPEAT = Processor(_unrepeated, _appended)


def ending(
  symbols: Vocabulary,
  prime_P: np.ndarray,
  drawn_T: np.ndarray,
  stops: Sequence[str],
) -> tuple[str, str]:
  """The text with its prime, and why it ends: `end`, `stop` or `length`.

  Args:
    symbols: the vocabulary.
    prime_P: the ids of the prime.
    drawn_T: the ids that continue it.
    stops: texts that end the text and are no part of it.
  """
  text = symbols.text(np.concatenate([prime_P, drawn_T]))
  # The last byte of a prime may begin a character of several bytes.
  begin = len(symbols.text(prime_P).rstrip(_PART))
  places = [(text.find(stop, begin), stop) for stop in stops]
  # Where several stop texts end at one place, the longest one counts.
  stopped = [(at + len(stop), at) for at, stop in places if at >= 0]
  if stopped:
    return text[: min(stopped)[1]], "stop"
  return text, "end" if (drawn_T == END).any() else "length"
