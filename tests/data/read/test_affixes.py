"""The affixes and shapes of words."""

from seqrnn.data.read.affixes import affix_vocabulary, affixes, characters
from seqrnn.data.vocabulary import PAD, UNKNOWN, Vocabulary

WORDS = ["Walking", "talking", "B2", "c3", "walk", ""]


def test_a_word_has_its_shape_and_its_affixes():
  known = affix_vocabulary(WORDS, 3)
  assert set(known.symbols) == {
    *("-g", "-ng", "-ing", "w-", "wa-", "wal-"),
    *("-0", "shape x"),
  }
  table = affixes(known, 3, ["Talking", "walks", "\u00c99"])
  assert table.shape == (3, 7)
  names = [
    {known.symbols[i - 4] for i in row if i > UNKNOWN} for row in table.tolist()
  ]
  assert names == [
    {"-g", "-ng", "-ing"},
    {"shape x", "w-", "wa-", "wal-"},
    {"-0"},
  ]
  assert table[2, 5:].tolist() == [PAD, PAD]  # Of two characters.


def test_a_word_has_its_first_characters():
  known = Vocabulary("char", ("a", "b"))
  table = characters(known, ["ab" * 20, "x", ""])
  assert table.tolist() == [[4, 5] * 10, [UNKNOWN] + [PAD] * 19, [PAD] * 20]
