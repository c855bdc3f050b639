"""How a text ends: at the end symbol, at a stop text, or at its length."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from seqrnn.data.vocabulary import END, PAD, Vocabulary

_PART = "\ufffd"  # Stands for a byte that may begin a character.


def find_stop(
  text: str, stops: Sequence[str], start: int
) -> tuple[int, int] | None:
  """Where the first complete stop text after `start` begins and ends.

  Of several that end together it is the longest.
  """
  found = []
  for stop in stops:
    place = text.find(stop, start)
    if place >= 0:
      found.append((place + len(stop), place))
  end, place = min(found, default=(0, -1))
  return None if place < 0 else (place, end)


def _held(text: str, stops: Sequence[str]) -> int:
  """The number of characters at the end that may begin a stop text."""
  sizes = (
    n for stop in stops for n in range(len(stop)) if text.endswith(stop[:n])
  )
  return max(sizes, default=0)


def _size(symbols: Vocabulary, ids_T: np.ndarray) -> int:
  """The number of whole characters."""
  return len(symbols.text(ids_T).rstrip(_PART))


def pieces(
  symbols: Vocabulary,
  prime_P: np.ndarray,
  chunks: Iterable[np.ndarray],
  stops: Sequence[str],
) -> Iterator[str]:
  """Pieces of a text, the prime included, as soon as no stop text can begin.

  Args:
    symbols: the vocabulary.
    prime_P: the ids of the prime.
    chunks: ids [1, n] that continue it.
    stops: texts that end the text and are no part of it.
  """
  ids, shown, begin = prime_P, 0, _size(symbols, prime_P)
  for chunk_1T in chunks:
    ids = np.concatenate([ids, chunk_1T[0]])
    # The last byte of a chunk may begin a character of several bytes.
    text = symbols.text(ids).rstrip(_PART)
    if find_stop(text, stops, begin):
      break
    safe = len(text) - _held(text[begin:], stops)
    if safe > shown:
      yield text[shown:safe]
      shown = safe
  text = symbols.text(ids)
  found = find_stop(text, stops, begin)
  rest = text[shown : found[0] if found else None]
  if rest:
    yield rest


def collect(
  symbols: Vocabulary,
  primes: Sequence[np.ndarray],
  chunks: Iterable[np.ndarray],
  stops: Sequence[str],
) -> np.ndarray:
  """The ids [B, T] of all chunks, until each row has ended or has a stop.

  Args:
    symbols: the vocabulary.
    primes: the ids of the prime of each row.
    chunks: ids [B, n].
    stops: as of `pieces`.
  """
  found = []
  for chunk_BT in chunks:
    found.append(chunk_BT)
    if stops:
      drawn_BT = np.concatenate(found, axis=1)
      rows = zip(primes, drawn_BT, strict=True)
      if all(_over(symbols, *row, stops) for row in rows):
        break
  return np.concatenate(found, axis=1)


def _over(
  symbols: Vocabulary,
  prime_P: np.ndarray,
  drawn_T: np.ndarray,
  stops: Sequence[str],
) -> bool:
  text = symbols.text(np.concatenate([prime_P, drawn_T])).rstrip(_PART)
  stop = find_stop(text, stops, _size(symbols, prime_P))
  return stop is not None or drawn_T[-1] in (PAD, END)


def ending(
  symbols: Vocabulary,
  prime_P: np.ndarray,
  drawn_T: np.ndarray,
  stops: Sequence[str],
) -> tuple[str, int, str]:
  """The text with its prime, the number of drawn symbols, and why it ends.

  The end symbol, or the symbols of the stop text, are among the number. Why is
  `end`, `stop` or `length`.
  """
  count = int((drawn_T != PAD).sum())
  ids = np.concatenate([prime_P, drawn_T])
  text = symbols.text(ids)
  found = find_stop(text, stops, _size(symbols, prime_P))
  if found is None:
    return text, count, "end" if (drawn_T == END).any() else "length"
  place, end = found
  size = lambda n: _size(symbols, ids[: len(prime_P) + n])
  return text[:place], bisect_left(range(count), end, key=size), "stop"
