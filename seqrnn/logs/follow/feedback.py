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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.logs.values import MEASURES
from seqrnn.data.read import stored
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.logs.detect.answers import NAME, WORDS, Answers, ByKind
from seqrnn.logs.detect.detector import Detector
from seqrnn.logs.detect.normal import NormalSessions
from seqrnn.logs.follow import state
from seqrnn.logs.follow.alarms import AlarmKind
from seqrnn.logs.follow.novel import NEW
from seqrnn.logs.follow.state import as_type
from seqrnn.logs.follow.verdicts import sessions_of
from seqrnn.runtime import files, generations

EXAMPLES = "alarms.json"
_REMEDY = "remove it, and its answers do not count"


def state_folder(config: Config, workdir: Path) -> Path:
  """The folder of a follower's state."""
  folder = config.detect.output
  workdir = generations.workdir_of(workdir)
  return workdir / "follow" if folder is None else Path(folder)


def record_kinds(config: Config, workdir: Path) -> list[AlarmKind]:
  """Adds a follower's kinds of alarms to alarms.json; returns all that it has.

  Those with more alarms come first.

  Raises:
    UserError: alarms.json or the follower's state is damaged.
  """
  path = workdir / EXAMPLES
  kinds: dict[tuple[int, str], AlarmKind] = {}
  if path.exists():
    content = stored.read_object(path, _REMEDY)
    with stored.reading(path, _REMEDY):
      for kind in as_type(list[AlarmKind], content["kinds"]):
        if not 0 <= kind.share <= 1 <= kind.count:
          raise ValueError(f"share={kind.share!r}, count={kind.count!r}")
        kinds[kind.key] = kind
  folder = state_folder(config, workdir)
  if of_follower := state.read_kinds(folder):
    with state.damage(folder / state.NAME):
      facts, rows = of_follower
      counts = as_type(dict[str, int], as_type(dict, facts)["alarms"])
      for *_, value in rows:
        kind = as_type(AlarmKind, value)
        kind.share = kind.count / max(counts["sessions"], kind.count, 1)
        kinds[kind.key] = kind
  if kinds:
    content = {"kinds": [*map(vars, kinds.values())]}
    with files.atomic_write(path) as file:
      json.dump(content, file)
  return sorted(kinds.values(), key=lambda kind: -kind.count)


def review_row(kind: AlarmKind, answers: ByKind) -> dict[str, str | int | None]:
  """A kind as review.csv has it."""
  row = kind.example
  return {
    "kind": kind.number,
    "session": row["session"],
    "count": kind.count,
    "severity": row.get("severity"),
    "line": row.get("line"),
    "timestamp": row.get("time"),
    "event": row["event"],
    "context": " | ".join([*row["before"], row["event"], *row["after"]]),
    "answer": answers.get(kind.key, ""),
  }


def new_events(
  kinds: Iterable[AlarmKind], answers: ByKind, word: str
) -> dict[str, str | None]:
  """The new events whose kinds have this answer, as `Deployed.accepted`."""
  return {
    kind.symbols[0]: next(iter(kind.symbols[1:]), None)
    for kind in kinds
    if kind.example.get("score") == NEW and answers.get(kind.key) == word
  }


class Feedback(NamedTuple):
  """The changes of a calibration by answers.

  Attributes:
    answers: on each normal session; None: there are none.
    false: normal sessions of false alarms; None: there are none.
    lines: on the changes by answers to alarms; empty: there are none.
  """

  answers: np.ndarray | None
  false: NormalSessions | None
  lines: list[str]


def collect(
  kinds: Sequence[AlarmKind],
  reviewed: Answers,
  detector: Detector,
  normal: NormalSessions,
) -> Feedback:
  """Brings answers to alarms into a calibration.

  An example is a session without the new events that are normal by an answer,
  as those of the next detection are; without any other event, it does not join.

  Args:
    kinds: of alarms.
    reviewed: the answers.
    detector: of the run.
    normal: sessions.

  Raises:
    UserError: equal sessions have different answers.
  """
  reviewed, false, count = with_kinds(kinds, reviewed, detector.names)
  if not reviewed.by_key and not count:
    return Feedback(None, None, [])
  on_sessions = reviewed.of(detector.held_out_once())
  examples, joined = None, 0
  accepted = new_events(kinds, reviewed.by_kind, "normal")
  false = [kind for kind in false if {*kind.symbols} - accepted.keys()]
  if false:
    total = int(normal.counts.sum())
    examples = _normal_sessions(false, accepted, detector, total)
    joined = int(examples.counts.sum())
  text = (
    f"calibration: kinds of alarms that are normal by {NAME}: {len(false):,},"
    f" which join it as {joined:,} sessions; that are anomalous:"
    f" {count - len(false):,}, and sessions equal to their examples are"
    " left out"
  )
  return Feedback(on_sessions, examples, [text] if count else [])


def with_kinds(
  kinds: Sequence[AlarmKind], reviewed: Answers, names: Vocabulary
) -> tuple[Answers, list[AlarmKind], int]:
  """The answers on sessions, with those on the examples of alarms.

  Returns:
    them; the kinds that are false alarms; and the number of answered kinds.

  Raises:
    UserError: equal sessions have different answers.
  """
  answered = [
    kind
    for kind in kinds
    if reviewed.by_kind.get(kind.key)
    # Other sessions of these events have other values and times; a new event
    # is no session.
    and kind.example.get("score") not in (*MEASURES, NEW)
  ]
  by_key, false = dict(reviewed.by_key), []
  keys = _sessions(answered, names).session_keys()
  for kind, key in zip(answered, keys, strict=True):
    word = reviewed.by_kind[kind.key]
    false += [kind] * (word == "normal")
    if by_key.setdefault(key, WORDS[word]) != WORDS[word]:
      number, name = kind.key
      raise UserError(
        f"{NAME}: kind {number} is {word}, but a session equal to its example"
        f" {name!r} has another answer"
      )
  return reviewed._replace(by_key=by_key), false, len(answered)


def _sessions(kinds: Sequence[AlarmKind], names: Vocabulary) -> Sessions:
  """The sessions of the examples."""
  symbols = [kind.symbols for kind in kinds]
  begins = [True] * len(kinds)
  return sessions_of(symbols, begins, [kind.whole for kind in kinds], names)


def _normal_sessions(
  kinds: Sequence[AlarmKind],
  accepted: Mapping[str, str | None],
  detector: Detector,
  sessions: int,
) -> NormalSessions:
  """The sessions of false alarms, spread over the models.

  A kind has the same share of the calibration as of the follower's sessions.
  """
  models, names = len(detector.steps), detector.names
  examples = _sessions(kinds, names).without(accepted, names)
  counts_D = [max(round(kind.share * sessions), 1) for kind in kinds]
  # No model gets more of all kinds than another.
  later_KD = np.add.outer(np.arange(models), np.arange(len(kinds))) % models
  counts_KD = (np.array(counts_D)[None] + later_KD) // models
  return NormalSessions.concatenate(
    [
      NormalSessions.of_scores(
        detector.alone(k).score(examples, counts_D), k, detector.steps
      )
      for k, counts_D in enumerate(counts_KD)
    ]
  )
