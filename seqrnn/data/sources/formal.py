"""Formal languages: tasks of growing depth in Chomsky's hierarchy, by rules.

The tasks are those of Delétang et al. 2023, "Neural Networks and the Chomsky
Hierarchy", and s3: permutations of three things, whose product depends on their
order, unlike that of diagonal matrices. Training and validation have strings of
1 to 40 symbols, the test has 41 to 100, so that it shows whether a rule was
learned, and "long" 101 to 500. A task with one
answer labels the string (task=classification). A task with several answers
appends a blank for each, whose tag is the answer (task=tagging); the symbols
before have no tag.
"""

import functools
import itertools
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.data.documents import Corpus, Document, collect
from seqrnn.data.read.columns import Tokens

BLANK = "_"
TRAINED = range(1, 41)  # The lengths of training and validation.
TESTED = range(41, 101)
LONG = range(101, 501)  # For benchmarks; `data.split` has no such split.
_TRAIN, _VALIDATION = 20_000, 1_000  # Strings.
OF_A_LENGTH = 32  # Strings of each length in test, which are in order.
OF_A_LONG_LENGTH = 4

Ints = np.ndarray


class Language(NamedTuple):
  """A task.

  Attributes:
    symbols: the alphabet of the strings; a string is drawn as its indices.
    answers: a function of a string -> its answers; END is after the last one.
    tagged: whether each answer has a blank; False: the only one is the label.
    draw: a function of a generator and a length -> a string; None: each symbol
      is drawn by itself.
    blanks: a function of a length -> the number of blanks.
  """

  symbols: str
  answers: Callable[[Ints], Ints]
  tagged: bool = False
  draw: Callable[[np.random.Generator, int], Ints] | None = None
  blanks: Callable[[int], int] = lambda length: length


def _draw_sum(rng: np.random.Generator, length: int) -> Ints:
  """Digits below 5, and +, - or * between them; of an uneven length."""
  string = rng.integers(0, 5, length - (length + 1) % 2)
  string[1::2] = rng.integers(5, 8, len(string) // 2)
  return string


def _value(string: Ints) -> Ints:
  """The value of digits and operators modulo 5; * comes before + and -."""
  total, term = 0, int(string[0])
  for operator, digit in zip(string[1::2], string[2::2], strict=True):
    if operator == 7:
      term = term * int(digit) % 5
    else:
      total, term = total + term, int(digit) * (1 if operator == 5 else -1)
  return np.array([(total + term) % 5])


def _draw_stack(rng: np.random.Generator, length: int) -> Ints:
  """A stack, its bottom first, and the actions on it."""
  size = rng.integers(1, max(length, 2))
  actions = rng.integers(2, 5, length - size)
  return np.append(rng.integers(0, 2, size), actions)


def _popped(string: Ints) -> Ints:
  """The stack after the actions, its top first, and an end."""
  stack: list[int] = []
  for symbol in string.tolist():
    if symbol != 2:
      stack.append(symbol % 3)  # 3 pushes 0, 4 pushes 1.
    elif stack:
      stack.pop()
  return np.array([*reversed(stack), 2])


# The places of three things that a symbol rearranges, and, for two symbols, the
# symbol that does what the first and then the second do.
_PLACES = list(itertools.permutations(range(3)))
_PRODUCTS = [
  [_PLACES.index(tuple(first[i] for i in then)) for then in _PLACES]
  for first in _PLACES
]


def _product(string: Ints) -> Ints:
  """The permutation that all permutations make, from the first to the last."""
  product = 0
  for permutation in string.tolist():
    product = _PRODUCTS[product][permutation]
  return np.array([product])


LANGUAGES = {
  "parity": Language("01", lambda s: s.sum(keepdims=True) % 2),
  "even_pairs": Language("01", lambda s: (s[:1] + s[-1:]) % 2),
  "cycle_navigation": Language("<=>", lambda s: (s - 1).sum(keepdims=True) % 5),
  "modular_arithmetic": Language("01234+-*", _value, draw=_draw_sum),
  "s3": Language("012345", _product),
  "reverse_string": Language("01", lambda s: s[::-1], True),
  "stack_manipulation": Language(
    "01xab", _popped, True, _draw_stack, lambda length: length + 1
  ),
  "duplicate_string": Language(
    "01", lambda s: np.tile(s, 2), True, blanks=lambda length: 2 * length
  ),
  "odds_first": Language("01", lambda s: np.append(s[::2], s[1::2]), True),
  "bucket_sort": Language("01234", np.sort, True),
}


def _strings(
  name: str, key: str, lengths: Sequence[int], count: int
) -> list[Ints]:
  """Strings of lengths that are drawn, by a generator of their own."""
  language = LANGUAGES[name]
  rng = np.random.default_rng(zlib.crc32(f"{name} {key}".encode()))
  draw = language.draw or (
    lambda rng, length: rng.integers(0, len(language.symbols), length)
  )
  return [draw(rng, length) for length in rng.choice(lengths, count).tolist()]


@functools.cache
def strings(name: str, split: str) -> Corpus:
  """The strings of a split of a language, the same on every machine.

  Args:
    name: of the language.
    split: a name of SPLITS, or "long".
  """
  language = LANGUAGES[name]
  if split == "train":
    drawn = _strings(name, split, TRAINED, _TRAIN)
  elif split == "validation":
    trained = _strings(name, "train", TRAINED, _TRAIN)
    known = {string.tobytes() for string in trained}
    drawn = _strings(name, split, TRAINED, 2 * _VALIDATION)
    drawn = [s for s in drawn if s.tobytes() not in known][:_VALIDATION]
  else:
    tested = split == "test"
    count = OF_A_LENGTH if tested else OF_A_LONG_LENGTH
    drawn = [
      string
      for length in (TESTED if tested else LONG)
      for string in _strings(name, f"{split}-{length}", [length], count)
    ]
  texts, answers = [], []
  for number, string in enumerate(drawn, 1):
    text = "".join(language.symbols[symbol] for symbol in string)
    answer = "".join(map(str, language.answers(string)))
    blanks = language.blanks(len(text)) if language.tagged else 0
    texts.append(Document(f"{name}-{split}:{number}", text + BLANK * blanks))
    answers.append([""] * len(text) + [*answer] + [""] * (blanks - len(answer)))
  corpus = collect(texts, "char")
  if language.tagged:
    tags = [t._replace(symbols=a) for t, a in zip(texts, answers, strict=True)]
    return corpus._replace(tags=collect(tags, "id"))
  labels = Tokens()
  labels.collect(answer[-1] for answer in answers)
  return corpus._replace(labels=labels.texts())
