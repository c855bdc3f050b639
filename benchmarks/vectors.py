"""Word vectors of the texts of a training split.

  python benchmarks/vectors.py runs/vectors              # of IMDB, no labels
  python benchmarks/vectors.py runs/words/sst2 --labelled=sst2

A word has the two vectors of seqrnn/data/vectors.py. The folder gets them as
vectors.txt.

The reviews of IMDB are cut into words as SST-2 has them, and a sentence that is
in SST-2 is left out. `start` in the folder is a run whose embedding is these
vectors. A classifier that starts from it reads all of these words, also those
that its training split lacks; the rest of that run learns nothing.

Of SST-2, a vector has the log-count ratio of the second label, too (Wang &
Manning 2012).
"""

import argparse
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

import seqrnn
from seqrnn import catalogue
from seqrnn.data.sources import corpora
from seqrnn.data.vectors import counts, of_counts
from seqrnn.errors import UserError
from seqrnn.runtime import files

MIN_COUNT = 3
SIZE = 300  # Of each of the two vectors of a word of the reviews,
SHORT = 100  # and of a labelled set.
_CLITIC = "s|re|ve|ll|d|m"
_WORDS = re.compile(
  rf"n't|'(?:{_CLITIC})\b|\.\.\.|--|[^\W_]+(?:[-'.,:][^\W_]+)*|[^\s\w]"
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-"}


def words(text: str) -> list[str]:
  """The words of a text, in the Penn Treebank's manner, in lower case."""
  text = text.lower().replace("<br />", " ").replace("’", "'")
  text = re.sub(r"n't\b", " n't", text.replace("`", "'"))
  text = re.sub(rf"'({_CLITIC})\b", r" '\1", text)
  quote = rf"(?<![a-z0-9])'(?!(?:{_CLITIC})\b)|'(?![a-z0-9])"
  matches = _WORDS.finditer(re.sub(quote, " ' ", text))
  return [_BRACKETS.get(word[0], word[0]) for word in matches]


def plain(sentence: list[str]) -> str:
  """A sentence without its punctuation."""
  return " ".join(word for word in sentence if re.search(r"\w", word))


def without(text: list[str], known: set[str]) -> tuple[list[str], int]:
  """The words of a text without the known sentences of four words or more."""
  others, sentence, left_out = [], [], 0
  for n, word in enumerate(text, 1):
    sentence.append(word)
    if word in {".", "!", "?", "..."} or n == len(text):
      same = plain(sentence)
      if same in known and same.count(" ") >= 3:
        left_out += 1
      else:
        others += sentence
      sentence = []
  return others, left_out


def reviews() -> list[str]:
  """The texts of the training split of IMDB."""
  (path,) = catalogue.fetch("imdb", "train")
  lines = corpora.READERS["reviews"](path, "train")
  return sorted(line.rpartition("\t")[2] for line in lines)


def sentences() -> set[str]:
  """The sentences of all splits of SST-2, without their punctuation."""
  return {
    plain(line.split()[1:])
    for split in ("train", "validation", "test")
    for source in corpora.set_sources("sst2", split)
    for line in bytes(source.content).decode().split("\n")
  }


def ratios(within: sparse.csr_array, labels: np.ndarray) -> np.ndarray:
  """Log-count ratios of the second of two labels, [words, 1].

  Args:
    within: whether a word is in a text.
    labels: of the texts, 0 or 1.
  """
  ones_TK = np.eye(2)[labels]
  inside = within @ ones_TK + 1
  outside = within @ (1 - ones_TK) + 1
  logs = np.log(inside / inside.sum(0)) - np.log(outside / outside.sum(0))
  return logs[:, 1:]


class Texts(NamedTuple):
  """Texts as ids.

  Attributes:
    names: the words, the most frequent ones first.
    ids: of the words of each text; -1: a rarer word.
  """

  names: list[str]
  ids: list[np.ndarray]

  @classmethod
  def of(cls, texts: list[list[str]], minimum: int) -> "Texts":
    """Finds the words that occur `minimum` times."""
    common = Counter(word for text in texts for word in text).most_common()
    names = [word for word, count in common if count >= minimum]
    ids = {word: i for i, word in enumerate(names)}
    return cls(
      names,
      [np.array([ids.get(word, -1) for word in text], int) for text in texts],
    )


def write_vectors(path: Path, names: list[str], vectors: np.ndarray):
  """Writes vectors as text."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic_write(path) as file:
    for name, row in zip(names, vectors, strict=True):
      file.write(f"{name} {' '.join(f'{value:.4f}' for value in row)}\n")


def review_vectors(folder: Path) -> str:
  """Vectors of IMDB's training split, and a run that has them."""
  known, texts, left_out = sentences(), [], 0
  for review in reviews():
    text, number = without(words(review), known)
    texts.append(text)
    left_out += number
  corpus = Texts.of(texts, MIN_COUNT)
  near, within = counts(corpus.ids, len(corpus.names))
  vectors, path = folder / "vectors.txt", folder / "words.txt"
  write_vectors(vectors, corpus.names, 0.25 * of_counts(near, within, SIZE))
  path.write_text(" ".join(corpus.names) + "\n", "utf-8")
  seqrnn.train(
    "base",
    folder / "start",
    verbose=False,
    **{
      "data.source": "files",
      "data.train_path": str(path),
      "data.validation_path": str(path),
      "data.unit": "word",
      "model.layers": 1,
      "model.hidden_size": 8,
      "model.embedding_path": str(vectors),
      "model.embedding_size": 2 * SIZE,
      "train.freeze": "embedding",
      "train.max_steps": 1,
    },
  )
  return (
    f"{len(corpus.names):,} words of {len(texts):,} reviews; {left_out:,}"
    " sentences of SST-2 left out"
  )


def labelled_vectors(folder: Path, name: str) -> str:
  """Vectors of the training split of a labelled set."""
  lines = [
    line.split()
    for source in corpora.set_sources(name, "train")
    for line in bytes(source.content).decode().removesuffix("\n").split("\n")
  ]
  corpus = Texts.of([line[1:] for line in lines], 1)
  near, within = counts(corpus.ids, len(corpus.names))
  labels = np.unique([line[0] for line in lines], return_inverse=True)[1]
  ratio = ratios(within, labels)
  vectors = [ratio / ratio.std(), 0.5 * of_counts(near, within, SHORT)]
  write_vectors(folder / "vectors.txt", corpus.names, np.hstack(vectors))
  return f"{len(corpus.names):,} words of {len(lines):,} texts"


def main(argv: list[str] | None = None):
  """Makes the vectors."""
  parser = argparse.ArgumentParser()
  parser.add_argument("folder", type=Path)
  parser.add_argument("--labelled", choices=("sst2",))
  arguments = parser.parse_args(argv)
  try:
    if arguments.labelled:
      report = labelled_vectors(arguments.folder, arguments.labelled)
    else:
      report = review_vectors(arguments.folder)
  except (UserError, OSError) as error:
    parser.exit(2, f"error: {error}\n")
  print(f"{arguments.folder}: {report}")


if __name__ == "__main__":
  main()
