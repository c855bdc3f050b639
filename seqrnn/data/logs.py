"""Logs: lines, or rows of a table, that are events of sessions.

The events of a session are in the order of the file, also where events of other
sessions are between them; sessions are in the order of their first events. An
event keeps its line, its time and its label.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from seqrnn.config import Config
from seqrnn.data import reading
from seqrnn.data.columns import Column, Tokens
from seqrnn.data.documents import Corpus
from seqrnn.data.reading import Source, rows
from seqrnn.data.templates import masker
from seqrnn.errors import UserError

# The time at the start of a line, where no header names it.
_START = re.compile(
  r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
  r"|(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?: \d{4})?"
  r"|\d{10}(?:\.\d+)?(?!\d)"
)
_SHOWN = 60  # Characters of a line in a message.
# The fields of a header that together are the time, and the one of the label.
_TIMES = {"Year", "Month", "Day", "Date", "Time", "Timestamp"}
_LABEL = "Label"
# Times beside ISO 8601. Each has a year in front, the year of syslog's times.
_FORMATS = (
  "%Y %b %d %H:%M:%S",
  "2000 %y%m%d %H%M%S",
  "2000 %a %b %d %H:%M:%S %Y",
  "2000 %d/%b/%Y:%H:%M:%S %z",
  "2000 %Y/%m/%d %H:%M:%S",
)


class Form(NamedTuple):
  """The fields of `data` that say how a log is read."""

  errors: str
  log_header: str | None = None
  log_session: str | None = None
  log_gap: float | None = None
  log_lines: int | None = None
  log_codes: bool = True


def form(data: Config) -> Form:
  """The form that the fields of `data` give."""
  return Form(*(data[name] for name in Form._fields))


class Event(NamedTuple):
  """A line of a log, or a row of a table.

  Attributes:
    sessions: the names of its sessions; none: the event is left out.
    symbol: the event; of a line, its masked content.
    line: in the file, from 1.
    timestamp: as written; empty: none.
    label: as written; empty: none.
  """

  sessions: list[str]
  symbol: str
  line: int
  timestamp: str
  label: str


def read(sources: list[Source], form: Form) -> Corpus:
  """The corpus of logs; a symbol is a masked line.

  Raises:
    UserError: `data.log_header` or `data.log_session` fits no line of a file
      that has lines; or a time is missing that `data.log_gap` needs.
  """
  return _read(tuple(sources), tuple(map(_stamp, sources)), form)


@functools.lru_cache(maxsize=2)  # A run reads the same log several times.
def _read(sources: tuple[Source, ...], _, form: Form) -> Corpus:
  found = (
    events(reading.lines(source, form.errors), source.name, form, len(sources))
    for source in sources
  )
  return _corpus(itertools.chain.from_iterable(found), "log")


def _stamp(source: Source) -> tuple[int, int] | None:
  """The size and the time of a file, which tell its versions apart."""
  if isinstance(source.content, bytes):
    return None
  with suppress(OSError):  # Reported when it is read.
    status = source.content.stat()
    return status.st_size, status.st_mtime_ns


def read_table(sources: list[Source], data: Config) -> Corpus:
  """The corpus of csv files with the columns session and event.

  Further columns may be timestamp; line, the number of the line in a log; and
  the label that `data.label_field` names.

  Raises:
    UserError: a row lacks a session or an event, or its line is no number.
  """
  found = (_table(source, data, len(sources)) for source in sources)
  return _corpus(itertools.chain.from_iterable(found), data.unit)


def _table(source: Source, data: Config, sources: int) -> Iterator[Event]:
  for number, row in rows(source, data.errors):
    for field in ("session", "event"):
      if not row.get(field):
        raise UserError(
          f"{source.name}:{number}: has no {field}; data.format=csv with"
          " data.unit=session needs columns session and event"
        )
    line = row.get("line") or str(number)
    if not re.fullmatch("[0-9]{1,18}", line):
      raise UserError(
        f"{source.name}:{number}: line={line!r}: must be a whole number"
      )
    yield Event(
      [_name(source.name, row["session"], sources)],
      row["event"],
      int(line),
      row.get("timestamp") or "",
      row.get(data.label_field) or "",
    )


def events(
  texts: Iterable[str],
  source: str,
  form: Form,
  sources: int = 1,
  leave_out: Callable[[int, str], None] | None = None,
) -> Iterator[Event]:
  """The events of a log, one for each line that is not blank.

  Args:
    texts: its lines.
    source: its name.
    form: how it is read.
    sources: the number of logs; with several, sessions have the log's name.
    leave_out: called with the number and the fault of a line without the time
      that `data.log_gap` needs; None: such a line is refused.

  Raises:
    UserError: as `read`.
  """
  names = None
  if form.log_session is not None:
    names = re.compile(form.log_session)
  mask = masker(names, form.log_codes)
  begun, before, first, fits = 0, 0.0, None, False
  for count, entry in enumerate(_entries(texts, source, form)):
    number, line, content, timestamp, label = entry
    first = first or entry
    of = [source]
    if names is not None:
      found = dict.fromkeys(match[1] for match in names.finditer(line))
      of = [_name(source, name, sources) for name in found if name]
      fits = fits or bool(of)
    elif form.log_lines is not None:
      begun = begun if count % form.log_lines else number
      of = [f"{source}:{begun}"]
    elif form.log_gap is not None:
      now = _seconds(timestamp)
      if now is None:
        fault = (
          f"{timestamp!r}: is no time that data.log_gap knows: ISO 8601,"
          " syslog's, seconds since 1970 and others; data.log_header says where"
          " the time is"
        )
        if leave_out is None:
          raise UserError(f"{source}:{number}: {fault}")
        leave_out(number, fault)
        continue
      if not begun or now - before > form.log_gap:
        begun = number
      before = now
      of = [f"{source}:{begun}"]
    yield Event(of, mask(content), number, timestamp, label)
  if names is not None and first and not fits:
    raise _unfit(source, form, "log_session", first)


class _Entry(NamedTuple):
  """A line, and the fields that the header finds in it."""

  number: int
  line: str
  content: str
  timestamp: str
  label: str


def _entries(texts: Iterable[str], source: str, form: Form) -> Iterator[_Entry]:
  """The lines that are not blank."""
  header = None
  if form.log_header is not None:
    header = _pattern(form.log_header)
  first, fits, timestamp = None, False, ""
  for number, line in enumerate(texts, 1):
    if not line.strip():
      continue
    content, label = line, ""
    if header is None:
      begin = _START.match(line)
      timestamp = begin[0] if begin else timestamp
    elif found := header.fullmatch(line):
      fits = True
      fields = found.groupdict()
      content, label = fields["Content"], fields.get(_LABEL, "")
      timestamp = " ".join(v for k, v in fields.items() if k in _TIMES)
    # Else the line continues the line before, and has its time.
    entry = _Entry(number, line, content, timestamp, label)
    first = first or entry
    yield entry
  if header is not None and first and not fits:
    raise _unfit(source, form, "log_header", first)


def _unfit(source: str, form: Form, field: str, entry: _Entry) -> UserError:
  """The error for an expression that fits no line."""
  return UserError(
    f"data.{field}={getattr(form, field)!r}: fits no line of {source};"
    f" line {entry.number} is {entry.line[:_SHOWN]!r}"
  )


def _name(source: str, name: str, sources: int) -> str:
  """A session's name; sessions of different files are different."""
  return name if sources == 1 else f"{source}:{name}"


def _pattern(header: str) -> re.Pattern:
  """The regular expression of a header.

  A field before white space is a word; another field ends where the text that
  follows it in the header begins.
  """
  parts = re.split(r"<(\w+)>", header)
  pattern = ""
  for number, part in enumerate(parts):
    if number % 2 == 0:
      pattern += r"\s++".join(map(re.escape, re.split(r"\s+", part)))
    elif parts[number + 1][:1].isspace():
      pattern += rf"(?P<{part}>\S++)"
    else:
      pattern += rf"(?P<{part}>.*?)"
  return re.compile(pattern)


@functools.lru_cache(maxsize=2**10)  # Neighbours often have the same second.
def _seconds(timestamp: str) -> float | None:
  """A time in seconds; None: it cannot be read."""
  if re.fullmatch(r"\d{10}(\.\d+)?", timestamp):
    return float(timestamp)
  found = None
  with suppress(ValueError):
    found = datetime.fromisoformat(timestamp)
  for form in _FORMATS:
    with suppress(ValueError):
      found = found or datetime.strptime(f"2000 {timestamp}", form)
  if found is None:
    return None
  return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _corpus(events: Iterator[Event], unit: str) -> Corpus:
  """The events by their sessions."""
  columns = [Tokens() for _ in range(4)]
  lines = Column("<u8")
  for event in events:
    for session in event.sessions:
      values = session, event.symbol, event.timestamp, event.label
      for column, value in zip(columns, values, strict=True):
        column.append(value)
      lines.append(event.line)
  session, symbol, time, label = (column.texts() for column in columns)
  order = slice(None)
  if np.any(session.ids[1:] < session.ids[:-1]):
    order = np.argsort(session.ids, kind="stable")
  numbers = np.arange(len(session.symbols) + 1, dtype=session.ids.dtype)
  corpus = Corpus(
    unit,
    symbol.symbols,
    symbol[order].narrow(),
    np.searchsorted(session.ids[order], numbers),
    session.symbols,
    np.arange(len(session.symbols)),
    session.symbols,
    lines=lines.numbers().view(np.int64)[order],
    timestamps=None if time.symbols == [""] else time[order],
  )
  if label.symbols == [""]:
    return corpus
  ids = label[order].narrow()
  tags = corpus._replace(unit="id", symbols=label.symbols, ids=ids)
  return corpus._replace(tags=tags)
