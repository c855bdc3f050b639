"""Processors that penalise or forbid symbols: repeats, and an early end."""

import jax.numpy as jnp
import numpy as np

from seqrnn.data.vocabulary import END, PAD
from seqrnn.runtime.compiled import padded_length
from seqrnn.sampling.choice import never_drawn
from seqrnn.sampling.processors import Applied, Processor

_NONE = -1  # The place of a symbol that is not drawn yet.


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


def _penalised(penalty, seen_BV, logits_BV, t):
  del t
  less_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
  return jnp.where(seen_BV, less_BV, logits_BV)


def _seen(penalty, seen_BV, symbol_B, t):
  del penalty, t
  id_1V = jnp.arange(seen_BV.shape[1])[None]
  return seen_BV | (id_1V == symbol_B[:, None])


_PENALTY = Processor(_penalised, _seen)


def min_length(length: int) -> Applied:
  """Forbids the end symbol before `length` symbols are drawn."""
  nothing = lambda prime_BP: np.zeros((len(prime_BP), 0), bool)
  return Applied(_MIN_LENGTH, np.int32(length), nothing)


def _unended(length, nothing, logits_BV, t):
  del nothing
  end_1V = jnp.arange(logits_BV.shape[1])[None] == END
  return jnp.where(end_1V & (t < length), -jnp.inf, logits_BV)


def _same(length, nothing, symbol_B, t):
  del length, symbol_B, t
  return nothing


_MIN_LENGTH = Processor(_unended, _same)


def no_repeat(n: int, length: int) -> Applied:
  """Forbids each symbol that would complete an n-gram for the second time.

  The n-grams of the prime count. Where the processors before leave no other
  symbol, nothing is forbidden.

  The memory is (history_BL, common_BL, count_B): the symbols of prime and
  sample; for each place the number of equal symbols before it and before the
  next symbol; and the number of places. The symbol of a place is forbidden if
  its number is n - 1 or more.

  Args:
    n: of the n-grams.
    length: the most symbols that are drawn.
  """

  def start(prime_BP: np.ndarray) -> tuple[np.ndarray, ...]:
    P = prime_BP.shape[1]
    L = padded_length(P + length)
    history_BL = np.full((len(prime_BP), L), _NONE, np.int32)
    common_BL = np.zeros_like(history_BL)
    for place in range(P):
      # NumPy's form of `_appended`, in place.
      symbol_B1 = prime_BP[:, place : place + 1]
      same_BP = history_BL[:, :place] == symbol_B1
      common_BL[:, 1 : place + 1] = np.where(
        same_BP, common_BL[:, :place] + 1, 0
      )
      history_BL[:, place] = np.where(symbol_B1 == PAD, _NONE, symbol_B1)[:, 0]
    return history_BL, common_BL, np.full(len(prime_BP), P, np.int32)

  return Applied(_NO_REPEAT, np.int32(n), start)


def _unrepeated(n, memory, logits_BV, t):
  del t
  history_BL, common_BL, _ = memory
  V = logits_BV.shape[1]
  # A place that forbids nothing has the id V, which is dropped.
  place_BL = jnp.where((common_BL >= n - 1) & (history_BL >= 0), history_BL, V)
  row_B1 = jnp.arange(len(history_BL))[:, None]
  repeats_BV = jnp.zeros(logits_BV.shape, bool)
  repeats_BV = repeats_BV.at[row_B1, place_BL].set(True, mode="drop")
  left_BV = ~(repeats_BV | never_drawn(V)) & (logits_BV > -jnp.inf)
  yields_B1 = ~jnp.any(left_BV, axis=1, keepdims=True)
  return jnp.where(repeats_BV & ~yields_B1, -jnp.inf, logits_BV)


def _appended(n, memory, symbol_B, t):
  del n, t
  history_BL, common_BL, count_B = memory
  same_BL = history_BL == symbol_B[:, None]
  common_BL = jnp.where(same_BL, common_BL + 1, 0)
  first_B1 = jnp.zeros_like(common_BL[:, :1])
  common_BL = jnp.concatenate([first_B1, common_BL[:, :-1]], axis=1)
  new_BL = jnp.arange(history_BL.shape[1])[None] == count_B[:, None]
  history_BL = jnp.where(new_BL, symbol_B[:, None], history_BL)
  return history_BL, common_BL, count_B + 1


_NO_REPEAT = Processor(_unrepeated, _appended)
