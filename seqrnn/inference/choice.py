"""How a symbol, or a frame of notes, is drawn from logits."""

import jax
import jax.numpy as jnp

from seqrnn.data.vocabulary import BEGIN, PAD, UNKNOWN


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
      sum to this or more (Holtzman et al. 2020); 1 includes all.
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
  """Draws each note independently from sigmoid(logits / temperature).

  The noise is uniform from 0 to 1. Temperature 0 chooses the notes whose
  probability is above one half.
  """
  scaled_BV = logits_BV / jnp.where(temperature > 0, temperature, 1)
  drawn_BV = noise_BV < jax.nn.sigmoid(scaled_BV)
  notes_BV = jnp.where(temperature > 0, drawn_BV, logits_BV > 0)
  return notes_BV.astype(jnp.int32)
