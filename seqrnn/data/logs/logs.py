"""Logs: lines, or rows of a table, that are events of sessions.

The events of a session are in the order of the file, also where events of other
sessions are between them; sessions are in the order of their first events. An
event keeps its line, its time and its label.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config.read import Config
from seqrnn.config.rules import keys_of_json, session_cut
from seqrnn.data.documents import Corpus
from seqrnn.data.logs import entries, formats, rotation
from seqrnn.data.logs.cuts import Clock
from seqrnn.data.logs.entries import Seen
from seqrnn.data.logs.formats import Form
from seqrnn.data.read.columns import (
  Changes,
  Column,
  Texts,
  Tokens,
  grouped,
  taken,
)
from seqrnn.data.read.reading import Source, rows
from seqrnn.data.sources import cache
from seqrnn.data.sources.cache import Reading
from seqrnn.errors import UserError

_NO_TIME = (
  "is no time that data.log_session=gap knows: ISO 8601, syslog's, seconds"
  " since 1970 and others; data.log_header says where the time is"
)


# As `session_cut` calls the ways to cut a log -> the attribute of a form.
_CUTS = {
  "pattern": "log_session",
  "key": "log_session_key",
  "gap": "log_gap",
  "lines": "log_lines",
}


def form(data: Config) -> Form:
  """The form that the fields of `data` give."""
  values: dict[str, Any] = {
    name: data[name] for name in ("errors", "log_header", "log_format")
  }
  if data.log_session is not None:
    kind, value = session_cut(data.log_session)
    values[_CUTS[kind]] = value
  pairs = keys_of_json(data.log_keys or "")
  values |= {f"log_{name}": key for name, key in pairs.items()}
  return Form(**values)


class LogEvent(NamedTuple):
  """A line of a log, or a row of a table.

  Attributes:
    sessions: the names of its sessions; none: the event is left out.
    symbol: the event; of a line, its masked content.
    line: in the file, from 1.
    timestamp: as written; empty: none.
    label: as written; empty: none.
    times: what may be the whole time, the most likely first.
    file: its name.
  """

  sessions: list[str]
  symbol: str
  line: int
  timestamp: str
  label: str
  times: tuple[str, ...]
  file: str


def read_logs(sources: list[Source], form: Form) -> Corpus:
  """The corpus of logs; a symbol is a masked line.

  Files that are rotated parts of one log have sessions in common.

  Raises:
    UserError: `data.log_header` or `data.log_session` fits no line of a file
      that has lines; or a time is missing that a gap needs.
  """
  return cache.open_corpus(
    sources, ["log", *form], lambda: _parse(sources, form)
  )


def _parse(sources: list[Source], form: Form) -> Reading:
  """The corpus of logs, and lines about them for stderr."""
  form = entries.settled(sources, form)
  named = form.names_sessions
  several, lines = len(sources) > 1, []
  names = [source.name for source in sources]
  log = dict(
    zip(names, rotation.log_names(names) if named else names, strict=True)
  )
  logs = len(set(log.values()))
  if several and (logs < len(sources) or form.log_format is not None):
    sources = sorted(sources, key=lambda source: _age(source, form))
  by_file = (
    of_log(
      log[source.name] if named and logs > 1 else "",
      events(entries.lines(source, form), source.name, form, lines.append),
    )
    for source in sources
  )
  clock = _clock(sources, form)
  return _corpus(chain.from_iterable(by_file), "log", clock, several), lines


def _clock(sources: Sequence[Source], form: Form) -> Clock | None:
  """What finds the sessions that a log cuts; None: sessions are whole files."""
  # Lines of several files are no clock.
  clock = functools.partial(Clock, _of(sources), lines=len(sources) == 1)
  if form.log_lines is not None:  # The last of these sessions is open.
    return clock(1.0, times=False)
  if form.log_gap is not None:
    return clock(form.log_gap)
  return clock() if form.names_sessions else None


def _of(sources: Sequence[Source]) -> str:
  """The name of files that are read together, for messages."""
  return sources[0].name if len(sources) == 1 else f"{len(sources)} files"


def _age(source: Source, form: Form) -> tuple[float, str, int]:
  """What orders logs: the first time in them, or else their names."""
  return entries.first_time(source, form), *rotation.age(source.name)


def read_table(sources: list[Source], data: Config) -> Corpus:
  """The corpus of csv files with the columns session and event.

  Further columns may be timestamp; line, the number of the line in a log; and
  the label that `data.label_column` names.

  Raises:
    UserError: a row lacks a session or an event, or its line is no number.
  """
  several = len(sources) > 1

  def parse() -> Reading:
    tables = (table_events(source, data, several) for source in sources)
    clock = Clock(_of(sources))
    rows = chain.from_iterable(tables)
    return _corpus(rows, data.unit, clock, several), []

  settings = ["table", data.unit, data.errors, data.label_column]
  return cache.open_corpus(sources, settings, parse)


def table_events(
  source: Source, data: Config, several: bool
) -> Iterator[LogEvent]:
  """The events of a csv file; `several`: files have sessions of their own."""
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
    timestamp = row.get("timestamp") or ""
    yield LogEvent(
      [_name(source.name if several else "", row["session"])],
      row["event"],
      int(line),
      timestamp,
      row.get(data.label_column or "label") or "",
      (timestamp,) if timestamp else (),
      source.name,
    )


def events(
  texts: Iterable[str],
  source: str,
  form: Form,
  report: Callable[[str], None] | None = None,
  leave_out: Callable[[int, str], None] | None = None,
  seen: Seen | None = None,
) -> Iterator[LogEvent]:
  """The events of a log, one for each line that is not blank.

  With `data.log_format`, a line that does not fit belongs to the line before,
  and is no event.

  Args:
    texts: its lines.
    source: its name.
    form: how it is read.
    report: called with what a person should know of the log; None: it is a
      stream.
    leave_out: called with the number and the fault of a line without the time
      that a gap needs; None: such a line is refused.
    seen: as of `entries.read_entries`.

  Raises:
    UserError: as `read_logs`.
  """
  whole, seen = seen is None, seen or Seen()
  read = entries.reader(form)
  cut = _cutter(source, form, seen)
  for entry in entries.read_entries(texts, source, form, seen):
    number, _, parts = entry
    of, symbol = read(entry)
    seen.first, seen.entries = seen.first or entry, seen.entries + 1
    if form.names_sessions:
      if not of:
        seen.alone += 1
        seen.first_alone = seen.first_alone or entry
    elif (session := cut(number, parts.times)) is not None:
      of = [session]
    else:
      fault = f"{parts.timestamp!r}: {_NO_TIME}"
      if leave_out is None:
        raise UserError(f"{source}:{number}: {fault}")
      leave_out(number, fault)
      continue
    yield LogEvent(
      *(of, symbol, number, parts.timestamp, parts.label, parts.times, source)
    )
  if whole:
    entries.check(seen, source, form)
    if report:
      entries.summarize(seen, source, form, report)


def of_log(log: str, events: Iterator[LogEvent]) -> Iterator[LogEvent]:
  """The events, whose sessions are named after their log unless it is empty."""
  if not log:
    return events
  return (
    event._replace(sessions=[_name(log, name) for name in event.sessions])
    for event in events
  )


def _cutter(
  source: str, form: Form, seen: Seen
) -> Callable[[int, tuple[str, ...]], str | None]:
  """A function from a line's number and times to its session; None: no time."""

  def cut(number: int, times: tuple[str, ...]) -> str | None:
    if form.log_lines is not None:
      begins = seen.cut % form.log_lines == 0
      seen.cut += 1
    elif form.log_gap is not None:
      now = formats.seconds(times)
      if now is None:
        return None
      begins = now - seen.time > form.log_gap
      seen.time = now
    else:
      return source
    if begins or not seen.session:
      seen.session = f"{source}:{number}"
    return seen.session

  return cut


def with_cuts(
  corpus: Corpus, idle: float | None, trained: Corpus | None = None
) -> Corpus:
  """The corpus with the sessions that its log cuts, reported on stderr.

  Args:
    corpus: of a log; any other is returned as it is.
    idle: the idle time; None: the learned one.
    trained: the corpus whose idle times are used where it is of a log with the
      same clock; None: those of `corpus`.
  """
  cuts, known = corpus.cuts, trained and trained.cuts
  if cuts is None:
    return corpus
  if trained and known and known.clock == cuts.clock:
    index = {symbol: n for n, symbol in enumerate(trained.symbols)}
    # A symbol that is not in training has the last entry.
    same_V = np.array([index.get(s, len(index)) for s in corpus.symbols])
    first_D, last_D = corpus.bounds[:-1], corpus.bounds[1:] - 1
    cuts = cuts._replace(
      idle=known.idle,
      first_D=np.append(known.first_V, 0)[same_V[corpus.ids[first_D]]],
      last_D=np.append(known.last_V, known.idle)[same_V[corpus.ids[last_D]]],
    )
  if idle is not None:
    cuts = cuts.with_idle(idle)
  cuts.report()
  return corpus._replace(cuts=cuts)


def _name(log: str, name: str) -> str:
  """A session's name; sessions of different logs are different."""
  return f"{log}:{name}" if log else name


def _corpus(
  events: Iterator[LogEvent], unit: str, clock: Clock | None, several: bool
) -> Corpus:
  """The events by their sessions.

  Args:
    events: in the order of the log.
    unit: of the corpus.
    clock: finds the sessions that the log cuts.
    several: whether the events are of several files.
  """
  session, symbol, label, file = Tokens(), Tokens(), Tokens(), Tokens()
  time, line = Changes(), Column("<u8")
  for event in events:
    now = clock.read(event.times, event.line) if clock else 0.0
    for name in event.sessions:
      session.append(name)
      symbol.append(event.symbol)
      time.append(event.timestamp)
      label.append(event.label)
      line.append(event.line)
      if clock:
        clock.append(now)
      if several:
        file.append(event.file)
  session, symbol, label = session.texts(), symbol.texts(), label.texts()
  time, file = time.texts(), file.texts()
  order, bounds = grouped(session.ids, len(session.symbols))
  ids = taken(symbol.narrow(), order)
  lines = taken(line.numbers().view(np.int64), order)
  corpus = Corpus(
    unit,
    symbol.symbols,
    ids,
    bounds,
    session.symbols,
    np.arange(len(session.symbols)),
    session.symbols,
    lines=lines,
    timestamps=time and Texts(time.symbols, taken(time.ids, order)),
    cuts=clock and clock.cuts(order, lines, ids, bounds, len(symbol.symbols)),
    files=Texts(file.symbols, taken(file.narrow(), order)) if several else None,
  )
  if label.symbols == [""]:
    return corpus
  ids = taken(label.narrow(), order)
  tags = corpus._replace(unit="id", symbols=label.symbols, ids=ids)
  return corpus._replace(tags=tags)
