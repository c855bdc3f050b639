"""detect: finds anomalous sessions and events, and evaluates the detection.

All modules are in logs/detect/, except those of data/logs/:
1. data/logs/sessions.py reads the sessions to examine (entries.py their lines,
   templates.py their events).
2. calibration.py trains the folds, and has the normal sessions scored that each
   model has not seen (detector.py: the network's surprisals; scores.py: the
   scores of a session, also those of the baselines).
3. normal.py has these sessions, and leaves out those that may be anomalous.
4. findings.py has the sessions to examine scored, and `decide` compares them
   with the normal ones: conformal.py makes p-values, `detect.rule` flags.
5. tables.py writes the results, and deployed.py the detector for --follow.
Labels, if there are any, are used only by evaluation.py, to compute metrics.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from seqrnn.config.combinations import need, require
from seqrnn.config.field import nested
from seqrnn.config.read import Config, flat
from seqrnn.data import vocabulary
from seqrnn.data.logs import anomalies
from seqrnn.data.logs.sessions import examined_sessions, of_pieces
from seqrnn.errors import counted, needs_package
from seqrnn.experiment import Build, Experiment
from seqrnn.logs import changes as log_changes
from seqrnn.logs import drift
from seqrnn.logs.detect import answers, deployed, evaluation, tables
from seqrnn.logs.detect.calibration import Prepared, calibrate, fold_losses
from seqrnn.logs.detect.findings import (
  Findings,
  find_anomalies,
  group_incidents,
  higher_rate,
)
from seqrnn.logs.detect.normal import normal_scores
from seqrnn.logs.detect.scores import combined_names
from seqrnn.logs.follow import feedback
from seqrnn.logs.follow.state import NAME
from seqrnn.logs.refresh import kept
from seqrnn.modes import require_mode
from seqrnn.runtime import files
from seqrnn.runtime.console import console as make_console
from seqrnn.scoring.predictions import console_text

# Files that each detection replaces, or removes.
_RESULTS = ("sessions.csv", "events.csv", "incidents.csv", "report.json")
# The phases of a detection whose seconds are in report.json.
_PHASES = ("reading", "calibration", "scoring")


def run(build: Build, config: Config, workdir: Path) -> Findings | None:
  """Finds anomalous sessions and writes them, with a report, to detect/.

  With `detect.engine=spark` tables are written, and the findings are those on
  the flagged sessions; None: there is none.

  Raises:
    UserError: the task cannot detect, fields exclude each other, or reading or
      training fails.
  """
  if config.detect.engine == "spark":
    with needs_package("detect.engine='spark'", "pyspark pandas", "spark"):
      from seqrnn.logs.spark import engine
    return engine.run(build, config, workdir)
  with files.locked(workdir / deployed.LOCK, "searched for anomalies"):
    return _run(build, config, workdir)


def _run(build: Build, config: Config, workdir: Path) -> Findings:
  settings, console = config.detect, make_console()
  prepared = prepare(build, config, workdir)
  experiment, read = prepared.experiment, prepared.read
  times = [time.perf_counter()]
  # Read sessions first, to refuse invalid files before the folds are trained.
  names = experiment.vocabularies["symbols"]
  reviewed = answers.load_answers(workdir, names, read, config)
  kinds = feedback.record_kinds(config, workdir)
  accepted = feedback.new_events(kinds, reviewed.by_kind, "normal")
  sessions = examined_sessions(config, names, read)
  every, sessions = len(sessions.names), sessions.without(accepted, names)
  sessions, injected = anomalies.inject(sessions, settings.inject)
  which = _examined(settings, len(sessions.names))
  if less := every - len(sessions.names):
    which += f"; {less:,} more have only events that are normal by review.csv"
  console.print(f"examined: {console_text(which)}", soft_wrap=True)
  times.append(time.perf_counter())
  detector, known = calibrate(prepared, sessions.labels is not None)
  changes = feedback.collect(kinds, reviewed, detector, known)
  normal = normal_scores(known, settings, changes.answers, changes.false)
  if settings.input or (feedback.state_folder(config, workdir) / NAME).exists():
    # A follower may start at any time: it keeps a detector that has alarms.
    deployed.refuse_powerless(normal, settings, deployed.span_of(read("train")))
  calibrated = ["train"] if settings.folds else ["train", "validation"]
  training, *held_out = (of_pieces(read(split), names) for split in calibrated)
  found = log_changes.find_changes(training, names, settings.redact)
  basis = [
    *changes.lines,
    *log_changes.change_lines(found, len(training.names)),
    *tables.calibration_lines(normal, settings),
    *log_changes.unseen_times([training, *held_out], sessions),
  ]
  console.print("\n".join(basis))
  times.append(time.perf_counter())
  findings = find_anomalies(detector, normal, sessions)
  grouped, folder = group_incidents(findings), workdir / "detect"
  higher = higher_rate(findings, normal, settings)
  times.append(time.perf_counter())
  further = settings.anomalous_path is not None or settings.inject
  shares_E = deployed.event_shares(training)
  trained = drift.Training(detector, shares_E)
  warnings = [] if further else drift.of_findings(normal, findings, trained)
  record = {
    "steps": detector.steps,
    "data": {
      "train": experiment.facts("train"),
      "validation": experiment.facts("validation"),
      "examined": {"which": which, **evaluation.summary(findings)},
    },
    "basis": [f"examined: {which}", *basis, *higher],
    **evaluation.report(findings, normal, injected, settings),
    "drift": warnings,
    "changes": [one._asdict() for one in found],
    "folds": fold_losses(known) if settings.folds else [],
    "seconds": dict(zip(_PHASES, np.diff(times).tolist(), strict=True)),
    "config": nested(flat(config)),
  }
  with files.results(folder, "detect", _RESULTS.__contains__) as new:
    tables.write_tables(findings, grouped, detector, new)
    content = json.dumps(_finite(record), indent=2, allow_nan=False)
    files.write(new / "report.json", content + "\n")
    # A follower may start at any time, so the old file is never removed.
    path = folder / deployed.DEPLOYED
    deployed.write_deployed(
      path, detector, normal, read("train"), accepted, shares_E
    )
  tables.print_findings(console, findings, grouped)
  steps = tables.next_steps(findings, normal, settings.rate)
  for line in (*higher, *steps, *map(console_text, warnings)):
    console.print(line)
  tables.print_metrics(console, record["figures"], normal.names, settings.rate)
  print(f"{folder / _RESULTS[0]}: all sessions; --mode=report makes a page")
  print(f"{folder}: {tables.summary(findings)}")
  return findings


def _examined(settings: Config, count: int) -> str:
  """Which sessions are examined, in words.

  Args:
    settings: of `config.detect`.
    count: number of the sessions.
  """
  sessions, names = counted(count, "session"), ("path", "anomalous_path")
  paths = [f"detect.{x}={settings[x]}" for x in names if settings[x]]
  if not paths:
    return f"the {sessions} of the test split; detect.path examines others"
  return f"all {sessions} of {' and '.join(paths)}"


def prepare(
  build: Build, config: Config, workdir: Path, mode: str = "detect"
) -> Prepared:
  """A run that can detect.

  Raises:
    UserError: as `check`, or the splits cut sessions.
  """
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  check(experiment, config, mode)
  known = kept.open_splits(config, workdir, experiment)
  why = (
    f"--mode={mode} scores whole sessions of events; train on sessions, as with"
    " --config=logs, and with data.split=documents or a path for each split"
  )
  holds = known.read("train").are_documents
  require(config, holds, why, "data.unit", "data.split")
  experiment = experiment._replace(facts=known.facts)
  return Prepared(build, config, workdir, experiment, known.read, known.keep)


def _finite(value: Any) -> Any:
  """A value for JSON, which has no infinite numbers: they become strings."""
  if isinstance(value, dict):
    return {name: _finite(inner) for name, inner in value.items()}
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value


def check(experiment: Experiment, config: Config, mode: str = "detect"):
  """Refuses a config that cannot detect anomalies.

  Raises:
    UserError: a field has a value that does not allow detection.
  """
  require_mode(experiment, mode, config.task)
  why = f"task={config.task!r} has the heads {', '.join(experiment.heads)}"
  require(config, config.detect.head in experiment.heads, why, "detect.head")
  combined_names(config.detect)
  why = "the step must be 1 for --mode=detect, which scores every event"
  need(config, "data.mapping", "many_to_one", "data.step", [1], why)
