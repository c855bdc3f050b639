"""Rows of a text whose gaps have lengths: drawn, and their log-probabilities.

A row holds the ids of the text, OPEN at each symbol of a gap, and padding.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN
from seqrnn.experiment import Carry, Decoder, Filler, Params
from seqrnn.inference.choice import Choice
from seqrnn.inference.infill_form import Form
from seqrnn.inference.patterns.table import START
from seqrnn.inference.processors import Processor
from seqrnn.inference.replay import replayer
from seqrnn.inference.sampler import drawer
from seqrnn.runtime.compiled import padded_length

OPEN = -1
_POSITIONS = 2**15  # Positions of the rows of a program, at most.
_LOGITS = 2**22  # Logits of a step of all these rows, at most.
_STATES = 2**27  # States of these positions, at most.


class Layout(NamedTuple):
  """The rows of a text for lengths of its gaps.

  Attributes:
    fixed_NT: ids, OPEN, padding.
    left_NT: the number of symbols of the same gap after a symbol of a gap.
    first_NT: whether a symbol is the first of a gap.
  """

  fixed_NT: np.ndarray
  left_NT: np.ndarray
  first_NT: np.ndarray

  def begun(self, ids_NT: np.ndarray) -> "Layout":
    """The layout with the symbols of rows that are filled up to some gap."""
    fixed_NT, T = self.fixed_NT.copy(), ids_NT.shape[1]
    fixed_NT[:, :T] = np.where(ids_NT == PAD, fixed_NT[:, :T], ids_NT)
    return self._replace(fixed_NT=fixed_NT)


class Question(NamedTuple):
  """A text with K gaps.

  Attributes:
    parts: ids before, between and after the gaps, K + 1 arrays.
    gaps: the lengths that each gap may have.
    form: what may stand in each.
  """

  parts: list[np.ndarray]
  gaps: list[list[int]]
  form: Form

  @property
  def count(self) -> float:
    """The number of fillings."""
    counts = [self.form.count(lengths) for lengths in self.gaps]
    return math.prod(counts)  # It may be infinite.

  def lengths(self, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Random lengths of the gaps, each as often as the others [rows, K]."""
    each = [rng.permutation(np.resize(one, rows)) for one in self.gaps]
    return np.stack(each, axis=1)

  def layout(self, lengths_NK: np.ndarray) -> Layout:
    """The rows of the text for lengths of the gaps."""
    longest = sum(map(len, self.parts)) + int(lengths_NK.sum(1).max())
    made = Layout(
      np.full((len(lengths_NK), longest), PAD, np.int32),
      np.zeros((len(lengths_NK), longest), np.int32),
      np.zeros((len(lengths_NK), longest), bool),
    )
    for row, lengths in enumerate(lengths_NK.tolist()):
      place = len(self.parts[0])
      made.fixed_NT[row, :place] = self.parts[0]
      for n, part in zip(lengths, self.parts[1:], strict=True):
        gap = slice(place, place + n)
        made.fixed_NT[row, gap] = OPEN
        made.left_NT[row, gap] = np.arange(n)[::-1]
        made.first_NT[row, gap] = np.arange(n) == 0
        place += n + len(part)
        made.fixed_NT[row, place - len(part) : place] = part
    return made

  def every(self) -> tuple[Layout, np.ndarray, np.ndarray]:
    """The layout of all fillings, their rows and lengths_NK."""
    rows, lengths = [], []
    for combination in itertools.product(*self.gaps):
      each = [self.form.fillings(n) for n in combination]
      picks = np.indices([len(one) for one in each]).reshape(len(each), -1)
      ids_NG = np.concatenate(
        [one[pick] for one, pick in zip(each, picks, strict=True)], axis=1
      )
      lengths.append(np.tile(combination, (len(ids_NG), 1)))
      rows += list(ids_NG)
    lengths_NK = np.concatenate(lengths)
    layout = self.layout(lengths_NK)
    ids_NT = layout.fixed_NT.copy()
    ids_NT[ids_NT == OPEN] = np.concatenate(rows)
    return layout, ids_NT, lengths_NK

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


class _Arrays(NamedTuple):
  """What the loop reads: the columns of a layout, and the form.

  `ok_BTS` is whether a filling can be completed from a state.
  """

  fixed_BT: Any
  first_BT: Any
  ok_BTS: Any
  next_SV: Any


def _at(x: jax.Array, t: jax.Array) -> jax.Array:
  return jax.lax.dynamic_index_in_dim(x, t, axis=1, keepdims=False)


def _allowed(arrays: _Arrays, state_B, logits_BV, t) -> jax.Array:
  """The logits of what the gap may hold, or of the symbol that the text has."""
  fixed_B1, ok_BS = _at(arrays.fixed_BT, t)[:, None], _at(arrays.ok_BTS, t)
  state_B = jnp.where(_at(arrays.first_BT, t), START, state_B)
  fits_BV = jnp.take_along_axis(ok_BS, arrays.next_SV[state_B], axis=1)
  same_BV = fixed_B1 == jnp.arange(logits_BV.shape[-1])[None]
  allowed_BV = jnp.where(fixed_B1 == OPEN, fits_BV, same_BV)
  return jnp.where(allowed_BV, logits_BV, -jnp.inf)


def _next_state(arrays: _Arrays, state_B, symbol_B, t) -> jax.Array:
  state_B = jnp.where(_at(arrays.first_BT, t), START, state_B)
  return arrays.next_SV[state_B, symbol_B]


def _draw_allowed(noise_BV: jax.Array, logits_BV: jax.Array) -> jax.Array:
  return jnp.argmax(logits_BV + noise_BV, axis=-1).astype(jnp.int32)


_CHOICE = Choice(jax.random.gumbel, _draw_allowed)
_IN_GAPS = Processor(_allowed, _next_state)


class Reader(NamedTuple):
  """How a model reads rows.

  Attributes:
    model: its step draws and scores.
    params: of the model.
    begin: ids_BT -> the carry before the symbol before the rows, that symbol_B.
    form: what may stand in a gap.
  """

  model: Decoder | Filler
  params: Params
  begin: Callable[[np.ndarray], tuple[Carry, np.ndarray]]
  form: Form

  def _blocks(
    self, layout: Layout, ids_NT: np.ndarray
  ) -> Iterator[tuple[Layout, np.ndarray]]:
    """Blocks of rows [B, W] of a few sizes, as each compiles a program."""
    (N, T), (S, V) = ids_NT.shape, self.form.next_SV.shape
    W = padded_length(T)
    B = min(1 << (N - 1).bit_length(), _LOGITS // V, _STATES // (S * W))
    B = max(min(B, _POSITIONS // W), 1)
    for first in range(0, N, B):
      block = [x[first : first + B] for x in (*layout, ids_NT)]
      missing = B - len(block[0])
      block = [np.pad(x, [(0, missing), (0, W - T)]) for x in block]
      yield Layout(*block[:3]), block[3]

  def _arrays(self, layout: Layout, ok_BTS: np.ndarray) -> _Arrays:
    next_SV = self.form.next_SV.astype(np.int32)
    return _Arrays(layout.fixed_NT, layout.first_NT, ok_BTS, next_SV)

  def draw(
    self,
    layout: Layout,
    ids_NT: np.ndarray | None,
    rng: np.random.Generator,
  ) -> np.ndarray:
    """The rows with each symbol of a gap drawn from left to right.

    Args:
      layout: of the rows.
      ids_NT: the symbols on the right of a position, which the form, and a
        model of both sides, read; None: they are not drawn yet.
      rng: of the seeds.
    """
    found, T = [], layout.fixed_NT.shape[1]
    given_NT = layout.fixed_NT if ids_NT is None else ids_NT
    for block, ids_BW in self._blocks(layout, given_NT):
      B, W = ids_BW.shape
      if ids_NT is None:
        ok_BWS = self.form.ahead(block.left_NT)
        ids_BW = np.where(ids_BW == OPEN, UNKNOWN, ids_BW)
      else:
        ok_BWS = self.form.before(block.left_NT, ids_BW)
      # Drawing and replaying need the step alone.
      draw = drawer(cast(Decoder, self.model), _CHOICE, (_IN_GAPS,), W)
      carry, symbol_B = self.begin(ids_BW)
      state = carry, symbol_B, np.zeros(B, bool), (np.zeros(B, np.int32),)
      given = (), (self._arrays(block, ok_BWS),)
      seed = np.uint32(rng.integers(2**32))
      _, drawn_BW = draw(self.params, state, seed, given, 0, T)
      found.append(np.asarray(drawn_BW)[:, :T])
    return np.concatenate(found)[: len(given_NT)]

  def log_p(
    self, layout: Layout, ids_NT: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """The log p of rows by the model, and by what `draw` drew them from [N].

    Padding and the boundaries of a document do not count, nor do unknown
    symbols of the text, whose probability no training has learned.

    Args:
      layout: of the rows.
      ids_NT: the filled rows.
    """
    replay, found = replayer(cast(Decoder, self.model), (_IN_GAPS,)), []
    for block, ids_BW in self._blocks(layout, ids_NT):
      memory_B = np.zeros(len(ids_BW), np.int32)
      state = *self.begin(ids_BW), (memory_B,)
      arrays = self._arrays(block, self.form.ahead(block.left_NT))
      each: Any = replay(self.params, state, (arrays,), ids_BW)
      some_BW = ~np.isin(ids_BW, (PAD, BEGIN, END, UNKNOWN))
      found.append(
        [np.where(some_BW, x, 0).sum(1, dtype=np.float64) for x in each]
      )
    model_N, drawn_N = np.concatenate(found, axis=1)[:, : len(ids_NT)]
    return model_N, drawn_N


def given(ids_NT: np.ndarray) -> Layout:
  """The layout of rows without gaps."""
  return Layout(ids_NT, np.zeros_like(ids_NT), np.zeros(ids_NT.shape, bool))
