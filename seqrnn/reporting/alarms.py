"""Section of a report on anomalies, from the files of a detection."""

import itertools
from pathlib import Path
from typing import Any

from seqrnn.logs.detect import inputs
from seqrnn.logs.detect.tables import read_csv_table, summary_of
from seqrnn.reporting.page import Section, section

_INCIDENTS = 20  # Rows of the table.
_FIGURES = (
  "flagged",
  "auroc",
  "average_precision",
  "precision",
  "recall",
  "f1",
)


def _report(folder: Path) -> dict[str, Any]:
  """How many are flagged, on what basis and, with labels, metrics by score."""
  path = folder / "report.json"
  if not path.exists():
    return {"tile": None, "flagged": "", "basis": [], "figures": []}
  record = inputs.read_object(path)
  examined = record["data"]["examined"]
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


def _incidents(folder: Path) -> dict[str, Any]:
  """The flagged sessions, grouped by their surprising events."""
  path = folder / "incidents.csv"
  if not path.exists():
    return {"incidents": None, "more": ""}
  rows = list(itertools.islice(read_csv_table(path), _INCIDENTS + 1))
  return {
    "incidents": list(map(_incident, rows[:_INCIDENTS])),
    "more": path.name if len(rows) > _INCIDENTS else "",
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
