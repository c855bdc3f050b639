"""Gaps of a length or a range, filled by sampling.

A language model draws fillings from left to right, and weights each with the
probability of what follows it (importance sampling). A gap model draws one
symbol after another from those on both sides (Gibbs sampling).
"""

import re
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import logsumexp

from seqrnn.data.corpora import from_text
from seqrnn.data.spelling import spelled
from seqrnn.data.vocabulary import BEGIN, END, UNKNOWN, Vocabulary
from seqrnn.errors import UserError, counted
from seqrnn.experiment import Experiment, Params
from seqrnn.inference.infill_rows import OPEN, Gap, Question, Reader
from seqrnn.inference.predictions import calculator
from seqrnn.inference.sampler import padded_prime, reader
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.settings.config import Config

_LONGEST = 1000  # Symbols of all gaps.
_POSITIONS = 2**24  # Symbols of all candidates.
_EXACT = "exact: from all {} fillings"
_WEIGHTED = (
  "approximate: from {} fillings that the model drew from left to right,"
  " weighted with the probability of what follows"
)
_GIBBS = (
  "approximate: from {} fillings, drawn symbol by symbol from both sides (Gibbs"
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


def is_asked(config: Config) -> bool:
  """Whether `predict.text` has a gap with a length, as _{5} or _{3,20}."""
  text = config.predict.text
  braces = _braces(config.predict.gap)
  return text is not None and re.search(braces, text) is not None


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


def _gap(inside: str, what: str) -> Gap:
  match = re.fullmatch(r" *(\d{1,9}) *(?:, *(\d{1,9}) *)?", inside)
  if match:
    low = int(match[1])
    high = low if match[2] is None else int(match[2])
    if low <= high > 0:
      return Gap(low, high)
  raise UserError(
    f"{what}: {{{inside}}} must be the length of a gap, as {{5}}, or a range"
    " from its lowest to its highest length, as {3,20}; at least 1 symbol"
  )


def parse(experiment: Experiment, config: Config) -> tuple[Question, list[str]]:
  """The question of `predict.text`, and its unknown symbols.

  Raises:
    UserError: the model cannot fill a gap, or not this one.
  """
  text, mark = config.predict.text, config.predict.gap
  what = f"config.predict.text={text!r}"
  fills = experiment.filler is not None or experiment.writes_text
  if not (experiment.in_bits and fills):
    raise UserError(
      f"{what}: task={config.task!r} cannot fill gaps; if {mark}{{ is a part of"
      " the text, set another predict.gap"
    )
  symbols: Vocabulary = experiment.vocabularies["symbols"]
  gaps, parts, unknown = [], [], []
  for n, part in enumerate(re.split(_braces(mark), text)):
    if n % 2:  # What the braces have.
      gaps.append(_gap(part, what))
      continue
    documents = from_text(part, symbols.unit)
    if len(documents) > 1:
      raise UserError(
        f"{what}: gaps are filled in one sequence, not in several"
      )
    tokens = spelled(documents[0].symbols if documents else "", config.data)
    pieces = [tokens]
    if experiment.filler:
      pieces = _split(tokens, spelled_mark(config))
    gaps += [Gap(1, 1)] * (len(pieces) - 1)
    parts += [symbols.encode(piece) for piece in pieces]
    unknown += [s for piece in pieces for s in symbols.unknown(piece)]
  if config.data.boundaries:
    parts[0] = np.concatenate([np.array([BEGIN], np.int32), parts[0]])
    if experiment.filler:
      parts[-1] = np.concatenate([parts[-1], np.array([END], np.int32)])
  _check(Question(parts, gaps), experiment, config, what)
  return Question(parts, gaps), list(dict.fromkeys(unknown))


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


def _check(
  question: Question, experiment: Experiment, config: Config, what: str
):
  if not question.gaps:
    raise UserError(f"{what}: has no gap; {config.predict.gap}{{5}} is one")
  longest = sum(gap.high for gap in question.gaps)
  if longest > _LONGEST:
    raise UserError(
      f"{what}: its gaps have up to {longest:,} symbols; all gaps together have"
      f" at most {_LONGEST:,}"
    )
  count = config.predict.candidates
  if count * question.longest > _POSITIONS:
    raise UserError(
      f"config.predict.candidates={count}: with"
      f" {counted(question.longest, 'symbol')} of a text each, more than"
      f" {_POSITIONS:,} symbols"
    )
  if experiment.filler is None and not len(question.parts[0]):
    raise UserError(
      f"{what}: begins with a gap; a language model with data.boundaries=False"
      " needs a symbol before it"
    )


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
  experiment: Experiment, params: Params, left_P: np.ndarray
) -> Reader:
  """How a language model reads rows after the text before the first gap."""
  decoder = experiment.decoder
  assert decoder is not None, "checked by the caller"
  carry = reader(decoder)(params, padded_prime(left_P[None]), len(left_P) - 1)

  def begin(ids_BT):
    B = len(ids_BT)
    tiled = jax.tree.map(lambda x: np.repeat(x, B, axis=0), carry)
    return tiled, np.full(B, left_P[-1], np.int32)

  return Reader(decoder, params, begin, len(experiment.vocabularies["symbols"]))


def _forward(
  experiment: Experiment, params: Params, question: Question, config: Config
) -> Candidates:
  """Candidates of a language model."""
  left_P, *rest = question.parts
  whole = forward_reader(experiment, params, left_P[:1])
  before = 0.0
  if len(left_P) > 1:
    before, _ = whole.log_p(left_P[None, 1:], left_P[None, 1:])
  after = Question([left_P[:0], *rest], question.gaps)
  rows = forward_reader(experiment, params, left_P)
  V = rows.size - UNKNOWN - 1
  few = after.count(V) <= max(config.predict.candidates, V)
  found = _every(rows, after) if few else drawn(rows, after, config)
  left_NP = np.tile(left_P, (len(found.ids_NT), 1))
  return found._replace(
    ids_NT=np.concatenate([left_NP, found.ids_NT], axis=1),
    score_N=found.score_N + before,
  )


def _every(rows: Reader, question: Question) -> Candidates:
  """All fillings, with their exact probabilities."""
  symbols_V = np.arange(UNKNOWN + 1, rows.size, dtype=np.int32)
  ids_NT, lengths_NK = question.every(symbols_V)
  score_N, _ = rows.log_p(ids_NT, ids_NT)
  log_p_N = score_N - logsumexp(score_N)
  how = _EXACT.format(f"{len(ids_NT):,}")
  return Candidates(ids_NT, lengths_NK, score_N, None, log_p_N, how)


def drawn(rows: Reader, question: Question, config: Config) -> Candidates:
  """Fillings that a language model draws, with their importance weights."""
  N = config.predict.candidates
  rng = np.random.default_rng(config.predict.seed)
  lengths_NK = question.lengths(N, rng)
  fixed_NT = question.rows(lengths_NK)
  ids_NT = rows.draw(fixed_NT, fixed_NT, rng)
  score_N, drawn_N = rows.log_p(fixed_NT, ids_NT)
  weight_N = score_N - drawn_N
  # p(all fillings, text) is the mean weight times the number of combinations of
  # lengths, and no less than that of the fillings found.
  _, _, first_N = _distinct(ids_NT, lengths_NK)
  total = logsumexp(weight_N) - np.log(N) + np.log(question.combinations)
  log_p_N = score_N - max(total, logsumexp(score_N[first_N]))
  how = _WEIGHTED.format(f"{N:,}")
  return Candidates(ids_NT, lengths_NK, score_N, weight_N, log_p_N, how)


@lru_cache(CACHED_FUNCTIONS)
def _starter(start):
  return sharding.jit(start)


def both_sides_reader(experiment: Experiment, params: Params) -> Reader:
  """How a gap model reads rows."""
  filler = experiment.filler
  assert filler is not None, "checked by the caller"
  start = _starter(filler.start)
  return Reader(
    filler,
    params,
    lambda ids_BT: (start(params, ids_BT), np.zeros(len(ids_BT), np.int32)),
    len(experiment.vocabularies["symbols"]),
  )


def _between(
  experiment: Experiment, params: Params, question: Question, config: Config
) -> Candidates:
  """Candidates of a gap model."""
  rows = both_sides_reader(experiment, params)
  if question.gaps == [Gap(1, 1)]:
    return _one_symbol(experiment, params, question, config)
  rng = np.random.default_rng(config.predict.seed)
  lengths_NK = question.lengths(config.predict.candidates, rng)
  states = gibbs(rows, question.rows(lengths_NK), config.predict.sweeps, rng)
  lengths_NK = np.tile(lengths_NK, (len(states), 1))
  ids_NT, lengths_NK, _ = _distinct(np.concatenate(states), lengths_NK)
  score_N, _ = rows.log_p(ids_NT, ids_NT)
  how = _GIBBS.format(f"{len(ids_NT):,}")
  return Candidates(ids_NT, lengths_NK, score_N, None, None, how)


def gibbs(
  rows: Reader, fixed_NT: np.ndarray, sweeps: int, rng: np.random.Generator
) -> list[np.ndarray]:
  """The rows after each sweep, which draws the symbols from left to right.

  In the first sweep, symbols that are not drawn yet are unknown.
  """
  states = [np.where(fixed_NT == OPEN, UNKNOWN, fixed_NT)]
  for _ in range(sweeps):
    states.append(rows.draw(fixed_NT, states[-1], rng))
  return states[1:]


def _one_symbol(
  experiment: Experiment, params: Params, question: Question, config: Config
) -> Candidates:
  """The likeliest symbols of a single gap, by the joint head."""
  assert experiment.predict is not None, "checked by the caller"
  fixed_1T = question.rows(np.ones((1, 1), int))
  inputs_1T = np.where(fixed_1T == OPEN, UNKNOWN, fixed_1T)
  batch = {"inputs": inputs_1T, "reset": np.ones(1, bool)}
  calculate = calculator(experiment.predict)
  _, (logits_1TV,) = calculate(params, (), batch)
  logits_V = np.asarray(logits_1TV)[fixed_1T == OPEN][0, UNKNOWN + 1 :]
  log_p_V = logits_V - logsumexp(logits_V.astype(np.float64))
  best_N = np.argsort(-log_p_V, kind="stable")[: config.predict.top_k]
  ids_NT = np.tile(fixed_1T, (len(best_N), 1))
  ids_NT[ids_NT == OPEN] = best_N + UNKNOWN + 1
  score_N, _ = both_sides_reader(experiment, params).log_p(ids_NT, ids_NT)
  lengths_NK = np.ones((len(best_N), 1), int)
  how = _EXACT.format(f"{len(log_p_V):,}")
  return Candidates(ids_NT, lengths_NK, score_N, None, log_p_V[best_N], how)
