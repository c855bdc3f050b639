"""Gaps of a length or a range, filled by sampling.

A language model draws fillings from left to right, and weights each with the
probability of what follows it (importance sampling). A gap model draws one
symbol after another from those on both sides (Gibbs sampling).
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import logsumexp, softmax

from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.errors import counted
from seqrnn.experiment import Experiment, Params
from seqrnn.inference.infill_form import Form
from seqrnn.inference.infill_rows import (
  OPEN,
  Layout,
  Question,
  Reader,
  given,
)
from seqrnn.inference.predictions import calculator
from seqrnn.inference.sampler import padded_prime, reader
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.settings.config import Config

_EXACT = "exact: from all {}"
_WEIGHTED = (
  "approximate: from {} that the model drew from left to right,"
  " weighted with the probability of what follows"
)
_GIBBS = (
  "approximate: from {}, drawn symbol by symbol from both sides (Gibbs"
  " sampling)"
)


class Filling(NamedTuple):
  """A text whose gaps are filled.

  Example:
    >>> best, *others = run.fill("def f(_{3,20}):")
    >>> best.gaps, best.score
    (['self'], -17.31)

  Attributes:
    text: the text.
    gaps: what stands in each gap, in the order of the text.
    score: of a language model, log p(text) in nats. Of a gap model, the
      pseudo-log-likelihood of the text, which is the sum of log p(symbol | all
      other symbols) in nats.
    probability: p(filling | text around it). Of a language model it is exact
      where all fillings were tried, else an estimate; of a gap model it is
      exact for a single symbol, else None.
  """

  text: str
  gaps: list[str]
  score: float
  probability: float | None


class Fillings(NamedTuple):
  """The best distinct fillings, and how they were found."""

  found: list[Filling]
  how: str


class Candidates(NamedTuple):
  """Filled rows, distinct unless they have weights.

  Attributes:
    ids_NT: the rows.
    lengths_NK: of their gaps.
    score_N: as `Filling`.
    weight_N: the log of each row's importance weight, p / q; None: none.
    log_p_N: the log of each filling's probability; None: none.
    how: how they were found.
  """

  ids_NT: np.ndarray
  lengths_NK: np.ndarray
  score_N: np.ndarray
  weight_N: np.ndarray | None
  log_p_N: np.ndarray | None
  how: str


def fill(
  experiment: Experiment, params: Params, question: Question, config: Config
) -> Fillings:
  """The `predict.top_k` best fillings.

  Args:
    experiment: it has a filler or a decoder.
    params: of its model.
    question: the text.
    config: of the run, with `config.predict`.
  """
  find = _between if experiment.filler else _forward
  found = find(experiment, params, question, config)
  order_N = -(found.score_N if found.log_p_N is None else found.log_p_N)
  symbols: Vocabulary = experiment.vocabularies["symbols"]
  best, known = [], set()
  for n in np.argsort(order_N, kind="stable").tolist():
    key = found.ids_NT[n].tobytes(), found.lengths_NK[n].tobytes()
    if key in known:
      continue
    known.add(key)
    gaps = question.fillings(found.ids_NT[n], found.lengths_NK[n])
    chance = None
    if found.log_p_N is not None:
      chance = float(np.exp(found.log_p_N[n]))
    text = symbols.text(found.ids_NT[n])
    texts = [symbols.text(gap) for gap in gaps]
    best.append(Filling(text, texts, float(found.score_N[n]), chance))
    if len(best) == config.predict.top_k:
      break
  return Fillings(best, found.how)


def _distinct(
  ids_NT: np.ndarray, lengths_NK: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Distinct rows, their lengths, and the first place of each."""
  both = np.concatenate([ids_NT, lengths_NK], axis=1)
  _, first_N = np.unique(both, axis=0, return_index=True)
  return ids_NT[first_N], lengths_NK[first_N], first_N


def forward_reader(
  experiment: Experiment, params: Params, left_P: np.ndarray, form: Form
) -> Reader:
  """How a language model reads rows after a text."""
  decoder = experiment.decoder
  assert decoder is not None, "checked by the caller"
  carry = reader(decoder)(params, padded_prime(left_P[None]), len(left_P) - 1)

  def begin(ids_BT):
    B = len(ids_BT)
    tiled = jax.tree.map(lambda x: np.repeat(x, B, axis=0), carry)
    return tiled, np.full(B, left_P[-1], np.int32)

  return Reader(decoder, params, begin, form)


def _forward(
  experiment: Experiment, params: Params, question: Question, config: Config
) -> Candidates:
  """Candidates of a language model."""
  left_P, form = question.parts[0], question.form
  before = 0.0
  if len(left_P) > 1:
    whole = forward_reader(experiment, params, left_P[:1], form)
    before, _ = whole.log_p(given(left_P[None, 1:]), left_P[None, 1:])
  rows = forward_reader(experiment, params, left_P, form)
  after = question._replace(parts=[left_P[:0], *question.parts[1:]])
  V = form.next_SV.shape[1] - UNKNOWN - 1
  few = after.count <= max(config.predict.candidates, V)
  found = _every(rows, after) if few else drawn(rows, after, config)
  left_NP = np.tile(left_P, (len(found.ids_NT), 1))
  return found._replace(
    ids_NT=np.concatenate([left_NP, found.ids_NT], axis=1),
    score_N=found.score_N + before,
  )


def _every(rows: Reader, question: Question) -> Candidates:
  """All fillings; by the scores of a language model, their probabilities."""
  layout, ids_NT, lengths_NK = question.every()
  score_N, _ = rows.log_p(layout, ids_NT)
  log_p_N = score_N - logsumexp(score_N)
  how = _EXACT.format(counted(len(ids_NT), "filling"))
  return Candidates(ids_NT, lengths_NK, score_N, None, log_p_N, how)


def drawn(rows: Reader, question: Question, config: Config) -> Candidates:
  """Fillings that a language model draws, with their importance weights.

  The weight of a row is the probability of the text after a gap, and of what is
  not drawn from the model's own distribution. Before the next gap, rows are
  drawn anew with their weights (sequential Monte Carlo, Gordon et al. 1993).
  """
  N, (parts, gaps, form) = config.predict.candidates, question
  rng = np.random.default_rng(config.predict.seed)
  lengths_NK = question.lengths(N, rng)
  ids_NT, score_N = np.zeros((N, 0), np.int32), np.zeros(N)
  weight_N, total = np.zeros(N), 0.0
  for k, lengths in enumerate(gaps, 1):
    pick_N = _resampled(weight_N, rng)
    lengths_NK[:, : k - 1] = lengths_NK[pick_N, : k - 1]
    before_NT, before_N = ids_NT[pick_N], score_N[pick_N]
    begun = Question(parts[: k + 1], gaps[:k], form)
    layout = begun.layout(lengths_NK[:, :k]).begun(before_NT)
    ids_NT = rows.draw(layout, None, rng)
    score_N, drawn_N = rows.log_p(layout, ids_NT)
    weight_N = score_N - before_N - drawn_N
    # p(all fillings, text) is the product of the mean weights, each times the
    # number of lengths.
    total += logsumexp(weight_N) - np.log(N) + np.log(len(lengths))
  # It is no less than that of the fillings found.
  _, _, first_N = _distinct(ids_NT, lengths_NK)
  log_p_N = score_N - max(total, logsumexp(score_N[first_N]))
  how = _WEIGHTED.format(counted(N, "filling"))
  return Candidates(ids_NT, lengths_NK, score_N, weight_N, log_p_N, how)


def _resampled(weight_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The rows drawn with their weights, at equal distances [N]."""
  N = len(weight_N)
  places_N = (rng.random() + np.arange(N)) / N
  ends_N = np.cumsum(softmax(weight_N))
  return np.searchsorted(ends_N / ends_N[-1], places_N)


@lru_cache(CACHED_FUNCTIONS)
def _starter(start):
  return sharding.jit(start)


def both_sides_reader(
  experiment: Experiment, params: Params, form: Form
) -> Reader:
  """How a gap model reads rows."""
  filler = experiment.filler
  assert filler is not None, "checked by the caller"
  start = _starter(filler.start)
  return Reader(
    filler,
    params,
    lambda ids_BT: (start(params, ids_BT), np.zeros(len(ids_BT), np.int32)),
    form,
  )


def _between(
  experiment: Experiment, params: Params, question: Question, config: Config
) -> Candidates:
  """Candidates of a gap model."""
  rows = both_sides_reader(experiment, params, question.form)
  if question.gaps == [[1]]:
    return _one_symbol(experiment, rows, question, config)
  if question.count <= config.predict.candidates:
    return _every(rows, question)._replace(log_p_N=None)
  rng = np.random.default_rng(config.predict.seed)
  lengths_NK = question.lengths(config.predict.candidates, rng)
  layout = question.layout(lengths_NK)
  states = gibbs(rows, layout, config.predict.sweeps, rng)
  lengths_NK = np.tile(lengths_NK, (len(states), 1))
  ids_NT, lengths_NK, _ = _distinct(np.concatenate(states), lengths_NK)
  score_N, _ = rows.log_p(question.layout(lengths_NK), ids_NT)
  how = _GIBBS.format(counted(len(ids_NT), "filling"))
  return Candidates(ids_NT, lengths_NK, score_N, None, None, how)


def gibbs(
  rows: Reader, layout: Layout, sweeps: int, rng: np.random.Generator
) -> list[np.ndarray]:
  """The rows after each sweep, which draws the symbols from left to right.

  In the first sweep, symbols that are not drawn yet are unknown.
  """
  states = [rows.draw(layout, None, rng)]
  for _ in range(sweeps - 1):
    states.append(rows.draw(layout, states[-1], rng))
  return states


def _one_symbol(
  experiment: Experiment, rows: Reader, question: Question, config: Config
) -> Candidates:
  """The likeliest symbols of a single gap, by the joint head."""
  assert experiment.predict is not None, "checked by the caller"
  [fixed_T] = question.layout(np.ones((1, 1), int)).fixed_NT
  inputs_1T = np.where(fixed_T == OPEN, UNKNOWN, fixed_T)[None]
  batch = {"inputs": inputs_1T, "reset": np.ones(1, bool)}
  calculate = calculator(experiment.predict)
  _, (logits_1TV,) = calculate(rows.params, (), batch)
  [logits_V] = np.asarray(logits_1TV, np.float64)[0, fixed_T == OPEN]
  ids_N = question.form.fillings(1)[:, 0]
  log_p_N = logits_V[ids_N] - logsumexp(logits_V[ids_N])
  best_N = np.argsort(-log_p_N, kind="stable")[: config.predict.top_k]
  ids_NT = np.tile(fixed_T, (len(best_N), 1))
  ids_NT[ids_NT == OPEN] = ids_N[best_N]
  lengths_NK = np.ones((len(best_N), 1), int)
  score_N, _ = rows.log_p(question.layout(lengths_NK), ids_NT)
  how = _EXACT.format(counted(len(ids_N), "filling"))
  return Candidates(ids_NT, lengths_NK, score_N, None, log_p_N[best_N], how)
