"""Which sessions of a log the next model of a run learns, and their lines.

What lasts to the end of the log, in many sessions, is the new version of a
program. All else that the model before flags, or a person calls anomalous, is
not learned.
"""

import gzip
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqrnn.data.logs import rotation
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.vocabulary import RESERVED, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.findings import find_anomalies, group_incidents
from seqrnn.logs.detect.normal import ANOMALOUS, NORMAL
from seqrnn.logs.follow.novel import MANY, replaced
from seqrnn.runtime import files

_PARTS = 5  # Of the log; what lasts is in all of them, or but for one.


class Selection(NamedTuple):
  """The sessions of a part of a log.

  Attributes:
    accepted: new events that last, as of `Deployed`.
    passing: new events of many sessions that do not.
    flagged: whether the model before flags each, without these events.
    trains: whether each is learned.
  """

  accepted: dict[str, str | None]
  passing: list[str]
  flagged: np.ndarray
  trains: np.ndarray


def select(
  before: Deployed,
  sessions: Sessions,
  answers: np.ndarray,
  normal: Mapping[str, str | None],
  anomalous: Collection[str],
) -> Selection:
  """Selects the sessions that the next model learns.

  Args:
    before: the model before.
    sessions: in the order of the log.
    answers: NORMAL, ANOMALOUS or UNANSWERED for each.
    normal: new events that a person accepts, as of `Deployed`.
    anomalous: new events that a person calls so.
  """
  number = len(sessions.names)
  names = before.detector.names
  accepted, passing, has_new = _new_events(sessions, names, anomalous)
  accepted |= normal
  index = {name: j for j, name in enumerate(sessions.names)}
  some = sessions.without(accepted, names)
  findings = find_anomalies(before.detector, before.normal, some)
  place = np.array([index[name] for name in some.names], int)
  which, flagged = findings.distinct.which, np.zeros(number, bool)
  flagged[place] = findings.decision.flags[which]
  is_change = np.zeros(number, bool)
  for one in group_incidents(findings):
    alike = place[np.isin(which, one.members)]
    # The new version may also lack an event, or have another order.
    if lasts(alike, number) and has_new[alike].mean() >= 0.5:
      is_change[alike] = True
  bad = flagged & ~is_change & (answers != NORMAL)
  trains, passing = ~bad & (answers != ANOMALOUS), {*passing} - {*accepted}
  return Selection(accepted, sorted(passing), flagged, trains)


def lasts(which: np.ndarray, number: int) -> bool:
  """Whether sessions are many, all over the log and up to its end.

  Args:
    which: some sessions of the log.
    number: of all sessions.
  """
  parts = np.unique(which * _PARTS // number)
  is_spread = len(parts) >= _PARTS - 1 and parts[-1] == _PARTS - 1
  return len(np.unique(which)) >= MANY and bool(is_spread)


def _new_events(
  sessions: Sessions, names: Vocabulary, anomalous: Collection[str]
) -> tuple[dict[str, str | None], list[str], np.ndarray]:
  """The new events that last, those that do not, and who has one that lasts.

  Args:
    sessions: in the order of the log.
    names: vocabulary of the events.
    anomalous: events that are not accepted.
  """
  has = np.zeros(len(sessions.names), bool)
  new_N = np.flatnonzero(sessions.ids == UNKNOWN)
  session_N = np.searchsorted(sessions.bounds, new_N, "right") - 1
  accepted, passing, texts = {}, [], sessions.as_read
  assert texts is not None
  symbol_N = texts.ids[new_N].astype(np.int64)
  for symbol in np.flatnonzero(np.bincount(symbol_N) >= MANY).tolist():
    which, text = session_N[symbol_N == symbol], texts.symbols[symbol]
    if text in anomalous or not lasts(which, len(has)):
      passing.append(text)
    else:
      has[which] = True
      there = np.unique(sessions.take(np.unique(which)).ids)
      known = np.setdiff1d(np.arange(len(RESERVED), len(names)), there)
      gone = [names.symbols[n - len(RESERVED)] for n in known.tolist()]
      accepted[text] = replaced(text, gone)
  return accepted, passing, has


def copy_log(log: Path, target: Path):
  """Copies the whole lines of a log, rotated parts first, to a packed file.

  Raises:
    UserError: there is no such log, or it is rotated meanwhile.
    MachineError: the file cannot be written.
  """
  with files.atomic_write(target, "wb") as raw, _packed(raw) as out:
    out.writelines(_whole_lines(log))


def _whole_lines(log: Path) -> Iterator[bytes]:
  try:
    if not (parts := rotation.list_files(log)):
      raise OSError("no such file")
    for part in parts:
      with rotation.opened(part) as content:
        rest = b""
        while chunk := content.read(2**20):
          whole, newline, rest = (rest + chunk).rpartition(b"\n")
          yield whole + newline
      if rest and part != parts[-1]:
        yield rest + b"\n"
  except Exception as error:  # Each way of packing has errors of its own.
    again = "; try again" * isinstance(error, FileNotFoundError | EOFError)
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"{log}: {reason}{again}") from None


def _packed(file) -> gzip.GzipFile:
  return gzip.GzipFile("", "wb", 1, file)


def copy_lines(
  source: Path, target: Path, sessions: Sessions, wanted: np.ndarray
):
  """Copies the lines of some sessions, and those that continue them.

  A blank line stands for any other, so that lines keep their numbers.

  Args:
    source: a packed log.
    target: a packed file.
    sessions: all of the log.
    wanted: whether the lines of each are copied.
  """
  assert sessions.lines is not None
  wanted_N = np.repeat(wanted, np.diff(sessions.bounds))
  # A line may be of several sessions.
  is_wanted = np.zeros(sessions.lines.max(initial=0) + 1, bool)
  is_event = is_wanted.copy()
  is_event[sessions.lines] = is_wanted[sessions.lines[wanted_N]] = True
  is_wanted[sessions.lines[~wanted_N]] = False

  def some(lines) -> Iterator[bytes]:
    copied = False
    for number, line in enumerate(lines, 1):
      if number < len(is_event) and is_event[number]:
        copied = bool(is_wanted[number])
      yield line if copied else b"\n"

  with (
    gzip.open(source) as lines,
    files.atomic_write(target, "wb") as raw,
    _packed(raw) as out,
  ):
    out.writelines(some(lines))
