"""Word vectors of a text: its words, their counts, and the factors of these."""

import io
import lzma
import tarfile

import numpy as np
import pytest

from benchmarks import vectors


def test_words_are_cut_as_those_of_sst2():
  text = "It's a well-made film (mostly) -- don't miss the actors' 1.5 hours..."
  assert " ".join(vectors.words(text)) == (
    "it 's a well-made film -lrb- mostly -rrb- -- do n't miss the actors '"
    " 1.5 hours ..."
  )


def test_a_known_sentence_is_left_out():
  text = ["a", "fine", ",", "long", "film", ".", "so", "good", "!", "fine"]
  known = {"a fine long film", "so good"}  # The second is too short to matter.
  assert vectors.without(text, known) == (text[6:], 1)


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


def test_reviews_of_the_archive_and_of_a_table(tmp_path, monkeypatch, capsys):
  texts = {"neg/7_1": "Bad <br />film", "pos/0_9": "A fine\tfilm"}
  archive, table = tmp_path / "a.tar.gz", tmp_path / "t.xz"
  with tarfile.open(archive, "w:gz") as file:
    for part in ("train", "test"):
      for name, text in texts.items():
        entry = tarfile.TarInfo(f"aclImdb/{part}/{name}.txt")
        entry.size = len(text)
        file.addfile(entry, io.BytesIO(text.encode()))
  with lzma.open(table, "w") as file:
    file.write(b"0\tBad <br />film\n1\tA fine film\n")
  monkeypatch.setattr(vectors.catalogue, "fetch", lambda *_: [archive])
  found, same = vectors.reviews(None), vectors.reviews(table)
  assert [*map(vectors.words, found)] == [*map(vectors.words, same)]
  assert found[0] == "A fine film"

  monkeypatch.setattr(vectors, "sentences", set)
  with pytest.raises(SystemExit) as ended:
    vectors.main([str(tmp_path), f"--texts={archive}"])
  err = capsys.readouterr().err
  assert ended.value.code == 2 and err.startswith("error: ")
  assert err.count("\n") == 1


def test_factors_are_those_of_the_singular_values():
  rng = np.random.default_rng(0)
  matrix = rng.normal(size=(30, 20)) * (rng.random((30, 20)) < 0.3)
  left, values, _ = np.linalg.svd(matrix)
  found = vectors.factors(vectors.sparse.csr_array(matrix), 5)
  expected = left[:, :5] * values[:5]
  np.testing.assert_allclose(
    found @ found.T, expected @ left[:, :5].T, atol=1e-5
  )


def test_ratios_of_labels():
  rng = np.random.default_rng(1)
  within = rng.integers(0, 2, (7, 12))
  for count in (2, 3):
    labels = np.arange(12) % count
    found = vectors.ratios(vectors.sparse.csr_array(within), labels)
    for label in range(1, count):
      own = within[:, labels == label].sum(1) + 1
      rest = within[:, labels != label].sum(1) + 1
      expected = np.log(own / own.sum() / (rest / rest.sum()))
      np.testing.assert_allclose(found[:, label - (count == 2)], expected)
    assert found.shape == (7, 1 if count == 2 else 3)
