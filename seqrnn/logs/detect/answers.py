"""review.csv: a person's answers, whether sessions are normal."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs import sessions as data
from seqrnn.data.logs.secrets import Redaction, redaction
from seqrnn.data.logs.sessions import Key, Sessions
from seqrnn.data.read import reading
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.logs.detect.selection import ANOMALOUS, NORMAL, UNANSWERED
from seqrnn.runtime import files

NAME = "review.csv"
WORDS = {"normal": NORMAL, "anomalous": ANOMALOUS, "": UNANSWERED}


class Answers(NamedTuple):
  """The answers in review.csv.

  Attributes:
    rows: of the file, column -> text.
    by_key: key of a session -> NORMAL or ANOMALOUS, for all equal sessions.
  """

  rows: list[dict[str, Any]]
  by_key: dict[Key, int]

  def of(self, sessions: Sessions) -> np.ndarray:
    """The answer of each session, UNANSWERED if there is none."""
    found = (
      self.by_key.get(key, UNANSWERED) for key in sessions.session_keys()
    )
    return np.array(list(found), int)


def read(
  workdir: Path,
  names: Vocabulary,
  pieces: Callable[[str], Pieces],
  config: Config,
) -> Answers:
  """Reads review.csv, if there is one.

  Args:
    workdir: of the run.
    names: vocabulary of the events.
    pieces: split -> its pieces; the answers are on sessions of training and
      validation.
    config: of the run; names of sessions may be masked.

  Raises:
    UserError: the file is damaged, or has an unknown answer or session, or
      different answers for equal sessions.
  """
  path = workdir / NAME
  answers, source = Answers([], {}), reading.Source(str(path), path)
  if not path.exists():
    return answers
  lines: dict[str, int] = {}
  for line, row in reading.rows(source, config.data.errors):
    for column in ("session", "answer"):
      if column not in row:
        raise UserError(f"{path}:1: has no column {column!r}")
    word = row["answer"] = (row["answer"] or "").strip().lower()
    if word not in WORDS:
      raise UserError(
        f"{path}:{line}: answer={word!r}: must be normal, anomalous or empty"
      )
    if row["session"] in lines:
      raise UserError(
        f"{path}:{line}: session {row['session']!r} is also in line"
        f" {lines[row['session']]}"
      )
    lines[row["session"]] = line
    answers.rows.append(row)
  masks = redaction(config.detect.redact)
  keys = _keys(set(lines), names, pieces, masks)
  first: dict[Key, str] = {}
  for row in answers.rows:
    name, line = row["session"], lines[row["session"]]
    if name not in keys:
      raise UserError(
        f"{path}:{line}: session={name!r}: is no session of training or"
        " validation"
      )
    key, answer = keys[name], WORDS[row["answer"]]
    if answer == UNANSWERED:
      continue
    if answers.by_key.setdefault(key, answer) != answer:
      raise UserError(
        f"{path}:{line}: session {name!r} equals {first[key]!r} of line"
        f" {lines[first[key]]}, which has another answer"
      )
    first.setdefault(key, name)
  return answers


def _keys(
  wanted: set[str],
  names: Vocabulary,
  pieces: Callable[[str], Pieces],
  masks: Redaction | None,
) -> dict[str, Key]:
  """The keys of sessions, by their names as they are wanted."""
  found: dict[str, Key] = {}
  for split in ("train", "validation"):
    sessions = data.of_pieces(pieces(split), names)
    some = {j: n for j, n in enumerate(sessions.names) if n in wanted}
    if masks is not None:
      masked = {j: masks.name(n) for j, n in enumerate(sessions.names)}
      some |= {j: n for j, n in masked.items() if n in wanted}
    keys = sessions.take(np.array(list(some), np.int64)).session_keys()
    for name, key in zip(some.values(), keys, strict=True):
      found.setdefault(name, key)
  return found


def write(workdir: Path, rows: list[dict[str, Any]]):
  """Writes the rows, with the columns of all of them, to review.csv."""
  columns = list(dict.fromkeys(name for row in rows for name in row))
  with files.atomic_write(workdir / NAME, "wb") as raw:
    text = io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline="")
    writer = csv.DictWriter(text, columns, "", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    text.flush()
    text.detach()
