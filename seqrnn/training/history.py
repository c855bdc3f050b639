"""What a run writes as it trains: rows of metrics.csv, and their picture."""

import csv
import math
import os
from pathlib import Path
from typing import Any

from seqrnn.errors import UserError
from seqrnn.runtime import files, manifest

TABLES = ("metrics.csv", "timing.csv")
_SPLITS = ("train", "validation")
_LIMIT = 2**27  # Bytes of a table: a million evaluations.


def add_row(path: Path, row: dict[str, Any]):
  """Appends a row to a CSV file, and the names before the first one.

  Raises:
    UserError: it cannot be written, or its rows have other names.
  """
  row = {k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()}
  names = ",".join(row)
  with files.write_errors(path), path.open("a+", encoding="utf-8") as file:
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


def read_rows(path: Path, *columns: str) -> list[dict[str, str]]:
  """The rows of a table by name, each number as it was written.

  A row that a killed run could not end is left out.

  Args:
    path: of the table; there may be none.
    *columns: that it must have, where it has rows.

  Raises:
    UserError: it is no table of numbers, or has no such column.
    MachineError: it is not what was written.
  """
  if not path.exists():
    return []
  manifest.verify(path)
  names, *rows = _parse(path, files.read(path, _LIMIT))
  for name in columns:
    if rows and name not in names:
      raise UserError(f"{path}: has no column {name}; move it away")
  return [dict(zip(names, row, strict=True)) for row in rows]


def _parse(path: Path, content: bytes) -> list[list[str]]:
  """The names and the rows that a table has, each of them ended.

  Raises:
    UserError: it is no table of numbers.
  """
  # Nothing in it is ever quoted.
  lines = content.decode("utf-8", "replace").split("\n")[:-1]
  names, *rows = [line.split(",") for line in lines] or [[]]
  if lines and names[:1] != ["step"]:
    raise UserError(f"{path}: its first column must be step; move it away")
  if not all(name.isprintable() and '"' not in name for name in names):
    raise UserError(f"{path}: row 1 must be names of columns; move it away")
  for number, row in enumerate(rows, 2):
    if len(row) != len(names) or not _numbers(row):
      raise UserError(
        f"{path}: row {number} must be {len(names)} numbers, the step first;"
        " move it away"
      )
  return [names, *rows]


def _numbers(row: list[str]) -> bool:
  """Whether a row is numbers, the first one whole."""
  try:
    int(row[0])
    return all(math.isfinite(float(value)) for value in row)
  except ValueError:
    return False


def cut_tables(workdir: Path, step: int):
  """Drops the rows after `step`: what a killed run wrote and did not save.

  Raises:
    UserError: as `read_rows`.
    MachineError: likewise, or they cannot be written.
  """
  found = {name: _content(workdir / name) for name in TABLES}
  kept = {
    name: _first(workdir / name, content, step)
    for name, content in found.items()
  }
  # First what they begin with, which holds before the cut and after it.
  manifest.record_rows(workdir, kept)
  for name, content in kept.items():
    if content != found[name]:
      with files.atomic_write(workdir / name, "wb") as file:
        file.write(content)


def _content(path: Path) -> bytes:
  """That of a table; nothing where there is none."""
  if not path.exists():
    return b""
  manifest.verify(path)
  return files.read(path, _LIMIT)


def _first(path: Path, content: bytes, step: int) -> bytes:
  """What a table has of rows up to a step; without any, nothing."""
  rows = _parse(path, content)[1:]
  count = sum(int(row[0]) <= step for row in rows)
  lines = content.split(b"\n")
  return b"".join(line + b"\n" for line in lines[: count + 1]) if count else b""


def record_tables(workdir: Path):
  """Records the rows that were written, before a checkpoint that knows them.

  Raises:
    UserError: as `manifest.record_rows`.
  """
  tables = {name: _content(workdir / name) for name in TABLES}
  manifest.record_rows(workdir, tables)


def draw_history(workdir: Path, measure: str):
  """Draws history.png from metrics.csv; nothing where it has no row yet.

  Loss of training and validation by step, and accuracy where a task has it.

  Args:
    workdir: of the run.
    measure: what the loss is in, as "nats a symbol".

  Raises:
    UserError: as `read_rows`, or it cannot be written.
  """
  names = [f"{split}_loss" for split in _SPLITS]
  rows = read_rows(workdir / "metrics.csv", *names)
  if not rows:
    return
  panels = {"loss": f"loss in {measure}"}
  if all(f"{split}_accuracy" in rows[0] for split in _SPLITS):
    panels["accuracy"] = "accuracy"

  # It takes a second to import, and no screen is needed.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 3.5), layout="constrained")
  FigureCanvasAgg(figure)
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
    axes.grid(alpha=0.3)
  figure.suptitle(workdir.name, parse_math=False)
  with files.atomic_write(workdir / "history.png", "wb") as file:
    figure.savefig(file, format="png", dpi=110)
