"""Classifiers of 100, 300 and 1,000 labelled texts, and logistic regression.

  python benchmarks/labels.py    # three samples of SST-2, TREC and IMDB
  python benchmarks/labels.py --sets=trec --sizes=100 --samples=0

A sample has n texts to train on and n / 4 for validation. The texts of the
training split, at most 5,000, are there without their labels, too. Logistic
regression reads words and pairs of words (TF-IDF); its C has the best accuracy
of validation. The network is that of configs/sentences.py with FIELDS. Accuracy
is that of the set's test split, at most 1,000 texts; from sample 10 on, it is
that of other texts of the training split, to choose by. The cache has the files
and the runs.
"""

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from pages import table

import seqrnn
from seqrnn.data.sources import corpora

SETS, SIZES = ("sst2", "trec", "imdb"), (100, 300, 1000)
TEXTS, TESTS = 5000, 1000  # The most of a set.
FIELDS = {"model.wide": True, "train.freeze": "embedding"}
CHOICES = 10  # Samples from this number on are for choices.


@functools.cache
def read(name: str, split: str) -> list[tuple[str, str]]:
  """Returns the labels and texts of a split, in a random order."""
  lines = [
    line
    for source in corpora.set_sources(name, split)
    for line in bytes(source.content).decode().removesuffix("\n").split("\n")
  ]
  order = np.random.default_rng(0).permutation(len(lines))
  pairs = (lines[i].split(None, 1) for i in order)
  return [(label, " ".join(text.split())) for label, text in pairs]


def write(folder: Path, name: str, size: int, sample: int) -> dict[str, Any]:
  """Writes the files of a sample; returns the fields with their paths."""
  train = read(name, "train")
  rng = np.random.default_rng((size, sample))
  drawn = [train[i] for i in rng.permutation(len(train))]
  middle, end = size, size + size // 4
  test = drawn[end:] if sample >= CHOICES else read(name, "test")
  parts = drawn[:middle], drawn[middle:end], test[:TESTS]
  folder.mkdir(parents=True, exist_ok=True)
  fields = {"data.source": "files", "data.format": "tab"}
  fields["train.cpu_devices"] = 1
  for split, part in zip(corpora.SPLITS, parts, strict=True):
    path = folder / f"{split}.tsv"
    path.write_text("".join("\t".join(pair) + "\n" for pair in part), "utf-8")
    fields[f"data.{split}_path"] = str(path)
  plain = folder / "plain.txt"
  plain.write_text("".join(f"{text}\n" for _, text in train[:TEXTS]), "utf-8")
  return fields


def regression(fields: dict[str, Any]) -> float:
  """Returns the accuracy of logistic regression."""
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.linear_model import LogisticRegression

  x, y = {}, {}
  vectorizer = TfidfVectorizer(ngram_range=(1, 2))
  for split in corpora.SPLITS:
    lines = Path(fields[f"data.{split}_path"]).read_text("utf-8")
    pairs = (line.split("\t") for line in lines.removesuffix("\n").split("\n"))
    y[split], texts = zip(*pairs, strict=True)
    first = split == "train"
    transform = vectorizer.fit_transform if first else vectorizer.transform
    x[split] = transform(texts)
  models = [
    LogisticRegression(C=C, max_iter=1000).fit(x["train"], y["train"])
    for C in (0.1, 0.3, 1, 3, 10, 30, 100)
  ]
  best = max(models, key=lambda m: m.score(x["validation"], y["validation"]))
  return float(best.score(x["test"], y["test"]))


def measure(folder: Path, cell: tuple[str, int, int]) -> list[float]:
  """Returns both accuracies of a sample, from the cache if it has them."""
  record = folder / "accuracy.json"
  if not record.exists():
    fields = write(folder, *cell)
    fields |= FIELDS | {"data.unlabelled_path": str(folder / "plain.txt")}
    run = seqrnn.train("sentences", folder / "run", verbose=False, **fields)
    figures = [regression(fields), run.evaluate()["accuracy"]]
    record.write_text(json.dumps(figures))
  return json.loads(record.read_text())


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser()
  integers = lambda text: [int(part) for part in text.split(",")]
  parser.add_argument("--sets", default=SETS, type=lambda t: t.split(","))
  parser.add_argument("--sizes", default=SIZES, type=integers)
  parser.add_argument("--samples", default=(0, 1, 2), type=integers)
  parser.add_argument("--cache", default="runs/labels", type=Path)
  arguments = parser.parse_args()
  rows, means = [], []
  for name in arguments.sets:
    for size in arguments.sizes:
      folder = arguments.cache / name / str(size)
      each = [
        measure(folder / str(sample), (name, size, sample))
        for sample in arguments.samples
      ]
      means.append(np.mean(each, axis=0))
      rows.append([name, f"{size:,}", *(f"{mean:.3f}" for mean in means[-1])])
      print(rows[-1], flush=True)
  rows.append(["mean", "", *(f"{m:.3f}" for m in np.mean(means, axis=0))])
  print(table(("set", "labels", "logistic regression", "seqrnn"), rows))


if __name__ == "__main__":
  main()
