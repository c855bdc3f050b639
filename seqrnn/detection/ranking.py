"""How well scores find what labels mark: figures of a ranking and of flags."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Cells(NamedTuple):
  """Equal things together, the highest score first.

  Attributes:
    scores: of each cell.
    flags: whether it is flagged.
    odd: float64, how many of it are labelled.
    normal: float64, how many are not.
  """

  scores: np.ndarray
  flags: np.ndarray
  odd: np.ndarray
  normal: np.ndarray


def cells(scores: np.ndarray, flags: np.ndarray, labels: np.ndarray) -> Cells:
  """The cells of things, which have a score, a flag and a label each."""
  found, place = np.unique(-scores, return_inverse=True)
  cell = 2 * place + flags
  odd = np.bincount(cell, labels, minlength=2 * len(found))
  normal = np.bincount(cell, ~labels, minlength=2 * len(found))
  some = np.flatnonzero(odd + normal)
  return Cells(-found[some // 2], some % 2 == 1, odd[some], normal[some])


class Curve(NamedTuple):
  """What flagging all scores from each one on would give.

  Attributes:
    scores: the distinct ones, the highest first.
    found: how many labelled ones have at least this.
    false: how many others.
  """

  scores: np.ndarray
  found: np.ndarray
  false: np.ndarray


def curve(cells: Cells) -> Curve:
  """The curve of cells."""
  last = np.append(cells.scores[1:] != cells.scores[:-1], True)
  return Curve(
    cells.scores[last],
    np.cumsum(cells.odd)[last],
    np.cumsum(cells.normal)[last],
  )


def figures(cells: Cells) -> dict[str, float]:
  """Figures of the flags, and of the scores whatever the threshold.

  `oracle_f1` is the best F1 of any threshold, which only labels can choose.
  """
  flags = cells.flags
  tp, fp = cells.odd[flags].sum(), cells.normal[flags].sum()
  fn, tn = cells.odd[~flags].sum(), cells.normal[~flags].sum()
  root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
  _, found, false = curve(cells)
  odd, normal = tp + fn, tn + fp
  recall, fallout = _share(found, odd), _share(false, normal)
  precision = _share(found, found + false)

  def recall_at(rate: float) -> float:
    return float(recall[fallout <= rate].max(initial=0.0))

  found = {
    "precision": _share(tp, tp + fp),
    "recall": _share(tp, odd),
    "f1": _share(2 * tp, 2 * tp + fp + fn),
    "mcc": _share(tp * tn - fp * fn, root),
    "false_alarm_rate": _share(fp, normal),
    "auroc": np.trapezoid(np.append(0, recall), np.append(0, fallout)),
    "average_precision": np.sum(np.diff(recall, prepend=0) * precision),
    "recall_at_0.01": recall_at(0.01),
    "recall_at_0.05": recall_at(0.05),
    "oracle_f1": _share(2 * found, odd + found + false).max(),
  }
  return {name: float(value) for name, value in found.items()}


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Part of a whole; 0 of nothing."""
  return np.divide(
    part, whole, out=np.zeros(np.shape(part + whole)), where=whole != 0
  )


def intervals(
  cells: Cells,
  draws: int,
  rng: np.random.Generator,
  figures: Callable[[Cells], dict[str, float]] = figures,
) -> dict[str, tuple[float, float]]:
  """95% bootstrap intervals of the figures: things are drawn anew, with theirs.

  Args:
    cells: of all.
    draws: how often (Efron 1979).
    rng: what draws.
    figures: cells -> figures.
  """
  counts = np.concatenate([cells.odd, cells.normal])
  total = int(counts.sum())
  found = []
  for _ in range(draws):
    drawn = rng.multinomial(total, counts / total).astype(np.float64)
    odd, normal = np.split(drawn, 2)
    found.append(figures(cells._replace(odd=odd, normal=normal)))
  return {
    name: tuple(np.quantile([f[name] for f in found], [0.025, 0.975]).tolist())
    for name in (found[0] if found else ())
  }
