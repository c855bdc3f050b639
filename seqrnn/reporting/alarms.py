"""Section of a report on anomalies, from the files of a detection."""

import itertools
from pathlib import Path
from typing import Any

from seqrnn.data.read import stored
from seqrnn.logs.detect.tables import read_csv_table, summary_of
from seqrnn.reporting import charts
from seqrnn.reporting.page import Section, Tile

_INCIDENTS = 20  # Rows of the table.
_CHANGES, _NAME = 3, 40  # Events of a chart, and letters of their names.
_FIGURES = "flagged", "auroc", "average_precision", "precision", "recall", "f1"


def _summary(record: dict[str, Any]) -> tuple[Tile, dict[str, Any]]:
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


def _incident(row: dict[str, str]) -> dict[str, str | list[str]]:
  """A row of the table of incidents; lists are lines of a cell.

  It has the alarm, its event with those around it, and its example.
  """
  alarm = [f"{row['sessions']} session" + "s" * (row["sessions"] != "1")]
  alarm.append(row["reason"])
  if row["p_value"]:  # A short session has no p-value.
    alarm.append(f"p {float(row['p_value']):.2g}")
  example = [row["example"]]
  for name, form in (("file", "{}"), ("line", "line {}"), ("timestamp", "{}")):
    if row.get(name):
      example.append(form.format(row[name]))
  cells = {"severity": row["severity"], "alarm": alarm, "example": example}
  for name in ("before", "after"):
    cells[name] = [*filter(None, row[name].split(" | "))]
  return cells | {"event": row["event"]}


def read_anomalies(workdir: Path) -> tuple[list[Tile], list[Section]]:
  """The results of `--mode=detect` in a workdir; nothing if it has none.

  Returns:
    a tile with the number of flagged sessions, and the section on anomalies.

  Raises:
    UserError: a file of the results is damaged.
  """
  folder = workdir / "detect"
  if not folder.is_dir():
    return [], []
  names = "flagged", "basis", "chart", "figures", "incidents", "more"
  data: dict[str, Any] = dict.fromkeys(names)
  tiles, table, report = [], folder / "incidents.csv", folder / "report.json"
  with stored.reading(folder):
    if table.exists():
      rows = list(itertools.islice(read_csv_table(table), _INCIDENTS + 1))
      data["incidents"] = list(map(_incident, rows[:_INCIDENTS]))
      data["more"] = table.name if len(rows) > _INCIDENTS else ""
    if report.exists():
      tile, facts = _summary(stored.read_object(report))
      data, tiles = data | facts, [tile]
  return tiles, [Section("Anomalies", "alarms", data)]
