"""Section of a report on anomalies, from the files of a detection."""

import heapq
import itertools
import math
from collections import deque
from pathlib import Path
from typing import Any

from seqrnn.logs.detect import decision, records
from seqrnn.reporting import page
from seqrnn.reporting.page import Mark, Section, section

_INCIDENTS = 20  # Rows of the first table.
_SESSIONS = 12  # Rows of the second table.
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
_KEPT = 2000  # Events of a session in memory, more than the page has.

_PICTURES = {
  "scores": "The scores of sessions: a histogram, and the share of sessions"
  " above each score, with the threshold",
  "curves": "ROC and precision-recall curves of the labelled sessions",
  "timeline": "The surprisal of each event of evenly spaced sessions and of the"
  " most anomalous sessions, on a linear and on a logarithmic axis",
  "session": "The most anomalous session, event by event",
}


def _basis(record: dict[str, Any], step: int | None) -> list[str]:
  """The basis of the flags, from report.json: calibration and scores."""
  sentences = []
  if step is not None and record.get("step", step) != step:
    words = f"Detection was run with the checkpoint of step {record['step']}"
    sentences.append(f"{words}, not with that of step {step:,}.")
  looked_at = record.get("data", {}).get("looked_at", {})
  if which := looked_at.get("which"):
    sentences.append(f"Examined: {which}.")
  return sentences + _calibration(record["calibration"])


def _calibration(record: dict[str, Any]) -> list[str]:
  """What was left out of the calibration, and which scores are combined."""
  scores = record["scores"]
  names = " and ".join(scores["names"])
  if len(scores["names"]) > 1:
    how = {"min": "least", "fisher": "product"}[scores["combine"]]
    names = f"the {how} of the p-values of {names}"
  injected = scores["injected"]
  words = f"The score of a session is {names}"
  if isinstance(injected["average_precision"], float):
    words += (
      ". On anomalies injected into normal sessions its average precision is"
      f" {injected['average_precision']:.3f}, that of the standard combination"
      f" {injected['standard']:.3f}"
    )
  sentences = [f"{words}."]
  if record["left_out"]:
    sentences.append(
      f"{record['left_out']:,} training sessions are left out of the"
      " calibration, because their highest surprisals form a second mode, far"
      " above those of the other sessions."
    )
  return sentences


def _report(folder: Path, step: int | None) -> dict[str, Any]:
  """The basis of the flags and, with labels, the metrics of each score."""
  path = folder / "report.json"
  if not path.exists():
    return {"basis": [], "names": [], "figures": []}
  record = records.read_object(path)
  with records.reading(path):
    basis = _basis(record, step)
    table = {name: dict(row) for name, row in record["figures"].items()}
  names = [n for n in _FIGURES if any(n in row for row in table.values())]
  rows = [
    [score, *(_short(row.get(name)) for name in names)]
    for score, row in table.items()
  ]
  return {
    "basis": basis,
    "names": ["score", *(name.replace("_", " ") for name in names)],
    "figures": [] if names in ([], ["flagged"]) else rows,
  }


def _short(value: Any) -> str:
  if isinstance(value, float):
    return f"{value:.3f}"
  return f"{value:,}" if isinstance(value, int) else ""


class _Excerpt:
  """Selects the events of a session for the page, in one pass.

  Attributes:
    flagged: position -> row and bits of the events near flagged events.
    best: the same for the events near the event of highest surprisal.
  """

  def __init__(self):
    self.flagged: dict[int, tuple[dict[str, Any], float]] = {}
    self.best: dict[int, tuple[dict[str, Any], float]] = {}
    self._last = deque(maxlen=_AROUND)
    self._most, self._count = -math.inf, 0
    self._flagged_end = self._best_end = -1

  def add(self, row: dict[str, Any], bits: float):
    """Adds the next event of the session."""
    n, self._count = self._count, self._count + 1
    if bits > self._most:
      self._most, self._best_end = bits, n + _AROUND
      self.best = dict(self._last)
    if str(row.get("flag")) == "1" and len(self.flagged) < _KEPT:
      self._flagged_end = n + _AROUND
      self.flagged |= dict(self._last)
    if n <= self._best_end:
      self.best[n] = row, bits
    if n <= self._flagged_end:
      self.flagged[n] = row, bits
    self._last.append((n, (row, bits)))


def _context(folder: Path, names: list[str]) -> dict[str, Any] | None:
  """The flagged events of some sessions, and the events around them."""
  path = records.table(folder, "events")
  if path is None:
    return None
  excerpts = {name: _Excerpt() for name in names}
  for row in records.rows(path):
    if (excerpt := excerpts.get(str(row.get("session")))) is not None:
      excerpt.add(row, records.number(path, row, "bits"))
  marks: list[Mark] = []
  kinds = set()
  for name, excerpt in excerpts.items():
    events = excerpt.flagged or excerpt.best
    if not events or page.full(marks):
      continue
    marks.append(Mark(f"{name}\n", name))
    before = -1
    for n, (row, bits) in events.items():
      event = str(row.get("event"))
      kinds.add(event)
      likely = [
        (str(row[f"event_{k}"]), records.number(path, row, f"probability_{k}"))
        for k in range(1, 6)
        if row.get(f"event_{k}")
      ]
      if n > before + 1:
        marks.append(Mark("\u2026 ", "skipped events"))
      # Lines of a log are below each other.
      end = "\n" if " " in event else " "
      marks.append(Mark(event + end, event, bits, likely))
      before = n
    marks.append(Mark("\n\n", "the end of the excerpt"))
  if not marks:
    return None
  words = "The most anomalous sessions, event by event"
  return page.coloured(marks, math.log2(len(kinds) + 2), words)


def _sessions(folder: Path) -> dict[str, Any]:
  """The most anomalous sessions, and some of their events."""
  none = {"short": 0, "head": [], "sessions": [], "reading": None}
  path = records.table(folder, "sessions")
  if path is None:
    return none
  short = 0

  def scored():
    nonlocal short
    for n, row in enumerate(records.rows(path)):
      score = records.number(path, row, "combined")
      if score == math.inf:  # A short session: its length alone decided.
        short += 1
      else:
        yield score, -n, row

  ranked = heapq.nlargest(_SESSIONS, scored(), key=lambda item: item[:2])
  if not ranked:
    return {**none, "short": f"{short:,}" if short else 0}
  columns = ranked[0][2]
  marks = [name for name in ("open", "cut") if name in columns]
  places = [name for name in ("file", "line") if name in columns]
  labels = ["label"] if "label" in columns else []
  head = ["session", "events", "p-value", "score", "severity", "reason"]
  rows = [
    [
      row.get("session"),
      row.get("events"),
      f"{records.number(path, row, 'p_value'):.2g}",
      f"{score:.4g}",
      row.get("severity") or "flagged" * (str(row.get("flag")) == "1"),
      _reason(row),
      *(row.get(name) for name in places),
      *("yes" if str(row.get(name)) == "1" else "no" for name in marks),
      *(row.get(name) for name in labels),
    ]
    for score, _, row in ranked
  ]
  names = [str(row.get("session")) for _, _, row in ranked[:_SHOWN]]
  return {
    "short": f"{short:,}" if short else 0,
    "head": [*head, *places, *marks, *labels],
    "sessions": rows,
    "reading": _context(folder, names),
  }


def _incidents(folder: Path) -> dict[str, Any]:
  """The flagged sessions, grouped by their surprising events."""
  path = records.table(folder, "incidents")
  if path is None:
    return {"incidents": None, "more": ""}
  rows = list(itertools.islice(records.rows(path), _INCIDENTS + 1))
  return {
    "incidents": [_incident(path, row) for row in rows[:_INCIDENTS]],
    "more": path.name if len(rows) > _INCIDENTS else "",
  }


def _incident(path: Path, row: dict[str, Any]) -> dict[str, Any]:
  """An incident: its alarm, its event with those around it, its example."""
  count = str(row.get("sessions"))
  alarm = [f"{count} session" + "s" * (count != "1"), _reason(row)]
  if row.get("p_value") not in (None, ""):  # Short sessions have none.
    alarm.append(f"p {records.number(path, row, 'p_value'):.2g}")
  example = [str(row.get("example"))]
  for name, form in (("file", "{}"), ("line", "line {}"), ("timestamp", "{}")):
    if row.get(name):
      example.append(form.format(row[name]))
  before, after = (
    list(filter(None, str(row.get(name) or "").split(" | ")))
    for name in ("before", "after")
  )
  return {
    "severity": row.get("severity"),
    "alarm": list(filter(None, alarm)),
    "event": row.get("event"),
    "before": before,
    "after": after,
    "example": example,
  }


def _reason(row: dict[str, Any]) -> str:
  """The reason of an alarm in words; as it is written, if it has none."""
  name = str(row.get("reason") or "")
  return decision.WORDS.get(name, name)


def sections(workdir: Path, step: int | None = None) -> list[Section]:
  """The results of `--mode=detect` in a workdir; [] if it has none.

  Args:
    workdir: of the run.
    step: of the checkpoint of the page; None if unknown.

  Raises:
    UserError: a file of the results is damaged.
  """
  folder = workdir / "detect"
  if not folder.is_dir():
    return []
  return [
    section(
      "Anomalies",
      "alarms",
      **_incidents(folder),
      **_report(folder, step),
      **_sessions(folder),
      pictures=page.pictures(folder, _PICTURES),
    )
  ]
