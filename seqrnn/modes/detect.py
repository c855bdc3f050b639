"""detect: which sessions are odd, which of their events, and how surely.

Labels, where there are any, are read for the figures of the report and for
nothing else.
"""

import json
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from seqrnn import config as configs
from seqrnn.config import Config
from seqrnn.data import anomalies, splits, vocabulary
from seqrnn.data import sessions as data
from seqrnn.data.encoding import kind_for
from seqrnn.data.sessions import Sessions
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.detection import ranking
from seqrnn.detection.detector import (
  CALIBRATION,
  COMBINED,
  Detector,
  Normal,
  calibrate,
  chosen,
  detect,
  keep_calibration,
  learn,
)
from seqrnn.detection.findings import (
  LOCK,
  NAME,
  Findings,
  show,
  write_events,
  write_sessions,
)
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, require
from seqrnn.runtime import files, fileset, manifest

_CURVES = 7  # Of scores beside the combined one.
# What is written anew, each with an ending or several.
_WRITTEN = (
  *("sessions", "events", "report"),
  *("timeline", "scores", "session", "curves"),
)


def read_sessions(
  config: Config, names: Vocabulary, read: Callable[[str], Pieces]
) -> tuple[Sessions, np.ndarray | None]:
  """The sessions to look at, and of each the kind of anomaly put in.

  Args:
    config: of the run.
    names: of the events.
    read: split -> its pieces.

  Raises:
    UserError: as `sessions.read` and `read`, or fields that exclude each other.
  """
  settings = config.detect
  if settings.path is None and settings.anomalous_path is not None:
    raise UserError(
      f"config.detect.anomalous_path={settings.anomalous_path!r}: needs"
      " detect.path, the normal sessions beside them"
    )
  if settings.path is None:
    found = data.of_pieces(read("test"), names, settings)
  else:
    found = data.read(config, names, settings.path)
  if settings.anomalous_path is not None:
    odd = data.read(
      config, names, settings.anomalous_path, "detect.anomalous_path"
    )
    found = joined([marked(found, False), marked(odd, True)])
  if settings.labels is not None:
    found = data.with_labels(found, settings.labels, config)
  if not settings.inject:
    return found, None
  if found.labels is not None:
    raise UserError(
      f"config.detect.inject={settings.inject}: the sessions have labels, of"
      " anomalies of their own"
    )
  return inject(found, settings.inject, np.random.default_rng(settings.seed))


def marked(sessions: Sessions, label: bool) -> Sessions:
  """Sessions with the same label each."""
  labels = np.full(len(sessions.bounds) - 1, label)
  return sessions._replace(labels=labels, labelled=None)


def joined(parts: list[Sessions]) -> Sessions:
  """Sessions of several, one after the other."""
  sizes = np.concatenate([np.diff(part.bounds) for part in parts])
  # The symbols of a part stand after those of the parts before it.
  kinds = [len(part.symbols or ()) for part in parts]
  shifts, kind = np.cumsum([0, *kinds[:-1]]), kind_for(sum(kinds))

  def every(field: str) -> Any:
    values = [getattr(part, field) for part in parts]
    if any(value is None for value in values):
      return None
    if field == "symbol":
      values = [
        np.add(value, shift, dtype=kind, casting="unsafe")
        for value, shift in zip(values, shifts, strict=True)
      ]
    if isinstance(values[0], list):
      return [x for value in values for x in value]
    return np.concatenate(values)

  found = {field: every(field) for field in Sessions._fields}
  found["bounds"] = np.concatenate([[0], np.cumsum(sizes)])
  return Sessions(**found)


def inject(
  sessions: Sessions, share: float, rng: np.random.Generator
) -> tuple[Sessions, np.ndarray]:
  """Makes a share of the sessions anomalous, as many in each way.

  Returns:
    the sessions in a new order, without those too short for it; of each the
    kind, or "".
  """
  order = rng.permutation(len(sessions.bounds) - 1)
  count = round(share * len(order))
  normal = marked(sessions.take(np.sort(order[count:])), False)
  parts = [normal._replace(line_labels=np.zeros(len(normal.ids), bool))]
  kinds = [np.full(len(normal.names), "")]
  for number, kind in enumerate(anomalies.KINDS):
    some = np.sort(order[:count][number :: len(anomalies.KINDS)])
    if len(some):
      odd = anomalies.inject(rng, sessions.take(some), kind)
      parts.append(odd)
      kinds.append(np.full(len(odd.names), kind))
  found = joined(parts)
  order = rng.permutation(len(found.names))
  return found.take(order), np.concatenate(kinds)[order]


def judge(
  scores: np.ndarray,
  flags: np.ndarray,
  labels: np.ndarray,
  which: np.ndarray,
  settings: Config,
) -> dict[str, Any]:
  """Figures of scores and flags [D] of sessions, `which` of D each one is."""
  every = ranking.tally(scores[which], flags[which], labels)
  _, first = np.unique(2 * which + labels, return_index=True)
  once = which[first]
  rng = np.random.default_rng(settings.seed)
  return {
    **ranking.metrics(every),
    "intervals": ranking.intervals(every, settings.bootstrap, rng),
    "distinct": ranking.metrics(
      ranking.tally(scores[once], flags[once], labels[first])
    ),
  }


def tables(
  found: Findings, normal: Normal, settings: Config
) -> dict[str, dict[str, Any]]:
  """What report.json says of each score, and of the rule where it is another.

  Figures only where labels are known, and of the sessions that have one.
  """
  which, labels = found.distinct.which, found.sessions.labels
  some = found.sessions.with_label()

  def row(scores: np.ndarray, flags: np.ndarray) -> dict[str, Any]:
    figures = {}
    if labels is not None and 0 < labels[some].sum() < len(some):
      figures = judge(scores, flags, labels[some], which[some], settings)
    return {"flagged": int(flags[which].sum()), **figures}

  table = {}
  if settings.rule != "rate":
    table[f"rule {settings.rule}"] = row(found.scores[COMBINED], found.flags)
  for name, scores in found.scores.items():
    threshold = normal.scores[name].threshold(settings.rate)
    # Short sessions that are always flagged score infinity, as the threshold
    # does where nothing resolves the rate.
    flags = (scores > threshold) | np.isposinf(scores)
    table[name] = {"threshold": threshold, **row(scores, flags)}
  return table


def figures_by_kind(
  found: Findings, kinds: np.ndarray
) -> dict[str, dict[str, float]]:
  """Average precision of each score for each kind of anomaly put in.

  That of one kind, as if the others were not there.
  """
  which = found.distinct.which
  flags = np.zeros(len(which), bool)
  table = {}
  for name, scores in found.scores.items():
    table[name] = {}
    # Of few sessions not every kind has one.
    for kind in (kind for kind in anomalies.KINDS if kind in kinds):
      some = (kinds == kind) | (kinds == "")
      cells = ranking.tally(scores[which][some], flags[some], kinds[some] != "")
      figures = ranking.metrics(cells)
      table[name][kind] = figures["average_precision"]
  return table


def figures_of_events(
  found: Findings, labels: np.ndarray
) -> dict[str, float] | None:
  """How well surprisal finds the events with a label; None: there are none."""
  which, sessions = found.distinct.which, found.sessions
  starts, stops = found.bounds[which], found.bounds[which + 1]
  index, _ = data.ranges(starts, stops)
  first = sessions.bounds[:-1] + found.offsets[which]
  place, _ = data.ranges(first, first + stops - starts)
  # An end is no event of a file, and has no label.
  inside = place < np.repeat(sessions.bounds[1:], stops - starts)
  index, place = index[inside], place[inside]
  if sessions.lines_labelled is not None:
    known = sessions.lines_labelled[place]
    index, place = index[known], place[known]
  labels = labels[place]
  if labels.all() or not labels.any():
    return None
  cells = ranking.tally(found.nll[index], found.event_flags[index], labels)
  return ranking.metrics(cells)


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Findings:
  """Finds odd sessions; writes them, their events and a report to detect/.

  Raises:
    UserError: a task without heads, settings that do not go together, or what
      reading and training raise.
  """
  with files.locked(workdir / LOCK, "searched for anomalies"):
    return _run(build, config, workdir)


def _run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Findings:
  settings, folder = config.detect, workdir / "detect"
  fileset.finish_move(folder, NAME)
  console = Console(highlight=False)
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  check(experiment, config)
  read = splits.reader(config)
  refuse_parts(read("train"), config.data)
  began = time.perf_counter()
  detector = learn(build, config, workdir, read("train"))
  # First what may be refused, then what may take long.
  sessions, kinds = read_sessions(config, detector.names, read)
  been_read = time.perf_counter()
  normal = calibrate(build, config, workdir, detector, read, experiment.facts)
  warn(console, normal, settings)
  calibrated = time.perf_counter()
  found = detect(detector, normal, sessions)
  scored = time.perf_counter()
  limits = thresholds(normal, detector)
  table = tables(found, normal, settings)
  by_kind = None if kinds is None else figures_by_kind(found, kinds)
  labels = sessions.line_labels
  events = np.diff(found.bounds)
  record = {
    "step": detector.step,
    "data": {
      "train": experiment.facts("train"),
      "validation": experiment.facts("validation"),
      "looked_at": {
        "sessions": len(found.distinct.which),
        "distinct_sessions": len(events),
        "events_scored": int(events @ found.distinct.counts),
        "distinct_events_scored": len(found.nll),
        "flagged_for_their_length": int(
          found.short[found.distinct.which].sum()
        ),
        "crc32": zlib.crc32(
          sessions.bounds.tobytes(), zlib.crc32(sessions.ids.tobytes())
        ),
      },
    },
    "thresholds": limits,
    "figures": table,
    "average_precision_by_kind": by_kind,
    "events": None if labels is None else figures_of_events(found, labels),
    "seconds": {
      "reading": been_read - began,
      "calibration": calibrated - been_read,
      "scoring": scored - calibrated,
      "scoring_by_the_network": found.seconds,
    },
    "distinct_events_per_second": len(found.nll) / found.seconds,
    "config": configs.nested(configs.flat(config)),
  }
  with fileset.atomic_files(folder, NAME, _is_result) as new:
    write_sessions(found, new, settings.format)
    write_odd(found, detector, new)
    record["seconds"]["writing"] = time.perf_counter() - scored
    write_json(new / "thresholds.json", limits)
    write_json(new / "report.json", record)
    picture(found, normal, table, settings, new)
    keep_calibration(folder, new)
    kept = () if (new / CALIBRATION).exists() else (folder / CALIBRATION,)
    manifest.record_files(new, (*new.iterdir(), *kept))
  show(console, found, found.most_anomalous()[: settings.worst])
  console.print(tabulate(table, settings.rate))
  if by_kind is not None:
    title = "average precision by kind of anomaly"
    made = Table("score", *by_kind[COMBINED], title=title, box=box.SIMPLE)
    for name, row in by_kind.items():
      made.add_row(name, *(f"{value:.3f}" for value in row.values()))
    console.print(made)
  which = found.distinct.which
  short = int(found.short[which].sum())
  print(
    f"{folder}: {int(found.flags[which].sum()):,} of {len(which):,} sessions"
    " flagged"
    + (
      f", {short:,} of them for their length alone, beside detect.rule"
      if short
      else ""
    )
  )
  return found


def _is_result(name: str) -> bool:
  """Whether a file is of the result of a detection."""
  return name.partition(".")[0] in _WRITTEN


def write_odd(found: Findings, detector: Detector, folder: Path):
  """Writes the events of the sessions that `detect.events` says."""
  settings = detector.config.detect
  some = np.diff(found.bounds) > 0
  if settings.events == "flagged":
    some &= found.flags
  which = np.flatnonzero(some)
  if settings.events == "none" or not len(which):
    return
  part = found.sessions.take(found.distinct.first[which])
  details = detector.say(part, settings.alternatives)
  write_events(found, which, details, settings.top_k, folder, settings.format)


def picture(
  found: Findings,
  normal: Normal,
  table: dict[str, dict[str, Any]],
  settings: Config,
  folder: Path,
):
  """Draws what was found, with the scores that find most."""
  from seqrnn.detection import pictures  # Matplotlib takes a second.

  if not len(found.nll):
    return
  best = sorted(
    (name for name in found.scores if name != COMBINED),
    key=lambda name: -table[name].get("average_precision", 0),
  )
  calibration = normal.scores[COMBINED]
  pictures.draw(
    found,
    calibration,
    calibration.threshold(settings.rate),
    normal.events.threshold(settings.event_rate),
    {name: found.scores[name] for name in (COMBINED, *best[:_CURVES])},
    folder,
  )


def thresholds(normal: Normal, detector: Detector) -> dict[str, Any]:
  """What thresholds.json says: beyond what a score is flagged."""
  settings = detector.config.detect
  sessions, events = normal.scores[COMBINED], normal.events
  return {
    "head": settings.head,
    "step": detector.step,
    "rule": settings.rule,
    "sessions": {
      "rate": settings.rate,
      "calibration": sessions.n,
      "resolution": sessions.resolution,
      "rate_95": sessions.interval(settings.rate),
      "above": {
        name: calibration.threshold(settings.rate)
        for name, calibration in normal.scores.items()
      },
    },
    "events": {
      "rate": settings.event_rate,
      "calibration": events.n,
      "resolution": events.resolution,
      "above": events.threshold(settings.event_rate),
      "unknown": settings.unknown,
      "top_k": settings.top_k,
    },
  }


def warn(console: Console, normal: Normal, settings: Config):
  """Prints what rates there can be, and on stderr which there cannot."""
  asked = {
    "rate": (normal.scores[COMBINED], settings.rate, "sessions"),
    "event_rate": (normal.events, settings.event_rate, "events"),
  }
  for name, (calibration, rate, what) in asked.items():
    line = (
      f"detect.{name}={rate:g}: {calibration.n:,} normal {what} resolve rates"
      f" from {calibration.resolution:.2g}"
    )
    if what == "sessions":  # Events of one session are not independent.
      low, high = calibration.interval(rate)
      line += (
        f"; that of new ones is {low:.2g} to {high:.2g} in 95 of 100 cases"
      )
    console.print(line)
    if rate < calibration.resolution:
      print(
        f"detect.{name}={rate:g}: below {calibration.resolution:.2g}, so no"
        f" {what[:-1]} can be flagged by it; it needs more normal {what}",
        file=sys.stderr,
      )


def tabulate(table: dict[str, dict[str, Any]], rate: float) -> Table:
  """The figures as a person reads them."""
  columns = {
    "precision": "P",
    "recall": "R",
    "f1": "F1",
    "false_alarm_rate": "FPR",
    "auroc": "AUROC",
    "average_precision": "AP",
    "oracle_f1": "oracle",  # The best F1 of any threshold.
  }
  columns = {
    key: name for key, name in columns.items() if key in table[COMBINED]
  }
  title = f"beyond the threshold for a false-alarm rate of {rate:g}"
  made = Table(title=title, box=box.SIMPLE, pad_edge=False)
  made.add_column("score", no_wrap=True)
  for name in ("flagged", *columns.values()):
    made.add_column(name, justify="right")
  for name, row in table.items():
    figures = (f"{row[key]:.3f}" for key in columns)
    made.add_row(name, f"{row['flagged']:,}", *figures)
  return made


def write_json(path: Path, record: dict[str, Any]):
  """Writes JSON, which has no infinity: that becomes a text."""

  def plain(value):
    if isinstance(value, dict):
      return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
      return str(value)
    return value

  with files.atomic_write(path) as file:
    file.write(json.dumps(plain(record), indent=2, allow_nan=False) + "\n")


def refuse_parts(pieces: Pieces, settings: Config):
  """Refuses sessions that a split has cut, without an end that could be odd.

  Raises:
    UserError: names the field.
  """
  if not np.all(pieces.begins & pieces.ends):
    raise UserError(
      f"data.split={settings.split!r}: holds out the ends of sessions here, and"
      " --mode=detect reads whole ones; data.split=documents holds whole ones"
      " out, and so does a path for each split"
    )


def check(experiment: Experiment, config: Config):
  """Refuses what cannot detect.

  Raises:
    UserError: names the field.
  """
  settings, step = config.detect, config.data.step
  require(experiment, "detect", config.task)
  if settings.head not in experiment.heads:
    raise UserError(
      f"config.detect.head={settings.head!r}: task={config.task!r} has"
      f" {', '.join(experiment.heads)}"
    )
  chosen(settings)
  if config.data.mapping == "many_to_one" and step != 1:
    raise UserError(
      f"data.step={step} with data.mapping='many_to_one': must be 1 for"
      " --mode=detect, which scores every event"
    )
  if config.data.fold is not None and settings.folds:
    raise UserError(
      f"data.fold={config.data.fold!r}, config.detect.folds={settings.folds}:"
      " the run is a fold itself; set detect.folds=0"
    )
