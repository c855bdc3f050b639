"""Logs: lines, or rows of a table, that are events of sessions.

The events of a session are in the order of the file, also where events of other
sessions are between them; sessions are in the order of their first events. An
event keeps its line, its time and its label.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from seqrnn.config.read import Config
from seqrnn.config.rules import keys_of_json, session_cut
from seqrnn.data.documents import Corpus
from seqrnn.data.logs import entries, formats, rotation
from seqrnn.data.logs.cuts import Clock, report
from seqrnn.data.logs.entries import LogEvent, LogReader
from seqrnn.data.logs.formats import Form
from seqrnn.data.logs.templates import PLACES
from seqrnn.data.read.columns import (
  Changes,
  Column,
  Texts,
  Tokens,
  grouped,
  taken,
)
from seqrnn.data.read.reading import Source, rows
from seqrnn.data.sources.cache import ReadCorpus, open_corpus
from seqrnn.errors import UserError

_ROWS = 2**14  # Events that are collected together.
_LINE = np.dtype(",".join(["<f4"] * PLACES))  # The numbers in a line.


def form(data: Config) -> Form:
  """The form that the fields of `data` give."""
  cut, value = "file", None
  if data.log_session is not None:
    cut, value = session_cut(data.log_session)
  keys = keys_of_json(data.log_keys or "")
  if cut == "key":
    keys["session"] = str(value)
  return Form(
    *(data.errors, data.log_header, data.log_format, cut, value),
    tuple(keys.items()),
    data.log_paths,
    data.log_mask,
  )


def read_logs(sources: list[Source], form: Form) -> Corpus:
  """The corpus of logs; a symbol is a masked line.

  Files that are rotated parts of one log have sessions in common.

  Raises:
    UserError: `data.log_header` or `data.log_session` fits no line of a file
      that has lines; or a time is missing that a gap needs.
  """
  return open_corpus(sources, ["log", *form], lambda: _parse(sources, form))


def _parse(sources: list[Source], form: Form) -> ReadCorpus:
  """The corpus of logs, and lines about them for stderr."""
  form = entries.settled(sources, form)
  names, messages = [source.name for source in sources], []
  logs = of_logs(names, form)
  is_rotated = form.names_sessions and len(set(logs.values())) < len(sources)
  if is_rotated or form.log_format is not None:
    # The order is that of the first times, or else of the names.
    sources = sorted(
      sources,
      key=lambda x: (entries.first_time(x, form), *rotation.age(x.name)),
    )
  readers = [LogReader(x.name, form, logs[x.name]) for x in sources]
  pairs = zip(readers, sources, strict=True)
  by_file = (reader.read(x, messages.append) for reader, x in pairs)
  several, clock = len(sources) > 1, None
  if form.cut != "file":  # Lines of several files are no clock.
    # The last of the sessions that lines cut is open.
    idle = {"gap": form.value, "lines": 1.0}.get(form.cut)
    clock = Clock(_of(sources), idle, not several, form.cut != "lines")
  corpus = _corpus(chain.from_iterable(by_file), "log", clock, several)
  for context in (reader.context for reader in readers):
    if near := formats.earlier(form.near, tuple(context.times), context.near):
      return _parse(sources, form._replace(near=near))
  return corpus, messages


def of_logs(names: Sequence[str], form: Form) -> dict[str, str]:
  """The log of each file that precedes the names of its sessions, or ""."""
  logs = rotation.log_names(names) if form.names_sessions else []
  if len(set(logs)) < 2:
    return dict.fromkeys(names, "")
  return dict(zip(names, logs, strict=True))


def _of(sources: Sequence[Source]) -> str:
  """The name of files that are read together, for messages."""
  return sources[0].name if len(sources) == 1 else f"{len(sources)} files"


def read_table(sources: list[Source], data: Config) -> Corpus:
  """The corpus of csv files with the columns session and event.

  Further columns may be timestamp; line, the number of the line in a log; and
  the label that `data.label_column` names.

  Raises:
    UserError: a row lacks a session or an event, or its line is no number.
  """
  several = len(sources) > 1

  def parse() -> ReadCorpus:
    tables = (table_events(source, data, several) for source in sources)
    clock, rows = Clock(_of(sources)), chain.from_iterable(tables)
    return _corpus(rows, data.unit, clock, several), []

  settings = ["table", data.unit, data.errors, data.label_column]
  return open_corpus(sources, settings, parse)


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
    file = f"{source.name}:" if several else ""
    yield LogEvent(
      [file + row["session"]],
      row["event"],
      row.get(data.label_column or "label") or "",
      source.name,
      timestamp,
      int(line),
      formats.dated((timestamp,)),
    )


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
  times, patience = cuts.idle, cuts.patience
  if known and known.idle.clock == times.clock:
    times = known.idle
  if idle is not None:
    times, patience = times.limited(idle), patience.limited(idle)
  begun, ended = times.whole(
    Texts(list(corpus.symbols), corpus.ids),
    *(corpus.bounds, cuts.before_D, cuts.after_D),
  )
  cuts = cuts._replace(idle=times, patience=patience, begun=begun, ended=ended)
  report(cuts)
  return corpus._replace(cuts=cuts)


def _rows(
  events: Iterator[LogEvent], clock: Clock | None
) -> Iterator[tuple[str | int | float | None | tuple[float, ...], ...]]:
  """The fields of events, each with the name of one of its sessions."""
  for event in events:
    if clock:
      clock.read(event.line, event.seconds)
    for name in event.sessions:
      yield name, *event[1:]


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
  second, value = Column("<f8"), Column(_LINE)
  columns = session, symbol, label, file, time, line, second, value  # LogEvent
  rows = _rows(events, clock)
  while some := [*islice(rows, _ROWS)]:
    for column, cells in zip(columns, zip(*some, strict=True), strict=True):
      column.collect(cells)
  session, symbol, label = session.texts(), symbol.texts(), label.texts()
  time, file = time.texts(), file.texts()
  order, bounds = grouped(session.ids, len(session.symbols))
  ids = taken(symbol.ids, order)
  lines = taken(line.numbers().view(np.int64), order)
  seconds = taken(second.numbers(), order)
  values = taken(value.numbers(), order)
  values = values.view(np.float32).reshape(-1, PLACES)
  corpus = Corpus(
    unit,
    symbol.symbols,
    ids,
    bounds,
    session.symbols,
    lines=lines,
    timestamps=time and Texts(time.symbols, taken(time.ids, order)),
    cuts=clock
    and clock.cuts(seconds, lines, Texts(symbol.symbols, ids), bounds),
    files=Texts(file.symbols, taken(file.ids, order)) if several else None,
    seconds=None if np.isnan(seconds).all() else seconds,
    values=None if np.isnan(values[:, 0]).all() else values,
  )
  if label.symbols == [""]:
    return corpus
  ids = taken(label.ids, order)
  tags = corpus._replace(unit="id", symbols=label.symbols, ids=ids)
  return corpus._replace(tags=tags)
