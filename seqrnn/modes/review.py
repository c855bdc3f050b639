"""review: asks whether the most anomalous calibration sessions are normal."""

from pathlib import Path

from seqrnn.config import derived
from seqrnn.config.read import Config
from seqrnn.data.read import stored
from seqrnn.errors import visible
from seqrnn.experiment import Build
from seqrnn.logs.detect import answers, calibration, deployed, tables
from seqrnn.logs.detect.normal import NormalScores, normal_scores
from seqrnn.logs.follow import feedback
from seqrnn.modes import detect
from seqrnn.runtime import files

# Settings of a detection on which the changes by answers depend, in addition to
# those of its scores.
_CHANGES = ("scores", "contamination", "rate", "rule")
_ASKED = 50  # The kinds of alarms, and the sessions, of a review, at most.
_LOCK = ".review.lock"  # In the workdir, held while sessions are reviewed.


def run(build: Build, config: Config, workdir: Path) -> NormalScores:
  """Asks about alarms and sessions, and prints the changes by the answers.

  The questions are written to review.csv, and the answers that it has are read.

  Raises:
    UserError: the task cannot detect, a file is damaged, or training fails.
  """
  config = as_detected(config, workdir)
  with files.locked(workdir / _LOCK, "reviewed"):
    with files.locked(workdir / deployed.LOCK, "searched for anomalies"):
      prepared = detect.prepare(build, config, workdir, "review")
      names = prepared.experiment.vocabularies["symbols"]
      reviewed = answers.load_answers(workdir, names, prepared.read, config)
      kinds = feedback.record_kinds(config, workdir)
      detector, known = calibration.calibrate(prepared)
    sessions, settings = detector.held_out_once(), config.detect
    normal = normal_scores(known, settings, reviewed.of(sessions))
    rows = [feedback.review_row(kind, reviewed.by_kind) for kind in kinds]
    alarms = [row for row in rows if not row["answer"]]
    questions = [
      *alarms[:_ASKED],
      *answers.session_questions(detector, normal, known, sessions, _ASKED),
    ]
    answered = [row for row in (*rows, *reviewed.rows) if row["answer"]]
    if questions:
      answers.write_rows(workdir, [*questions, *answered])
    changes = feedback.collect(kinds, reviewed, detector, known)
    after = normal_scores(known, settings, changes.answers, changes.false)
    for line in (*changes.lines, *tables.calibration_lines(after, settings)):
      print(line)
    line = (
      f"{workdir / answers.NAME}: write normal or anomalous, or nothing, in the"
      f" column answer of {len(questions):,} rows; --mode=detect, --mode=review"
      " and --follow read it"
    )
    print(visible(line))
  return after


def as_detected(config: Config, workdir: Path) -> Config:
  """The config with the settings of the last detection, if there is one.

  Raises:
    UserError: report.json is damaged.
  """
  path = workdir / "detect" / "report.json"
  if not path.exists():
    return config
  record = stored.read_object(path)
  with stored.reading(path):
    settings = record["config"]["detect"]
    names = (*calibration.SETTINGS, *_CHANGES)
    return derived.checked(config, {f"detect.{n}": settings[n] for n in names})
