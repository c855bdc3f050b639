"""Section of a report on what detection found, from the files it wrote."""

import csv
import gzip
import heapq
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqrnn import files, fileset, manifest
from seqrnn.detection.findings import LOCK, NAME
from seqrnn.errors import UserError
from seqrnn.pages import page
from seqrnn.pages.page import Element, Mark, element, section

_SESSIONS = 12  # In the table of the oddest.
_SHOWN = 5  # Whose events are shown.
_AROUND = 8  # Events on each side of an odd one.
_FIGURES = (
  "flagged",
  "auroc",
  "average_precision",
  "precision",
  "recall",
  "f1",
)
_LIMIT = 2**24  # Bytes of report.json.

# What the pictures of a detection show, by their names.
_PICTURES = {
  "scores": "How high sessions score: a histogram, and the share of sessions"
  " above each score, with the threshold",
  "curves": "ROC and precision-recall curves, of labelled sessions",
  "timeline": "The surprisal of event after event, of sessions from all over"
  " and of the oddest, on a linear and on a logarithmic axis",
  "session": "The oddest session, event by event",
}


def rows(folder: Path, name: str) -> Iterator[dict[str, str]]:
  """The rows of a table that detection wrote in one of its forms.

  Raises:
    UserError: it is broken.
  """
  for form in ("csv", "jsonl", "csv.gz", "jsonl.gz"):
    path = folder / f"{name}.{form}"
    if not path.exists():
      continue
    opened = gzip.open if form.endswith(".gz") else open
    with opened(path, "rb") as raw:
      file = io.TextIOWrapper(raw, "utf-8", "backslashreplace", newline="")
      try:
        if form.startswith("csv"):
          yield from csv.DictReader(file)
        for line in file:
          if not isinstance(row := json.loads(line), dict):
            raise ValueError("a row is no object")
          yield row
      except (csv.Error, ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: {error}; detect anew") from None
    return


def _number(row: dict[str, str], name: str) -> float:
  try:
    return float(row[name])
  except (KeyError, TypeError, ValueError):
    raise UserError(
      f"detect: {name}={row.get(name)!r} of session {row.get('session')!r}:"
      " must be a number; detect anew"
    ) from None


def _figures(folder: Path) -> list[Element]:
  """What report.json says of the combined score and of the others."""
  path = folder / "report.json"
  if not path.exists():
    return []
  try:
    record = json.loads(files.read(path, _LIMIT))
    table = {name: dict(row) for name, row in record["figures"].items()}
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise UserError(f"{path}: {error!r}; detect anew") from None
  wanted = (
    "flagged",
    "auroc",
    "average_precision",
    "precision",
    "recall",
    "f1",
  )
  names = [n for n in wanted if any(n in row for row in table.values())]
  if not names:
    return []
  return [
    element("h3", "Scores"),
    page.table(
      ["score", *(name.replace("_", " ") for name in names)],
      [
        [score, *(_short(row.get(name)) for name in names)]
        for score, row in table.items()
      ],
      aria_label="Figures of each score",
    ),
  ]


def _short(value: Any) -> str:
  if isinstance(value, float):
    return f"{value:.3f}"
  return f"{value:,}" if isinstance(value, int) else ""


def _context(folder: Path, names: list[str]) -> Element | None:
  """The events of some sessions around the odd ones."""
  found: dict[str, list[dict[str, str]]] = {name: [] for name in names}
  for row in rows(folder, "events"):
    if (name := str(row.get("session"))) in found:
      found[name].append(row)
  marks: list[Mark] = []
  kinds = set()
  for name, events in found.items():
    bits = [_number(row, "bits") for row in events]
    odd = [n for n, row in enumerate(events) if str(row.get("flag")) == "1"]
    odd = odd or [n for n in range(len(bits)) if bits[n] == max(bits)]
    near = sorted(
      {
        n
        for place in odd
        for n in range(place - _AROUND, place + _AROUND + 1)
        if 0 <= n < len(bits)
      }
    )
    if not near or page.full(marks):
      continue
    marks.append(Mark(f"{name}\n", name))
    for before, n in zip([-1, *near], near, strict=False):
      row = events[n]
      event = str(row.get("event"))
      kinds.add(event)
      likely = [
        (str(row[f"event_{k}"]), _number(row, f"probability_{k}"))
        for k in range(1, 6)
        if row.get(f"event_{k}")
      ]
      if n > before + 1:
        marks.append(Mark("\u2026 ", "events that are left out"))
      marks.append(Mark(f"{event} ", event, bits[n], likely))
    marks.append(Mark("\n\n", "the end of what is shown"))
  if not marks:
    return None
  return page.marked(
    marks, math.log2(len(kinds) + 2), "The oddest sessions, event by event"
  )


def sections(workdir: Path) -> list[Element]:
  """What `--mode=detect` found in this workdir; nothing where it did not run.

  Raises:
    UserError: a file that it wrote is broken.
  """
  folder = workdir / "detect"
  if not folder.is_dir():
    return []
  fileset.settled(folder, NAME, workdir / LOCK)
  manifest.verify_all(folder)
  scored = (
    (_number(row, "combined"), -n, row)
    for n, row in enumerate(rows(folder, "sessions"))
  )
  oddest = [row for _, _, row in heapq.nlargest(_SESSIONS, scored)]
  parts: list[Any] = []
  if oddest:
    labelled = "label" in oddest[0]
    parts += [
      element("p", "The sessions that score highest, and the p-value of each."),
      page.table(
        ["session", "events", "p", "score", "alarm"] + ["label"] * labelled,
        [
          [
            row.get("session"),
            row.get("events"),
            f"{_number(row, 'p_value'):.2g}",
            f"{_number(row, 'combined'):.4g}",
            "yes" if str(row.get("flag")) == "1" else "no",
          ]
          + ([row.get("label")] if labelled else [])
          for row in oddest
        ],
        aria_label="The oddest sessions",
      ),
    ]
    names = [str(row.get("session")) for row in oddest[:_SHOWN]]
    context = _context(folder, names)
    if context is not None:
      parts += [element("h3", "In context"), context]
  parts += _figures(folder)
  parts += [
    page.picture(folder / f"{name}.png", description)
    for name, description in _PICTURES.items()
    if (folder / f"{name}.png").exists()
  ]
  return [section("What is odd", parts)]
