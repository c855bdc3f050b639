"""review: asks whether the most anomalous calibration sessions are normal."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.errors import visible
from seqrnn.experiment import Experiment
from seqrnn.logs.detect import answers, inputs
from seqrnn.logs.detect.calibration import (
  SETTINGS,
  NormalScores,
  calibrate,
  normal_scores,
  sessions_of,
)
from seqrnn.logs.detect.findings import LOCK
from seqrnn.logs.detect.tables import print_row
from seqrnn.logs.follow import feedback
from seqrnn.modes import detect
from seqrnn.runtime import files

# Settings of a detection on which the changes by answers depend, in addition to
# those of its scores.
_CHANGES = ("scores", "contamination", "rate")
_ASKED = 50  # The kinds of alarms, and the sessions, of a review, at most.
_LOCK = ".review.lock"  # In the workdir, held while sessions are reviewed.
_KEYS = {"n": "normal", "a": "anomalous", "s": "skip", "b": "back", "q": "quit"}


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> NormalScores:
  """Asks about alarms and sessions, and prints the changes by the answers.

  On a terminal it is a dialogue. Elsewhere the questions are written to
  review.csv, and the answers that it has are read.

  Raises:
    UserError: the task cannot detect, a file is damaged, or training fails.
  """
  on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
  config = _as_detected(config, workdir)
  with files.locked(workdir / _LOCK, "reviewed"):
    with files.locked(workdir / LOCK, "searched for anomalies"):
      experiment, read = detect.prepare(build, config, workdir, "review")
      names = experiment.vocabularies["symbols"]
      load = lambda: answers.load_answers(workdir, names, read, config)
      reviewed = load()
      kinds = feedback.load_kinds(config, workdir)
      detector, arrays = calibrate(build, config, workdir, read, experiment)
    sessions, settings = sessions_of(detector), config.detect
    normal = normal_scores(arrays, settings, reviewed.of(sessions))
    rows = [feedback.review_row(kind, reviewed.by_kind) for kind in kinds]
    alarms = [row for row in rows if not row["answer"]]
    questions = [
      *alarms[:_ASKED],
      *answers.session_questions(detector, normal, arrays, sessions, _ASKED),
    ]
    answered = [row for row in (*rows, *reviewed.rows) if row["answer"]]
    rows = [*questions, *answered]
    save = lambda: answers.write_rows(workdir, rows)
    if questions and on_terminal:
      ask(questions, save)
    elif questions:
      save()
    changes = feedback.collect(kinds, load(), detector, arrays)
    after = normal_scores(arrays, settings, changes.answers, changes.rows)
    if changes.text:
      print(changes.text)
    before = normal_scores(arrays, settings)
    for line in answers.changes(arrays, before, after, settings.rate):
      print(line)
    print(visible(_next_step(workdir, len(questions), on_terminal)))
  return after


def _as_detected(config: Config, workdir: Path) -> Config:
  """The config with the settings of the last detection, if there is one.

  Raises:
    UserError: report.json is damaged.
  """
  path = workdir / "detect" / "report.json"
  if not path.exists():
    return config
  config, record = copy.deepcopy(config), inputs.read_object(path)
  with inputs.reading(path):
    for name in (*SETTINGS, *_CHANGES):
      config.detect[name] = record["config"]["detect"][name]
    config_lib.check(config)
  return config


def _next_step(workdir: Path, count: int, on_terminal: bool) -> str:
  """A line on the use of the answers."""
  path = workdir / answers.NAME
  if on_terminal or not count:
    return f"{path}: --mode=detect and --follow use these answers"
  return (
    f"{path}: write normal or anomalous, or nothing, in the column answer of"
    f" {count:,} rows; --mode=detect, --mode=review and --follow read it"
  )


def ask(questions: list[dict[str, Any]], save: Callable[[], None]):
  """Asks until all is answered, the user quits or the input ends.

  Args:
    questions: rows of review.csv, which get the answers.
    save: called after each answer.
  """
  console, d = Console(highlight=False), 0
  try:
    while d < len(questions):
      row = questions[d]
      console.print(f"\n[bold]{d + 1} of {len(questions)}[/bold]")
      print_row(console, row, row["context"].split(" | "))
      if row["answer"]:
        console.print(f"answered: {row['answer']}")
      match _key():
        case "quit":
          return
        case "back":
          d = max(d - 1, 0)
        case word:
          row["answer"] = word if word in answers.WORDS else ""  # "": skipped.
          save()
          d += 1
  except (EOFError, KeyboardInterrupt):  # Ctrl-D, Ctrl-C.
    print()


def _key() -> str:
  """Asks for a key, or its word, until there is a known one."""
  prompt = ", ".join(f"[{key}]{word[1:]}" for key, word in _KEYS.items())
  while True:
    key = input(f"{prompt}: ").strip().lower()
    if word := _KEYS.get(key, key if key in _KEYS.values() else ""):
      return word
