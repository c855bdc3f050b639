"""Word vectors of a text: its words, their counts, and the factors of these."""

import numpy as np

from benchmarks import vectors


def test_counts_of_pairs_and_texts(monkeypatch):
  monkeypatch.setattr(vectors, "CONTEXTS", 4)
  rng = np.random.default_rng(0)
  texts = [rng.integers(-1, 6, n) for n in (3, 9, 1, 12)]
  near, within = np.zeros((6, 4)), np.zeros((6, 4))
  for number, text in enumerate(texts):
    for i, word in enumerate(text):
      if word < 0:
        continue
      within[word, number] = 1
      for j, context in enumerate(text):
        if 0 < abs(i - j) <= vectors.WINDOW and 0 <= context < 4:
          near[word, context] += 1 / abs(i - j)
  found = vectors.counts(texts, 6)
  np.testing.assert_allclose(found[0].toarray(), near)
  np.testing.assert_array_equal(found[1].toarray(), within)

  joint = near / near.sum()
  contexts = near.sum(0) ** 0.75 / (near.sum(0) ** 0.75).sum()
  with np.errstate(divide="ignore"):
    expected = np.log(joint / joint.sum(1, keepdims=True) / contexts)
  np.testing.assert_allclose(
    vectors.information(found[0], 0.75).toarray(), np.maximum(expected, 0)
  )


def test_factors_are_those_of_the_singular_values():
  rng = np.random.default_rng(0)
  matrix = rng.normal(size=(30, 20)) * (rng.random((30, 20)) < 0.3)
  left, values, _ = np.linalg.svd(matrix)
  found = vectors.factors(vectors.sparse.csr_array(matrix), 5)
  expected = left[:, :5] * values[:5]
  np.testing.assert_allclose(
    found @ found.T, expected @ left[:, :5].T, atol=1e-5
  )
