"""Gaps of a text, filled by sampling.

A language model draws fillings from left to right, and weights each with the
probability of the text that follows it (importance sampling). A gap model draws
one symbol after another from those on both sides (Gibbs sampling).
"""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config.combinations import require
from seqrnn.config.read import Config
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.experiment import Decoder, Experiment, Filler, Params
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import padded_length
from seqrnn.sampling.decoding import Draw, Processor
from seqrnn.sampling.sampler import Streams, drawer, read_prime, replayer
from seqrnn.sampling.texts import read_sequence

OPEN = -1  # The id of a symbol in a gap.
_LONGEST = 1000  # Symbols of all gaps.
_CANDIDATES = 512  # Fillings that are drawn.
_SWEEPS = 10  # Times that a gap model draws each symbol.
_POSITIONS = 2**15  # Positions of the rows of a program, at most.
_LOGITS = 2**22  # Logits of a step of all these rows, at most.
_NO_TEXT = np.array([PAD])


class Question(NamedTuple):
  """A text with gaps.

  Attributes:
    ids_T: its symbols, OPEN in gaps.
    gaps: the positions of each gap.
  """

  ids_T: np.ndarray
  gaps: list[slice]


def _gap(experiment: Experiment, config: Config) -> str:
  """The expression of a gap in `predict.text`; its group is the length."""
  mark = re.escape(config.predict.gap)
  length = r"\{([\d, ]*\d[\d, ]*)\}"
  if experiment.filler is None:
    return mark + length
  if config.data.unit in ("char", "byte"):
    return f"{mark}(?:{length})?"
  # A mark without a length is a word.
  edge = r"\w" if config.data.punctuation else r"\S"
  return rf"{mark}{length}|(?<!{edge}){mark}(?!{edge})"


def is_asked(experiment: Experiment, config: Config) -> bool:
  """Whether `predict.text` has a gap."""
  text = config.predict.text
  return text is not None and bool(re.search(_gap(experiment, config), text))


def parse_gaps(
  experiment: Experiment, config: Config
) -> tuple[Question, list[str]]:
  """The question of `predict.text`, and its unknown symbols.

  Raises:
    UserError: the model cannot fill a gap, or not this one.
  """
  text, mark = config.predict.text, config.predict.gap
  fills = experiment.filler is not None or experiment.writes_text
  why = f"cannot fill gaps; if {mark}{{ is a part of the text, set predict.gap"
  holds = experiment.in_bits and fills
  require(config, holds, why, "predict.text", "task")
  symbols: Vocabulary = experiment.vocabularies["symbols"]
  known, unknown = [], []
  pieces = re.split(_gap(experiment, config), text)
  # A mark without braces is one symbol.
  sizes = [size or "1" for size in pieces[1::2]]
  lengths = [int(size) if size.isdecimal() else 0 for size in sizes]
  if symbols.unit == "session":  # A gap may be between two sessions.
    read_sequence(text, "session", config.data, "predict.text")
  for piece in pieces[::2]:
    tokens = read_sequence(piece, symbols.unit, config.data, "predict.text")
    known.append(symbols.encode(tokens))
    unknown += symbols.unknown(tokens)
  if config.data.boundaries:
    known[0] = np.append(np.int32(BEGIN), known[0])
    if experiment.filler:
      known[-1] = np.append(known[-1], np.int32(END))
  why = "a language model without boundaries needs a symbol before a gap"
  holds = experiment.filler is not None or len(known[0])
  require(config, holds, why, "predict.text", "data.boundaries")
  why = f"must have gaps, as {mark}{{5}}, of at most {_LONGEST:,} symbols"
  holds = min(lengths, default=0) > 0 and sum(lengths) <= _LONGEST
  require(config, holds, why, "predict.text")
  ids_T, gaps = known[0], []
  for n, after in zip(lengths, known[1:], strict=True):
    gaps.append(slice(len(ids_T), len(ids_T) + n))
    ids_T = np.concatenate([ids_T, np.full(n, OPEN, np.int32), after])
  return Question(ids_T, gaps), list(dict.fromkeys(unknown))


class Filling(NamedTuple):
  """A text whose gaps are filled.

  Example:
    >>> best, *others = run.fill("if x is not _{4}:")
    >>> best.gaps, best.score
    (['None'], -20.14)

  Attributes:
    text: the text.
    gaps: the text of each gap, in the order of the text.
    score: of a language model, log p(text) in nats. Of a gap model, the
      pseudo-log-likelihood of the text, which is the sum of log p(symbol | all
      other symbols) in nats.
    probability: of a language model, an estimate of p(filling | text around
      it); of a gap model None.
  """

  text: str
  gaps: list[str]
  score: float
  probability: float | None


def fill_gaps(
  experiment: Experiment, params: Params, question: Question, config: Config
) -> list[Filling]:
  """The `predict.top_k` best distinct fillings.

  Args:
    experiment: it has a filler or a decoder.
    params: of its model.
    question: the text.
    config: of the run, with `config.predict`.
  """
  settings, rng = config.predict, np.random.default_rng(config.seed)
  if experiment.filler:
    fixed_NT = np.tile(question.ids_T, (_CANDIDATES, 1))
    rows = Reader(experiment, params)
    sweeps = gibbs(rows, fixed_NT, _SWEEPS, rng)
    ids_NT = np.unique(np.concatenate(sweeps), axis=0)
    score_N, _ = rows.log_p(ids_NT, ids_NT)
    chance_N = [None] * len(ids_NT)
  else:
    ids_NT, score_N, log_p = forward(
      experiment, params, question, _CANDIDATES, rng
    )
    first_N = np.unique(ids_NT, axis=0, return_index=True)[1]
    ids_NT, score_N = ids_NT[first_N], score_N[first_N]
    # The probability of the text is no less than that of these fillings.
    log_p = max(log_p, np.logaddexp.reduce(score_N))
    chance_N = np.exp(score_N - log_p).tolist()
  text = experiment.vocabularies["symbols"].text
  return [
    Filling(
      text(ids_NT[n]),
      [text(ids_NT[n, gap]) for gap in question.gaps],
      float(score_N[n]),
      chance_N[n],
    )
    for n in np.argsort(-score_N, kind="stable")[: settings.top_k]
  ]


def forward(
  experiment: Experiment,
  params: Params,
  question: Question,
  N: int,
  rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, float]:
  """N fillings that a language model draws, by importance sampling.

  The weight of a row is the probability of the text after a gap, and of all
  that is not drawn from the model's own distribution. Before the next gap, rows
  are drawn anew with their weights (sequential Monte Carlo, Gordon et al.
  1993).

  Returns:
    the rows; log p of each; an estimate of log p(text), the sum over all
    fillings.
  """
  ids_T, gaps = question
  first, before = gaps[0].start, 0.0
  if first > 1:
    rows = Reader(experiment, params, ids_T[:1])
    row = ids_T[None, 1:first]
    [before], _ = rows.log_p(row, row, rows.start(1))
  rows = Reader(experiment, params, ids_T[:first])
  streams, total = rows.start(N), before
  ids_NT = np.tile(ids_T[:first], (N, 1))
  weight_N, score_N = np.zeros((2, N))
  edges = [*(gap.start for gap in gaps), len(ids_T)]
  for start, stop in itertools.pairwise(edges):
    # Rows are drawn in proportion to their weights (systematic resampling).
    ends_N = np.cumsum(np.exp(weight_N - weight_N.max()))
    at_N = (rng.random() + np.arange(N)) / N
    pick_N = np.searchsorted(ends_N / ends_N[-1], at_N)
    streams = jax.tree.map(lambda x, pick_N=pick_N: x[pick_N], streams)
    fixed_NT = np.tile(ids_T[start:stop], (N, 1))
    drawn_NT, after = rows.draw(fixed_NT, fixed_NT, rng, streams)
    model_N, drawn_N = rows.log_p(fixed_NT, drawn_NT, streams)
    weight_N, score_N = model_N - drawn_N, score_N[pick_N] + model_N
    # p(text) is the product of the mean weights.
    total += np.logaddexp.reduce(weight_N) - np.log(N)
    streams, ids_NT = after, np.concatenate([ids_NT[pick_N], drawn_NT], axis=1)
  return ids_NT, score_N + before, float(total)


def _allowed(fixed_BT, _memory, logits_BV, t) -> jax.Array:
  """The logits of symbols allowed in a gap, or of the symbol of the text."""
  fixed_B1 = jax.lax.dynamic_index_in_dim(fixed_BT, t, axis=1)
  id_1V = jnp.arange(logits_BV.shape[-1])[None]
  allowed_BV = jnp.where(fixed_B1 == OPEN, id_1V > UNKNOWN, id_1V == fixed_B1)
  return jnp.where(allowed_BV, logits_BV, -jnp.inf)


def _draw_allowed(noise_BV: jax.Array, logits_BV: jax.Array) -> jax.Array:
  return jnp.argmax(logits_BV + noise_BV, axis=-1).astype(jnp.int32)


_CHOICE = Draw(jax.random.gumbel, _draw_allowed)
_IN_GAPS = Processor(_allowed, lambda *args: args[1])


class Reader:
  """How a model reads rows: a language model those that follow a text.

  Args:
    experiment: it has a filler or a decoder.
    params: of its model.
    left_P: for a decoder, the text, at least one symbol.
  """

  def __init__(
    self, experiment: Experiment, params: Params, left_P: np.ndarray = _NO_TEXT
  ):
    model = experiment.filler or experiment.decoder
    assert model is not None, "checked by the caller"
    self._model, self._params = model, params
    self._V = len(experiment.vocabularies["symbols"])
    if isinstance(model, Decoder):
      carry = read_prime(model, params, left_P[None])
      self._left = Streams(carry, left_P[-1:], ((),), np.zeros(1, bool))

  def start(self, N: int) -> Streams:
    """N rows after the text on the left, for a decoder."""
    return jax.tree.map(lambda x: np.repeat(x, N, axis=0), self._left)

  def _batches(
    self, fixed_NT: np.ndarray, ids_NT: np.ndarray, streams: Streams | None
  ) -> Iterator[tuple[np.ndarray, np.ndarray, Streams]]:
    """Batches of rows [B, W] of a few sizes, as each compiles a program.

    And the streams before each batch.
    """
    N, T = ids_NT.shape
    W = padded_length(T)
    B = 1 << (N - 1).bit_length()
    B = max(min(B, _LOGITS // self._V, _POSITIONS // W), 1)
    for first in range(0, N, B):
      some = slice(first, first + B)
      padding = [(0, B - len(ids_NT[some])), (0, W - T)]
      fixed_BW, ids_BW = (np.pad(x[some], padding) for x in (fixed_NT, ids_NT))
      if isinstance(self._model, Filler):
        carry = sharding.cached_jit(self._model.start)(self._params, ids_BW)
        symbol_B, ended_B = np.full(B, PAD, np.int32), np.zeros(B, bool)
        before = Streams(carry, symbol_B, ((),), ended_B)
      else:
        before = jax.tree.map(
          lambda x, some=some: np.resize(x[some], (B, *x.shape[1:])), streams
        )
      yield fixed_BW, ids_BW, before

  def draw(
    self,
    fixed_NT: np.ndarray,
    ids_NT: np.ndarray,
    rng: np.random.Generator,
    streams: Streams | None = None,
  ) -> tuple[np.ndarray, Streams | None]:
    """The rows with each symbol of a gap drawn from left to right.

    Args:
      fixed_NT: the symbols of the text, OPEN in gaps.
      ids_NT: the symbols that a model of both sides reads on the right of a
        position.
      rng: of the seeds.
      streams: of a language model, before the rows.

    Returns:
      the rows; of a language model, the streams after them.
    """
    N, T = ids_NT.shape
    drawn, after = [], []
    for fixed_BW, ids_BW, start in self._batches(fixed_NT, ids_NT, streams):
      draw = drawer(self._model, _CHOICE, (_IN_GAPS,), ids_BW.shape[1])
      seed = np.uint32(rng.integers(2**32))
      end, drawn_BW = draw(self._params, start, seed, ((), (fixed_BW,)), 0, T)
      drawn.append(np.asarray(drawn_BW)[:, :T])
      after.append(end)
    join = lambda *batches: np.concatenate(batches)[:N]
    return join(*drawn), streams and jax.tree.map(join, *after)

  def log_p(
    self,
    fixed_NT: np.ndarray,
    ids_NT: np.ndarray,
    streams: Streams | None = None,
  ) -> tuple[np.ndarray, np.ndarray]:
    """The log p of rows by the model, and by the distribution of `draw` [N].

    Padding and the boundaries of a document do not count, nor do unknown
    symbols of the text, whose probability no training has learned.

    Args:
      fixed_NT: the symbols of the text, OPEN in gaps.
      ids_NT: the filled rows.
      streams: of a language model, before the rows.
    """
    replay, sums = replayer(self._model, (_IN_GAPS,)), []
    for fixed_BW, ids_BW, start in self._batches(fixed_NT, ids_NT, streams):
      each = replay(self._params, start, (fixed_BW,), ids_BW)
      some_BW = ~np.isin(ids_BW, (PAD, BEGIN, END, UNKNOWN))
      sums.append(
        [np.where(some_BW, x, 0).sum(1, dtype=np.float64) for x in each]
      )
    model_N, drawn_N = np.concatenate(sums, axis=1)[:, : len(ids_NT)]
    return model_N, drawn_N


def gibbs(
  rows: Reader, fixed_NT: np.ndarray, sweeps: int, rng: np.random.Generator
) -> list[np.ndarray]:
  """The rows after each sweep, which draws the symbols from left to right.

  In the first sweep, symbols that are not drawn yet are unknown.
  """
  after = []
  ids_NT = np.where(fixed_NT == OPEN, UNKNOWN, fixed_NT)
  for _ in range(sweeps):
    ids_NT, _ = rows.draw(fixed_NT, ids_NT, rng)
    after.append(ids_NT)
  return after
