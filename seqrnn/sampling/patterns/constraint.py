r"""The logits processor that keeps a sample within a pattern.

After a match, a sample ends where the model would leave the pattern: the end
symbol has the probability of all symbols that are not allowed, and its own one,
if the model has learned it.

At each symbol the probabilities are renormalized over what the pattern allows
(locally). This is not the model's distribution over texts, conditioned on a
match: a text \(x\) has the probability \(p(x) / \prod_t Z_t\), where \(Z_t\) is
the probability that the model gives to all allowed symbols at step t. It is
larger than under the condition where the model's own way leaves the pattern
soon.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import END, RESERVED, Vocabulary
from seqrnn.errors import UserError
from seqrnn.sampling.patterns import schema
from seqrnn.sampling.patterns.bounded import PatternError
from seqrnn.sampling.patterns.table import (
  NEVER,
  START,
  Table,
  compile_pattern,
)
from seqrnn.sampling.processors import Applied, Processor


class Arrays(NamedTuple):
  """The values of a constraint.

  Attributes:
    next_SV: of a table.
    need_SV: of a table.
    length: the most symbols of a text.
    temperature: of the sample.
    boundaries: whether the model has learned the end symbol.
  """

  next_SV: Any
  need_SV: Any
  length: Any
  temperature: Any
  boundaries: Any


def applied(
  config: Config, vocabulary: Vocabulary, temperature: float, length: int
) -> list[Applied]:
  """The constraint of `sample.pattern` or `sample.schema`; neither: [].

  Args:
    config: of the run.
    vocabulary: of the symbols.
    temperature: of the sample.
    length: the most symbols of a text.

  Raises:
    UserError: the pattern is faulty or does not fit.
  """
  settings = config.sample
  name, pattern = "pattern", settings.pattern
  if settings.schema is not None:
    name, pattern = "schema", schema.pattern_of(settings.schema)
  if pattern is None:
    return []
  try:
    table = compile_pattern(pattern, vocabulary, length)
  except PatternError as error:
    raise UserError(
      f"config.sample.{name}={settings[name]!r}: {error}"
    ) from None
  return [constraint(table, length, temperature, config.data.boundaries)]


def constraint(
  table: Table, length: int, temperature: float, boundaries: bool
) -> Applied:
  """The processor of a table.

  Args:
    table: of the pattern.
    length: the most symbols of a text.
    temperature: of the sample.
    boundaries: the model has learned the end symbol.
  """
  arrays = Arrays(
    table.next_SV,
    table.need_SV,
    np.int32(length),
    np.float32(temperature),
    np.bool_(boundaries),
  )
  return Applied(
    _PROCESSOR,
    jax.device_put(arrays),  # Once, and not for each chunk.
    lambda prime_BP: np.full(len(prime_BP), START, np.int32),
  )


def _apply(
  arrays: Arrays, state_B: jax.Array, logits_BV: jax.Array, t: jax.Array
) -> jax.Array:
  # Of states, few rows; not allowed: NEVER, also for an endless length.
  need_BV = arrays.need_SV[state_B]
  left = jnp.minimum(arrays.length - t, NEVER)
  allowed_BV = need_BV < left.astype(need_BV.dtype)
  logits_BV = _with_end(logits_BV, allowed_BV, arrays)
  return jnp.where(allowed_BV, logits_BV, -jnp.inf)


def _advance(
  arrays: Arrays, state_B: jax.Array, symbol_B: jax.Array, t: jax.Array
) -> jax.Array:
  del t
  return arrays.next_SV[state_B, symbol_B].astype(jnp.int32)


_PROCESSOR = Processor(_apply, _advance)


def _with_end(
  logits_BV: jax.Array, allowed_BV: jax.Array, arrays: Arrays
) -> jax.Array:
  """The end symbol has the probability of all that leaves the pattern."""
  temperature = jnp.where(arrays.temperature > 0, arrays.temperature, 1)
  id_1V = jnp.arange(logits_BV.shape[-1])[None]
  end_1V = id_1V == END
  left_BV = ~allowed_BV & (id_1V >= len(RESERVED))
  left_BV |= end_1V & arrays.boundaries
  # The largest of them is 1 before they are summed: of no likelier symbol, as
  # one that is never drawn, the sum would be 0.
  left_BV = jnp.where(left_BV, logits_BV / temperature, -jnp.inf)
  end_B1 = temperature * jax.nn.logsumexp(left_BV, -1, keepdims=True)
  return jnp.where(end_1V, end_B1, logits_BV)
