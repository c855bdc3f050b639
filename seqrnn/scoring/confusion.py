"""The confusion matrix of predicted labels, as a table and as a picture."""

import numpy as np

from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.runtime import pictures
from seqrnn.scoring.joining import LabelRows

_NUMBERS = 30  # Labels, at most, of a picture with numbers.


def confusion_table(labels: Vocabulary, answers: LabelRows) -> list[list]:
  """A row per true label, with the counts of the predicted labels.

  All labels that training has not seen share one row. The first row has the
  names of the columns.
  """
  counts_VV = answers.confusion(len(labels)).astype(np.int64)
  columns = rows = np.arange(UNKNOWN + 1, len(labels))
  if counts_VV[UNKNOWN].any():
    rows = np.append(rows, UNKNOWN)
  counts = counts_VV[np.ix_(rows, columns)].tolist()
  named = zip(labels.names(rows), counts, strict=True)
  return [["truth", *labels.names(columns)], *([n, *row] for n, row in named)]


def draw(table: list[list], title: str = "") -> "pictures.Figure":
  """The figure of a table; the colour of a cell is its share of the row."""
  (_, *columns), *lines = table
  truths, counts = [n for n, *_ in lines], np.array([row for _, *row in lines])
  side = min(max(4.5, 2 + 0.38 * len(truths)), 60)  # Inches.
  figure = pictures.create(side + 1, side, title)
  axes = figure.add_subplot()
  shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
  figure.colorbar(image, label="share of the true label", shrink=0.8)
  short = lambda names: [pictures.plain(name, 24) for name in names]
  axes.set_xticks(range(len(columns)), short(columns), rotation=90)
  axes.set_yticks(range(len(truths)), short(truths))
  axes.set(xlabel="predicted", ylabel="truth")
  if len(truths) <= _NUMBERS:
    style = {"ha": "center", "va": "center", "fontsize": 7}
    for y, x in np.argwhere(counts):
      color = "white" if shares[y, x] > 0.5 else "black"
      axes.text(x, y, f"{counts[y, x]}", color=color, **style)
  return figure
