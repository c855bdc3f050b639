"""The answers of a model joined to texts, of which it reads windows."""

from typing import NamedTuple

import numpy as np

from seqrnn.data.read.columns import Arrays
from seqrnn.data.vocabulary import RESERVED, Vocabulary
from seqrnn.scoring import spans


class LabelRows(NamedTuple):
  """The labels that a model predicts for a split, text by text.

  Attributes:
    target: true ids [N], UNKNOWN for a label that training has not seen.
    best: predicted ids [N].
    weight: of the targets [N].
    begins: whether a text begins there, bool [N].
    codes: the column `spans` of the batches [N]; None: they have none.
    log_p: of all ids [N, V], where a text has one label (`by_text`); else None.
    joined: whether several rows were joined to one label.
  """

  target: np.ndarray
  best: np.ndarray
  weight: np.ndarray
  begins: np.ndarray
  codes: np.ndarray | None = None
  log_p: np.ndarray | None = None
  joined: bool = False

  def confusion(self, V: int) -> np.ndarray:
    """The weights of targets [truth, predicted], [V, V]."""
    counts_VV = np.zeros((V, V))
    np.add.at(counts_VV, (self.target, self.best), self.weight)
    return counts_VV

  def span_counts(self, labels: Vocabulary) -> np.ndarray | None:
    """As `spans.count_spans`; None if the labels mark no spans."""
    if self.log_p is not None or not spans.types(labels):
      return None
    # An unknown tag is a span by itself, of a type that no other tag has.
    names = ["", *labels.symbols]
    code_V = np.pad(spans.codes(labels, names), (len(RESERVED) - 1, 0))
    true_N = code_V[self.target] if self.codes is None else self.codes
    return spans.count_spans(labels, true_N, code_V[self.best], self.begins)


def mean_of_windows(numbers_NV: np.ndarray, firsts: np.ndarray) -> np.ndarray:
  """The numbers of texts, each the mean over the windows of the text.

  Args:
    numbers_NV: of windows, text by text.
    firsts: the first window of each text.
  """
  counts = np.diff(firsts, append=len(numbers_NV))
  return np.add.reduceat(numbers_NV, firsts) / counts[:, None]


def log_mean_of_windows(log_p_NV: np.ndarray, firsts: np.ndarray) -> np.ndarray:
  """As `mean_of_windows`, of the logarithms of probabilities."""
  counts = np.diff(firsts, append=len(log_p_NV))
  return np.logaddexp.reduceat(log_p_NV, firsts) - np.log(counts)[:, None]


def _by_text(columns: Arrays) -> Arrays:
  """The rows that have weight, in the order of their places.

  The column `begins` says whether a text begins at a row.
  """
  some = np.flatnonzero(columns["weights"] > 0)
  order = some[np.argsort(columns["place"][some], kind="stable")]
  ordered = {name: x[order] for name, x in columns.items()}
  ordered["begins"] = np.diff(ordered["document"], prepend=-1) != 0
  return ordered


def numbers_of_texts(columns: Arrays) -> tuple[np.ndarray, np.ndarray]:
  """The true and the predicted numbers of texts, float64 [N, V]."""
  rows = _by_text(columns)
  firsts = np.flatnonzero(rows["begins"])
  outputs_NV = rows["outputs"].astype(np.float64)
  true_NV = rows["targets"][firsts].astype(np.float64)
  return true_NV, mean_of_windows(outputs_NV, firsts)


def labels_of_texts(columns: Arrays) -> LabelRows:
  """The labels of texts; of a text with one label, over all windows."""
  rows = _by_text(columns)
  target, weight, begins = (rows[n] for n in ("targets", "weights", "begins"))
  if "outputs" not in rows:
    return LabelRows(target, rows["best"], weight, begins, rows.get("spans"))
  firsts = np.flatnonzero(begins)
  log_p = log_mean_of_windows(rows["outputs"].astype(np.float64), firsts)
  return LabelRows(
    target[firsts],
    log_p.argmax(axis=1),
    weight[firsts],
    begins[firsts],
    log_p=log_p,
    joined=len(firsts) < len(target),
  )
