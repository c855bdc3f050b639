"""Simple methods on the splits of a run, to compare a network's figures with.

A linear model of texts reads the terms of data/read/terms.py.
"""

import importlib.util

import numpy as np
import scipy

from seqrnn.config.read import Config
from seqrnn.data import splits
from seqrnn.data.read import terms
from seqrnn.data.vocabulary import RESERVED
from seqrnn.experiment import Experiment
from seqrnn.scoring import spans
from seqrnn.scoring.evaluation import COLUMNS, flat_columns
from seqrnn.scoring.joining import labels_of_texts

Result = tuple[str, dict[str, float]] | None  # A method, and its figures.
_MOST = 500_000  # Symbols of training texts: a minute of a linear model.
_STATES = 2_000  # Symbols of a Markov chain.
_PARTS = 5  # Characters of the longest part of a word.
_READS = {"word": "words and characters", "char": "characters"}
_STRENGTHS = (1, 10, 100)  # Of which validation chooses.


def compare(experiment: Experiment, config: Config, split: str) -> Result:
  """A simple method for a task, and its figures of a split.

  None: there is none, the training split is too large for it, or scikit-learn,
  which texts need, is not installed.

  Raises:
    UserError: a split cannot be read.
  """
  if experiment.by_text:
    has_package = importlib.util.find_spec("sklearn") is not None
    small = experiment.facts("train")["symbols"] <= _MOST
    return _linear(experiment, config, split) if has_package and small else None
  if experiment.labels is not None:
    figures = _most_frequent(experiment, split)
    return "most frequent tag of each symbol", figures
  events = config.data.unit in ("session", "log", "id")
  follows = config.task == "language_model" and experiment.forbidden is not None
  if events and follows and len(experiment.names) <= _STATES:
    return "Markov chain", _markov_chain(experiment, split)
  return None


def _linear(experiment: Experiment, config: Config, split: str) -> Result:
  """Logistic regression, or ridge regression of numbers."""
  from sklearn.linear_model import LogisticRegression, Ridge

  unit, read, x, y = config.data.unit, splits.reader(config), {}, {}
  parts = _PARTS if unit in ("char", "byte", "word") else None
  is_label = experiment.labels is not None
  known = None
  for name in dict.fromkeys(("train", "validation", split)):
    pieces = read(name)
    texts = [document.symbols for document in pieces.documents()]
    if known is None:
      known = terms.Terms(terms.vocabulary(texts, unit, parts), unit, parts)
    rows = scipy.sparse.vstack([*map(known.row, texts)])
    # In float32, squares of large numbers would be infinite.
    x[name] = scipy.sparse.csr_matrix(rows, dtype=None if is_label else float)
    labels = pieces.corpus.labels
    assert labels is not None, "a text of a split has a label or a number"
    answers = [*labels[pieces.document]]
    if not is_label:
      answers = [[float(n) for n in text.split(",")] for text in answers]
    y[name] = np.array(answers)
  if not is_label and not y[split].std(axis=0).all():
    return None  # r squared is not defined.
  models = (
    LogisticRegression(C=C, max_iter=200) if is_label else Ridge(alpha=1 / C)
    for C in _STRENGTHS
  )
  models = [model.fit(x["train"], y["train"]) for model in models]
  best = models[0]
  if is_label or y["validation"].std(axis=0).all():
    best = max(models, key=lambda m: m.score(x["validation"], y["validation"]))
  figure = float(best.score(x[split], y[split]))
  method = "logistic" if is_label else "ridge"
  of = _READS.get(unit, "symbols and pairs")
  name = "accuracy" if is_label else "r_squared"
  return f"{method} regression of {of}", {name: figure}


def _most_frequent(experiment: Experiment, split: str) -> dict[str, float]:
  """The accuracy, or F1 of spans, of the most frequent tag of each symbol."""
  labels, symbols = experiment.labels, experiment.vocabularies["symbols"]
  counts_VC = _pairs(experiment, (len(symbols), len(labels)))
  counts_VC = counts_VC + 1e-6 * counts_VC.sum(0)  # Of a symbol never seen.
  best_V = counts_VC.argmax(1)
  batches = [
    flat_columns(
      {name: rows[name] for name in COLUMNS if name in rows},
      best_V[rows["inputs"]],
    )
    for rows in experiment.batches(split, None)
  ]
  names = batches[0]
  answers = labels_of_texts(
    {name: np.concatenate([rows[name] for rows in batches]) for name in names}
  )
  counts_3K = answers.span_counts(labels)
  if counts_3K is not None:
    return {"f1": spans.figures(counts_3K.sum(axis=1))["f1"]}
  hits = answers.target == answers.best
  return {"accuracy": float(np.average(hits, weights=answers.weight))}


def _markov_chain(experiment: Experiment, split: str) -> dict[str, float]:
  """Bits of the next symbol by the one before it (Witten & Bell 1991)."""
  V = len(experiment.vocabularies["symbols"])
  counts_VV = _pairs(experiment, (V, V))
  counts_V = counts_VV.sum(0) + 1
  counts_V[: len(RESERVED) - 2] = 0  # PAD and BEGIN are no target.
  kinds_V1 = np.maximum((counts_VV > 0).sum(1, keepdims=True), 1)
  p_VV = counts_VV + kinds_V1 * counts_V / counts_V.sum()
  p_VV /= p_VV.sum(1, keepdims=True)
  test_VV = _pairs(experiment, (V, V), split)
  hits = test_VV[np.arange(V), p_VV.argmax(1)].sum()
  bits = -(test_VV * np.log2(np.maximum(p_VV, 1e-300))).sum()
  total = test_VV.sum()
  figures = {"bits_per_symbol": bits / total, "accuracy": hits / total}
  return {name: float(value) for name, value in figures.items()}


def _pairs(
  experiment: Experiment, shape: tuple[int, int], split: str = "train"
) -> np.ndarray:
  """How often each input has each target."""
  counts = np.zeros(shape)
  for rows in experiment.batches(split, None):
    np.add.at(counts, (rows["inputs"], rows["targets"]), rows["weights"])
  return counts
