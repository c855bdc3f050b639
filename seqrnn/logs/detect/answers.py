"""Review: a person's answers, in review.csv, whether sessions are normal."""

import csv
import io
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
from seqrnn.logs.detect import findings, incidents, tables
from seqrnn.logs.detect.calibration import COMBINED, NormalScores
from seqrnn.logs.detect.cleaning import ANOMALOUS, NORMAL, UNANSWERED
from seqrnn.logs.detect.conformal import combine, event_rate, is_flagged
from seqrnn.logs.detect.detector import Detector, round_scores
from seqrnn.logs.detect.findings import Findings
from seqrnn.runtime import files


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
    for own in (True, False):
      some = (arrays["model"] == k) & (normal.calibrates[:rows] == own)
      if name == COMBINED:
        groups = {n: normal.scores[n].groups[k] for n in names}
        each = [
          g.neg_log_p(arrays[f"score {n}"][some], own)
          for n, g in groups.items()
        ]
        scores = combine(each, how)
      else:
        scores = arrays[f"score {name}"][some]
      neg_log_p[some] = group.neg_log_p(scores, own)
      p[some] = (group.own_p_values if own else group.p_values)(scores)
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


def reviewed_findings(
  detector: Detector,
  normal: NormalScores,
  arrays: dict[str, np.ndarray],
  sessions: Sessions,
  rows: np.ndarray,
) -> Findings:
  """The sessions of some rows, each scored by the model of its row.

  Args:
    detector: of the run.
    normal: its calibration.
    arrays: of calibration.npz.
    sessions: of its rows.
    rows: of distinct sessions, at least one.
  """
  settings = detector.config.detect
  combined, p = _scores_of_rows(normal, arrays, COMBINED)
  which = sessions.distinct().which
  counts = np.bincount(which, arrays["counts"]).astype(np.int64)[which[rows]]
  once = sessions.take(rows)
  scored = detector.score(once, counts)
  model_N = np.repeat(arrays["model"][rows], np.diff(scored.bounds))
  nll = scored.member_nll[model_N, np.arange(len(model_N))]
  event_p = np.zeros(len(nll))
  for k, group in enumerate(normal.events.groups):
    event_p[model_N == k] = group.p_values(round_scores(nll[model_N == k]))
  every, none = np.arange(len(rows)), np.zeros(len(rows), int)
  return Findings(
    sessions=findings.masked_sessions(once, settings.redact),
    distinct=Distinct(every, every, counts),
    names=detector.names,
    nll=nll,
    rank=scored.rank,
    targets=scored.targets,
    bounds=scored.bounds,
    offsets=scored.offsets,
    event_p=event_p,
    event_flags=is_flagged(event_p, event_rate(settings)),
    scores={COMBINED: combined[rows]},
    combined_KD=combined[None, rows],
    p=p[rows],
    flags=none > 0,  # Nothing suggests an answer.
    short=scored.short,
    flagged_events=none,
    unknown_events=none,
    models=none,
    severity=none,
    reasons=[""] * len(rows),
    seconds=scored.seconds,
  )


def questions(found: Findings) -> list[dict[str, Any]]:
  """A row of review.csv for each session, without an answer."""
  worst, places = found.worst_events().tolist(), tables.places_of(found)
  rows = []
  for d, place in enumerate(worst):
    event, before, after = incidents.context(found, d, d)
    rows.append(
      {
        "session": found.sessions.names[d],
        "equal_sessions": int(found.distinct.counts[d]),
        "p_value": float(f"{found.p[d]:.6g}"),
        **{name: value(d, place) for name, value in places.items()},
        "event": event,
        "context": " | ".join([*before, event, *after]),
        "answer": "",
      }
    )
  return rows


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


def read_answers(
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
  by_name: dict[str, Key] = {}
  for split in ("train", "validation"):
    sessions = data.of_pieces(pieces(split), names)
    some = {j: n for j, n in enumerate(sessions.names) if n in wanted}
    if masks is not None:
      masked = {j: masks.name(n) for j, n in enumerate(sessions.names)}
      some |= {j: n for j, n in masked.items() if n in wanted}
    keys = sessions.take(np.array(list(some), np.int64)).session_keys()
    for name, key in zip(some.values(), keys, strict=True):
      by_name.setdefault(name, key)
  return by_name


def write_answers(workdir: Path, rows: list[dict[str, Any]]):
  """Writes the rows, with the columns of all of them, to review.csv."""
  columns = list(dict.fromkeys(name for row in rows for name in row))
  with files.atomic_write(workdir / NAME, "wb") as raw:
    text = io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline="")
    writer = csv.DictWriter(text, columns, "", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    text.flush()
    text.detach()
