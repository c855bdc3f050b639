"""Rows of a text whose gaps have lengths: drawn, and their log-probabilities.

A row holds the ids of the text, OPEN at each symbol of a gap, and padding.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN
from seqrnn.experiment import Carry, Decoder, Filler, Params
from seqrnn.inference.choice import Choice
from seqrnn.inference.processors import Processor
from seqrnn.inference.replay import replayer
from seqrnn.inference.sampler import drawer

OPEN = -1
_NARROW = 32  # The least width of rows; each width compiles.
_POSITIONS = 2**17  # Positions of the rows of a program, at most.
_LOGITS = 2**22  # Logits of a step of all these rows, at most.


class Gap(NamedTuple):
  """A gap of `low` to `high` symbols."""

  low: int
  high: int


class Question(NamedTuple):
  """A text with K gaps.

  Attributes:
    parts: ids before, between and after the gaps, K + 1 arrays.
    gaps: the gaps.
  """

  parts: list[np.ndarray]
  gaps: list[Gap]

  @property
  def combinations(self) -> int:
    """The number of combinations of lengths."""
    return int(np.prod([gap.high - gap.low + 1 for gap in self.gaps]))

  @property
  def longest(self) -> int:
    """The symbols of the text with the longest gaps."""
    return sum(map(len, self.parts)) + sum(gap.high for gap in self.gaps)

  def count(self, symbols: int) -> int:
    """The number of fillings from so many different symbols."""
    total = 1
    for low, high in self.gaps:
      total *= sum(symbols**n for n in range(low, high + 1))
    return total

  def lengths(self, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Random lengths of the gaps, each as often as the others [rows, K]."""
    each = [
      rng.permutation(np.resize(np.arange(low, high + 1), rows))
      for low, high in self.gaps
    ]
    return np.stack(each, axis=1)

  def rows(self, lengths_NK: np.ndarray) -> np.ndarray:
    """The rows of the text for lengths of the gaps."""
    ids_NT = np.full((len(lengths_NK), self.longest), PAD, np.int32)
    for row, lengths in zip(ids_NT, lengths_NK.tolist(), strict=True):
      place = len(self.parts[0])
      row[:place] = self.parts[0]
      for n, part in zip(lengths, self.parts[1:], strict=True):
        row[place : place + n] = OPEN
        row[place + n : place + n + len(part)] = part
        place += n + len(part)
    return ids_NT

  def every(self, symbols_V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all fillings from some symbols, and their lengths_NK."""
    rows, lengths, V = [], [], len(symbols_V)
    spans = [range(low, high + 1) for low, high in self.gaps]
    for combination in itertools.product(*spans):
      total = sum(combination)
      codes_N1 = np.arange(V**total)[:, None]
      digits_NG = codes_N1 // V ** np.arange(total)[None] % V
      lengths.append(np.tile(combination, (len(codes_N1), 1)))
      rows.append(np.tile(self.rows(lengths[-1][:1]), (len(codes_N1), 1)))
      rows[-1][rows[-1] == OPEN] = symbols_V[digits_NG].ravel()
    return np.concatenate(rows), np.concatenate(lengths)

  def fillings(
    self, ids_T: np.ndarray, lengths_K: np.ndarray
  ) -> list[np.ndarray]:
    """The ids in each gap of a row."""
    found, place = [], 0
    for part, n in zip(self.parts, lengths_K.tolist(), strict=False):
      place += len(part)
      found.append(ids_T[place : place + n])
      place += n
    return found


def _draw_masked(noise_BV: jax.Array, logits_BV: jax.Array) -> jax.Array:
  return jnp.argmax(logits_BV + noise_BV, axis=-1).astype(jnp.int32)


def _known(_, fixed_BT: jax.Array, logits_BV: jax.Array, t) -> jax.Array:
  """The logits of a gap's symbols, or of the symbol that the text has."""
  fixed_B1 = jax.lax.dynamic_slice_in_dim(fixed_BT, t, 1, axis=1)
  id_1V = jnp.arange(logits_BV.shape[-1])[None]
  drawn_1V = jnp.where(id_1V > UNKNOWN, OPEN, id_1V)
  allowed_BV = jnp.where(fixed_B1 == OPEN, drawn_1V, id_1V) == fixed_B1
  return jnp.where(allowed_BV, logits_BV, -jnp.inf)


_MASKED = Choice(jax.random.gumbel, _draw_masked)
_KNOWN = Processor(_known, lambda *given: given[1])


class Reader(NamedTuple):
  """How a model reads rows.

  Attributes:
    model: its step draws and scores.
    params: of the model.
    begin: ids_BT -> the carry before the symbol before the rows, that symbol_B.
    size: V.
  """

  model: Decoder | Filler
  params: Params
  begin: Callable[[np.ndarray], tuple[Carry, np.ndarray]]
  size: int

  def _blocks(self, *arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Blocks of rows [B, W] of a few sizes, as each compiles a program."""
    N, T = arrays[0].shape
    W = max(_NARROW, 1 << (T - 1).bit_length())
    B = min(1 << (N - 1).bit_length(), _POSITIONS // W, _LOGITS // self.size)
    for first in range(0, N, max(B, 1)):
      block = [x[first : first + max(B, 1)] for x in arrays]
      missing = max(B, 1) - len(block[0])
      yield tuple(np.pad(x, [(0, missing), (0, W - T)]) for x in block)

  def draw(
    self, fixed_NT: np.ndarray, ids_NT: np.ndarray, rng: np.random.Generator
  ) -> np.ndarray:
    """The rows with each OPEN symbol drawn from left to right.

    Args:
      fixed_NT: the rows.
      ids_NT: what a model of both sides reads on the right of a position.
      rng: of the seeds.
    """
    found = []
    for fixed_BW, ids_BW in self._blocks(fixed_NT, ids_NT):
      B, W = fixed_BW.shape
      # Drawing and replaying need the step alone.
      draw = drawer(cast(Decoder, self.model), _MASKED, (_KNOWN,), W)
      state = *self.begin(ids_BW), np.zeros(B, bool), (fixed_BW,)
      seed, given = np.uint32(rng.integers(2**32)), ((), (None,))
      _, drawn_BW = draw(self.params, state, seed, given, 0, fixed_NT.shape[1])
      found.append(np.asarray(drawn_BW)[:, : fixed_NT.shape[1]])
    return np.concatenate(found)[: len(fixed_NT)]

  def log_p(
    self, fixed_NT: np.ndarray, ids_NT: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """The log p of filled rows by the model, and by what `draw` draws from [N].

    Padding and the boundaries of a document do not count, nor do unknown
    symbols of the text, whose probability no training has learned.

    Args:
      fixed_NT: the rows.
      ids_NT: filled.
    """
    replay, found = replayer(cast(Decoder, self.model), (_KNOWN,)), []
    for fixed_BW, ids_BW in self._blocks(fixed_NT, ids_NT):
      state = *self.begin(ids_BW), (fixed_BW,)
      each: Any = replay(self.params, state, (None,), ids_BW)
      some_BW = ~np.isin(ids_BW, (PAD, BEGIN, END, UNKNOWN))
      found.append(
        [np.where(some_BW, x, 0).sum(1, dtype=np.float64) for x in each]
      )
    model_N, drawn_N = np.concatenate(found, axis=1)[:, : len(ids_NT)]
    return model_N, drawn_N
