"""review: asks whether the most anomalous calibration sessions are normal."""

import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from seqrnn.config import Config
from seqrnn.detection import answers, printing, review
from seqrnn.detection.answers import WORDS
from seqrnn.detection.calibration import (
  NormalScores,
  calibrate,
  normal_scores,
  sessions_of,
)
from seqrnn.detection.findings import LOCK, Findings
from seqrnn.errors import visible
from seqrnn.experiment import Experiment
from seqrnn.modes import detect
from seqrnn.runtime import files

_LOCK = ".review.lock"  # In the workdir, held while sessions are reviewed.
_KEYS = {
  **{"n": "normal", "a": "anomalous", "s": "skip", "b": "back", "q": "quit"},
}
_PROMPT = "[n]ormal, [a]nomalous, [s]kip, [b]ack, [q]uit: "


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> NormalScores:
  """Asks about sessions, and shows what the answers change.

  On a terminal it is a dialogue. Elsewhere the questions are written to
  review.csv, and the answers that it has are read.

  Raises:
    UserError: the task cannot detect, review.csv is damaged, or training fails.
  """
  with files.locked(workdir / _LOCK, "reviewed"):
    with files.locked(workdir / LOCK, "searched for anomalies"):
      experiment, read = detect.prepare(build, config, workdir, "review")
      names = experiment.vocabularies["symbols"]
      load = lambda: answers.read(workdir, names, read, config)
      given = load()
      detector, arrays = calibrate(
        build, config, workdir, read, experiment.facts
      )
    sessions, settings = sessions_of(detector), config.detect
    normal = normal_scores(arrays, settings, given.of(sessions))
    worst = review.rank(normal, arrays, sessions, settings.reviewed)
    rows = [row for row in given.rows if row["answer"]]
    save = lambda: answers.write(workdir, rows)
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if len(worst):
      found = review.find(detector, normal, arrays, sessions, worst)
      rows = [*review.questions(found), *rows]
      if on_terminal:
        ask(found, rows, save)
      else:
        save()
    after = normal_scores(arrays, settings, load().of(sessions))
    before = normal_scores(arrays, settings)
    for line in review.changes(arrays, before, after, settings.rate):
      print(line)
    print(visible(_next_step(workdir, len(worst), on_terminal)))
  return after


def _next_step(workdir: Path, count: int, on_terminal: bool) -> str:
  """What the user can do after the review."""
  path = workdir / answers.NAME
  if on_terminal or not count:
    return f"{path}: --mode=detect uses these answers"
  return (
    f"{path}: write normal or anomalous, or nothing, in the column answer of"
    f" {count:,} sessions; --mode=detect and --mode=review read it"
  )


def ask(found: Findings, rows: list[dict], save: Callable[[], None]):
  """Asks about each session, until the user quits or the input ends.

  Args:
    found: the sessions.
    rows: of review.csv, those of the sessions first; answers are put there.
    save: called after each answer.
  """
  console, d = Console(highlight=False), 0
  try:
    while d < len(found.p):
      console.print(f"\n[bold]{d + 1} of {len(found.p)}[/bold]")
      printing.print_session(console, found, d)
      if rows[d]["answer"]:
        console.print(f"answered: {rows[d]['answer']}")
      match _key():
        case "quit":
          return
        case "back":
          d = max(d - 1, 0)
        case word:
          rows[d]["answer"] = word if word in WORDS else ""  # "": skipped.
          save()
          d += 1
  except (EOFError, KeyboardInterrupt):  # Ctrl-D, Ctrl-C.
    print()


def _key() -> str:
  """Reads one of the words of the keys."""
  while True:
    key = input(_PROMPT).strip().lower()
    if key in _KEYS.values():
      return key
    if key in _KEYS:
      return _KEYS[key]
