r"""Samples that match a regular expression, which outlines-core compiles.

A table of states over the vocabulary's symbols is made before the compiled
loop, in which two look-ups give the symbols that are allowed and the next
state. After a match, a sample ends where the model would leave the pattern: the
end symbol has the probability of all symbols that are not allowed, and its own
one, if the model has learned it.

At each symbol the probabilities are renormalized over what the pattern allows
(locally). This is not the model's distribution over texts, conditioned on a
match: a text \(x\) has the probability \(p(x) / \prod_t Z_t\), where \(Z_t\) is
the probability that the model gives to all allowed symbols at step t.
"""

import functools
import re
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.data.vocabulary import END, RESERVED, Vocabulary
from seqrnn.errors import counted
from seqrnn.runtime import private
from seqrnn.sampling.automaton import TOO_LARGE, PatternError, bounded
from seqrnn.sampling.decoding import Applied, Processor

DEAD, ENDED, START = range(3)  # States of every automaton.
NEVER = 2**15 - 1  # Above the number of states, so above every need.
_BYTES = 2**27  # The largest size of an automaton's arrays.
# Operations of Python's parser that no automaton has.
REFUSED = {"AT", "ASSERT", "ASSERT_NOT", "FAILURE", "GROUPREF"}
REFUSED |= {"GROUPREF_EXISTS", "ATOMIC_GROUP", "POSSESSIVE_REPEAT"}


class Automaton(NamedTuple):
  """An automaton over the symbols of a vocabulary.

  Of its states, DEAD has no match, and ENDED follows the end symbol.

  Attributes:
    next_SV: the state after a symbol, int16.
    need_SV: the fewest symbols that must follow a symbol until the text
      matches, without an end symbol, int16; NEVER: no text matches. The end
      symbol, after which none must follow, may follow a match only.
    shortest: the number of symbols of the shortest match.
  """

  next_SV: np.ndarray
  need_SV: np.ndarray
  shortest: int


def byte_table(pattern: str) -> np.ndarray:
  """The automaton of an expression over bytes, [states, 257].

  State 0 has no match; the first state follows a space, so that it has a state
  also for an empty text. Column 256 is positive where a text may end.

  Raises:
    PatternError: the syntax, or an operation that is not supported.
  """
  with warnings.catch_warnings():
    # Python warns of sets within sets, which outlines-core reads differently.
    warnings.simplefilter("error", FutureWarning)
    try:
      operations = private.regex_operations(pattern)
    except (re.error, FutureWarning, OverflowError, RecursionError) as error:
      raise PatternError(f"syntax error: {error}") from None
  if operations & REFUSED:
    raise PatternError(
      "it has an anchor (remove it: the text matches as a whole), a"
      " look-around, a reference, a condition, an atomic group or a possessive"
      " quantifier"
    )
  rows = bounded("regex", rf" (?:{pattern})\z")
  return np.frombuffer(rows, np.int32).reshape(-1, 257)


@functools.lru_cache(4)  # A large vocabulary needs some 100 MB.
def compile_pattern(pattern: str, vocabulary: Vocabulary) -> Automaton:
  """The automaton of a regular expression that a whole text must match.

  Args:
    pattern: in the syntax that Python's re and outlines-core share.
    vocabulary: the symbols of which a text consists, joined as its unit needs.

  Raises:
    PatternError: the pattern has no automaton for this vocabulary.
  """
  if vocabulary.unit == "log":
    raise PatternError("the symbols of data.unit=log are templates, not texts")
  table_SB = byte_table(pattern)
  next_SV, start = _over_symbols(table_SB[:, :256], vocabulary)
  accepts_S = np.resize(table_SB[:, 256] > 0, len(next_SV))
  from scipy.sparse import csgraph, csr_array

  # A distinct edge from each state to each that follows it.
  S = len(next_SV)
  pairs = np.unique(np.arange(S)[:, None] * S + next_SV)
  graph = csr_array((np.ones(len(pairs)), (pairs // S, pairs % S)), (S, S))
  steps_S = csgraph.dijkstra(
    graph.T, indices=np.flatnonzero(accepts_S), unweighted=True, min_only=True
  )
  need_S = np.where(np.isfinite(steps_S), steps_S, NEVER)
  if need_S[start] == NEVER:
    raise PatternError(
      f"no text of the vocabulary's symbols ({vocabulary.unit}) matches"
    )
  order = csgraph.breadth_first_order(graph, start, return_predecessors=False)
  alive = order[need_S[order] < NEVER]
  if START + len(alive) > NEVER:
    raise TOO_LARGE
  ids_S = np.full(S, DEAD, np.int16)
  ids_S[alive] = np.arange(START, START + len(alive))
  size = max(256, 1 << (START + len(alive) - 1).bit_length())  # Few sizes.
  shape = size, len(vocabulary)
  made = Automaton(
    np.full(shape, DEAD, np.int16),
    np.full(shape, NEVER, np.int16),
    int(need_S[start]),
  )
  symbols = slice(len(RESERVED), None)
  rows = slice(START, START + len(alive))
  made.next_SV[rows, symbols] = ids_S[next_SV[alive]]
  made.need_SV[rows, symbols] = need_S[next_SV[alive]]
  made.next_SV[START:, END] = made.next_SV[ENDED, END] = ENDED
  made.need_SV[ENDED, END] = 0
  made.need_SV[rows, END] = np.where(accepts_S[alive], 0, NEVER)
  return made


def _over_symbols(
  next_SB: np.ndarray, vocabulary: Vocabulary
) -> tuple[np.ndarray, int]:
  """The state after each symbol, of all its bytes; and the first state.

  Symbols with spaces between them have two blocks of states, as a symbol of
  the second block has no space before it: the first one, and for words the one
  after a newline.
  """
  symbols, unit = vocabulary.symbols, vocabulary.unit
  spaced = unit not in ("char", "byte")
  S, V = len(next_SB), len(symbols)
  if (S << spaced) * V * 4 > _BYTES:
    raise PatternError(
      f"its table of {S << spaced:,} states and {V:,} symbols has more than"
      f" {_BYTES >> 20} MB"
    )
  encoding = "latin-1" if unit == "byte" else "utf-8"
  bare_SV = np.empty((S, V), np.int32)
  for v, symbol in enumerate(symbols):
    state_S = np.arange(S)
    for byte in symbol.encode(encoding, "surrogatepass"):
      state_S = next_SB[state_S, byte]
    bare_SV[:, v] = state_S
  space_S = next_SB[:, ord(" ")]
  start = int(space_S[1])  # Each expression begins with a space.
  if not spaced:
    return bare_SV, start
  later_SV = bare_SV[space_S]
  if unit == "word" and "\n" in symbols:
    newline = symbols.index("\n")
    bare_SV[:, newline] += S
    later_SV[:, newline] = bare_SV[:, newline]
  return np.concatenate([later_SV, bare_SV]), S + start


class Constraint(NamedTuple):
  """The values of a constraint, as `constraint` takes them."""

  automaton: Automaton
  length: jax.Array
  temperature: jax.Array
  boundaries: jax.Array


def constraint(
  automaton: Automaton, length: int, temperature: float, boundaries: bool
) -> Applied:
  """The processor of an automaton.

  Args:
    automaton: of the pattern.
    length: the most symbols of a text.
    temperature: of the sample.
    boundaries: the model has learned the end symbol.

  Raises:
    PatternError: no text of this length matches.
  """
  if automaton.shortest > length:
    count = counted(automaton.shortest, "symbol")
    raise PatternError(
      f"its shortest match has {count}, and a text at most {length:,}"
    )
  values = Constraint(
    jax.device_put(automaton),  # Once, and not for each chunk.
    jnp.int32(length),
    jnp.float32(temperature),
    jnp.bool_(boundaries),
  )
  start = lambda prime_BP: jnp.full(len(prime_BP), START, jnp.int32)
  return Applied(_PROCESSOR, values, start)


def _apply(
  values: Constraint, state_B: jax.Array, logits_BV: jax.Array, t: jax.Array
) -> jax.Array:
  # At most NEVER symbols are left, so that NEVER is not allowed.
  need_BV = jnp.asarray(values.automaton.need_SV)[state_B]
  left = jnp.minimum(values.length - t, NEVER)
  allowed_BV = need_BV < left.astype(need_BV.dtype)
  logits_BV = _with_end(logits_BV, allowed_BV, values)
  return jnp.where(allowed_BV, logits_BV, -jnp.inf)


def _advance(
  values: Constraint, state_B: jax.Array, symbol_B: jax.Array, _t: jax.Array
) -> jax.Array:
  next_SV = jnp.asarray(values.automaton.next_SV)
  return next_SV[state_B, symbol_B].astype(jnp.int32)


_PROCESSOR = Processor(_apply, _advance)


def _with_end(
  logits_BV: jax.Array, allowed_BV: jax.Array, values: Constraint
) -> jax.Array:
  """The end symbol has the probability of all that leaves the pattern."""
  temperature = jnp.where(values.temperature > 0, values.temperature, 1)
  id_1V = jnp.arange(logits_BV.shape[-1])[None]
  end_1V = id_1V == END
  left_BV = ~allowed_BV & (id_1V >= len(RESERVED))
  left_BV |= end_1V & values.boundaries
  # logsumexp scales by the largest logit of these symbols alone. By that of all
  # symbols, among them some that are never drawn, the sum could vanish.
  left_BV = jnp.where(left_BV, logits_BV / temperature, -jnp.inf)
  end_B1 = temperature * jax.nn.logsumexp(left_BV, -1, keepdims=True)
  return jnp.where(end_1V, end_B1, logits_BV)
