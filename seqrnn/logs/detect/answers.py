"""review.csv: a person's answers whether sessions and alarms are normal.

A row is about a session of the calibration, or about a kind of a follower's
alarms, whose number is in the column `kind`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.logs.sessions import Key, Sessions, of_pieces
from seqrnn.data.read import reading
from seqrnn.data.splits import Read
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError, report
from seqrnn.logs.detect.detector import Detector
from seqrnn.logs.detect.findings import find_anomalies, worst_positions
from seqrnn.logs.detect.normal import (
  ANOMALOUS,
  NORMAL,
  UNANSWERED,
  NormalScores,
  NormalSessions,
)
from seqrnn.logs.detect.scores import COMBINED
from seqrnn.logs.detect.tables import TableCell, example_of, write_csv_table
from seqrnn.runtime import generations


def _p_values(normal: NormalScores, sessions: NormalSessions) -> np.ndarray:
  """The p-value of each normal session, by the combined score of its model [R].

  A session is compared with those that calibrate its model: if it is one of
  them, as one of them; if not, as a new session.
  """
  calibrates, model = normal.selection.calibrates, sessions.model
  calibration = normal.scores[COMBINED]
  scores = normal.combined(sessions, calibrates)
  neg_log_p = calibration.own_neg_log_p(scores, model, calibrates)
  n = np.array([group.n for group in calibration.groups])[model]
  return np.maximum(np.exp(-neg_log_p), 1 / (n + ~calibrates))


def session_questions(
  detector: Detector,
  normal: NormalScores,
  table: NormalSessions,
  sessions: Sessions,
  most: int,
) -> list[dict[str, TableCell]]:
  """A row of review.csv for each of the most anomalous unanswered sessions.

  Equal sessions are one, by the model for which it is most anomalous. Sessions
  are ranked by their highest surprisal: it depends on no choice of scores,
  which anomalies in the calibration can mislead.

  Args:
    detector: of the run.
    normal: its calibration.
    table: all normal sessions.
    sessions: their events.
    most: the number of sessions, at most.
  """
  # Answers are about events, whatever values and times are.
  sessions = sessions._replace(seconds=None, values=None, unusual=None)
  neg_log_p = normal.scores["max"].own_neg_log_p(
    table.scores["max"], table.model, normal.selection.calibrates
  )
  order = np.argsort(-neg_log_p, kind="stable")
  open_R = (normal.selection.answers == UNANSWERED) & (table.sizes > 0)
  order, which = order[open_R[order]], sessions.distinct().which
  _, first = np.unique(which[order], return_index=True)
  asked = order[np.sort(first)[:most]]
  if not len(asked):
    return []
  findings = find_anomalies(detector, normal, sessions.take(asked))
  # The worst event is that of the model of the session.
  scored, model = findings.scored, table.model[asked]
  model_N = np.repeat(model, np.diff(scored.bounds))
  nll = scored.member_nll[model_N, np.arange(len(model_N))]
  scored = scored._replace(nll=nll)
  worst_J = worst_positions(scored)[findings.distinct.which]
  findings = findings._replace(scored=scored, worst_J=worst_J)
  counts = np.bincount(which, table.counts).astype(int)[which[asked]]
  p = _p_values(normal, table)
  questions: list[dict[str, TableCell]] = []
  for d, row in enumerate(asked.tolist()):
    one = example_of(findings, [d])
    questions.append(
      {
        "session": one.session,
        **one.place,
        "event": one.why.event,
        "count": int(counts[d]),
        "p_value": float(f"{p[row]:.6g}"),
        "context": " | ".join(one.why.events),
        "kind": "",
        "answer": "",
      }
    )
  return questions


NAME = "review.csv"
WORDS = {"normal": NORMAL, "anomalous": ANOMALOUS, "": UNANSWERED}
_COLUMNS = ("kind", "session", "count", "p_value", "severity", "file", "line")
_COLUMNS += ("timestamp", "event", "context", "answer")

# Kind as text, "" for a session; session -> line and row of review.csv.
ReviewRows = dict[tuple[str, str], tuple[int, dict[str, str]]]
# Number of a kind of alarms, session of its example -> a word of WORDS.
ByKind = dict[tuple[int, str], str]


class Answers(NamedTuple):
  """The answers in review.csv.

  Attributes:
    rows: of the file on sessions, column -> text.
    by_key: key of a session -> NORMAL or ANOMALOUS, for all equal sessions.
    by_kind: as `alarm_answers`.
  """

  rows: list[dict[str, str]]
  by_key: dict[Key, int]
  by_kind: ByKind

  def of(self, sessions: Sessions) -> np.ndarray:
    """The answer of each session, UNANSWERED if there is none."""
    keys = sessions.session_keys()
    return np.array([self.by_key.get(key, UNANSWERED) for key in keys], int)


def load_rows(workdir: Path, errors: str) -> ReviewRows:
  """The rows of review.csv, if there is one.

  Args:
    workdir: of the run.
    errors: as `data.errors`.

  Raises:
    UserError: the file is damaged, or has an unknown answer or a row twice.
  """
  path, rows = workdir / NAME, {}
  if not path.exists():
    return rows
  for line, row in reading.rows(reading.Source(str(path), path), errors):
    for column in ("session", "answer"):
      if column not in row:
        raise UserError(f"{path}:1: has no column {column!r}")
    word = row["answer"] = (row["answer"] or "").strip().lower()
    if word not in WORDS:
      raise UserError(
        f"{path}:{line}: answer={word!r}: must be normal, anomalous or empty"
      )
    kind = (row.get("kind") or "").strip()
    if kind and not re.fullmatch(r"[1-9][0-9]{0,8}", kind):
      raise UserError(
        f"{path}:{line}: kind={kind[:20]!r}: must be the number of a kind of"
        " alarms, or empty"
      )
    session = row["session"] or ""
    earlier, _ = rows.setdefault((kind, session), (line, row))
    if earlier != line:
      raise UserError(
        f"{path}:{line}: session {session!r} is also in line {earlier}"
      )
  return rows


def alarm_answers(rows: ReviewRows) -> ByKind:
  """The answers on kinds of alarms, empty ones included."""
  return {
    (int(kind), session): row["answer"]
    for (kind, session), (_, row) in rows.items()
    if kind
  }


def load_answers(
  workdir: Path, names: Vocabulary, pieces: Read, config: Config
) -> Answers:
  """The answers in review.csv, if there is one.

  Args:
    workdir: of the run.
    names: vocabulary of the events.
    pieces: split -> its pieces; the answers are on sessions of training and
      validation.
    config: of the run; names of sessions may be masked.

  Raises:
    UserError: as `load_rows`; a session is unknown, or equal sessions have
      different answers.
  """
  path, rows = workdir / NAME, load_rows(workdir, config.data.errors)
  first_path = generations.workdir_of(workdir) / NAME
  if first_path != path and first_path.exists():
    model = workdir / "config.json"
    if first_path.stat().st_mtime > model.stat().st_mtime:
      report(
        f"warning: {first_path}: is not read since a refresh; write answers"
        f" into {path}"
      )
  by_name = {session: row for (kind, session), row in rows.items() if not kind}
  answers = Answers([x for _, x in by_name.values()], {}, alarm_answers(rows))
  if not by_name:
    return answers
  keys = _keys(set(by_name), names, pieces, Redaction(config.detect.redact))
  first: dict[Key, str] = {}
  for name, (line, row) in by_name.items():
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
        f" {by_name[first[key]][0]}, which has another answer"
      )
    first.setdefault(key, name)
  return answers


def _keys(
  wanted: set[str], names: Vocabulary, pieces: Read, masks: Redaction
) -> dict[str, Key]:
  """The keys of sessions, by their names, with masks or without."""
  keys: dict[str, Key] = {}
  for split in ("train", "validation"):
    sessions = of_pieces(pieces(split), names)
    for name, key in zip(sessions.names, sessions.session_keys(), strict=True):
      for shown in (name, masks.name(name)):
        if shown in wanted:
          keys.setdefault(shown, key)
  return keys


def write_rows(workdir: Path, rows: Sequence[Mapping[str, TableCell]]):
  """Writes rows to review.csv, with the columns that any of them has."""
  names = dict.fromkeys(name for row in rows for name in row)
  columns = [name for name in _COLUMNS if name in names]
  columns += [name for name in names if name not in _COLUMNS]
  write_csv_table(workdir / NAME, rows, columns)
