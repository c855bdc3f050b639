"""Section of a report on anomalies, from the files of a detection."""

import itertools
import math
from pathlib import Path
from typing import Any

from seqrnn.logs.detect import inputs
from seqrnn.logs.detect.tables import read_csv_table, summary_of
from seqrnn.reporting import page
from seqrnn.reporting.page import Mark, Section, section

_INCIDENTS = 20  # Rows of the table.
_SHOWN = 5  # Sessions with events in the report.
_AROUND = 8  # Events on each side of a flagged event.
_FIGURES = (
  "flagged",
  "auroc",
  "average_precision",
  "precision",
  "recall",
  "f1",
)
_LONGEST = 2000  # Events of a session in memory, more than the page has.


def _report(folder: Path) -> dict[str, Any]:
  """How many are flagged, on what basis and, with labels, metrics by score."""
  path = folder / "report.json"
  if not path.exists():
    return {"tile": None, "flagged": "", "basis": [], "figures": []}
  record = inputs.read_object(path)
  tile, flagged, examined = None, "", record["data"]["examined"]
  if "flagged" in examined:  # Of older versions it is not.
    total, counts = examined["sessions"], [*examined["flagged"].values()]
    tile = f"{sum(counts):,} of {total:,}", "sessions flagged"
    counts.insert(0, total - sum(counts))
    flagged = summary_of(counts, examined["flagged_for_their_length"])
  table = {name: dict(row) for name, row in record["figures"].items()}
  names = [n for n in _FIGURES if any(n in row for row in table.values())]
  rows = [
    [score, *(row.get(name) for name in names)] for score, row in table.items()
  ]
  return {
    "tile": tile,
    "flagged": flagged,
    "basis": record["basis"],
    "names": ["score", *(name.replace("_", " ") for name in names)],
    "figures": [] if names in ([], ["flagged"]) else rows,
  }


def _excerpt(rows: list[dict[str, str]], bits: list[float]) -> list[int]:
  """Indices of the events near flagged ones, or near the most surprising."""
  centres = [n for n, row in enumerate(rows) if row["flag"] == "1"]
  centres = centres or [max(range(len(bits)), key=bits.__getitem__)]
  near = {n for at in centres for n in range(at - _AROUND, at + _AROUND + 1)}
  return sorted(n for n in near if 0 <= n < len(rows))


def _context(folder: Path, names: list[str]) -> dict[str, Any] | None:
  """The flagged events of some sessions, and the events around them."""
  path = folder / "events.csv"
  if not path.exists():
    return None
  sessions: dict[str, list[dict[str, str]]] = {name: [] for name in names}
  for row in read_csv_table(path):
    events = sessions.get(row["session"])
    if events is not None and len(events) < _LONGEST:
      events.append(row)
  marks: list[Mark] = []
  kinds = set()
  for name, rows in sessions.items():
    if not rows or page.full(marks):
      continue
    marks.append(Mark(f"{name}\n", name))
    bits, before = [float(row["bits"]) for row in rows], -1
    for n in _excerpt(rows, bits):
      row, event = rows[n], rows[n]["event"]
      kinds.add(event)
      likely = [
        (row[f"event_{k}"], float(row[f"probability_{k}"]))
        for k in range(1, 6)
        if row.get(f"event_{k}")
      ]
      if n > before + 1:
        marks.append(Mark("\u2026 ", "skipped events"))
      # Lines of a log are below each other.
      end = "\n" if " " in event else " "
      marks.append(Mark(event + end, event, bits[n], likely))
      before = n
    marks.append(Mark("\n\n", "the end of the excerpt"))
  if not marks:
    return None
  words = "The examples of the first incidents, event by event"
  return page.coloured(marks, math.log2(len(kinds) + 2), words)


def _incidents(folder: Path) -> dict[str, Any]:
  """The flagged sessions, grouped by their surprising events."""
  path = folder / "incidents.csv"
  if not path.exists():
    return {"incidents": None, "more": "", "reading": None}
  rows = list(itertools.islice(read_csv_table(path), _INCIDENTS + 1))
  return {
    "incidents": list(map(_incident, rows[:_INCIDENTS])),
    "more": path.name if len(rows) > _INCIDENTS else "",
    "reading": _context(folder, [row["example"] for row in rows[:_SHOWN]]),
  }


def _incident(row: dict[str, str]) -> dict[str, Any]:
  """An incident: its alarm, its event with those around it, its example."""
  alarm = [f"{row['sessions']} session" + "s" * (row["sessions"] != "1")]
  alarm.append(row["reason"])
  if row["p_value"]:  # Short sessions have none.
    alarm.append(f"p {float(row['p_value']):.2g}")
  example = [row["example"]]
  for name, form in (("file", "{}"), ("line", "line {}"), ("timestamp", "{}")):
    if row.get(name):
      example.append(form.format(row[name]))
  before, after = (
    list(filter(None, row[name].split(" | "))) for name in ("before", "after")
  )
  return {
    "severity": row["severity"],
    "alarm": alarm,
    "event": row["event"],
    "before": before,
    "after": after,
    "example": example,
  }


def sections(workdir: Path) -> list[Section]:
  """The results of `--mode=detect` in a workdir; [] if it has none.

  Raises:
    UserError: a file of the results is damaged.
  """
  folder = workdir / "detect"
  if not folder.is_dir():
    return []
  with inputs.reading(folder):
    parts = {**_incidents(folder), **_report(folder)}
  return [section("Anomalies", "alarms", **parts)]
