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
    top_k: the number of symbols to draw from, at least 1; symbols as likely
      as the last of them are included.
    top_p: draw from the fewest symbols whose probabilities at this temperature
      sum to this or more (Holtzman et al. 2020); symbols as likely as the last
      of them are included; 1 includes all.
  """
  scaled_BV = _scaled(logits_BV, temperature)
  few = platform() != "cpu" and scaled_BV.shape[-1] <= _COMPARED
  find = _likely_by_comparing if few else _likely_by_sorting
  likely_BV = find(scaled_BV, top_k, top_p)
  scaled_BV = jnp.where(likely_BV, scaled_BV, -jnp.inf)
  return _draw_symbol(noise_BV, scaled_BV, temperature)


def _likely_by_sorting(
  scaled_BV: jax.Array, top_k: jax.Array, top_p: jax.Array
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
  scaled_BV: jax.Array, top_k: jax.Array, top_p: jax.Array
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
  id_1V = jnp.arange(logits_BV.shape[-1])[None]
  never_1V = (id_1V == PAD) | (id_1V == BEGIN) | (id_1V == UNKNOWN)
  logits_BV = jnp.where(never_1V, -jnp.inf, logits_BV)
  return logits_BV / jnp.where(temperature > 0, temperature, 1)


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
