"""Questions: a typed text whose gaps have a length, a range or a pattern."""

import re

import numpy as np

from seqrnn.data.corpora import from_text
from seqrnn.data.spelling import spelled
from seqrnn.data.vocabulary import BEGIN, END, Vocabulary
from seqrnn.errors import UserError, counted
from seqrnn.experiment import Experiment
from seqrnn.inference.infill_form import Form, form
from seqrnn.inference.infill_rows import Question
from seqrnn.inference.patterns.table import START
from seqrnn.settings.config import Config

_LONGEST = 1000  # Symbols of all gaps.
_POSITIONS = 2**24  # Symbols of all candidates.


def is_asked(config: Config) -> bool:
  """Whether `predict.text` has a gap with a length or a pattern."""
  settings = config.predict
  if settings.text is None:
    return False
  braces = _braces(settings.gap)
  return settings.pattern is not None or bool(re.search(braces, settings.text))


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


def _lengths(inside: str, what: str) -> list[int]:
  match = re.fullmatch(r" *(\d{1,9}) *(?:, *(\d{1,9}) *)?", inside)
  if match:
    low = int(match[1])
    high = low if match[2] is None else int(match[2])
    if low <= high > 0:
      most = _LONGEST + 1
      return [*range(min(low, most), min(high, most) + 1)]
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
  sessions = symbols.unit == "session" and len(text.strip().splitlines())
  gaps, parts, unknown = [], [], []
  for n, part in enumerate(re.split(_braces(mark), text)):
    if n % 2:  # What the braces have.
      gaps.append(_lengths(part, what))
      continue
    documents = from_text(part, symbols.unit)
    if len(documents) > 1 or sessions > 1:
      raise UserError(
        f"{what}: gaps are filled in one sequence, not in several"
      )
    tokens = spelled(documents[0].symbols if documents else "", config.data)
    pieces = [tokens]
    if experiment.filler:
      pieces = _split(tokens, spelled_mark(config))
    gaps += [[1]] * (len(pieces) - 1)
    parts += [symbols.encode(piece) for piece in pieces]
    unknown += [s for piece in pieces for s in symbols.unknown(piece)]
  if config.data.boundaries:
    parts[0] = np.concatenate([np.array([BEGIN], np.int32), parts[0]])
    if experiment.filler:
      parts[-1] = np.concatenate([parts[-1], np.array([END], np.int32)])
  _check(parts, gaps, config, what)
  if experiment.filler is None and not len(parts[0]):
    raise UserError(
      f"{what}: begins with a gap; a language model with data.boundaries=False"
      " needs a symbol before it"
    )
  made = form(config.predict.pattern, symbols, max(map(max, gaps)))
  question = Question(
    parts, [_possible(gap, made, config) for gap in gaps], made
  )
  return question, list(dict.fromkeys(unknown))


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
  parts: list[np.ndarray], gaps: list[list[int]], config: Config, what: str
):
  if not gaps:
    raise UserError(f"{what}: has no gap; {config.predict.gap}{{5}} is one")
  longest = sum(map(max, gaps))
  if longest > _LONGEST:
    raise UserError(
      f"{what}: its gaps may have more than {_LONGEST:,} symbols together"
    )
  size, count = sum(map(len, parts)) + longest, config.predict.candidates
  if count * size > _POSITIONS:
    raise UserError(
      f"config.predict.candidates={count}: with {counted(size, 'symbol')} of a"
      f" text each, more than {_POSITIONS:,} symbols"
    )


def _possible(gap: list[int], made: Form, config: Config) -> list[int]:
  """The lengths of a gap that the pattern can have."""
  possible = [n for n in gap if made.counts_RS[n, START] > 0]
  if not possible:
    least = counted(gap[0], "symbol")
    size = (
      least if len(gap) == 1 else f"{gap[0]:,} to {counted(gap[-1], 'symbol')}"
    )
    raise UserError(
      f"config.predict.pattern={config.predict.pattern!r}: matches no text of"
      f" {size}, as the gap has"
    )
  return possible
