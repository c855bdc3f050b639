"""Section of a report on anomalies, from the files of a detection."""

import heapq
import itertools
import math
from collections import deque
from pathlib import Path
from typing import Any

from seqrnn.detection import records, severity
from seqrnn.detection.findings import LOCK, NAME
from seqrnn.reporting import page
from seqrnn.reporting.page import Element, Mark, element, section
from seqrnn.runtime import fileset, manifest

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


def _basis(folder: Path, step: int | None) -> list[Element]:
  """The basis of the flags, from report.json: calibration and scores."""
  path = folder / "report.json"
  if not path.exists():
    return []
  record = records.read_object(path)
  parts = []
  with records.reading(path):
    if step is not None and record.get("step", step) != step:
      words = f"Detection was run with the checkpoint of step {record['step']}"
      parts.append(f"{words}, not with that of step {step:,}.")
    looked_at = record.get("data", {}).get("looked_at", {})
    if which := looked_at.get("which"):
      parts.append(f"Examined: {which}.")
    parts += _calibration(record["calibration"])
  return [element("p", text) for text in parts]


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
  found = [f"{words}."]
  if record["left_out"]:
    found.append(
      f"{record['left_out']:,} training sessions are left out of the"
      " calibration, because their highest surprisals form a second mode, far"
      " above those of the other sessions."
    )
  return found


def _figures(folder: Path) -> list[Element]:
  """The metrics of each score, from report.json, if there were labels."""
  path = folder / "report.json"
  if not path.exists():
    return []
  record = records.read_object(path)
  with records.reading(path):
    table = {name: dict(row) for name, row in record["figures"].items()}
  names = [n for n in _FIGURES if any(n in row for row in table.values())]
  if names in ([], ["flagged"]):
    return []
  return [
    element("h3", "Metrics"),
    page.table(
      ["score", *(name.replace("_", " ") for name in names)],
      [
        [score, *(_short(row.get(name)) for name in names)]
        for score, row in table.items()
      ],
      "Metrics of each score",
    ),
  ]


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


def _context(folder: Path, names: list[str]) -> Element | None:
  """The flagged events of some sessions, and the events around them."""
  path = records.table(folder, "events")
  if path is None:
    return None
  found = {name: _Excerpt() for name in names}
  for row in records.rows(path):
    if (excerpt := found.get(str(row.get("session")))) is not None:
      excerpt.add(row, records.number(path, row, "bits"))
  marks: list[Mark] = []
  kinds = set()
  for name, excerpt in found.items():
    events = excerpt.flagged or excerpt.best
    if not events or page.full(marks):
      continue
    marks.append(Mark(f"{name}\n", name))
    for before, (n, (row, bits)) in zip(
      [-1, *events], events.items(), strict=False
    ):
      event = str(row.get("event"))
      kinds.add(event)
      likely = [
        (
          str(row[f"event_{k}"]),
          records.number(path, row, f"probability_{k}"),
        )
        for k in range(1, 6)
        if row.get(f"event_{k}")
      ]
      if n > before + 1:
        marks.append(Mark("\u2026 ", "skipped events"))
      # Lines of a log are below each other.
      end = "\n" if " " in event else " "
      marks.append(Mark(event + end, event, bits, likely))
    marks.append(Mark("\n\n", "the end of the excerpt"))
  if not marks:
    return None
  return page.marked(
    marks,
    math.log2(len(kinds) + 2),
    "The most anomalous sessions, event by event",
  )


def _sessions(folder: Path) -> list[Any]:
  """The most anomalous sessions, and some of their events."""
  path = records.table(folder, "sessions")
  if path is None:
    return []
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
  parts: list[Any] = []
  if short:
    words = "Sessions flagged for their length alone, without a score"
    parts.append(element("p", f"{words}: {short:,}."))
  if not ranked:
    return parts
  marks = [name for name in ("open", "cut") if name in ranked[0][2]]
  places = [name for name in ("file", "line") if name in ranked[0][2]]
  labelled = "label" in ranked[0][2]
  parts += [
    element(
      "p",
      "The sessions with the highest scores. The p-value is the share of normal"
      " sessions that are at least as anomalous.",
    ),
    page.table(
      ["session", "events", "p-value", "score", "severity", "reason", *places]
      + marks
      + ["label"] * labelled,
      [
        [
          row.get("session"),
          row.get("events"),
          f"{records.number(path, row, 'p_value'):.2g}",
          f"{score:.4g}",
          row.get("severity") or "flagged" * (str(row.get("flag")) == "1"),
          _reason(row),
          *(row.get(name) for name in places),
          *("yes" if str(row.get(name)) == "1" else "no" for name in marks),
        ]
        + ([row.get("label")] if labelled else [])
        for score, _, row in ranked
      ],
      "The most anomalous sessions",
    ),
  ]
  names = [str(row.get("session")) for _, _, row in ranked[:_SHOWN]]
  context = _context(folder, names)
  if context is not None:
    parts += [element("h3", "In context"), context]
  return parts


def _incidents(folder: Path) -> list[Any]:
  """The flagged sessions, grouped by their surprising events."""
  path = records.table(folder, "incidents")
  if path is None:
    return []
  rows = list(itertools.islice(records.rows(path), _INCIDENTS + 1))
  if not rows:
    return [element("p", "No session is flagged.")]
  words = "Sessions with like surprising events are one incident. The most"
  parts = [
    element("h3", "Incidents"),
    element(
      "p",
      f"{words} surprising event of its example is bold, among the events"
      " before and after it. The p-value (p) of a session is the share of"
      " normal sessions that are at least as anomalous. These normal sessions,"
      " which detection compares with, are the calibration.",
    ),
    page.table(
      ["alarm", "events", "example"],
      [
        [_alarm(path, row), _event(row), _example(row)]
        for row in rows[:_INCIDENTS]
      ],
      "Incidents",
      class_="fields incidents",
    ),
  ]
  if len(rows) > _INCIDENTS:
    parts.append(element("p", f"More incidents are in {path.name}."))
  return parts


def _alarm(path: Path, row: dict[str, Any]) -> list[Element]:
  """The severity, the size, the reason and the p-value of an incident."""
  count = str(row.get("sessions"))
  sessions = f"{count} session" + "s" * (count != "1")
  texts = sessions, _reason(row), _p_value(path, row)
  lines = [element("div", text, class_="muted") for text in texts if text]
  return [element("div", row.get("severity")), *lines]


def _example(row: dict[str, Any]) -> list[Element]:
  """The example of an incident, and its place."""
  texts = [str(row.get("example"))]
  for name, form in (("file", "{}"), ("line", "line {}"), ("timestamp", "{}")):
    if row.get(name):
      texts.append(form.format(row[name]))
  return [element("div", text) for text in texts]


def _reason(row: dict[str, Any]) -> str:
  """The reason of an alarm in words; as it is written, if it has none."""
  name = str(row.get("reason") or "")
  return severity.WORDS.get(name, name)


def _event(row: dict[str, Any]) -> list[Element]:
  """The event of an incident, between the events around it."""
  around = [
    str(row.get(name) or "").split(" | ") for name in ("before", "after")
  ]
  before, after = (
    [element("div", text, class_="muted") for text in texts if text]
    for texts in around
  )
  return [*before, element("strong", row.get("event")), *after]


def _p_value(path: Path, row: dict[str, Any]) -> str:
  """The p-value of an incident; nothing for short sessions, which have none."""
  if row.get("p_value") in (None, ""):
    return ""
  return f"p {records.number(path, row, 'p_value'):.2g}"


def sections(workdir: Path, step: int | None = None) -> list[Element]:
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
  fileset.wait_for_move(folder, NAME, workdir / LOCK)
  manifest.verify_all(folder)
  parts = _incidents(folder) + _basis(folder, step) + _sessions(folder)
  parts += page.pictures(folder, _PICTURES) + _figures(folder)
  return [section("Anomalies", parts)]
