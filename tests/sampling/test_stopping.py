"""Stop texts: where a text ends, and that no piece holds a part of one."""

import random

import numpy as np
import pytest

from seqrnn.data.vocabulary import END, PAD, Vocabulary
from seqrnn.sampling.stopping import collect, ending, pieces

LETTERS = Vocabulary("char", ("a", "b", "c"))


def stopped(text, stops, begin):
  """Character by character: the text, and the place after the stop text."""
  for end in range(begin + 1, len(text) + 1):
    for stop in sorted(stops, key=len, reverse=True):
      if text[begin:end].endswith(stop):
        return text[: end - len(stop)], end
  return text, None


@pytest.mark.parametrize("seed", range(20))
def test_a_text_ends_before_the_first_complete_stop_text(seed):
  rng = random.Random(seed)
  for _ in range(50):
    prime = "".join(rng.choices("abc", k=rng.randint(1, 3)))
    drawn = "".join(rng.choices("abc", k=rng.randint(1, 12)))
    stops = [
      "".join(rng.choices("abc", k=rng.randint(1, 4)))
      for _ in range(rng.randint(0, 3))
    ]
    ids_P, drawn_T = LETTERS.encode(prime), LETTERS.encode(drawn)
    ended = rng.random() < 0.5
    if ended:
      drawn_T = np.append(drawn_T, [END, PAD]).astype(np.int32)
    text, end = stopped(prime + drawn, stops, len(prime))
    found = ending(LETTERS, ids_P, drawn_T, stops)
    if end is None:
      count = len(drawn) + ended
      assert found == (text, count, "end" if ended else "length")
    else:
      assert found == (text, end - len(prime), "stop")
    places = range(1, len(drawn_T))
    cuts = sorted(rng.sample(places, min(2, len(places))))
    chunks = [part[None] for part in np.split(drawn_T, cuts)]
    shown = [*pieces(LETTERS, ids_P, chunks, stops)]
    assert "".join(shown) == text and "" not in shown[1:]
    [ids_T] = collect(LETTERS, ids_P[None], chunks, stops)
    assert ending(LETTERS, ids_P, ids_T, stops) == found


def test_a_character_of_several_bytes_is_shown_whole():
  encoded = "aé€b".encode()
  symbols = Vocabulary("byte", tuple(sorted({chr(b) for b in encoded})))
  ids_T = symbols.encode([chr(b) for b in encoded])
  for size in (1, 2, 3):
    chunks = [ids_T[n : n + size][None] for n in range(1, len(ids_T), size)]
    shown = [*pieces(symbols, ids_T[:1], chunks, ["b"])]
    assert "".join(shown) == "aé€" and "\ufffd" not in "".join(shown)
    text, count, why = ending(symbols, ids_T[:1], ids_T[1:], ["€"])
    assert (text, count, why) == ("aé", 5, "stop")


def test_words_stop_at_a_text_of_several():
  symbols = Vocabulary("word", ("the", "end", "of", "\n"))
  ids_T = symbols.encode(["of", "the", "end", "\n", "the"])
  found = ending(symbols, ids_T[:1], ids_T[1:], ["end\n"])
  assert found == ("of the ", 3, "stop")
  shown = pieces(symbols, ids_T[:1], [ids_T[1:, None].T], ["end\n", "of"])
  assert "".join(shown) == "of the "
  every = (ids[None] for ids in np.split(ids_T[1:], 4))
  assert "".join(pieces(symbols, ids_T[:1], every, [])) == symbols.text(ids_T)
