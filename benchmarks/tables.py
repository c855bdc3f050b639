"""Writes two tables of texts, and prints what a linear model reaches on them.

  python benchmarks/tables.py motifs runs/tables/motifs
  python benchmarks/tables.py stars runs/tables/stars --reviews=FOLDER

motifs: 60 letters of DNA, 3,400 texts; half have a motif of nine letters at the
27th place, each letter of which is drawn anew with probability 0.3; of the
others, half have it at another place. The linear model is logistic regression
of one-hot letters.

stars: IMDB's reviews and the stars, 1 to 10, that their authors gave. FOLDER
has train.tsv.xz and test.tsv.xz, with the columns label, NUMBER_STARS and text.
Every tenth review of training is for validation. The linear model is ridge
regression of TF-IDF of words and pairs.
"""

import argparse
import csv
import lzma
from pathlib import Path

import numpy as np

SIZES = {"train": 2000, "validation": 400, "test": 1000}
LENGTH, PLACE, WIDTH, MUTATION = 60, 26, 9, 0.3
Rows = dict[str, list[tuple[str, str]]]  # Of each split: answers and texts.


def motifs() -> Rows:
  """Texts with the label p if they have the motif at its place, else n."""
  rng = np.random.default_rng(7)
  motif = rng.integers(0, 4, WIDTH)
  others = [n for n in range(LENGTH - WIDTH + 1) if abs(n - PLACE) >= WIDTH]
  rows: Rows = {split: [] for split in SIZES}
  for split, count in SIZES.items():
    for n in range(count):
      letters = rng.integers(0, 4, LENGTH)
      place = PLACE if n % 2 == 0 else rng.choice(others)
      drawn = rng.integers(0, 4, WIDTH)
      if n % 4 < 3:  # Of four texts, the last has no motif at all.
        anew = rng.random(WIDTH) < MUTATION
        letters[place : place + WIDTH] = np.where(anew, drawn, motif)
      rows[split].append(("pn"[n % 2], "".join("ACGT"[i] for i in letters)))
  return rows


def stars(folder: Path) -> Rows:
  """The reviews and their stars."""
  rows: Rows = {split: [] for split in SIZES}
  for part in ("train", "test"):
    with lzma.open(folder / f"{part}.tsv.xz", "rt", encoding="utf-8") as file:
      for n, line in enumerate(file):
        _, name, text = line.rstrip("\n").split("\t", 2)
        split = "validation" if part == "train" and n % 10 == 0 else part
        words = " ".join(text.replace("<br />", " ").split())
        rows[split].append((name.partition("_")[2], words))
  return rows


def linear(name: str, rows: Rows) -> float:
  """The test accuracy of logistic regression, or r² of ridge regression."""
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.linear_model import LogisticRegression, Ridge
  from sklearn.model_selection import GridSearchCV
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import OneHotEncoder

  if name == "motifs":
    model = make_pipeline(OneHotEncoder(), LogisticRegression(max_iter=500))
    grid = {"logisticregression__C": [0.003, 0.01, 0.03, 0.1, 1]}
    read, answer = list, str
  else:
    words = {"token_pattern": r"[\w']+|[^\w\s]", "ngram_range": (1, 2)}
    features = TfidfVectorizer(sublinear_tf=True, min_df=3, **words)
    model = make_pipeline(features, Ridge(solver="sparse_cg", tol=1e-3))
    grid = {"ridge__alpha": [0.25, 0.5, 1, 2]}
    read, answer = str, float
  parts = {
    split: ([read(x) for _, x in some], [answer(y) for y, _ in some])
    for split, some in rows.items()
  }
  search = GridSearchCV(model, grid, cv=3).fit(*parts["train"])
  return search.score(*parts["test"])


def main():
  """Writes the table of each split."""
  parser = argparse.ArgumentParser()
  parser.add_argument("name", choices=("motifs", "stars"))
  parser.add_argument("folder", type=Path)
  parser.add_argument("--reviews", type=Path, default=Path())
  arguments = parser.parse_args()
  rows = motifs() if arguments.name == "motifs" else stars(arguments.reviews)
  arguments.folder.mkdir(parents=True, exist_ok=True)
  for split, some in rows.items():
    with (arguments.folder / f"{split}.csv").open("w", newline="") as file:
      csv.writer(file).writerows([("answer", "text"), *some])
  print(f"{arguments.folder}: {linear(arguments.name, rows):.4f}")


if __name__ == "__main__":
  main()
