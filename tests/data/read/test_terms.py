"""Terms: hashed symbols, pairs and parts of words, weighted by TF-IDF."""

import itertools
import zlib
from collections import Counter

import numpy as np

from seqrnn.data.read import terms

HALF = terms.BUCKETS


def bucket(term, shift=0):
  return shift + zlib.crc32(term.encode()) % HALF


def expected(words, spelled, texts, longest):
  """Of a text, from the definition; `texts` are the sets of its buckets."""
  row_F = np.zeros(2 * HALF)
  words = [word for word in words if word != "!"]
  symbols = Counter(words) + Counter(map("\0".join, itertools.pairwise(words)))
  parts = Counter()
  for word in spelled:
    edged = f" {word} "
    grams = [edged[i:j] for j in range(len(edged) + 1) for i in range(j)]
    parts.update(g for g in grams if len(g) <= longest and g != " ")
  for counts, shift in ((symbols, 0), (parts, HALF)):
    part_F = np.zeros(2 * HALF)
    for term, n in counts.items():
      place = bucket(term, shift)
      seen = sum(place in text for text in texts)
      if not seen:
        continue
      idf = 1 + np.log((1 + len(texts)) / (1 + seen))
      part_F[place] = (1 + np.log(n)) * idf
    row_F += part_F / (np.linalg.norm(part_F) or 1)
  return row_F[sorted(set().union(*texts))]


def buckets(words, spelled, longest):
  parts = set()
  for word in spelled:
    edged = f" {word} "
    grams = {edged[i:j] for j in range(len(edged) + 1) for i in range(j)}
    parts |= {g for g in grams if 0 < len(g) <= longest and g != " "}
  words = [word for word in words if word != "!"]
  symbols = {*words, *map("\0".join, itertools.pairwise(words))}
  return {*map(bucket, symbols)} | {bucket(part, HALF) for part in parts}


def test_terms_are_the_tf_idf_of_symbols_pairs_and_parts_of_words():
  train = [["no", "joke", "!", "no"], ["a", "joke"], ["纵", "横"]]
  known = terms.vocabulary(train, "word", 3)
  assert known.symbols[:2] == ("seed 0", "texts 3")
  read = terms.Terms(known, "word", 3)
  spelled = [["no", "joke", "!", "no"], ["a", "joke"], ["纵横"]]
  pairs = [*zip(train, spelled, strict=True)]
  texts = [buckets(*pair, 3) for pair in pairs]
  unseen = ["jokes", "\u00e9", "纵横纵"]
  for words, spelling in (*pairs, (unseen, unseen)):
    [row_F] = read.row(words).toarray()
    oracle_F = expected(words, spelling, texts, 3)
    oracle_F = np.pad(oracle_F, (0, read.size - len(oracle_F)))
    np.testing.assert_allclose(row_F, oracle_F, atol=1e-6)
  assert read.size == 48  # Of 47 or fewer.
  assert read.row([]).nnz == read.row(["x"]).nnz == 0
  of_symbols = terms.vocabulary(train, "word", None)
  alone = terms.Terms(of_symbols, "word", None)
  row_F, both_F = (x.row(["a", "joke"]).toarray()[0] for x in (alone, read))
  count = len(of_symbols.symbols[2].split())
  np.testing.assert_allclose(row_F[:count], both_F[:count], atol=1e-6)
  letters = terms.vocabulary(["ab a"], "char", 2).symbols[2].split()
  edged = {bucket(part, HALF) for part in (" a", "ab", "b ", "a ", "a", "b")}
  assert {int(n) for n in letters if int(n) >= HALF} == edged


def test_of_many_terms_those_of_most_texts_are_read(monkeypatch):
  monkeypatch.setattr(terms, "_MOST", 3)
  known = terms.vocabulary([["a", "b"], ["a", "c"], ["c", "d"]], "word", None)
  first = {bucket("a"), bucket("c")}
  assert first < {*map(int, known.symbols[2].split())}
  read = terms.Terms(known, "word", None)
  assert read.row(["a"]).shape == (1, 3)
