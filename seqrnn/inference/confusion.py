"""Confusion of labels: counts them, writes the table, draws the picture."""

import csv
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.experiment import Carry, Experiment
from seqrnn.inference.predictions import decider
from seqrnn.models import arrays
from seqrnn.runtime import figures, files

_NUMBERS = 30  # Labels, at most, of a picture with numbers.


def totals(
  experiment: Experiment,
) -> Callable[..., tuple[Carry, jax.Array]]:
  """A function params, carry, batch -> carry, counts [truth, predicted]."""
  decide = decider(experiment)

  def count(params, carry, batch):
    carry, (logits_BNV, best_BN) = decide(params, carry, batch)
    V = logits_BNV.shape[-1]
    true_BNV = jax.nn.one_hot(batch["targets"], V)
    true_BNV *= batch["weights"][..., None]
    best_BNV = jax.nn.one_hot(best_BN, V)
    return carry, jnp.einsum(
      "bnv,bnw->vw", true_BNV, best_BNV, precision=arrays.precision()
    )

  return count


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
