"""Estimators on public sets, beside a linear model or a CRF.

  python benchmarks/estimators.py 2000 sst2 trec texts.tsv ud_ewt

Of each set 2,000 texts train, and a quarter as many choose one of the settings.
That fit is tested on at most 2,000 texts of the test split. A set is as in
`labels.py`; or `ud_ewt`, sentences and parts of speech. The linear model is
logistic regression of the TF-IDF of words, and of pairs of words. The CRF, of
the package sklearn-crfsuite, reads a word, its prefixes and suffixes, its
shape, and its neighbours. A row has the accuracy of validation and test, and
the minutes of the processor for all settings.
"""

import argparse
import time
from pathlib import Path

import labels
import numpy as np
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import seqrnn
from seqrnn.data.sources import corpora

TAGS = "ud_ewt"


def features(sentences: list[list[str]]) -> list[list[list[str]]]:
  """Returns the features of each word that the CRF reads."""
  every = []
  for words in sentences:
    near, rows = ["", *map(str.lower, words), ""], []
    for t, word in enumerate(words):
      a, b, c = near[t : t + 3]
      ends = " ".join(f"{b[:n]}- -{b[-n:]}" for n in range(1, 5))
      shape = f"{word.istitle()}{word.isupper()}{word.isalpha()}"
      rows.append(f"0{a} 1{b} 2{c} {ends} {shape}".split())
    every.append(rows)
  return every


def models(name: str) -> list[tuple]:
  """Returns the estimators for a set, and their settings."""
  sizes = {"hidden_size": [64, 128]}
  if name == TAGS:
    from sklearn_crfsuite import CRF

    crf = Pipeline([("words", FunctionTransformer(features)), ("crf", CRF())])
    costs = {f"crf__{n}": [0.01, 0.1] for n in ("c1", "c2")}
    return [(crf, costs), (seqrnn.Tagger(), sizes)]
  words, linear = TfidfVectorizer(sublinear_tf=True), LogisticRegression()
  linear = Pipeline([("tfidf", words), ("logistic", linear)])
  costs = {"logistic__C": [1, 10, 100], "logistic__max_iter": [300]}
  costs |= {"tfidf__ngram_range": [(1, 1), (1, 2)]}
  return [(linear, costs), (seqrnn.TextClassifier(), sizes)]


def read(name: str, split: str) -> tuple[list, list]:
  """Returns texts and their labels, or sentences and their tags."""
  if name != TAGS:
    pairs = [pair[::-1] for pair in labels.read(name, split)]
  else:
    [source] = corpora.set_sources(name, split)
    blocks = Path(source.content).read_text("utf-8").split("\n\n")
    lines = [[x.split("\t") for x in block.split("\n")] for block in blocks]
    rows = [[(x[1], x[3]) for x in some if x[0].isdigit()] for some in lines]
    rows = [[*map(list, zip(*some, strict=True))] for some in rows if some]
    pairs = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
  X, y = zip(*pairs, strict=True)
  return [*X], [*y]


def measure(name: str, size: int):
  """Prints the rows of a set, of which so many texts train."""
  (X, y), split = read(name, "train"), size + size // 4
  test = (X[split:], y[split:]) if Path(name).suffix else read(name, "test")
  for model, grid in models(name):
    start, fits = time.process_time(), []
    for settings in ParameterGrid(grid):
      fit = clone(model).set_params(**settings).fit(X[:size], y[:size])
      fits.append((fit.score(X[size:split], y[size:split]), settings, fit))
    best, settings, fit = max(fits, key=lambda x: x[0])
    figures = best, fit.score(*(x[:2000] for x in test))
    figures = *figures, (time.process_time() - start) / 60
    model = type(getattr(fit, "steps", [(0, fit)])[-1][1]).__name__
    shown = " | ".join(f"{figure:.3f}" for figure in figures)
    print(f"| {Path(name).stem} | {model} | {settings} | {shown} |", flush=True)


if __name__ == "__main__":
  parser = argparse.ArgumentParser()
  parser.add_argument("size", type=int)
  parser.add_argument("sets", nargs="+")
  for each in parser.parse_args().sets:
    measure(each, parser.parse_args().size)
