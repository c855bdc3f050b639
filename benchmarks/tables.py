"""Writes a table of texts, and prints what a linear model reaches on it.

  python benchmarks/tables.py runs/tables/motifs

The texts are 60 letters of DNA, 3,400 of them; half have a motif of nine
letters at the 27th place, each letter of which is drawn anew with probability
0.3; of the others, half have it at another place. The linear model is logistic
regression of one-hot letters.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

SIZES = {"train": 2000, "validation": 400, "test": 1000}
LENGTH, PLACE, WIDTH, MUTATION = 60, 26, 9, 0.3
Rows = dict[str, list[tuple[str, str]]]  # Of each split: labels and texts.


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


def linear(rows: Rows) -> float:
  """The test accuracy of logistic regression."""
  from sklearn.linear_model import LogisticRegression
  from sklearn.model_selection import GridSearchCV
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import OneHotEncoder

  model = make_pipeline(OneHotEncoder(), LogisticRegression(max_iter=500))
  grid = {"logisticregression__C": [0.003, 0.01, 0.03, 0.1, 1]}
  parts = {
    split: ([list(text) for _, text in some], [label for label, _ in some])
    for split, some in rows.items()
  }
  search = GridSearchCV(model, grid, cv=3).fit(*parts["train"])
  return search.score(*parts["test"])


def main():
  """Writes the table of each split."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("folder", type=Path)
  rows, folder = motifs(), parser.parse_args().folder
  folder.mkdir(parents=True, exist_ok=True)
  for split, some in rows.items():
    with (folder / f"{split}.csv").open("w", newline="") as file:
      csv.writer(file).writerows([("answer", "text"), *some])
  print(f"{folder}: {linear(rows):.4f}")


if __name__ == "__main__":
  main()
