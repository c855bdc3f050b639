"""Compares a text with a known text: new n-grams and copied passages."""

from typing import NamedTuple

import numpy as np


class Novelty(NamedTuple):
  """The novelty of a text relative to a known text.

  Attributes:
    new: the share of its n-grams that are new, for n = 1, 2, ...
    start: where the longest passage of both texts begins.
    length: of this passage.
  """

  new: list[float]
  start: int
  length: int


def novelty(text_T: np.ndarray, known_S: np.ndarray, most: int) -> Novelty:
  """Compares a text with a known text, which may be far longer.

  The n-grams of the text are numbered. Each place of the known text that has
  the same n-gram gets its number; with growing n there are fewer such places,
  until none is left.

  Args:
    text_T: ids, at least 0.
    known_S: ids of the known text, at least 0.
    most: the largest n for which the share of new n-grams is computed.
  """
  new = []
  start = length = 0
  number_T = np.zeros(len(text_T), np.int64)  # Of the n-gram that begins here.
  place = np.arange(len(known_S))
  number = np.zeros(len(known_S), np.int64)
  base = int(max(text_T.max(initial=0), known_S.max(initial=0))) + 1
  n = 0
  while n < most or len(place):
    n += 1
    if n > len(text_T):
      break
    # An n-gram is an (n - 1)-gram and a symbol.
    grams, number_T = np.unique(
      number_T[: len(text_T) - n + 1] * base + text_T[n - 1 :],
      return_inverse=True,
    )
    inside = place + n <= len(known_S)
    place, number = place[inside], number[inside]
    wanted = number * base + known_S[place + n - 1]
    found = np.minimum(np.searchsorted(grams, wanted), len(grams) - 1)
    same = grams[found] == wanted
    place, number = place[same], found[same]
    seen = np.zeros(len(grams), bool)
    seen[number] = True
    seen_T = seen[number_T]
    if n <= most:
      new.append(1 - float(seen_T.mean()))
    if seen_T.any():
      start, length = int(seen_T.argmax()), n
  return Novelty(new, start, length)
