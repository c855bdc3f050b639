"""metrics.csv and timing.csv, which a training appends to, and history.png."""

import math
import os
from pathlib import Path

from seqrnn.errors import UserError
from seqrnn.runtime import files, pictures

_LIMIT = 2**27  # Bytes of a table; a million evaluations fit.

MetricsRow = dict[str, float]  # Of metrics.csv or timing.csv, by the columns.


def add_row(path: Path, row: MetricsRow):
  """Appends a row to a CSV file; an empty file gets the header first.

  Raises:
    UserError: the file cannot be written, or has other columns.
  """
  texts = (f"{v:.7g}" if isinstance(v, float) else str(v) for v in row.values())
  names = ",".join(row)
  with files.write_errors(path), path.open("a+", encoding="utf-8") as file:
    file.seek(0)
    header = file.readline(1 << 16).removesuffix("\n")
    if header not in ("", names):
      raise UserError(
        f"{path}: its columns are {header}, must be {names}; move it away"
      )
    # No value is quoted, as all are numbers.
    file.write(f"{names}\n" * (not header))
    file.write(",".join(texts) + "\n")
    file.flush()
    os.fsync(file.fileno())  # On disk before the checkpoint that follows.


def read_rows(path: Path, *columns: str) -> list[dict[str, str]]:
  """Returns the rows of a table, each as a dict of column -> text.

  An incomplete last row, which a killed process may leave, is ignored.

  Args:
    path: the file; if it is missing, there are no rows.
    *columns: the columns that the table must have; step is the first of all.

  Raises:
    UserError: the file is no table of numbers, or lacks a column.
  """
  if not path.exists():
    return []
  content = files.read_bytes(path, _LIMIT).decode("utf-8", "replace")
  lines = content.split("\n")[:-1] or [",".join(("step", *columns))]
  try:
    names, *rows = [row for _, row in files.read_csv(lines)]
  except files.CsvError:
    names, rows = [], []
  if (
    names[:1] != ["step"]
    or not {*columns} <= {*names}
    or any(len(r) != len(names) or not _are_numbers(*r) for r in rows)
  ):
    wanted = ", ".join(["step", *columns])
    raise UserError(
      f"{path}: must have the columns {wanted}, with numbers; move it away"
    )
  return [dict(zip(names, row, strict=True)) for row in rows]


def _are_numbers(step: str, *values: str) -> bool:
  try:
    return int(step) >= 0 and all(math.isfinite(float(x)) for x in values)
  except ValueError:
    return False


def cut_tables(workdir: Path, step: int):
  """Removes the rows after `step`, which belong to no checkpoint.

  Raises:
    UserError: as `read_rows`.
    MachineError: a table cannot be written.
  """
  for path in (workdir / "metrics.csv", workdir / "timing.csv"):
    rows = [row for row in read_rows(path) if int(row["step"]) <= step]
    lines = [*rows[:1], *(row.values() for row in rows)]  # Names come first.
    content = "".join(f"{','.join(line)}\n" for line in lines)
    if path.exists() and path.read_bytes() != content.encode():
      files.write_csv(path, lines)


def draw_history(workdir: Path, measure: str):
  """Draws history.png from metrics.csv, if metrics.csv has a row.

  It plots the loss of both splits by step, and accuracy if the task has it.

  Args:
    workdir: the folder of the run.
    measure: the unit of the loss, such as "nats a symbol".

  Raises:
    UserError: as `read_rows`, or the picture cannot be written.
  """
  rows = read_rows(workdir / "metrics.csv", "train_loss", "validation_loss")
  if not rows:
    return
  panels = {"loss": f"loss in {measure}"}
  if "validation_accuracy" in rows[0]:
    panels["accuracy"] = "accuracy"
  figure = pictures.create(9, 3.5, workdir.name)
  steps = [int(row["step"]) for row in rows]
  marker = "." if len(rows) < 40 else ""
  for place, (name, label) in enumerate(panels.items(), 1):
    axes = figure.add_subplot(1, len(panels), place)
    for split in ("train", "validation"):
      if f"{split}_{name}" in rows[0]:
        values = [float(row[f"{split}_{name}"]) for row in rows]
        axes.plot(steps, values, label=split, marker=marker)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.legend()
    pictures.grid(axes)
  pictures.save(figure, workdir / "history.png")


def metrics_line(
  row: MetricsRow, loss_unit: str, unit: str, is_best: bool
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
    + "  best" * is_best
  )
