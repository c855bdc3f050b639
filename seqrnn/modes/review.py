"""review: asks whether the most anomalous calibration sessions are normal."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.errors import visible
from seqrnn.experiment import Experiment
from seqrnn.logs.detect import answers, printing, records
from seqrnn.logs.detect.calibration import (
  SETTINGS,
  NormalScores,
  calibrate,
  normal_scores,
  sessions_of,
)
from seqrnn.logs.detect.findings import LOCK
from seqrnn.logs.follow import feedback
from seqrnn.modes import detect
from seqrnn.runtime import files

# Settings of a detection on which the changes by answers depend, in addition to
# those of its scores.
_CHANGES = ("scores", "contamination", "rate")
_ASKED = 50  # The sessions of a review, at most.
_LOCK = ".review.lock"  # In the workdir, held while sessions are reviewed.
_SESSIONS = {"n": "normal", "a": "anomalous"}
_ALARMS = {"f": "false", "t": "true"}
_COMMON = {"s": "skip", "b": "back", "q": "quit"}


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> NormalScores:
  """Asks about alarms and sessions, and shows what the answers change.

  On a terminal it is a dialogue. Elsewhere the questions are written to
  alarms.csv and review.csv, and the answers that these have are read.

  Raises:
    UserError: the task cannot detect, a file is damaged, or training fails.
  """
  on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
  config = _as_detected(config, workdir)
  with files.locked(workdir / _LOCK, "reviewed"):
    goes_on = ask_about_alarms(config, workdir, on_terminal)
    examples = feedback.update(config, workdir)
    with files.locked(workdir / LOCK, "searched for anomalies"):
      experiment, read = detect.prepare(build, config, workdir, "review")
      names = experiment.vocabularies["symbols"]
      load = lambda: answers.read_answers(workdir, names, read, config)
      reviewed = load()
      detector, arrays = calibrate(
        build, config, workdir, read, experiment.facts
      )
    sessions, settings = sessions_of(detector), config.detect
    normal = normal_scores(arrays, settings, reviewed.of(sessions))
    worst = answers.most_anomalous(normal, arrays, sessions, _ASKED)
    rows = [row for row in reviewed.rows if row["answer"]]
    save = lambda: answers.write_answers(workdir, rows)
    if len(worst):
      asked = answers.reviewed_findings(
        detector, normal, arrays, sessions, worst
      )
      rows = [*answers.questions(asked), *rows]
      if not on_terminal:
        save()
      elif goes_on:
        ask(
          len(worst),
          lambda console, d: printing.print_session(console, asked, d),
          rows,
          save,
          _SESSIONS,
        )
    changes = feedback.collect(examples, load(), detector, arrays)
    after = normal_scores(arrays, settings, changes.answers, changes.rows)
    if changes.kinds:
      print(changes.text())
    before = normal_scores(arrays, settings)
    for line in answers.changes(arrays, before, after, settings.rate):
      print(line)
    print(visible(_next_step(workdir, len(worst), on_terminal)))
  return after


def _as_detected(config: Config, workdir: Path) -> Config:
  """The config with the settings of the last detection, if there is one.

  Raises:
    UserError: report.json is damaged.
  """
  path = workdir / "detect" / "report.json"
  if not path.exists():
    return config
  config, record = copy.deepcopy(config), records.read_object(path)
  with records.reading(path):
    for name in (*SETTINGS, *_CHANGES):
      config.detect[name] = record["config"]["detect"][name]
    config_lib.check(config)
  return config


def _next_step(workdir: Path, count: int, on_terminal: bool) -> str:
  """What the user can do after the review."""
  path = workdir / answers.NAME
  if on_terminal or not count:
    return f"{path}: --mode=detect uses these answers"
  return (
    f"{path}: write normal or anomalous, or nothing, in the column answer of"
    f" {count:,} sessions; --mode=detect and --mode=review read it"
  )


def ask_about_alarms(config: Config, workdir: Path, on_terminal: bool) -> bool:
  """Asks about kinds of a follower's alarms; returns False if the user quits.

  Raises:
    UserError: as `feedback.update`.
  """
  examples = feedback.update(config, workdir)
  if not examples:
    return True
  rows = [one.row for one in examples]
  save = lambda: feedback.write_answers(workdir, rows)
  path, count = workdir / feedback.NAME, sum(not row["answer"] for row in rows)
  if on_terminal:
    show = lambda console, d: printing.print_kind(console, rows[d])
    most = min(count, _ASKED)
    goes_on = ask(most, show, rows, save, _ALARMS)
    print(visible(f"{path}: a follower and --mode=detect use these answers"))
    return goes_on
  save()
  print(
    visible(
      f"{path}: write false or true, or nothing, in the column answer of"
      f" {count:,} kinds of alarms; a follower reads it at once, and"
      " --mode=detect uses it"
    )
  )
  return True


def ask(
  count: int,
  show: Callable[[Console, int], None],
  rows: list[dict],
  save: Callable[[], None],
  words: dict[str, str],
) -> bool:
  """Asks until all is answered, the user quits or the input ends.

  Args:
    count: number of questions.
    show: prints what a question is about.
    rows: of the file of the answers, the questions first; answers are put here.
    save: called after each answer.
    words: key -> answer.

  Returns:
    False if the user has quit.
  """
  console, d = Console(highlight=False), 0
  try:
    while d < count:
      console.print(f"\n[bold]{d + 1} of {count}[/bold]")
      show(console, d)
      if rows[d]["answer"]:
        console.print(f"answered: {rows[d]['answer']}")
      match _key(words | _COMMON):
        case "quit":
          return False
        case "back":
          d = max(d - 1, 0)
        case word:
          known = word in words.values()
          rows[d]["answer"] = word if known else ""  # "": skipped.
          save()
          d += 1
  except (EOFError, KeyboardInterrupt):  # Ctrl-D, Ctrl-C.
    print()
    return False
  return True


def _key(words: dict[str, str]) -> str:
  """Reads one of the words of the keys."""
  prompt = ", ".join(f"[{key}]{word[1:]}" for key, word in words.items())
  while True:
    key = input(f"{prompt}: ").strip().lower()
    if key in words.values():
      return key
    if key in words:
      return words[key]
