"""review.csv: a person's answers whether sessions and alarms are normal.

A row is about a session of the calibration, or about a kind of a follower's
alarms, whose number is in the column `kind`.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.logs import sessions as data
from seqrnn.data.logs.secrets import Redaction, redaction
from seqrnn.data.logs.sessions import Distinct, Key, Sessions
from seqrnn.data.read import reading
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.logs.detect import findings, tables
from seqrnn.logs.detect.calibration import COMBINED, NormalScores
from seqrnn.logs.detect.conformal import combine, is_flagged
from seqrnn.logs.detect.detector import Detector
from seqrnn.logs.detect.findings import Findings, event_context
from seqrnn.logs.detect.selection import ANOMALOUS, NORMAL, UNANSWERED


def _scores_of_rows(
  normal: NormalScores, arrays: dict[str, np.ndarray], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """-log p, extrapolated, and p of each row of calibration.npz, [R] each.

  A session is compared with those that calibrate its model: if it is one of
  them, as one of them; if not, as a new session. Further sessions, which
  calibrate, have no row.

  Args:
    normal: the calibration.
    arrays: of calibration.npz.
    name: of the score, or COMBINED.
  """
  names, how = normal.choice.combination
  rows = len(arrays["model"])
  neg_log_p, p = np.zeros((2, rows))
  for k, group in enumerate(normal.scores[name].groups):
    for calibrates in (True, False):
      some = (arrays["model"] == k) & (normal.calibrates[:rows] == calibrates)
      if name == COMBINED:
        groups = {n: normal.scores[n].groups[k] for n in names}
        each = [
          g.neg_log_p(arrays[f"score {n}"][some], calibrates)
          for n, g in groups.items()
        ]
        scores = combine(each, how)
      else:
        scores = arrays[f"score {name}"][some]
      neg_log_p[some] = group.neg_log_p(scores, calibrates)
      p_values = group.leave_one_out_p_values if calibrates else group.p_values
      p[some] = p_values(scores)
  return neg_log_p, p


def most_anomalous(
  normal: NormalScores,
  arrays: dict[str, np.ndarray],
  sessions: Sessions,
  most: int,
) -> np.ndarray:
  """The rows of the most anomalous sessions without an answer, worst first.

  Equal sessions are one, in the row of the model for which it is most
  anomalous. Sessions are ranked by their highest surprisal: it depends on no
  choice of scores, which anomalies in the calibration can mislead.

  Args:
    normal: the calibration.
    arrays: of calibration.npz.
    sessions: of its rows.
    most: the number of sessions, at most.
  """
  neg_log_p, _ = _scores_of_rows(normal, arrays, "max")
  order = np.argsort(-neg_log_p, kind="stable")
  open_R = (normal.selection.answers == UNANSWERED) & (arrays["sizes"] > 0)
  order = order[open_R[order]]
  which = sessions.distinct().which[order]
  _, first = np.unique(which, return_index=True)
  return order[np.sort(first)[:most]]


def _findings(
  detector: Detector,
  normal: NormalScores,
  arrays: dict[str, np.ndarray],
  sessions: Sessions,
  rows: np.ndarray,
) -> Findings:
  """The sessions of some rows, each scored by the model of its row.

  Nothing in them suggests an answer: no session or event is flagged.
  """
  combined, p = _scores_of_rows(normal, arrays, COMBINED)
  which = sessions.distinct().which
  counts = np.bincount(which, arrays["counts"]).astype(np.int64)[which[rows]]
  once = sessions.take(rows)
  scored = detector.score(once, counts)
  model_N = np.repeat(arrays["model"][rows], np.diff(scored.bounds))
  nll = scored.member_nll[model_N, np.arange(len(model_N))]
  every, none = np.arange(len(rows)), np.zeros(len(rows), int)
  return Findings(
    sessions=findings.masked_sessions(once, detector.config.detect.redact),
    distinct=Distinct(every, every, counts),
    names=detector.names,
    nll=nll,
    rank=scored.rank,
    targets=scored.targets,
    bounds=scored.bounds,
    offsets=scored.offsets,
    event_p=np.ones(len(nll)),
    event_flags=np.zeros(len(nll), bool),
    scores={COMBINED: combined[rows]},
    combined_KD=combined[None, rows],
    p=p[rows],
    flags=none > 0,
    short=scored.short,
    flagged_events=none,
    unknown_events=none,
    models=none,
    severity=none,
    reasons=[""] * len(rows),
    seconds=scored.seconds,
  )


def session_questions(
  detector: Detector,
  normal: NormalScores,
  arrays: dict[str, np.ndarray],
  sessions: Sessions,
  rows: np.ndarray,
) -> list[dict[str, Any]]:
  """A row of review.csv, without an answer, for each of some sessions.

  Args:
    detector: of the run.
    normal: its calibration.
    arrays: of calibration.npz.
    sessions: of its rows.
    rows: of distinct sessions.
  """
  if not len(rows):
    return []
  scored = _findings(detector, normal, arrays, sessions, rows)
  columns, questions = tables.places_of(scored), []
  for d, position in enumerate(scored.worst_events().tolist()):
    event, before, after = event_context(scored, d, d)
    questions.append(
      {
        "kind": "",
        "session": scored.sessions.names[d],
        "count": int(scored.distinct.counts[d]),
        "p_value": float(f"{scored.p[d]:.6g}"),
        **{name: value(d, position) for name, value in columns.items()},
        "event": event,
        "context": " | ".join([*before, event, *after]),
        "answer": "",
      }
    )
  return questions


def changes(
  arrays: dict[str, np.ndarray],
  before: NormalScores,
  after: NormalScores,
  rate: float,
) -> list[str]:
  """Lines on what answers change in a calibration.

  Args:
    arrays: of calibration.npz.
    before: the calibration without answers.
    after: the calibration with answers.
    rate: as `detect.rate`.
  """
  new, old = after.selection, before.selection
  counts_R = arrays["counts"]
  answers_R = new.answers[: len(counts_R)]
  lines = [
    f"answers: {new.answered(NORMAL):,} sessions are normal and"
    f" {new.answered(ANOMALOUS):,} anomalous, equal sessions included",
    f"left out of the calibration: {new.answered(ANOMALOUS):,} of"
    f" {int(counts_R.sum()):,} sessions by their answers, {new.cleaned:,} by"
    f" cleaning; without answers {old.cleaned:,} by cleaning",
  ]
  flags = [
    is_flagged(_scores_of_rows(scores, arrays, COMBINED)[1], rate)
    for scores in (after, before)
  ]
  for answer, name in (
    (ANOMALOUS, "anomalous"),
    (NORMAL, "normal"),
    (UNANSWERED, "not answered"),
  ):
    counts = counts_R * (answers_R == answer)
    if not counts.any():
      continue
    now, then = (int(counts[flag].sum()) for flag in flags)
    lines.append(
      f"detect.rate={rate:g} flags {now:,} of {int(counts.sum()):,} calibration"
      f" sessions that are {name}; without answers {then:,}"
    )
  return lines


NAME = "review.csv"
WORDS = {"normal": NORMAL, "anomalous": ANOMALOUS, "": UNANSWERED}
_COLUMNS = ("kind", "session", "count", "p_value", "severity", "file", "line")
_COLUMNS += ("timestamp", "event", "context", "answer")

# Kind as text, "" for a session; session -> line and row of review.csv.
Rows = dict[tuple[str, str], tuple[int, dict[str, Any]]]
# Number of a kind of alarms, session of its example -> a word of WORDS.
ByKind = dict[tuple[int, str], str]


class Answers(NamedTuple):
  """The answers in review.csv.

  Attributes:
    rows: of the file on sessions, column -> text.
    by_key: key of a session -> NORMAL or ANOMALOUS, for all equal sessions.
    by_kind: as `alarm_answers`.
  """

  rows: list[dict[str, Any]]
  by_key: dict[Key, int]
  by_kind: ByKind

  def of(self, sessions: Sessions) -> np.ndarray:
    """The answer of each session, UNANSWERED if there is none."""
    keys = sessions.session_keys()
    return np.array([self.by_key.get(key, UNANSWERED) for key in keys], int)


def load_rows(workdir: Path, errors: str) -> Rows:
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


def alarm_answers(rows: Rows) -> ByKind:
  """The answers on kinds of alarms, empty ones included."""
  return {
    (int(kind), session): row["answer"]
    for (kind, session), (_, row) in rows.items()
    if kind
  }


def load_answers(
  workdir: Path,
  names: Vocabulary,
  pieces: Callable[[str], Pieces],
  config: Config,
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
  by_name = {session: row for (kind, session), row in rows.items() if not kind}
  answers = Answers(
    [row for _, row in by_name.values()], {}, alarm_answers(rows)
  )
  if not by_name:
    return answers
  keys = _keys(set(by_name), names, pieces, redaction(config.detect.redact))
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
  wanted: set[str],
  names: Vocabulary,
  pieces: Callable[[str], Pieces],
  masks: Redaction | None,
) -> dict[str, Key]:
  """The keys of sessions, by their names as they are wanted."""
  keys_by_name: dict[str, Key] = {}
  for split in ("train", "validation"):
    sessions = data.of_pieces(pieces(split), names)
    some = {j: n for j, n in enumerate(sessions.names) if n in wanted}
    if masks is not None:
      masked = {j: masks.name(n) for j, n in enumerate(sessions.names)}
      some |= {j: n for j, n in masked.items() if n in wanted}
    keys = sessions.take(np.array(list(some), np.int64)).session_keys()
    for name, key in zip(some.values(), keys, strict=True):
      keys_by_name.setdefault(name, key)
  return keys_by_name


def write_rows(workdir: Path, rows: list[dict[str, Any]]):
  """Writes rows to review.csv, with the columns that any of them has."""
  names = dict.fromkeys(name for row in rows for name in row)
  columns = [name for name in _COLUMNS if name in names]
  columns += [name for name in names if name not in _COLUMNS]
  cells = ([row.get(name) for name in columns] for row in rows)
  tables.write_csv_table(workdir / NAME, columns, cells)
