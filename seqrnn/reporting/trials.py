"""Section of a report on a hyperparameter search, from the files it wrote."""

import csv
import io
from pathlib import Path

from seqrnn.errors import UserError
from seqrnn.reporting import page
from seqrnn.reporting.page import Element, element, section
from seqrnn.runtime import files

_TRIALS = 15  # Rows of the table.
_LIMIT = 2**27  # Bytes of trials.csv.
_LEFT_OUT = {"seconds", "symbols", "evaluations", "error"}  # Columns.
_PICTURES = {
  "search-history": "The loss of each trial, and the lowest loss so far",
  "search-curves": "The validation loss of each trial by evaluation",
  "search-parameters": "The loss by the value of each searched field",
  "search-parallel": "Each trial as a line through the values of its fields,"
  " coloured by its loss",
  "search-importance": "The share of each field in the variance of the loss",
}


def search(workdir: Path) -> Element:
  """The best trials of a search, and its pictures.

  Raises:
    UserError: trials.csv is damaged.
  """
  path = workdir / "trials.csv"
  parts = _table(path) if path.exists() else []
  return section("Search", parts, page.pictures(workdir, _PICTURES))


def _table(path: Path) -> list[Element]:
  content = files.read(path, _LIMIT).decode("utf-8", "replace")
  try:
    head, *rows = list(csv.reader(io.StringIO(content))) or [["trial"]]
    loss = head.index("loss") if "loss" in head else 0
    rows = [row for row in rows if len(row) == len(head)]
    ranked = sorted(
      (row for row in rows if row[loss]), key=lambda row: float(row[loss])
    )
  except (csv.Error, ValueError) as error:
    raise UserError(
      f"{path}: must be as --mode=search writes it ({error}); search again"
    ) from None
  columns = [n for n, name in enumerate(head) if name not in _LEFT_OUT]
  return [
    element(
      "p",
      f"{len(rows)} trials, {len(ranked)} of them with a validation loss; the"
      f" best {min(len(ranked), _TRIALS)} by that loss:",
    ),
    page.table(
      [head[n] for n in columns],
      [[short(row[n]) for n in columns] for row in ranked[:_TRIALS]],
      "Trials of the search",
    ),
  ]


def short(value: str) -> str:
  """A number of a table with five digits; any other text unchanged."""
  try:
    return f"{float(value):.5g}"
  except ValueError:
    return value
