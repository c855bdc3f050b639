"""Tables and lines of a detection: sessions, incidents, events, metrics."""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from seqrnn.config.read import Config
from seqrnn.data.logs.sessions import UNLABELLED
from seqrnn.data.logs.values import MEASURES
from seqrnn.data.read import stored
from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.errors import counted, escaped
from seqrnn.logs.detect.conformal import beta_interval
from seqrnn.logs.detect.detector import Detector
from seqrnn.logs.detect.findings import (
  SEVERITIES,
  Explanation,
  Findings,
  Incidents,
  Place,
)
from seqrnn.logs.detect.normal import ANOMALOUS, NORMAL, NormalScores
from seqrnn.logs.detect.scores import BASELINES, COMBINED, NETWORK
from seqrnn.runtime import files
from seqrnn.runtime.console import print_titled
from seqrnn.scoring.predictions import console_text, quoted
from seqrnn.scoring.scorer import UNRANKED

_LIKELIER = 3  # The likelier events that are written with each event.
_INCIDENTS, _SESSIONS = 10, 5  # That are printed; the tables have all.
# Columns of text, whatever it looks like; `event_1` and so on are text, too.
_TEXT = {
  *("session", "severity", "reason", "score", "file", "timestamp", "event"),
  *("example", "before", "after"),
}
# Metrics and their columns; oracle F1 is the best F1 of any threshold.
_METRICS = {"precision": "P", "recall": "R", "f1": "F1"}
_METRICS |= {"false_alarm_rate": "FPR", "auroc": "AUROC"}
_METRICS |= {"average_precision": "AP", "oracle_f1": "oracle F1"}

TableCell = str | float | None  # Of a table; None is an empty cell.
TableRows = Iterable[Mapping[str, TableCell]]


def is_text(name: str) -> bool:
  """Whether a column has text, although it may look like numbers."""
  return name.rstrip("_0123456789") in _TEXT


def read_csv_table(path: Path) -> Iterator[dict[str, str]]:
  """Yields the rows of a table, which may be larger than memory.

  Raises:
    UserError: the table is damaged.
  """
  with (
    stored.reading(path),
    path.open(encoding="utf-8", errors="surrogateescape", newline="") as file,
  ):
    lines = files.read_csv(file)
    _, names = next(lines, (0, []))
    yield from (
      dict(itertools.zip_longest(names, row)) for _, row in lines if row
    )


def write_csv_table(path: Path, rows: TableRows, columns: Sequence[str] = ()):
  """Writes a table; None, and what a row lacks, is an empty cell.

  Args:
    path: of the file.
    rows: of the table.
    columns: that are written; empty: those of the first row.
  """
  rows = iter(rows)
  first = next(rows, {})
  columns = columns or [*first]
  every = itertools.chain([first] if first else [], rows)
  cells = ([row.get(name) for name in columns] for row in every)
  files.write_csv(path, itertools.chain([columns], cells))


def _cells(values: np.ndarray) -> list[float | None]:
  """Numbers for a table, with the digits of a float32; NaN is an empty cell."""
  return [
    None if math.isnan(value) else float(f"{value:.6g}")
    for value in values.tolist()
  ]


def write_tables(
  findings: Findings, grouped: Incidents, detector: Detector, folder: Path
):
  """Writes sessions.csv, incidents.csv and events.csv."""
  write_csv_table(folder / "sessions.csv", session_rows(findings, grouped))
  write_incidents(findings, grouped, folder)
  write_events(findings, detector, folder)


def session_rows(
  findings: Findings, grouped: Incidents = ()
) -> Iterator[dict[str, TableCell]]:
  """The rows of sessions.csv, one per session of the input.

  Line and timestamp are those of the session's most surprising event. The
  columns severity, reason and score, of alarms alone, are as in `Decision`, the
  reason in words; incident is a row of incidents.csv, from 1. In a log, 1 in
  the column open or cut is a session that its end or its begin cuts.
  """
  sessions, distinct = findings.sessions, findings.distinct
  decision, which = findings.decision, range(len(findings.decision.p))
  incident = {d: n for n, one in enumerate(grouped, 1) for d in one.members}
  columns: dict[str, Sequence[TableCell]] = {
    "events": findings.scored.lengths.tolist()
  }
  if sessions.ends is not None:
    begins, ends = (whole[distinct.first] for whole in sessions.whole)
    columns |= {"open": (1 - ends).tolist(), "cut": (1 - begins).tolist()}
  columns |= {
    "p_value": _cells(decision.p),
    "flag": decision.flags.astype(int).tolist(),
    "severity": [SEVERITIES[n] or None for n in decision.severity.tolist()],
    "incident": [incident.get(d) for d in which],
    "reason": decision.reasons,
    "score": [name or None for name in decision.reasons],
    "models": decision.models.tolist(),
    "unknown_events": decision.unknown_events.tolist(),
    "flagged_events": decision.flagged_events.tolist(),
    "first_alarm": [findings.first_alarm(d) for d in which],
  }
  scores = {name: _cells(values) for name, values in decision.scores.items()}
  for j, d in enumerate(distinct.which.tolist()):
    row: dict[str, TableCell] = {"session": sessions.names[j]}
    row |= {name: column[d] for name, column in columns.items()}
    row["reason"] = findings.reason(j) or None  # Equal sessions may differ.
    row |= findings.place(j, findings.position(j))
    row |= {name: column[d] for name, column in scores.items()}
    if sessions.labels is not None:
      label = int(sessions.labels[j])
      row["label"] = None if label == UNLABELLED else label
    yield row


class Example(NamedTuple):
  """The first of some sessions: its alarm, and its worst event in place.

  Attributes:
    session: its name.
    count: the number of sessions.
    severity, score, p_value: as in sessions.csv.
    bits: the highest surprisal.
    why: it is flagged.
    place: of the event that decides.
    marks: how its log cuts it, in words.
  """

  session: str
  count: int
  severity: str
  score: str
  p_value: float | None
  bits: float
  why: Explanation
  place: Place
  marks: list[str]


def example_of(findings: Findings, members: list[int]) -> Example:
  """The example of some distinct sessions."""
  decision, d = findings.decision, members[0]
  j = int(findings.distinct.first[d])
  why, (begins, ends) = findings.explain(j), findings.sessions.whole
  nll = findings.scored.nll[findings.scored.events(d)]
  return Example(
    session=findings.sessions.names[j],
    count=int(findings.distinct.counts[members].sum()),
    severity=SEVERITIES[decision.severity[d]],
    score=decision.reasons[d],
    p_value=_cells(decision.p[[d]])[0],
    bits=float(nll.max(initial=0)) / math.log(2),
    why=why,
    place=findings.place(j, why.position),
    marks=["open"] * (not ends[j]) + ["cut at its begin"] * (not begins[j]),
  )


def incident_rows(
  findings: Findings, grouped: Incidents
) -> Iterator[Mapping[str, TableCell]]:
  """The rows of incidents.csv, with further columns."""
  for number, incident in enumerate(grouped, 1):
    one = example_of(findings, incident.members)
    row = one._asdict() | one.why._asdict() | one.place
    row |= {"incident": number, "sessions": one.count, "example": one.session}
    row["before"] = " | ".join(one.why.before)
    yield row | {"after": " | ".join(one.why.after)}


def write_incidents(findings: Findings, grouped: Incidents, folder: Path):
  """Writes incidents.csv: a row per incident."""
  columns = ["incident", "severity", "sessions", "p_value", "reason", "score"]
  columns += ["event", "example", *findings.places, "before", "after"]
  rows = incident_rows(findings, grouped)
  write_csv_table(folder / "incidents.csv", rows, columns)


def write_events(findings: Findings, detector: Detector, folder: Path):
  """Writes events.csv: the events of sessions that `detect.events` selects."""
  settings, scored = detector.config.detect, findings.scored
  selected = np.diff(scored.bounds) > 0
  if settings.events == "flagged":
    selected &= findings.decision.flags
  which = np.flatnonzero(selected).tolist()
  if settings.events == "none" or not which:
    return
  sessions = findings.sessions.take(findings.distinct.first[which])
  details = detector.score_events(sessions, _LIKELIER)
  document = {d: n for n, d in enumerate(which)}

  @functools.lru_cache(maxsize=2**12)  # Most sessions equal others.
  def columns(d: int) -> dict[str, Sequence[TableCell]]:
    return _event_columns(findings, d, details.document(document[d]))

  def rows() -> Iterator[dict[str, TableCell]]:
    for j, d in enumerate(findings.distinct.which.tolist()):
      if d not in document:
        continue
      first, targets = scored.offset(d), scored.targets[scored.events(d)]
      for n, target in enumerate(targets.tolist()):
        name = findings.sessions.names[j]
        row: dict[str, TableCell] = {"session": name, "position": first + n}
        row |= findings.place(j, first + n)
        row |= {name: column[n] for name, column in columns(d).items()}
        if target == UNKNOWN:  # Equal sessions may differ.
          event = findings.as_read(j, first + n)
          row["event"] = escaped(event or str(row["event"]))
        yield row

  write_csv_table(folder / "events.csv", rows())


def _event_columns(
  findings: Findings, d: int, details: dict[str, np.ndarray]
) -> dict[str, Sequence[TableCell]]:
  """The columns of events that are the same in all equal sessions."""
  scored, events = findings.scored, findings.scored.events(d)
  nll, targets = scored.nll[events], scored.targets[events]
  columns: dict[str, Sequence[TableCell]] = {
    "event": findings.names.names(targets),
    "nats": _cells(nll),
    "bits": _cells(nll / math.log(2)),
    "probability": _cells(np.exp(-nll)),
    "rank": [
      r if r != UNRANKED else None for r in scored.rank[events].tolist()
    ],
    "entropy": _cells(details["entropy"]),
    "unknown": (targets == UNKNOWN).astype(int).tolist(),
    "p_value": _cells(findings.decision.event_p[events]),
    "flag": findings.decision.event_flags[events].astype(int).tolist(),
  }
  alternatives = zip(details["ids"].T, details["chances"].T, strict=True)
  for k, (ids, chances) in enumerate(alternatives, 1):
    columns[f"event_{k}"] = findings.names.names(ids)
    columns[f"probability_{k}"] = _cells(chances)
  return columns


def calibration_lines(normal: NormalScores, settings: Config) -> list[str]:
  """The sessions left out of the calibration, the scores, and the rates."""
  selection, lines = normal.selection, []
  total = int(selection.sessions.counts.sum())
  normals, anomalies = map(selection.answered, (NORMAL, ANOMALOUS))
  if normals or anomalies:
    lines.append(
      f"calibration: of {total:,} sessions, {anomalies:,} are left out, because"
      f" answers call them anomalous, and {normals:,} stay as normal"
    )
  if cleaned := selection.cleaned:
    lines.append(
      f"calibration: {cleaned:,} of {total:,} sessions ({cleaned / total:.1%})"
      " are left out, because their scores are far above the others;"
      " detect.contamination=0 keeps them"
    )
  deciding = {"the networks": NETWORK, "baselines": BASELINES}
  deciding["values and times"] = MEASURES
  words = [
    f"{one} ({', '.join(names)})"
    for one, known in deciding.items()
    if (names := [name for name in normal.names if name in known])
  ]
  lines.append(f"combined score: of {', '.join(words)}")
  rate, calibration, item = settings.rate, normal.scores[COMBINED], "session"
  if settings.rule == "events":
    calibration, item = normal.events, "event"
  line = (
    f"detect.rate={rate:g}: with {calibration.n:,} normal {item}s no p-value is"
    f" below {calibration.resolution:.2g}"
  )
  if rate < calibration.resolution:
    line += f", so this rate flags no {item}"
  elif item == "session":  # Events of one session are not independent.
    if len(calibration.groups) > 1:
      rates = (
        f"at most {2 * rate:g} is guaranteed, about {rate:g} if the folds agree"
      )
    else:
      low, high = beta_interval(rate, calibration.n)
      rates = f"{low:.2g} to {high:.2g} (95% interval)"
    if cleaned:
      rates += f", and up to {cleaned / total:.2g} more if those left out recur"
    line += f"; true rate, if sessions are independent: {rates}"
  return [*lines, line]


def print_findings(console: Console, findings: Findings, grouped: Incidents):
  """Prints incidents, and the most anomalous sessions that have events."""
  if grouped:
    console.print("\n[bold]incidents: sessions that are flagged[/bold]\n")
  for incident in grouped[:_INCIDENTS]:
    example = example_of(findings, incident.members)
    count = counted(example.count, "session")
    print_example(console, example, [example.why.event], count)
  if (more := len(grouped) - _INCIDENTS) > 0:
    console.print(f"{more:,} further incidents: incidents.csv")
  console.print("\n[bold]most anomalous sessions[/bold]\n")
  for d in findings.most_anomalous()[:_SESSIONS].tolist():
    one = example_of(findings, [d])
    if findings.scored.bounds[d] < findings.scored.bounds[d + 1]:
      count = f"{one.count:,} equal sessions" * (one.count > 1)
      print_example(console, one, one.why.events, count)


def next_steps(
  findings: Findings, normal: NormalScores, rate: float
) -> list[str]:
  """Lines on unknown events, and on what to do if no session is flagged."""
  lines = unknown_events(findings)
  if findings.decision.flags.any() or not len(findings.decision.flags):
    return lines
  n, limit = normal.scores[COMBINED].n, normal.scores[COMBINED].resolution
  resolution = f"{n:,} normal sessions allow no p-value below {limit:.2g}; "
  budget = min(20, len(findings.sessions.names))
  return [
    *lines,
    f"nothing is flagged: {resolution * (rate < limit)}the least p-value is"
    f" {np.nanmin(findings.decision.p):.2g}, and detect.rate={rate:g}",
    "next: read the most anomalous sessions above; --mode=review asks whether"
    " those that set the threshold are normal; --config.detect.rule=budget"
    f" --config.detect.budget={budget} flags the {budget} most anomalous ones",
  ]


def unknown_events(findings: Findings) -> list[str]:
  """A line on the sessions with events that training does not have, if any."""
  sessions = findings.sessions
  events = np.flatnonzero(sessions.ids == UNKNOWN)
  if not len(events):
    return []
  if sessions.lines is not None and sessions.files is None:
    events = events[np.argsort(sessions.lines[events], kind="stable")]
  which = np.searchsorted(sessions.bounds, events, "right") - 1
  j, count = int(which[0]), len(np.unique(which))
  place = findings.place(j, int(events[0] - sessions.bounds[j]))
  where = in_place(sessions.names[j], place)
  return [
    f"unknown events: {count:,} of {counted(len(sessions.names), 'session')}"
    f" have events that training does not have, since {where}"
  ]


def in_place(session: str, place: Place, marks: Iterable[str] = ()) -> str:
  """The session and the place of an event, as far as it is known."""
  line, file = place.get("line"), place.get("file")
  at_line = [f"line {file}:{line}" if file else f"line {line}"]
  time = str(place.get("timestamp") or "")
  words = [session, *at_line * bool(file or line), time, *marks]
  return console_text(", ".join(filter(None, words)))


def print_example(
  console: Console, example: Example, events: Iterable[str], count: str
):
  """Prints an example.

  Each of the events has a line, which is cut at the width of the terminal; the
  worst event is in reverse. `count` is of its sessions.
  """
  p, severity = example.p_value, example.severity
  alarm = [
    f"[bold]{severity}[/bold]" if severity else "",
    example.why.reason,
    "" if p is None else f"p {p:.2g}",
    f"{example.bits:.1f} bits",
    count,
  ]
  console.print(", ".join(filter(None, alarm)))
  indented = functools.partial(Padding, pad=(0, 0, 0, 2), expand=False)
  place = in_place(example.session, example.place, example.marks)
  console.print(indented(place))
  for event in events:
    text = quoted(event)
    text = f"[reverse]{text}[/reverse]" if event == example.why.event else text
    console.print(indented(text), no_wrap=True, overflow="ellipsis")


def print_metrics(
  console: Console,
  table: Mapping[str, Mapping[str, float]],
  names: Sequence[str],
  rate: float,
):
  """Prints metrics, if there are labels.

  Args:
    console: to print on.
    table: as `evaluation.metrics_by_score` returns it.
    names: the scores that are combined; all scores are in report.json.
    rate: false-alarm rate of the thresholds.
  """
  if "f1" not in table[COMBINED]:
    return
  # With a blank on one side only, all columns fit in 80 characters.
  printed = Table("score", box=box.SIMPLE, padding=(0, 0, 0, 1))
  for name in ("flagged", *_METRICS.values()):
    printed.add_column(name, justify="right", no_wrap=True)
  for name, row in table.items():
    if name in (COMBINED, *names) or name.startswith("rule "):
      values = (f"{row[key]:.3f}" for key in _METRICS)
      printed.add_row(name, f"{row['flagged']:,}", *values)
  title = f"metrics with the threshold for a false-alarm rate of {rate:g}"
  print_titled(console, title, printed)
  console.print("The metrics of all scores are in report.json.")


def summary(findings: Findings) -> str:
  """How many sessions are flagged, of each severity."""
  short = findings.scored.short[findings.distinct.which]
  return summary_of(findings.severity_counts, int(short.sum()))


def summary_of(counts: list[int], short: int) -> str:
  """How many sessions are flagged.

  Args:
    counts: number of sessions of each severity.
    short: number of sessions that are flagged for their length alone.
  """
  total = sum(counts)
  text = f"{total - counts[0]:,} of {counted(total, 'session')} flagged"
  words = [
    f"{count:,} {name}"
    for name, count in zip(SEVERITIES, counts, strict=True)
    if name and count
  ]
  if short:
    words.append(f"{short:,} by detect.short=flag")
  return text + f" ({', '.join(words)})" * bool(words)
