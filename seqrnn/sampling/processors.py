"""Logits processors: what changes the logits of the next symbol while sampling.

A processor runs inside the compiled loop. What differs from call to call, such
as the table of an automaton, is in its arrays, so that other values of the same
shapes reuse the program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class Processor(NamedTuple):
  """Functions that are traced; they are compared by identity.

  Attributes:
    apply: arrays, memory, logits_BV, t -> logits_BV of the symbol t, from 0,
      after the prime. -inf: it is not drawn.
    advance: arrays, memory, symbol_B, t -> the memory after the symbol t.
  """

  apply: Callable[[Any, Any, jax.Array, jax.Array], jax.Array]
  advance: Callable[[Any, Any, jax.Array, jax.Array], Any]


class Applied(NamedTuple):
  """A processor with its values.

  Attributes:
    processor: its functions.
    arrays: a tree of arrays, the same for all streams.
    start: prime_BP, padded at the start -> the memory before the first symbol,
      a tree of arrays [B, ...].
  """

  processor: Processor
  arrays: Any
  start: Callable[[np.ndarray], Any]


def apply(
  processors: tuple[Processor, ...],
  arrays: tuple[Any, ...],
  memories: tuple[Any, ...],
  logits_BV: jax.Array,
  t: jax.Array,
) -> jax.Array:
  """The logits_BV after all processors, in their order."""
  for processor, own, memory in zip(processors, arrays, memories, strict=True):
    logits_BV = processor.apply(own, memory, logits_BV, t)
  return logits_BV


def advance(
  processors: tuple[Processor, ...],
  arrays: tuple[Any, ...],
  memories: tuple[Any, ...],
  symbol_B: jax.Array,
  t: jax.Array,
) -> tuple[Any, ...]:
  """The memories of all processors after a symbol."""
  return tuple(
    processor.advance(own, memory, symbol_B, t)
    for processor, own, memory in zip(processors, arrays, memories, strict=True)
  )
