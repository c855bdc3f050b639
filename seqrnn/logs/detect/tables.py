"""Tables of a detection: a row per session, a row per event."""

import csv
import functools
import io
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.errors import escaped
from seqrnn.logs.detect import decision, records
from seqrnn.logs.detect.findings import Findings, Incident
from seqrnn.runtime import files
from seqrnn.scoring.scoring import UNRANKED, Scores

_LONGEST = 2**24  # Characters of a cell, at most.
# Columns of text, whatever it looks like; `event_1` and so on are text, too.
_TEXT = {
  *("session", "severity", "reason", "score", "file", "timestamp", "event"),
  *("example", "before", "after"),
}


def is_text(name: str) -> bool:
  """Whether a column has text, although it may look like numbers."""
  return name.rstrip("_0123456789") in _TEXT


def read_csv_table(path: Path) -> Iterator[dict[str, str]]:
  """Yields the rows of a table, which may be larger than memory.

  Raises:
    UserError: the table is damaged.
  """
  csv.field_size_limit(_LONGEST)
  with (
    records.reading(path),
    path.open(encoding="utf-8", errors="surrogateescape", newline="") as file,
  ):
    yield from csv.DictReader(file, strict=True)


def write_csv_table(path: Path, columns: list[str], rows: Iterable[list[Any]]):
  """Writes a table; None is an empty cell."""
  with files.atomic_write(path, "wb") as raw:
    text = io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    text.detach()


def _cells(values: np.ndarray) -> list[float | None]:
  """Numbers for a table, with the digits of a float32; NaN is an empty cell."""
  return [
    None if math.isnan(value) else float(f"{value:.6g}")
    for value in values.tolist()
  ]


def write_sessions(findings: Findings, grouped: list[Incident], folder: Path):
  """Writes sessions.csv: a row per session of the input.

  Line and timestamp are those of the session's most surprising event. The
  columns severity, reason and score, of alarms alone, are as in `decision`, the
  reason in words; incident is a row of incidents.csv, from 1. In a log, 1 in
  the column open or cut is a session that its end or its begin cuts.
  """
  sessions, worst = findings.sessions, findings.worst_events().tolist()
  distinct = verdict_columns(findings) | {"p_value": _cells(findings.p)}
  distinct["incident"] = _numbers(findings, grouped)
  scores = {name: _cells(values) for name, values in findings.scores.items()}
  places = places_of(findings)
  columns = ["session", *distinct, *places, *scores]
  columns += ["label"] * (sessions.labels is not None)
  rows = list(zip(*distinct.values(), strict=True))
  score_rows = list(zip(*scores.values(), strict=True))

  def lines() -> Iterator[list[Any]]:
    for j, d in enumerate(findings.distinct.which.tolist()):
      where = [value(j, worst[d]) for value in places.values()]
      row = [sessions.names[j], *rows[d], *where, *score_rows[d]]
      if sessions.labels is not None:
        known = sessions.labelled is None or sessions.labelled[j]
        row.append(int(sessions.labels[j]) if known else None)
      yield row

  write_csv_table(folder / "sessions.csv", columns, lines())


def verdict_columns(findings: Findings) -> dict[str, list[Any]]:
  """The columns of sessions.csv that are the same for equal sessions.

  The values are those of the distinct sessions. The incidents are not known
  yet.
  """
  sessions = findings.sessions
  first = findings.distinct.first
  return {
    "events": np.diff(sessions.bounds)[first].tolist(),
    **{
      name: (1 - whole[first]).tolist()
      for name, whole in (("open", sessions.ends), ("cut", sessions.begins))
      if whole is not None
    },
    "p_value": findings.p.tolist(),
    "flag": findings.flags.astype(int).tolist(),
    "severity": [decision.NAMES[n] or None for n in findings.severity.tolist()],
    "incident": [None] * len(findings.p),
    "reason": [decision.WORDS.get(name) for name in findings.reasons],
    "score": [name or None for name in findings.reasons],
    "models": findings.models.tolist(),
    "unknown_events": findings.unknown_events.tolist(),
    "flagged_events": findings.flagged_events.tolist(),
    "first_alarm": [
      None if n < 0 else n for n in findings.first_alarms().tolist()
    ],
  }


def _numbers(findings: Findings, grouped: list[Incident]) -> list[int | None]:
  """The number of the incident of each distinct session, from 1."""
  numbers: list[int | None] = [None] * len(findings.p)
  for number, one in enumerate(grouped, 1):
    for d in one.members:
      numbers[d] = number
  return numbers


def write_incidents(findings: Findings, grouped: list[Incident], folder: Path):
  """Writes incidents.csv: a row per incident."""
  columns, rows = incident_rows(findings, grouped)
  write_csv_table(folder / "incidents.csv", columns, rows)


def incident_rows(
  findings: Findings, grouped: list[Incident]
) -> tuple[list[str], list[list[Any]]]:
  """The columns and the rows of incidents.csv."""
  places = places_of(findings)
  columns = ["incident", "severity", "sessions", "p_value", "reason", "score"]
  columns += ["event", "example", *places, "before", "after"]
  rows = []
  for number, one in enumerate(grouped, 1):
    j = one.session
    where = [value(j, one.position) for value in places.values()]
    [p] = _cells(np.array([one.p]))
    example = findings.sessions.names[j]
    context = [" | ".join(names) for names in (one.before, one.after)]
    name = decision.NAMES[one.severity]
    reason = decision.WORDS[one.reason]
    row = [number, name, one.count, p, reason, one.reason, one.event]
    rows.append([*row, example, *where, *context])
  return columns, rows


def places_of(findings: Findings) -> dict[str, Callable[[int, int], Any]]:
  """The columns of the place of an event, each as a function of j, place."""
  places: dict[str, Callable[[int, int], Any]] = {}
  if findings.sessions.files is not None:
    places["file"] = findings.file
  if findings.sessions.lines is not None:
    places["line"] = findings.line
  if findings.sessions.timestamps is not None:
    places["timestamp"] = findings.timestamp
  return places


def write_events(
  findings: Findings,
  which: np.ndarray,
  details: Scores,
  folder: Path,
  settings: Config,
):
  """Writes events.csv: a row per event.

  Args:
    findings: all findings.
    which: the distinct sessions whose events are written, at least one.
    details: entropy and likelier events of these sessions.
    folder: of the table.
    settings: of `config.detect`.
  """
  sessions = findings.sessions
  document = {d: n for n, d in enumerate(which.tolist())}

  @functools.lru_cache(maxsize=2**12)  # Most sessions equal others.
  def columns(d: int) -> dict[str, list[Any]]:
    return _event_columns(
      findings, d, details.document(document[d]), settings.top_k
    )

  places = places_of(findings)

  def rows() -> Iterator[list[Any]]:
    for j, d in enumerate(findings.distinct.which.tolist()):
      if d not in document:
        continue
      first = int(findings.offsets[d])
      targets = findings.targets[slice(*findings.bounds[d : d + 2])].tolist()
      events = zip(*columns(d).values(), strict=True)
      for place, (event, *row) in enumerate(events, first):
        where = [value(j, place) for value in places.values()]
        if targets[place - first] == UNKNOWN:  # Equal sessions may differ here.
          event = escaped(findings.as_read(j, place) or event)
        yield [sessions.names[j], place, *where, event, *row]

  header = ["session", "position", *places, *columns(int(which[0]))]
  write_csv_table(folder / "events.csv", header, rows())


def _event_columns(
  findings: Findings, d: int, details: dict[str, np.ndarray], top_k: int
) -> dict[str, list[Any]]:
  """The columns of events that are the same in all equal sessions."""
  part = slice(*findings.bounds[d : d + 2])
  nll, targets = findings.nll[part], findings.targets[part]
  probability = np.exp(-nll)
  in_top_k = findings.rank[part] <= top_k
  columns = {
    "event": findings.names.names(targets),
    "nats": _cells(nll),
    "bits": _cells(nll / math.log(2)),
    "probability": _cells(probability),
    "rank": [
      r if r != UNRANKED else None for r in findings.rank[part].tolist()
    ],
    "in_top_k": in_top_k.astype(int).tolist(),
    "lifted_probability": _cells(np.where(in_top_k, 1.0, probability)),
    "entropy": _cells(details["entropy"]),
    "unknown": (targets == UNKNOWN).astype(int).tolist(),
    "p_value": _cells(findings.event_p[part]),
    "flag": findings.event_flags[part].astype(int).tolist(),
  }
  if "ids" in details:
    alternatives = zip(details["ids"].T, details["chances"].T, strict=True)
    for k, (ids, chances) in enumerate(alternatives, 1):
      columns[f"event_{k}"] = findings.names.names(ids)
      columns[f"probability_{k}"] = _cells(chances)
  return columns
