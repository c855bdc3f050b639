"""What a run writes as it trains: rows of metrics.csv, and their picture."""

import csv
import os
from pathlib import Path
from typing import Any

from seqrnn.errors import UserError


def add_row(path: Path, row: dict[str, Any]):
  """Appends a row to a CSV file, and the names before the first one."""
  row = {k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()}
  new = not path.exists()
  try:
    with path.open("a", newline="", encoding="utf-8") as file:
      writer = csv.DictWriter(file, list(row), lineterminator="\n")
      if new:
        writer.writeheader()
      writer.writerow(row)
      file.flush()
      os.fsync(file.fileno())  # On disk before the checkpoint that follows.
  except OSError as error:  # It knows no name where writing fails.
    raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def cut_rows(path: Path, step: int):
  """Drops the rows after `step`: what a killed run wrote and did not save."""
  if not path.exists():
    return
  with path.open(newline="", encoding="utf-8") as file:
    rows = list(csv.reader(file))
  whole = [row for row in rows[1:] if len(row) == len(rows[0])]
  kept = rows[:1] + [row for row in whole if int(row[0]) <= step]
  temporary = path.with_suffix(".tmp")
  with temporary.open("w", newline="", encoding="utf-8") as file:
    csv.writer(file, lineterminator="\n").writerows(kept)
  os.replace(temporary, path)


def draw(workdir: Path):
  """Draws history.png from metrics.csv; nothing where it has no row yet.

  Loss and accuracy of training and validation, by step.
  """
  path = workdir / "metrics.csv"
  if not path.exists():
    return
  with path.open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  if not rows:
    return

  # It takes a second to import, and no screen is needed.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 3.5), layout="constrained")
  FigureCanvasAgg(figure)
  steps = [int(row["step"]) for row in rows]
  panels = (("loss", "loss in nats a symbol"), ("accuracy", "accuracy"))
  for place, (name, label) in enumerate(panels, 1):
    axes = figure.add_subplot(1, 2, place)
    for split in ("train", "validation"):
      values = [float(row[f"{split}_{name}"]) for row in rows]
      axes.plot(
        steps, values, label=split, marker="." if len(rows) < 40 else ""
      )
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.legend()
    axes.grid(alpha=0.3)
  figure.suptitle(workdir.name)
  figure.savefig(workdir / "history.png", dpi=110)
