"""How a symbol, or a frame of notes, is drawn from logits."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqrnn.data.vocabulary import BEGIN, PAD, UNKNOWN
from seqrnn.models.arrays import platform

_COMPARED = 1024  # Symbols, at most, of `_likely_by_comparing`.


def choose_symbol(
  noise_BV: jax.Array, logits_BV: jax.Array, temperature: jax.Array
) -> jax.Array:
  """Draws symbol_B from softmax(logits / temperature).

  Args:
    noise_BV: of the Gumbel distribution: the largest sum of logit and noise
      is a draw from the softmax (the Gumbel-max trick).
    logits_BV: of the model.
    temperature: 0 chooses the most likely symbol.
  """
  return _draw_symbol(noise_BV, _scaled(logits_BV, temperature), temperature)


class Limits(NamedTuple):
  """Which symbols `choose_likely_symbol` may draw.

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


def choose_likely_symbol(
  noise_BV: jax.Array,
  logits_BV: jax.Array,
  temperature: jax.Array,
  limits: Limits,
) -> jax.Array:
  """Draws symbol_B as `choose_symbol`, from the symbols within limits only."""
  scaled_BV = _scaled(logits_BV, temperature)
  if limits.top_k is not None:
    few = platform() != "cpu" and scaled_BV.shape[-1] <= _COMPARED
    find = _likely_by_comparing if few else _likely_by_sorting
    likely_BV = find(scaled_BV, limits.top_k, limits.top_p)
    scaled_BV = jnp.where(likely_BV, scaled_BV, -jnp.inf)
  if limits.min_p is not None:
    largest_B1 = jnp.max(scaled_BV, axis=-1, keepdims=True)
    least_B1 = largest_B1 + jnp.log(limits.min_p)
    scaled_BV = jnp.where(scaled_BV >= least_B1, scaled_BV, -jnp.inf)
  return _draw_symbol(noise_BV, scaled_BV, temperature)


def _likely_by_sorting(
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


def _likely_by_comparing(
  scaled_BV: jax.Array, top_k: jax.Array | int, top_p: jax.Array | float
) -> jax.Array:
  """`_likely_by_sorting`, from comparisons of each symbol with each other.

  A GPU needs two kernels to compare and to draw, and several more to sort.
  """
  likelier_BVV = scaled_BV[:, None] > scaled_BV[..., None]
  likely_BV = jnp.sum(likelier_BVV, axis=-1) < top_k
  kept_BV = jnp.where(likely_BV, scaled_BV, -jnp.inf)
  chances_BV = jax.nn.softmax(kept_BV, axis=-1)
  before_BV = jnp.sum(jnp.where(likelier_BVV, chances_BV[:, None], 0), axis=-1)
  return likely_BV & ((before_BV < top_p) | (top_p >= 1))


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


def _draw_symbol(
  noise_BV: jax.Array, scaled_BV: jax.Array, temperature: jax.Array
) -> jax.Array:
  """Returns the symbol_B of the largest sum of logit and noise.

  The first maximum, on a CPU without argmax: XLA's takes as long as a layer.
  """
  noisy_BV = scaled_BV + jnp.where(temperature > 0, noise_BV, 0)
  if platform() != "cpu":
    return jnp.argmax(noisy_BV, axis=-1).astype(jnp.int32)
  largest_B1 = jnp.max(noisy_BV, axis=-1, keepdims=True)
  V = noisy_BV.shape[-1]
  id_1V = jnp.arange(V)[None]
  return jnp.min(jnp.where(noisy_BV == largest_B1, id_1V, V - 1), axis=-1)


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


class Choice(NamedTuple):
  """How what comes next is drawn.

  Attributes:
    noise: key, shape, type -> random numbers.
    choose: noise_BV, logits_BV, *settings -> symbol_B, or notes_BV.
  """

  noise: Callable[..., jax.Array]
  choose: Callable[..., jax.Array]


SYMBOL = Choice(jax.random.gumbel, choose_symbol)
LIKELY_SYMBOL = Choice(jax.random.gumbel, choose_likely_symbol)
NOTES = Choice(jax.random.uniform, choose_notes)
