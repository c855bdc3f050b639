"""Models of a few labelled texts beside linear models of words.

  python benchmarks/labels.py    # ten samples of SST-2, TREC and IMDB
  python benchmarks/labels.py --sets=trec,texts.tsv --sizes=100,5000 --samples=0

A sample has n texts to train on and n / 4 for validation. A set is one of the
catalogue, whose test split is used, or a file of lines with a label, a tab and
a text, whose other texts are the test; labels with a decimal point are numbers.
The network is that of --config=sentences without a setting. The linear models
are logistic regression of the TF-IDF of words and pairs of words, and a naive
Bayes SVM (Wang & Manning 2012); of numbers, ridge regression. All are fitted to
words alone and to words and the n-grams of 1 to 5 characters within words.
Validation chooses one of them and its penalty; it is then fitted again on all
labels. Accuracy, or r squared of numbers, is that of at most 1,000 texts; from
sample 10 on, it is that of other texts of the training split, to choose by. The
differences are those to the linear model of words and characters on the same
samples, with an interval of 95 %. The cache has the files and the runs.
"""

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from pages import table
from scipy import sparse, stats

import seqrnn
from seqrnn.data.sources import corpora

SETS, SIZES = ("sst2", "trec", "imdb"), (100, 300, 1000)
TESTS = 1000  # The most texts of a test.
CHOICES = 10  # Samples from this number on are for choices.
HEAD = "set", "labels", "words", "words, characters", "seqrnn", "difference"


@functools.cache
def read(name: str, split: str) -> list[tuple[str, str]]:
  """Returns the labels and texts of a split, in a random order."""
  if Path(name).suffix:
    contents = [Path(name).read_text("utf-8")]
  else:
    sources = corpora.set_sources(name, split)
    contents = [bytes(source.content).decode() for source in sources]
  lines = [x for text in contents for x in text.removesuffix("\n").split("\n")]
  order = np.random.default_rng(0).permutation(len(lines))
  pairs = (lines[i].split(None, 1) for i in order)
  return [(label, " ".join(text.split())) for label, text in pairs]


def write(folder: Path, name: str, size: int, sample: int) -> dict[str, Any]:
  """Writes the files of a sample; returns the fields with their paths."""
  train = read(name, "train")
  rng = np.random.default_rng((size, sample))
  drawn = [train[i] for i in rng.permutation(len(train))]
  middle, end = size, size + size // 4
  rest = sample >= CHOICES or Path(name).suffix
  test = drawn[end:] if rest else read(name, "test")
  parts = drawn[:middle], drawn[middle:end], test[:TESTS]
  folder.mkdir(parents=True, exist_ok=True)
  fields: dict[str, Any] = {"data.source": "files", "data.format": "tab"}
  fields["train.cpu_devices"] = 1
  if "." in train[0][0]:
    fields["task"] = "regression"
  for split, part in zip(corpora.SPLITS, parts, strict=True):
    path = folder / f"{split}.tsv"
    path.write_text("".join("\t".join(pair) + "\n" for pair in part), "utf-8")
    fields[f"data.{split}_path"] = str(path)
  return fields


class NaiveBayes:
  """Logistic regressions of words, each times its log-count ratio."""

  def __init__(self, C: float):
    self.C = C

  def fit(self, x, y: np.ndarray) -> "NaiveBayes":
    """Fits a regression for each label."""
    from sklearn.linear_model import LogisticRegression

    self._labels, self._models, has = np.unique(y), [], x > 0
    for label in self._labels:
      of, others = (
        1 + np.asarray(has[rows].sum(0)).ravel()
        for rows in (y == label, y != label)
      )
      ratio = sparse.diags(
        np.log(of / of.sum()) - np.log(others / others.sum())
      )
      model = LogisticRegression(C=self.C, max_iter=200)
      self._models.append((ratio, model.fit(x @ ratio, y == label)))
    return self

  def score(self, x, y: np.ndarray) -> float:
    """Returns the accuracy."""
    scores = [model.decision_function(x @ r) for r, model in self._models]
    return float((self._labels[np.argmax(scores, axis=0)] == y).mean())


def linear(fields: dict[str, Any], characters: bool) -> float:
  """Returns the accuracy of the best linear model, or r squared of numbers."""
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.linear_model import LogisticRegression, Ridge
  from sklearn.pipeline import make_union

  x, y = {}, {}
  parts = [TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)]
  if characters:
    how = {"analyzer": "char_wb", "ngram_range": (1, 5), "sublinear_tf": True}
    parts.append(TfidfVectorizer(**how))
  vectorizer = make_union(*parts)
  for split in corpora.SPLITS:
    lines = Path(fields[f"data.{split}_path"]).read_text("utf-8")
    pairs = (line.split("\t") for line in lines.removesuffix("\n").split("\n"))
    labels, texts = zip(*pairs, strict=True)
    first = split == "train"
    transform = vectorizer.fit_transform if first else vectorizer.transform
    x[split], y[split] = transform(texts).tocsr(), np.array(labels)
  if "task" in fields:
    y = {split: numbers.astype(float) for split, numbers in y.items()}
    made = [Ridge(alpha=alpha) for alpha in (0.1, 0.3, 1, 3, 10)]
  else:
    logistic = functools.partial(LogisticRegression, max_iter=200)
    kinds, strengths = (logistic, NaiveBayes), (1, 10, 100)
    made = [make(C=C) for make in kinds for C in strengths]
  score = lambda m: m.fit(x["train"], y["train"]).score(
    x["validation"], y["validation"]
  )
  best = max(made, key=score)
  every = sparse.vstack([x["train"], x["validation"]]).tocsr()
  best.fit(every, np.append(y["train"], y["validation"]))
  return float(best.score(x["test"], y["test"]))


def measure(folder: Path, cell: tuple[str, int, int]) -> list[float]:
  """Returns the figures of a sample, from the cache if it has them."""
  record = folder / "accuracy.json"
  if not record.exists():
    fields, start = write(folder, *cell), time.process_time()
    run = seqrnn.train("sentences", folder / "run", verbose=False, **fields)
    figures = [linear(fields, False), linear(fields, True)]
    name = "r_squared" if "task" in fields else "accuracy"
    figures += [run.evaluate()[name], time.process_time() - start]
    record.write_text(json.dumps(figures))
  return json.loads(record.read_text())


def difference(each: np.ndarray) -> str:
  """Returns the mean of paired differences, and its interval."""
  mean, n = each.mean(), len(each)
  if n < 2:
    return f"{mean:+.3f}"
  reach = stats.t.ppf(0.975, n - 1) * each.std(ddof=1) / n**0.5
  return f"{mean:+.3f} ± {reach:.3f}"


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser()
  integers = lambda text: [int(part) for part in text.split(",")]
  parser.add_argument("--sets", default=SETS, type=lambda t: t.split(","))
  parser.add_argument("--sizes", default=SIZES, type=integers)
  parser.add_argument("--samples", default=range(10), type=integers)
  parser.add_argument("--cache", default="runs/labels", type=Path)
  arguments = parser.parse_args()
  rows, every = [], []
  for name in arguments.sets:
    for size in arguments.sizes:
      folder = arguments.cache / Path(name).stem / str(size)
      cells = [(name, size, sample) for sample in arguments.samples]
      each = np.array([measure(folder / str(c[2]), c)[:3] for c in cells])
      every.append(each)
      means = (f"{mean:.3f}" for mean in each.mean(0))
      gain = difference(each[:, 2] - each[:, 1])
      rows.append([Path(name).stem, f"{size:,}", *means, gain])
      print(rows[-1], flush=True)
  each = np.concatenate(every)
  means = (f"{mean:.3f}" for mean in each.mean(0))
  rows.append(["mean", "", *means, difference(each[:, 2] - each[:, 1])])
  print(table(HEAD, rows))


if __name__ == "__main__":
  main()
