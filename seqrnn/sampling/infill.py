"""Gaps of a text, filled by sampling.

A language model draws fillings from left to right, and weights each with the
probability of what follows it (importance sampling). A gap model draws one
symbol after another from those on both sides (Gibbs sampling).
"""

import re
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax

from seqrnn.config.read import Config
from seqrnn.data.read.spelling import spelled
from seqrnn.data.sources.corpora import from_text
from seqrnn.data.vocabulary import BEGIN, END, UNKNOWN, Vocabulary
from seqrnn.errors import UserError, counted
from seqrnn.experiment import Experiment, Params
from seqrnn.sampling.infill_rows import (
  OPEN,
  Reader,
  both_sides_reader,
  forward_reader,
)

_LONGEST = 1000  # Symbols of all gaps.
_SYMBOLS = 2**24  # Symbols of all candidates.
_WEIGHTED = (
  "approximate: from {} that the model drew from left to right,"
  " weighted with the probability of what follows"
)
_GIBBS = (
  "approximate: from {}, drawn symbol by symbol from both sides (Gibbs"
  " sampling)"
)


class Question(NamedTuple):
  """A text with gaps.

  Attributes:
    ids_T: its symbols, OPEN in gaps.
    gaps: the positions of each gap.
  """

  ids_T: np.ndarray
  gaps: list[slice]


def is_asked(config: Config) -> bool:
  """Whether `predict.text` has a gap with a length."""
  settings = config.predict
  return settings.text is not None and bool(
    re.search(_braces(settings.gap), settings.text)
  )


def _braces(mark: str) -> str:
  return re.escape(mark) + r"\{([\d, ]*\d[\d, ]*)\}"


def spelled_mark(config: Config) -> str:
  """`predict.gap` in the spelling of the texts.

  Raises:
    UserError: it has become several words.
  """
  mark, data = config.predict.gap, config.data
  if data.unit != "word":
    return spelled(mark, data)
  words = spelled([mark], data)
  if len(words) > 1:
    raise UserError(
      f"config.predict.gap={mark!r}: data.punctuation=True separates it into"
      f" {' '.join(words)}; it must be one word"
    )
  return words[0]


def parse(experiment: Experiment, config: Config) -> tuple[Question, list[str]]:
  """The question of `predict.text`, and its unknown symbols.

  Raises:
    UserError: the model cannot fill a gap, or not this one.
  """
  text, mark = config.predict.text, config.predict.gap
  name = f"config.predict.text={text!r}"
  fills = experiment.filler is not None or experiment.writes_text
  if not (experiment.in_bits and fills):
    raise UserError(
      f"{name}: task={config.task!r} cannot fill gaps; if {mark}{{ is a part of"
      " the text, set another predict.gap"
    )
  symbols: Vocabulary = experiment.vocabularies["symbols"]
  sessions = symbols.unit == "session" and len(text.strip().splitlines())
  lengths, parts, unknown = [], [], []
  for n, part in enumerate(re.split(_braces(mark), text)):
    if n % 2:  # The digits in the braces.
      lengths.append(_length(part, name))
      continue
    documents = from_text(part, symbols.unit)
    if len(documents) > 1 or sessions > 1:
      raise UserError(
        f"{name}: gaps are filled in one sequence, not in several"
      )
    tokens = spelled(documents[0].symbols if documents else "", config.data)
    pieces = [tokens]
    if experiment.filler:
      pieces = _split(tokens, spelled_mark(config))
    lengths += [1] * (len(pieces) - 1)
    parts += [symbols.encode(piece) for piece in pieces]
    unknown += [s for piece in pieces for s in symbols.unknown(piece)]
  if config.data.boundaries:
    parts[0] = np.append(np.int32(BEGIN), parts[0])
    if experiment.filler:
      parts[-1] = np.append(parts[-1], np.int32(END))
  question = _question(parts, lengths)
  _check(question, config, name)
  if experiment.filler is None and not len(parts[0]):
    raise UserError(
      f"{name}: begins with a gap; a language model with data.boundaries=False"
      " needs a symbol before it"
    )
  return question, list(dict.fromkeys(unknown))


def _length(inside: str, name: str) -> int:
  digits = inside.strip()
  if not (digits.isdecimal() and 0 < int(digits) <= _LONGEST):
    raise UserError(
      f"{name}: {{{inside}}} must be the length of a gap, as {{5}}; from 1 to"
      f" {_LONGEST:,} symbols"
    )
  return int(digits)


def _split(tokens: str | list[str], mark: str) -> list[str] | list[list[str]]:
  """The tokens between gaps of one symbol."""
  if isinstance(tokens, str):
    return tokens.split(mark)
  pieces = [[]]
  for token in tokens:
    if token == mark:
      pieces.append([])
    else:
      pieces[-1].append(token)
  return pieces


def _question(parts: list[np.ndarray], lengths: list[int]) -> Question:
  ids_T, gaps = parts[0], []
  for n, part in zip(lengths, parts[1:], strict=True):
    gaps.append(slice(len(ids_T), len(ids_T) + n))
    ids_T = np.concatenate([ids_T, np.full(n, OPEN, np.int32), part])
  return Question(ids_T, gaps)


def _check(question: Question, config: Config, name: str):
  if not question.gaps:
    raise UserError(f"{name}: has no gap; {config.predict.gap}{{5}} is one")
  if np.sum(question.ids_T == OPEN) > _LONGEST:
    raise UserError(
      f"{name}: its gaps have more than {_LONGEST:,} symbols together"
    )
  size, count = len(question.ids_T), config.predict.candidates
  if count * size > _SYMBOLS:
    raise UserError(
      f"config.predict.candidates={count}: with {counted(size, 'symbol')} of a"
      f" text each, more than {_SYMBOLS:,} symbols"
    )


class Filling(NamedTuple):
  """A text whose gaps are filled.

  Example:
    >>> best, *others = run.fill("if x is not _{4}:")
    >>> best.gaps, best.score
    (['None'], -20.14)

  Attributes:
    text: the text.
    gaps: what stands in each gap, in the order of the text.
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


class Fillings(NamedTuple):
  """The best distinct fillings, and a sentence on how they were drawn."""

  best: list[Filling]
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
  settings = config.predict
  rng = np.random.default_rng(settings.seed)
  if experiment.filler:
    rows = both_sides_reader(experiment, params)
    fixed_NT = np.tile(question.ids_T, (settings.candidates, 1))
    sweeps = gibbs(rows, fixed_NT, settings.sweeps, rng)
    ids_NT = np.unique(np.concatenate(sweeps), axis=0)
    score_N, _ = rows.log_p(ids_NT, ids_NT)
    chance_N = [None] * len(ids_NT)
    how = _GIBBS.format(counted(len(ids_NT), "filling"))
  else:
    drawn = forward(experiment, params, question, settings.candidates, rng)
    first_N = np.unique(drawn.ids_NT, axis=0, return_index=True)[1]
    ids_NT, score_N = drawn.ids_NT[first_N], drawn.score_N[first_N]
    # The probability of the text is no less than that of these fillings.
    log_p = max(drawn.log_p, logsumexp(score_N))
    chance_N = np.exp(score_N - log_p).tolist()
    how = _WEIGHTED.format(counted(settings.candidates, "filling"))
  text = experiment.vocabularies["symbols"].text
  best = [
    Filling(
      text(ids_NT[n]),
      [text(ids_NT[n, gap]) for gap in question.gaps],
      float(score_N[n]),
      chance_N[n],
    )
    for n in np.argsort(-score_N, kind="stable")[: settings.top_k]
  ]
  return Fillings(best, how)


class Drawn(NamedTuple):
  """Rows that a language model drew.

  Attributes:
    ids_NT: the rows.
    score_N: as `Filling.score`.
    weight_N: the log of each row's importance weight, p / q.
    log_p: an estimate of log p(text), the sum over all fillings.
  """

  ids_NT: np.ndarray
  score_N: np.ndarray
  weight_N: np.ndarray
  log_p: float


def forward(
  experiment: Experiment,
  params: Params,
  question: Question,
  N: int,
  rng: np.random.Generator,
) -> Drawn:
  """N fillings that a language model draws, with their importance weights.

  The weight of a row is the probability of the text after a gap, and of what is
  not drawn from the model's own distribution. Before the next gap, rows are
  drawn anew with their weights (sequential Monte Carlo, Gordon et al. 1993).
  """
  ids_T, gaps = question
  first = gaps[0].start
  total = 0.0
  if first > 1:
    rows = forward_reader(experiment, params, ids_T[:1])
    [total], _ = rows.log_p(ids_T[None, 1:first], ids_T[None, 1:first])
  rows = forward_reader(experiment, params, ids_T[:first])
  ids_NT, weight_N = np.tile(ids_T[:first], (N, 1)), np.zeros(N)
  before, score_N = total, np.zeros(N)
  for stop in [*(gap.start for gap in gaps[1:]), len(ids_T)]:
    pick_N = _resampled(weight_N, rng)
    before_N = score_N[pick_N]
    fixed_NT = np.tile(ids_T[first:stop], (N, 1))
    done_NT = ids_NT[pick_N, first:]
    fixed_NT[:, : done_NT.shape[1]] = done_NT
    drawn_NT = rows.draw(fixed_NT, fixed_NT, rng)
    score_N, drawn_N = rows.log_p(fixed_NT, drawn_NT)
    weight_N = score_N - before_N - drawn_N
    # p(text) is the product of the mean weights.
    total += logsumexp(weight_N) - np.log(N)
    ids_NT = np.concatenate([ids_NT[:, :first], drawn_NT], axis=1)
  return Drawn(ids_NT, score_N + before, weight_N, float(total))


def _resampled(weight_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The rows drawn with their weights, at equal distances [N]."""
  N = len(weight_N)
  places_N = (rng.random() + np.arange(N)) / N
  ends_N = np.cumsum(softmax(weight_N))
  return np.searchsorted(ends_N / ends_N[-1], places_N)


def gibbs(
  rows: Reader, fixed_NT: np.ndarray, sweeps: int, rng: np.random.Generator
) -> list[np.ndarray]:
  """The rows after each sweep, which draws the symbols from left to right.

  In the first sweep, symbols that are not drawn yet are unknown.
  """
  ids_NT, states = np.where(fixed_NT == OPEN, UNKNOWN, fixed_NT), []
  for _ in range(sweeps):
    ids_NT = rows.draw(fixed_NT, ids_NT, rng)
    states.append(ids_NT)
  return states
