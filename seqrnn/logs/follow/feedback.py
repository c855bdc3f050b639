"""A person's answers in review.csv whether kinds of alarms are normal.

The state of a follower knows the kinds of its alarms, and the events of an
example of each. `--mode=review` asks about them in review.csv, which a follower
reads again when it changes: kinds that are normal become quiet. At the
next detection the example of a false alarm joins the calibration as a normal
session, which no model has seen, and sessions equal to an example have its
answer. alarms.json stores the examples, whose events are not masked, for when
the follower has forgotten them.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.secrets import Redaction, redaction
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.logs.detect import answers as answers_lib
from seqrnn.logs.detect import calibration, records
from seqrnn.logs.detect.answers import NAME, WORDS, Answers, ByKind
from seqrnn.logs.detect.detector import Detector
from seqrnn.logs.detect.selection import ANOMALOUS, NORMAL, UNANSWERED
from seqrnn.logs.follow import state
from seqrnn.logs.follow.alarms import Alarms, Kind
from seqrnn.runtime import files

EXAMPLES = "alarms.json"


class Example(NamedTuple):
  """A kind of alarms, by its example.

  Attributes:
    row: of review.csv.
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
    """Number and session, which identify the row."""
    return int(self.row["kind"]), str(self.row["session"])

  @property
  def answer(self) -> int:
    """NORMAL, ANOMALOUS or UNANSWERED."""
    return WORDS[self.row["answer"]]


def state_folder(config: Config, workdir: Path) -> Path:
  """The folder of a follower's state."""
  folder = config.detect.output
  return workdir / "follow" if folder is None else Path(folder)


class Inbox:
  """Answers, for a follower that looks for them again and again."""

  def __init__(self, workdir: Path, errors: str):
    self._workdir, self._errors = workdir, errors
    self._stamp: tuple[int, ...] | None = None

  def poll(self) -> ByKind | None:
    """The answers; None: review.csv is as before.

    Raises:
      UserError: as `load_rows`, once for each change of the file.
    """
    try:
      status = (self._workdir / NAME).stat()
    except OSError:
      return None
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    if stamp == self._stamp:
      return None
    self._stamp = stamp
    return answers_lib.alarm_answers(
      answers_lib.load_rows(self._workdir, self._errors)
    )


def apply(
  alarms: Alarms, answers: ByKind, masks: Redaction | None
) -> list[Kind]:
  """Gives a follower's alarms the answers; returns kinds that become quiet.

  Args:
    alarms: of the follower.
    answers: on kinds.
    masks: of the names in review.csv.
  """
  quiet = []
  for (number, session), word in answers.items():
    kind = alarms.kinds.get(number)
    # A follower that has begun anew has other kinds of these numbers.
    if kind is None or session != _name(kind, masks):
      continue
    if WORDS[word] == NORMAL != kind.answer:
      quiet.append(kind)
    alarms.answer(number, WORDS[word])
  return quiet


def _name(kind: Kind, masks: Redaction | None) -> str:
  return masks.name(kind.session) if masks else kind.session


def quiet_message(kind: Kind, masks: Redaction | None) -> str:
  """The line on a kind that becomes quiet."""
  event = masks.text(kind.event) if masks else kind.event
  return (
    f"alarms of kind {kind.number} ({event}) are normal by {NAME}:"
    f" {kind.count:,} so far, and none is written from now on"
  )


def load_examples(
  config: Config, workdir: Path, answers: ByKind
) -> list[Example]:
  """The kinds of alarms with their answers, and writes alarms.json.

  Those with more alarms come first.

  Raises:
    UserError: alarms.json or the follower's state is damaged.
  """
  path = workdir / EXAMPLES
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
    one._replace(row={**one.row, "answer": answers.get(one.key, "")})
    for one in by_key.values()
  ]
  if examples:
    content = json.dumps({"examples": [one._asdict() for one in examples]})
    with files.atomic_write(path) as file:
      file.write(content)
  return sorted(examples, key=lambda one: -one.row["count"])


def _example(kind: Kind, sessions: int, masks: Redaction | None) -> Example:
  """A kind as review.csv has it."""
  row, text = kind.example, masks.text if masks else str
  context = [*row["before"], row["event"], *row["after"]]
  columns = {"line": "line", "timestamp": "time"}
  where = {name: row[key] for name, key in columns.items() if key in row}
  return Example(
    {
      "kind": kind.number,
      "session": _name(kind, masks),
      "count": kind.count,
      "severity": row["severity"],
      **where,
      "event": text(row["event"]),
      "context": " | ".join(map(text, context)),
      "answer": "",
    },
    kind.symbols,
    kind.whole,
    kind.count / max(sessions, kind.count),
  )


class Feedback(NamedTuple):
  """The changes of a calibration by answers.

  Attributes:
    answers: on each row of calibration.npz; None: there are none.
    rows: arrays as those of calibration.npz, of false alarms; empty: none.
    kinds: answer -> number of kinds of alarms.
  """

  answers: np.ndarray | None
  rows: dict[str, Any]
  kinds: Counter[int]

  def text(self) -> str:
    """A line on the changes by answers to alarms."""
    joined = int(self.rows["counts"].sum()) if self.rows else 0
    return (
      f"calibration: kinds of alarms that are normal by {NAME}:"
      f" {self.kinds[NORMAL]:,}, which join it as {joined:,} sessions; that are"
      f" anomalous: {self.kinds[ANOMALOUS]:,}, and sessions equal to their"
      " examples are left out"
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
    reviewed: the answers on sessions.
    detector: of the run.
    arrays: of calibration.npz.

  Raises:
    UserError: equal sessions have different answers.
  """
  examples = [one for one in examples if one.answer != UNANSWERED]
  by_key, sessions = dict(reviewed.by_key), _sessions(examples, detector.names)
  for one, key in zip(examples, sessions.session_keys(), strict=True):
    if by_key.setdefault(key, one.answer) != one.answer:
      number, name = one.key
      raise UserError(
        f"{NAME}: kind {number} is {one.row['answer']}, but a session equal to"
        f" its example {name!r} has another answer"
      )
  of_rows, reviewed = None, reviewed._replace(by_key=by_key)
  if by_key:
    of_rows = reviewed.of(calibration.sessions_of(detector))
  false = [one for one in examples if one.answer == NORMAL]
  return Feedback(
    of_rows,
    _rows(false, detector, int(arrays["counts"].sum())) if false else {},
    Counter(one.answer for one in examples),
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
