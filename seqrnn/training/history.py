"""metrics.csv and timing.csv, which a training appends to, and history.png."""

import csv
import math
import os
from pathlib import Path
from typing import Any

from seqrnn.errors import UserError
from seqrnn.runtime import figures, files
from seqrnn.training.checkpoint import Position

_SPLITS = ("train", "validation")
_LIMIT = 2**27  # Bytes of a table; a million evaluations fit.


def add_row(path: Path, row: dict[str, Any]):
  """Appends a row to a CSV file; an empty file gets the header first.

  Raises:
    UserError: the file cannot be written, or has other columns.
  """
  row = {k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()}
  names = ",".join(row)
  with files.write_errors(path), path.open("a+", encoding="utf-8") as file:
    file.seek(0)
    header = file.readline(1 << 16).removesuffix("\n")
    if header not in ("", names):
      raise UserError(
        f"{path}: its columns are {header}, must be {names}; move it away"
      )
    writer = csv.DictWriter(file, list(row), lineterminator="\n")
    if not header:
      writer.writeheader()
    writer.writerow(row)
    file.flush()
    os.fsync(file.fileno())  # On disk before the checkpoint that follows.


def read_rows(path: Path, *columns: str) -> list[dict[str, str]]:
  """Returns the rows of a table, each as a dict of column -> text.

  An incomplete last row, which a killed process may leave, is ignored.

  Args:
    path: the file; if it is missing, there are no rows.
    *columns: the columns that a table with rows must have.

  Raises:
    UserError: the file is no table of numbers, or lacks a column.
  """
  names, *rows = [line.split(",") for line in _lines(path)] or [[]]
  for name in columns:
    if rows and name not in names:
      raise UserError(f"{path}: has no column {name}; move it away")
  return [dict(zip(names, row, strict=True)) for row in rows]


def _lines(path: Path) -> list[str]:
  """Returns the header and the complete rows of a table, if it exists.

  Raises:
    UserError: the file is no table of numbers.
  """
  if not path.exists():
    return []
  content = files.read_bytes(path, _LIMIT).decode("utf-8", "replace")
  lines = content.split("\n")[:-1]  # No value in these tables is quoted.
  names = lines[0].split(",") if lines else ["step"]
  if names[0] != "step":
    raise UserError(f"{path}: its first column must be step; move it away")
  if not all(name.isprintable() and '"' not in name for name in names):
    raise UserError(f"{path}: row 1 must be names of columns; move it away")
  for number, line in enumerate(lines[1:], 2):
    try:
      step, *values = line.split(",")
      valid = len(values) == len(names) - 1 and int(step) >= 0
      valid = valid and all(math.isfinite(float(value)) for value in values)
    except ValueError:
      valid = False
    if not valid:
      raise UserError(
        f"{path}: row {number} must be {len(names)} numbers, the step first;"
        " move it away"
      )
  return lines


def cut_tables(workdir: Path, step: int):
  """Removes the rows after `step`, which belong to no checkpoint.

  Raises:
    UserError: as `read_rows`.
    MachineError: a table cannot be written.
  """
  for name in ("metrics.csv", "timing.csv"):
    path = workdir / name
    head, *rows = _lines(path) or [""]
    rows = [row for row in rows if int(row.split(",")[0]) <= step]
    content = "".join(f"{line}\n" for line in [head, *rows]) if rows else ""
    if path.exists() and path.read_bytes() != content.encode():
      with files.atomic_write(path) as file:
        file.write(content)


def draw_history(workdir: Path, measure: str):
  """Draws history.png from metrics.csv, if metrics.csv has a row.

  It plots the loss of both splits by step, and accuracy if the task has it.

  Args:
    workdir: the folder of the run.
    measure: the unit of the loss, such as "nats a symbol".

  Raises:
    UserError: as `read_rows`, or the picture cannot be written.
  """
  names = [f"{split}_loss" for split in _SPLITS]
  rows = read_rows(workdir / "metrics.csv", *names)
  if not rows:
    return
  panels = {"loss": f"loss in {measure}"}
  if all(f"{split}_accuracy" in rows[0] for split in _SPLITS):
    panels["accuracy"] = "accuracy"

  figure = figures.create(9, 3.5, workdir.name)
  steps = [int(row["step"]) for row in rows]
  for place, (name, label) in enumerate(panels.items(), 1):
    axes = figure.add_subplot(1, len(panels), place)
    for split in _SPLITS:
      values = [float(row[f"{split}_{name}"]) for row in rows]
      axes.plot(
        steps, values, label=split, marker="." if len(rows) < 40 else ""
      )
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.legend()
    figures.grid(axes)
  figures.save(figure, workdir / "history.png")


def metrics_row(
  position: Position,
  learning_rate: float,
  training: dict[str, float],
  validation: dict[str, float],
) -> dict[str, Any]:
  """Returns a row of metrics.csv."""
  return {
    "step": position.step,
    "epoch": position.epoch,
    "learning_rate": learning_rate,
    "gradient_norm": training.pop("gradient_norm"),
    **{f"train_{name}": value for name, value in training.items()},
    **{f"validation_{name}": value for name, value in validation.items()},
  }


def metrics_line(
  row: dict[str, Any], position: Position, loss_unit: str, unit: str
) -> str:
  """Returns the row as one line of text; `unit` is the noun for a target."""
  bits = row.get("validation_bits_per_symbol")
  accuracy = row.get("validation_accuracy")
  return (
    f"step {row['step']}  epoch {row['epoch']}"
    f"  train {row['train_loss']:.4f}"
    f"  validation {row['validation_loss']:.4f} {loss_unit}"
    + ("" if bits is None else f"  {bits:.3f} bits/{unit}")
    + ("" if accuracy is None else f"  accuracy {accuracy:.1%}")
    + ("  best" if position.best_step == position.step else "")
  )
