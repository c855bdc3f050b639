"""Section of a report on anomalies, from the files of a detection."""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

from seqrnn.data.read import stored
from seqrnn.logs.detect.tables import read_csv_table, summary_of
from seqrnn.reporting import charts
from seqrnn.reporting.page import Section

_INCIDENTS = 20  # Rows of the table.
_CHANGES, _NAME = 3, 40  # Events of a chart, and letters of their names.
_FIGURES = (
  "flagged",
  "auroc",
  "average_precision",
  "precision",
  "recall",
  "f1",
)


class Anomalies(NamedTuple):
  """What a report shows of a detection.

  Attributes:
    tiles: the number of flagged sessions.
    sections: the section on anomalies.
  """

  tiles: list[tuple[str, str]] = []
  sections: list[Section] = []


class IncidentRow(NamedTuple):
  """A row of the table of incidents; lists are lines of a cell."""

  severity: str
  alarm: list[str]
  event: str
  before: list[str]
  after: list[str]
  example: list[str]


def _summary(record: dict[str, Any]) -> tuple[tuple[str, str], dict[str, Any]]:
  """The tile, and how many are flagged, why and, with labels, the metrics.

  Args:
    record: of report.json.
  """
  examined = record["data"]["examined"]
  total, counts = examined["sessions"], [*examined["flagged"].values()]
  tile = f"{sum(counts):,} of {total:,}", "sessions flagged"
  counts.insert(0, total - sum(counts))
  flagged = summary_of(counts, examined["flagged_for_their_length"])
  table = {name: dict(row) for name, row in record["figures"].items()}
  names = [n for n in _FIGURES if any(n in row for row in table.values())]
  rows = [[score, *map(row.get, names)] for score, row in table.items()]
  return tile, {
    "flagged": flagged,
    "basis": record["basis"],
    "chart": _changes(record.get("changes", [])),
    "names": ["score", *(name.replace("_", " ") for name in names)],
    "figures": [] if names in ([], ["flagged"]) else rows,
  }


def _changes(found: list[dict[str, Any]]) -> charts.Chart | None:
  """The share of the events that change over the training period."""
  if not found:
    return None
  blocks = len(found[0]["shares"])
  middles = [(b + 0.5) / blocks for b in range(blocks)]
  series = {
    one["event"][:_NAME]: (middles, one["shares"]) for one in found[:_CHANGES]
  }
  title, y = "Events that change during training", "share of sessions"
  return charts.lines(
    title, series, "part of the training period", y, zero=True
  )


def _incident(row: dict[str, str]) -> IncidentRow:
  """An incident: its alarm, its event with those around it, its example."""
  alarm = [f"{row['sessions']} session" + "s" * (row["sessions"] != "1")]
  alarm.append(row["reason"])
  if row["p_value"]:  # A short session has no p-value.
    alarm.append(f"p {float(row['p_value']):.2g}")
  example = [row["example"]]
  for name, form in (("file", "{}"), ("line", "line {}"), ("timestamp", "{}")):
    if row.get(name):
      example.append(form.format(row[name]))
  before, after = (
    list(filter(None, row[name].split(" | "))) for name in ("before", "after")
  )
  return IncidentRow(
    row["severity"], alarm, row["event"], before, after, example
  )


def read_anomalies(workdir: Path) -> Anomalies:
  """The results of `--mode=detect` in a workdir; nothing if it has none.

  Raises:
    UserError: a file of the results is damaged.
  """
  folder = workdir / "detect"
  if not folder.is_dir():
    return Anomalies()
  data = {
    "chart": None,
    "flagged": "",
    "basis": [],
    "figures": [],
    "incidents": None,
  }
  tiles, table, report = [], folder / "incidents.csv", folder / "report.json"
  data["more"] = ""
  with stored.reading(folder):
    if table.exists():
      rows = list(itertools.islice(read_csv_table(table), _INCIDENTS + 1))
      data["incidents"] = list(map(_incident, rows[:_INCIDENTS]))
      data["more"] = table.name if len(rows) > _INCIDENTS else ""
    if report.exists():
      tile, facts = _summary(stored.read_object(report))
      data, tiles = data | facts, [tile]
  return Anomalies(tiles, [Section("Anomalies", "alarms", data)])
