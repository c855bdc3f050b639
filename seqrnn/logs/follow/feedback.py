"""alarms.csv: a person's answers, whether kinds of alarms are false.

The state of a follower knows the kinds of its alarms, and the events of an
example of each. `--mode=review` asks about them in alarms.csv, which a follower
reads again when it changes: kinds that are false alarms become quiet. At the
next detection the example of a false alarm joins the calibration as a normal
session, which no model has seen, and sessions equal to an example follow its
answer as those of review.csv do. alarms.json keeps the examples, whose events
are not masked, for when the follower has forgotten them.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.secrets import Redaction, redaction
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.read import reading
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.logs.detect import calibration, records
from seqrnn.logs.detect.answers import Answers
from seqrnn.logs.detect.cleaning import ANOMALOUS, NORMAL
from seqrnn.logs.detect.detector import Detector
from seqrnn.logs.follow import state
from seqrnn.logs.follow.alarms import FALSE, TRUE, UNANSWERED, Alarms, Kind
from seqrnn.runtime import files

NAME = "alarms.csv"
EXAMPLES = "alarms.json"
_FIELDS = ("kind", "session", "answer")  # Those that are read.
_WORDS = (FALSE, TRUE, UNANSWERED)

ByKind = dict[tuple[int, str], str]  # Kind, session of its example -> answer.


class Example(NamedTuple):
  """A kind of alarms, by its example.

  Attributes:
    row: of alarms.csv.
    symbols: the events of the example as read.
    whole: whether these are all, up to the end of the session.
    share: of all sessions that a follower has seen, those of this kind.
  """

  row: dict[str, Any]
  symbols: list[str]
  whole: bool
  share: float

  @property
  def key(self) -> tuple[int, str]:
    """What the row is found by."""
    return int(self.row["kind"]), str(self.row["session"])


def state_folder(config: Config, workdir: Path) -> Path:
  """The folder of a follower's state."""
  folder = config.detect.output
  return workdir / "follow" if folder is None else Path(folder)


def read_answers(workdir: Path, errors: str) -> ByKind:
  """The answers in alarms.csv, if there is one.

  Args:
    workdir: of the run.
    errors: as `data.errors`.

  Raises:
    UserError: the file is damaged or has an unknown answer.
  """
  path, answers = workdir / NAME, {}
  if not path.exists():
    return {}
  for line, row in reading.rows(reading.Source(str(path), path), errors):
    if missing := [column for column in _FIELDS if column not in row]:
      raise UserError(f"{path}:1: has no column {missing[0]!r}")
    word = (row["answer"] or "").strip().lower()
    number = (row["kind"] or "").strip()
    if word not in _WORDS or not re.fullmatch(r"[0-9]{1,9}", number):
      raise UserError(
        f"{path}:{line}: kind={number[:20]!r}, answer={word!r}: must be a"
        " number of a kind, and false, true or empty"
      )
    key = int(number), row["session"] or ""
    if answers.setdefault(key, word) != word:
      raise UserError(
        f"{path}:{line}: kind {key[0]} of session {key[1]!r} has another answer"
        " above"
      )
  return answers


class Inbox:
  """Answers, for a follower that looks for them again and again."""

  def __init__(self, workdir: Path, errors: str):
    self._workdir, self._errors = workdir, errors
    self._stamp: tuple[int, ...] | None = None

  def poll(self) -> ByKind | None:
    """The answers; None: alarms.csv is as before.

    Raises:
      UserError: as `read_answers`, once for each change of the file.
    """
    try:
      status = (self._workdir / NAME).stat()
    except OSError:
      return None
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    if stamp == self._stamp:
      return None
    self._stamp = stamp
    return read_answers(self._workdir, self._errors)


def apply(
  alarms: Alarms, answers: ByKind, masks: Redaction | None
) -> list[Kind]:
  """Gives a follower's alarms the answers; returns kinds that become quiet.

  Args:
    alarms: of the follower.
    answers: as `read_answers` returns them.
    masks: of the names in alarms.csv.
  """
  quiet = []
  for (number, session), answer in answers.items():
    kind = alarms.kinds.get(number)
    # A follower that has begun anew has other kinds of these numbers.
    if kind is None or session != _name(kind, masks):
      continue
    if answer == FALSE != kind.answer:
      quiet.append(kind)
    alarms.answer(number, answer)
  return quiet


def _name(kind: Kind, masks: Redaction | None) -> str:
  return masks.name(kind.session) if masks else kind.session


def said(kind: Kind, masks: Redaction | None) -> str:
  """The line on a kind that becomes quiet."""
  event = masks.text(kind.event) if masks else kind.event
  return (
    f"alarms of kind {kind.number} ({event}) are false by {NAME}:"
    f" {kind.count:,} so far, and none is written from now on"
  )


def update(config: Config, workdir: Path) -> list[Example]:
  """The kinds of alarms with their answers, and writes alarms.json.

  Those without an answer come first, then those with more alarms.

  Raises:
    UserError: alarms.csv, alarms.json or the follower's state is damaged.
  """
  answers, path = read_answers(workdir, config.data.errors), workdir / EXAMPLES
  by_key = {}
  if path.exists():
    earlier = records.read_object(path)
    with records.reading(path):
      for fields in earlier["examples"]:
        example = Example(**fields)
        by_key[example.key] = example
  stored = state.read_kinds(state_folder(config, workdir))
  masks = redaction(config.detect.redact)
  if stored is not None:
    alarms, (facts, kinds) = Alarms(0.0), stored
    alarms.restore(facts["alarms"], kinds)
    for kind in alarms.kinds.values():
      if kind.example:
        example = _example(kind, alarms.sessions, masks)
        by_key[example.key] = example
  examples = [
    one._replace(row={**one.row, "answer": answers.get(one.key, UNANSWERED)})
    for one in by_key.values()
  ]
  if examples:
    content = json.dumps({"examples": [one._asdict() for one in examples]})
    with files.atomic_write(path) as file:
      file.write(content)
  return sorted(
    examples, key=lambda one: (one.row["answer"] != "", -one.row["count"])
  )


def _example(kind: Kind, sessions: int, masks: Redaction | None) -> Example:
  """A kind as alarms.csv has it."""
  row, text = kind.example, masks.text if masks else str
  context = [*row["before"], row["event"], *row["after"]]
  where = {name: row[name] for name in ("line", "time") if name in row}
  return Example(
    {
      "kind": kind.number,
      "count": kind.count,
      "severity": row["severity"],
      "session": _name(kind, masks),
      **where,
      "event": text(row["event"]),
      "context": " | ".join(map(text, context)),
      "answer": "",
    },
    kind.symbols,
    kind.whole,
    kind.count / max(sessions, kind.count),
  )


def write_answers(workdir: Path, rows: Sequence[dict[str, Any]]):
  """Writes the rows, with the columns of all of them, to alarms.csv."""
  columns = ["kind", "count", "severity", "session", "line", "time"]
  columns += ["event", "context", "answer"]
  columns = [name for name in columns if any(name in row for row in rows)]
  with files.atomic_write(workdir / NAME, "wb") as raw:
    text = io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline="")
    writer = csv.DictWriter(text, columns, "", "ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    text.flush()
    text.detach()


class Feedback(NamedTuple):
  """What answers change in a calibration.

  Attributes:
    answers: of review.csv and of alarms.csv on each row of calibration.npz;
      None: there are none.
    rows: arrays as those of calibration.npz, of false alarms; empty: none.
    kinds: answer -> number of kinds of alarms.
  """

  answers: np.ndarray | None
  rows: dict[str, Any]
  kinds: Counter[str]

  def text(self) -> str:
    """What the answers to alarms change, in a line."""
    joined = int(self.rows["counts"].sum()) if self.rows else 0
    return (
      f"calibration: kinds of alarms that are false by {NAME}:"
      f" {self.kinds[FALSE]:,}, which join it as {joined:,} sessions; that are"
      f" true: {self.kinds[TRUE]:,}, and sessions equal to their examples are"
      " left out"
    )


def collect(
  examples: Sequence[Example],
  reviewed: Answers,
  detector: Detector,
  arrays: dict[str, np.ndarray],
) -> Feedback:
  """Brings answers to alarms into a calibration.

  Args:
    examples: the kinds of alarms.
    reviewed: the answers of review.csv.
    detector: of the run.
    arrays: of calibration.npz.

  Raises:
    UserError: equal sessions have different answers.
  """
  examples = [one for one in examples if one.row["answer"]]
  by_key, sessions = dict(reviewed.by_key), _sessions(examples, detector.names)
  for one, key in zip(examples, sessions.session_keys(), strict=True):
    answer = NORMAL if one.row["answer"] == FALSE else ANOMALOUS
    if by_key.setdefault(key, answer) != answer:
      number, name = one.key
      raise UserError(
        f"{NAME}: kind {number} is {one.row['answer']}, but a session equal to"
        f" its example {name!r} has another answer"
      )
  of_rows, reviewed = None, reviewed._replace(by_key=by_key)
  if by_key:
    of_rows = reviewed.of(calibration.sessions_of(detector))
  false = [one for one in examples if one.row["answer"] == FALSE]
  return Feedback(
    of_rows,
    _rows(false, detector, int(arrays["counts"].sum())) if false else {},
    Counter(str(one.row["answer"]) for one in examples),
  )


def _sessions(examples: Sequence[Example], names: Vocabulary) -> Sessions:
  """The sessions of the examples."""
  ids = [names.encode(one.symbols) for one in examples]
  whole = np.array([one.whole for one in examples], bool)
  return Sessions(
    np.concatenate([np.zeros(0, np.int32), *ids]),
    np.cumsum([0, *map(len, ids)]),
    [str(one.row["session"]) for one in examples],
    begins=np.ones(len(ids), bool),
    ends=whole,
  )


def _rows(
  examples: Sequence[Example], detector: Detector, sessions: int
) -> dict[str, np.ndarray]:
  """The rows of false alarms, spread over the models.

  A kind has the same share of the calibration as of the follower's sessions.
  """
  models = len(detector.steps)
  false_alarms = _sessions(examples, detector.names)
  counts_KD = np.zeros((models, len(examples)), np.int64)
  for d, one in enumerate(examples):
    count = max(round(one.share * sessions), 1)
    # No model gets more of all kinds than another.
    counts_KD[:, d] = (count + (d + np.arange(models)) % models) // models
  return calibration.calibration_arrays(
    [
      detector.alone(k).score(false_alarms, counts_D)
      for k, counts_D in enumerate(counts_KD)
    ]
  )
