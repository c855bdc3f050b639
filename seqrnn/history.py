"""What a run writes as it trains: rows of metrics.csv, and their picture."""

import csv
import os
from pathlib import Path
from typing import Any

from seqrnn import files
from seqrnn.errors import UserError

_LIMIT = 2**27  # Bytes of a table: a million evaluations.


def add_row(path: Path, row: dict[str, Any]):
  """Appends a row to a CSV file, and the names before the first one.

  Raises:
    UserError: it cannot be written, or its rows have other names.
  """
  row = {k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()}
  names = ",".join(row)
  with files.writing(path), path.open("a+", encoding="utf-8") as file:
    file.seek(0)
    found = file.readline(1 << 16).removesuffix("\n")
    if found not in ("", names):
      raise UserError(
        f"{path}: its columns are {found}, must be {names}; move it away"
      )
    writer = csv.DictWriter(file, list(row), lineterminator="\n")
    if not found:
      writer.writeheader()
    writer.writerow(row)
    file.flush()
    os.fsync(file.fileno())  # On disk before the checkpoint that follows.


def read_rows(path: Path) -> list[dict[str, str]]:
  """The rows of a table by name, each number as it was written.

  A row that a killed run could not end is left out.

  Raises:
    UserError: it is no table of numbers.
  """
  if not path.exists():
    return []
  lines = files.read(path, _LIMIT).decode("utf-8", "replace").split("\n")
  names, *rows = csv.reader(lines[:-1] or [""])
  if lines[:-1] and names[:1] != ["step"]:
    raise UserError(f"{path}: its first column must be step; move it away")
  for number, row in enumerate(rows, 2):
    if len(row) != len(names) or not _numbers(row):
      raise UserError(
        f"{path}: row {number} must be {len(names)} numbers, the step first;"
        " move it away"
      )
  return [dict(zip(names, row, strict=True)) for row in rows]


def _numbers(row: list[str]) -> bool:
  """Whether a row is numbers, the first one whole."""
  try:
    int(row[0])
    list(map(float, row))
  except ValueError:
    return False
  return True


def cut_rows(path: Path, step: int):
  """Drops the rows after `step`: what a killed run wrote and did not save.

  Raises:
    UserError: as `read_rows`, or it cannot be written.
  """
  if not path.exists():
    return
  rows = [row for row in read_rows(path) if int(row["step"]) <= step]
  with files.written(path) as file:
    if rows:
      writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
      writer.writeheader()
      writer.writerows(rows)


def draw(workdir: Path, measure: str):
  """Draws history.png from metrics.csv; nothing where it has no row yet.

  Loss of training and validation by step, and accuracy where a task has it.

  Args:
    workdir: of the run.
    measure: what the loss is in, as "nats a symbol".

  Raises:
    UserError: as `read_rows`, or it cannot be written.
  """
  rows = read_rows(workdir / "metrics.csv")
  if not rows:
    return

  # It takes a second to import, and no screen is needed.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 3.5), layout="constrained")
  FigureCanvasAgg(figure)
  steps = [int(row["step"]) for row in rows]
  panels = {"loss": f"loss in {measure}"}
  if "validation_accuracy" in rows[0]:
    panels["accuracy"] = "accuracy"
  for place, (name, label) in enumerate(panels.items(), 1):
    axes = figure.add_subplot(1, len(panels), place)
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
  with files.written(workdir / "history.png", "wb") as file:
    figure.savefig(file, format="png", dpi=110)
