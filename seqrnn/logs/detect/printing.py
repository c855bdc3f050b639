"""Prints a detection: attainable rates, metrics, anomalous sessions."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from seqrnn.config.read import Config
from seqrnn.errors import counted
from seqrnn.logs.detect import decision
from seqrnn.logs.detect.calibration import COMBINED, NormalScores
from seqrnn.logs.detect.conformal import beta_interval, event_rate
from seqrnn.logs.detect.findings import Findings, Incident
from seqrnn.logs.detect.selection import ANOMALOUS, NORMAL
from seqrnn.runtime.console import print_titled
from seqrnn.scoring.predictions import console_text, quoted

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


_INCIDENTS = 10  # More are in incidents.csv.


def print_rates(console: Console, normal: NormalScores, settings: Config):
  """Prints the attainable rates; warns on stderr about rates below them."""
  requested = {
    "rate": (normal.scores[COMBINED], settings.rate, "session"),
    "event_rate": (normal.events, event_rate(settings), "event"),
  }
  for name, (calibration, rate, item) in requested.items():
    line = (
      f"detect.{name}={rate:g}: {calibration.n:,} normal {item}s resolve rates"
      f" from {calibration.resolution:.2g}"
    )
    attained = rate >= calibration.resolution
    if (
      item == "session" and attained
    ):  # Events of one session are not independent.
      low, high = beta_interval(rate, calibration.n)
      line += f"; 95% interval of the true rate: {low:.2g} to {high:.2g}"
    console.print(line)
    if not attained:
      print(
        f"detect.{name}={rate:g}: below {calibration.resolution:.2g}, so this"
        f" rate flags no {item}; it needs more normal {item}s",
        file=sys.stderr,
      )


def print_calibration(console: Console, normal: NormalScores, settings: Config):
  """Prints the sessions left out of the calibration, and the chosen scores."""
  selection = normal.selection
  total = int(selection.counts.sum())
  normals, anomalies = map(selection.answered, (NORMAL, ANOMALOUS))
  if normals or anomalies:
    console.print(
      f"calibration: of {total:,} sessions, {anomalies:,} are left out, because"
      f" answers call them anomalous, and {normals:,} stay as normal"
    )
  if cleaned := selection.cleaned:
    console.print(
      f"calibration: {cleaned:,} of {total:,} sessions ({cleaned / total:.1%})"
      " are left out, because their highest surprisals form a second mode;"
      " detect.contamination=0 keeps them"
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
      f" standard combination {choice.standard:.3f}; the other half of the"
      " sessions calibrates"
      if choice.replaced
      else "the standard combination; on injected anomalies none is clearly"
      " better"
    )
  console.print(f"combined score: {words} ({why})")


def print_sessions(console: Console, findings: Findings, most: int = 5):
  """Prints the most anomalous sessions that have events, each with its context.

  Each event of a log is printed on its own line, with its bits.
  """
  console.print("\n[bold]most anomalous sessions[/bold]\n")
  for d in findings.most_anomalous()[:most].tolist():
    start, stop = findings.bounds[d : d + 2].tolist()
    if start == stop:
      continue
    worst = int(findings.nll[start:stop].argmax())
    console.print(_headline(findings, d, worst))
    _print_below(console, *_context(findings, d, worst))


def print_question(console: Console, row: dict[str, Any]):
  """Prints a row of review.csv: a session, or a kind of alarms."""
  line = f"line {row['line']}" if "line" in row else ""
  place = [row.get("file"), line, row.get("timestamp")]
  name = ", ".join(str(part) for part in (row["session"], *place) if part)
  if row["kind"]:
    facts = f"{counted(row['count'], 'alarm')}, {row['severity']}"
  else:
    facts = f"{counted(row['count'], 'session')}, p {row['p_value']:.2g}"
  console.print(f"[bold]{console_text(name)}[/bold]: {facts}")
  for event in row["context"].split(" | "):
    text = quoted(event)
    _print_below(
      console, f"[reverse]{text}[/reverse]" if event == row["event"] else text
    )


def _print_below(console: Console, text: str, wraps: bool = False):
  """Prints indented text, whose lines are cut at the terminal's width."""
  console.print(
    Padding(text, (0, 0, 0, 2), expand=False),
    no_wrap=not wraps,
    overflow="ellipsis",
  )


def _headline(findings: Findings, d: int, worst: int) -> str:
  """A session's name, how it is cut, equal sessions, p and bits."""
  sessions, distinct = findings.sessions, findings.distinct
  j, count = int(distinct.first[d]), int(distinct.counts[d])
  name = console_text(sessions.names[j])
  if findings.flags[d]:
    name = f"[bold]{name}[/bold]"
  last = int(np.diff(sessions.bounds[j : j + 2])[0]) - 1
  # Where the end is the worst event, the line is that of the last event.
  where = _where(findings, j, min(int(findings.offsets[d]) + worst, last))
  begins, ends = sessions.whole
  parts = [
    name,
    where,
    "" if ends[j] else "open",
    "" if begins[j] else "cut at its begin",
    f"{count:,} equal sessions" if count > 1 else "",
  ]
  bits = findings.nll[findings.bounds[d] + worst] / math.log(2)
  return (
    f"{', '.join(filter(None, parts))}: {_alarm(findings, d)}, {bits:.1f} bits"
  )


def _where(findings: Findings, j: int, position: int) -> str:
  """The line of an event, with its file if there are several; "": unknown."""
  line, file = findings.line(j, position), findings.file(j, position)
  if line is None:
    return ""
  return "line " + console_text(f"{file}:{line}" if file else f"{line}")


def _context(findings: Findings, d: int, worst: int) -> tuple[str, bool]:
  """The events around a session's worst event; flagged events in reverse.

  And whether they are a sentence, which wraps; else each has a line.
  """
  start, stop = findings.bounds[d : d + 2].tolist()
  per_line = findings.names.unit == "log"
  before, after = (2, 1) if per_line else (6, 3)
  first, last = max(worst - before, 0), min(worst + after + 1, stop - start)
  names = findings.events(int(findings.distinct.first[d]), d, first, last)
  events = ["..."] * (first > 0)
  for n, name in enumerate(names, first):
    text = quoted(name)
    if findings.event_flags[start + n] or n == worst:
      text = f"[reverse]{text}[/reverse]"
    bits = findings.nll[start + n] / math.log(2)
    events.append(f"{bits:5.1f} {text}" if per_line else text)
  events += ["..."] * (last < stop - start)
  return ("\n" if per_line else " ").join(events), not per_line


def print_incidents(
  console: Console, findings: Findings, grouped: list[Incident]
):
  """Prints the first incidents, each with the event and place of its example.

  The event is cut at the width of the terminal.
  """
  if not grouped:
    return
  console.print("\n[bold]incidents: sessions that are flagged[/bold]\n")
  for one in grouped[:_INCIDENTS]:
    j = one.session
    alarm = _alarm(findings, int(findings.distinct.which[j]))
    console.print(f"{alarm}, {counted(one.count, 'session')}")
    name = console_text(findings.sessions.names[j])
    time = console_text(findings.timestamp(j, one.position) or "")
    place = (name, _where(findings, j, one.position), time)
    _print_below(console, ", ".join(filter(None, place)), wraps=True)
    _print_below(console, quoted(one.event))
  if len(grouped) > _INCIDENTS:
    count = len(grouped) - _INCIDENTS
    console.print(f"{count:,} further incidents: incidents.csv")


def _alarm(findings: Findings, d: int) -> str:
  """Severity, reason and p-value of a session, as far as it has these."""
  parts = []
  if findings.flags[d]:
    name = decision.NAMES[findings.severity[d]]
    parts = [f"[bold]{name}[/bold]", decision.WORDS[findings.reasons[d]]]
  return ", ".join(parts + [f"p {findings.p[d]:.2g}"] * (not findings.short[d]))


def print_metrics(
  console: Console, metrics: dict[str, Any], names: Sequence[str], rate: float
):
  """Prints metrics, if there are labels.

  Args:
    console: to print on.
    metrics: as `evaluation.evaluate` returns them.
    names: the scores that are combined; all scores are in report.json.
    rate: false-alarm rate of the thresholds.
  """
  table, by_kind = metrics["figures"], metrics["average_precision_by_kind"]
  keys = [key for key in _COLUMNS if key in table[COMBINED]]
  if not keys:
    return
  shown = lambda name: name in (COMBINED, *names) or name.startswith("rule ")
  title = f"metrics with the threshold for a false-alarm rate of {rate:g}"
  # With a blank on one side only, all columns fit in 80 characters.
  printed = Table(box=box.SIMPLE, padding=(0, 0, 0, 1))
  printed.add_column("score", no_wrap=True)
  for name in ("flagged", *(_COLUMNS[key] for key in keys)):
    printed.add_column(name, justify="right", no_wrap=True)
  for name in filter(shown, table):
    values = (f"{table[name][key]:.3f}" for key in keys)
    printed.add_row(name, f"{table[name]['flagged']:,}", *values)
  print_titled(console, title, printed)
  if by_kind is not None:
    printed = Table("score", *by_kind[COMBINED], box=box.SIMPLE)
    for name in filter(shown, by_kind):
      values = by_kind[name].values()
      printed.add_row(name, *(f"{value:.3f}" for value in values))
    print_titled(console, "average precision by kind of anomaly", printed)
  console.print("The metrics of all scores are in report.json.")


def summary(findings: Findings) -> str:
  """How many sessions are flagged, of each severity."""
  which = findings.distinct.which
  counts = np.bincount(findings.severity[which], minlength=4).tolist()
  return summary_of(counts, int(findings.short[which].sum()))


def summary_of(counts: list[int], short: int) -> str:
  """How many sessions are flagged.

  Args:
    counts: number of sessions of each severity.
    short: number of sessions that are flagged for their length alone.
  """
  total = sum(counts)
  text = f"{total - counts[0]:,} of {counted(total, 'session')} flagged"
  parts = [
    f"{count:,} {name}"
    for name, count in zip(decision.NAMES, counts, strict=True)
    if name and count
  ]
  if short:
    parts.append(f"{short:,} by detect.short=flag")
  return text + f" ({', '.join(parts)})" * bool(parts)
