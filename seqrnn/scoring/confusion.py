"""Confusion of labels: writes the table, draws the picture."""

import csv
from pathlib import Path

import numpy as np

from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.runtime import figures, files

_NUMBERS = 30  # Labels, at most, of a picture with numbers.


def write(folder: Path, labels: Vocabulary, counts_VV: np.ndarray, title: str):
  """Writes confusion.csv, a row per true label, and draws confusion.png.

  All labels that training has not seen share one row.

  Raises:
    UserError: a file cannot be written.
  """
  columns = np.arange(UNKNOWN + 1, len(labels))
  rows = columns
  if counts_VV[UNKNOWN].any():
    rows = np.append(rows, UNKNOWN)
  counts = counts_VV[np.ix_(rows, columns)].astype(np.int64)
  with files.atomic_write(folder / "confusion.csv") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["truth", *labels.names(columns)])
    for name, row in zip(labels.names(rows), counts.tolist(), strict=True):
      writer.writerow([name, *row])
  _draw(folder, counts, labels.names(rows), labels.names(columns), title)


def _draw(
  folder: Path,
  counts: np.ndarray,
  rows: list[str],
  columns: list[str],
  title: str,
):
  """Draws the share of each cell in its row as colour, the count as number."""
  side = min(max(4.5, 2 + 0.38 * len(rows)), 60)  # Inches.
  figure = figures.create(side + 1, side, title)
  axes = figure.add_subplot()
  shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
  figure.colorbar(image, label="share of the true label", shrink=0.8)
  label = lambda name: figures.plain(name, 24)
  axes.set_xticks(range(len(columns)), map(label, columns), rotation=90)
  axes.set_yticks(range(len(rows)), map(label, rows))
  axes.set_xlabel("predicted")
  axes.set_ylabel("truth")
  if len(rows) <= _NUMBERS:
    for y, x in np.argwhere(counts):
      axes.text(
        x,
        y,
        f"{counts[y, x]}",
        ha="center",
        va="center",
        fontsize=7,
        color="white" if shares[y, x] > 0.5 else "black",
      )
  figures.save(figure, folder / "confusion.png")
