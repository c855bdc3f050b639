"""Prints a detection: attainable rates, metrics, anomalous sessions."""

import math
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from seqrnn.config import Config
from seqrnn.detection import incidents
from seqrnn.detection.calibration import COMBINED, NormalScores
from seqrnn.detection.conformal import beta_interval
from seqrnn.detection.findings import Findings
from seqrnn.inference.predictions import console_text, quoted

# Metrics and their columns; oracle F1 is the best F1 of any threshold.
_COLUMNS = {
  "precision": "P",
  "recall": "R",
  "f1": "F1",
  "false_alarm_rate": "FPR",
  "auroc": "AUROC",
  "average_precision": "AP",
  "oracle_f1": "oracle F1",
}


def print_rates(console: Console, normal: NormalScores, settings: Config):
  """Prints the attainable rates; warns on stderr about rates below them."""
  requested = {
    "rate": (normal.scores[COMBINED], settings.rate, "session"),
    "event_rate": (normal.events, settings.event_rate, "event"),
  }
  for name, (calibration, rate, item) in requested.items():
    line = (
      f"detect.{name}={rate:g}: {calibration.n:,} normal {item}s resolve rates"
      f" from {calibration.resolution:.2g}"
    )
    if item == "session":  # Events of one session are not independent.
      low, high = beta_interval(rate, calibration.n)
      line += f"; 95% interval of the true rate: {low:.2g} to {high:.2g}"
    console.print(line)
    if rate < calibration.resolution:
      print(
        f"detect.{name}={rate:g}: below {calibration.resolution:.2g}, so this"
        f" rate flags no {item}; it needs more normal {item}s",
        file=sys.stderr,
      )


def print_calibration(console: Console, normal: NormalScores, settings: Config):
  """Prints what was left out of the calibration, and the chosen scores."""
  if normal.left_out:
    total = normal.left_out + normal.own.n
    console.print(
      f"calibration: {normal.left_out:,} of {total:,} sessions"
      f" ({normal.left_out / total:.1%}) are left out, because their highest"
      " surprisals form a second mode; detect.contamination=0 keeps them"
    )
  choice = normal.choice
  names, how = choice.combination
  words = " and ".join(names)
  if len(names) > 1:
    words += {"min": ", the least p-value", "fisher": ", their product"}[how]
  why = "set by detect.scores"
  if settings.scores is None:
    why = (
      f"average precision {choice.precision:.3f} on injected anomalies, the"
      f" standard combination {choice.standard:.3f}"
    )
  console.print(f"combined score: {words} ({why})")


def print_sessions(console: Console, found: Findings, most: int):
  """Prints the most anomalous sessions, each around its worst event.

  The worst event has the highest surprisal. Each event of a log is printed on
  its own line, with its bits, and cut at the width of the terminal.
  """
  console.print("\n[bold]most anomalous sessions[/bold]\n")
  per_line = found.names.unit == "log"
  for d in found.most_anomalous()[:most].tolist():
    start, stop = found.bounds[d : d + 2].tolist()
    if start == stop:
      continue
    worst = int(found.nll[start:stop].argmax())
    console.print(_headline(found, d, worst))
    console.print(
      Padding(_context(found, d, worst, per_line), (0, 0, 0, 2), expand=False),
      no_wrap=per_line,
      overflow="ellipsis",
    )


def _headline(found: Findings, d: int, worst: int) -> str:
  """A session's name, how it is cut, equal sessions, p and bits."""
  j, count = int(found.distinct.first[d]), int(found.distinct.counts[d])
  name = console_text(found.sessions.names[j])
  if found.flags[d]:
    name = f"[bold]{name}[/bold]"
  where = _where(found, j, int(found.offsets[d]) + worst)
  name += f", line {where}" if where else ""
  begins, ends = found.sessions.whole
  name += "" if ends[j] else ", open"
  name += "" if begins[j] else ", cut at its begin"
  name += f", {count:,} equal sessions" if count > 1 else ""
  reason = "flagged for its length" if found.short[d] else f"p {found.p[d]:.2g}"
  bits = found.nll[found.bounds[d] + worst] / math.log(2)
  return f"{name}: {reason}, {bits:.1f} bits"


def _where(found: Findings, j: int, place: int) -> str:
  """The line of an event, with its file if there are several; "": unknown."""
  line, file = found.line(j, place), found.file(j, place)
  if line is None:
    return ""
  return console_text(f"{file}:{line}" if file else f"{line}")


def _context(found: Findings, d: int, worst: int, per_line: bool) -> str:
  """The events around a session's worst event; flagged events in reverse."""
  start, stop = found.bounds[d : d + 2].tolist()
  before, after = (2, 1) if per_line else (6, 3)
  first, last = max(worst - before, 0), min(worst + after + 1, stop - start)
  names = found.events(int(found.distinct.first[d]), d, first, last)
  events = ["..."] * (first > 0)
  for n, name in enumerate(names, first):
    text = quoted(name)
    if found.event_flags[start + n] or n == worst:
      text = f"[reverse]{text}[/reverse]"
    bits = found.nll[start + n] / math.log(2)
    events.append(f"{bits:5.1f} {text}" if per_line else text)
  events += ["..."] * (last < stop - start)
  return ("\n" if per_line else " ").join(events)


def print_incidents(console: Console, found: Findings, most: int):
  """Prints the flagged sessions, grouped by their most surprising event."""
  grouped = incidents.group(found)
  if not grouped or not most:
    return
  printed = Table(
    title="flagged sessions by their most surprising event",
    box=box.SIMPLE,
    pad_edge=False,
  )
  for name in ("sessions", "p", "line"):  # The widths are of usual numbers.
    printed.add_column(name, justify="right", no_wrap=True, min_width=8)
  printed.add_column("example", no_wrap=True, min_width=12, max_width=24)
  printed.add_column("event", no_wrap=True, overflow="ellipsis")
  for one in grouped[:most]:
    printed.add_row(
      f"{one.count:,}",
      "" if math.isnan(one.p) else f"{one.p:.2g}",
      _where(found, one.session, one.position),
      console_text(found.sessions.names[one.session]),
      quoted(one.event),
    )
  console.print(printed)
  if len(grouped) > most:
    console.print(f"{len(grouped) - most:,} further kinds: incidents.csv")


def print_metrics(console: Console, metrics: dict[str, Any], rate: float):
  """Prints the metrics of each score.

  Args:
    console: to print on.
    metrics: as `evaluation.evaluate` returns them.
    rate: false-alarm rate of the thresholds.
  """
  table = metrics["figures"]
  keys = [key for key in _COLUMNS if key in table[COMBINED]]
  title = f"metrics with the threshold for a false-alarm rate of {rate:g}"
  printed = Table(title=title, box=box.SIMPLE, pad_edge=False)
  printed.add_column("score", no_wrap=True)
  for name in ("flagged", *(_COLUMNS[key] for key in keys)):
    printed.add_column(name, justify="right")
  for name, row in table.items():
    values = (f"{row[key]:.3f}" for key in keys)
    printed.add_row(name, f"{row['flagged']:,}", *values)
  console.print(printed)
  by_kind = metrics["average_precision_by_kind"]
  if by_kind is not None:
    title = "average precision by kind of anomaly"
    printed = Table("score", *by_kind[COMBINED], title=title, box=box.SIMPLE)
    for name, row in by_kind.items():
      printed.add_row(name, *(f"{value:.3f}" for value in row.values()))
    console.print(printed)
