"""Lines to events, in Spark's Python workers; they do not import JAX.

Spark cuts a file into parts. What a part cannot know, because it is in the
parts before it, is decided when all parts are read: the numbers of its lines,
whether its first lines belong to a line before, and their time. So each part
also yields a row that says what is in it.
"""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

from seqrnn.data.logs import formats, logs
from seqrnn.data.logs.entries import Seen
from seqrnn.data.logs.formats import Form
from seqrnn.data.logs.templates import masker
from seqrnn.data.read import reading
from seqrnn.errors import UserError

_ROWS = 2**13  # Of an Arrow batch that is sent to Spark.

# Of the rows that `parse` yields. Events have all columns but the last.
SCHEMA = (
  "session string, symbol string, file string, start bigint, place bigint,"
  " line bigint, time double, timestamp string, leading boolean,"
  " inherits boolean, part string"
)
_ARROW = pa.schema(
  [
    *((name, pa.string()) for name in ("session", "symbol", "file")),
    *((name, pa.int64()) for name in ("start", "place", "line")),
    *(("time", pa.float64()), ("timestamp", pa.string())),
    *(("leading", pa.bool_()), ("inherits", pa.bool_()), ("part", pa.string())),
  ]
)


class Plan(NamedTuple):
  """How files are read.

  Attributes:
    form: of the lines of a log; of a table, only `errors` is used.
    names: path of a file -> its name.
    whole: whether a part is a whole file, whatever Spark cuts it into.
    table: "csv", "parquet" or "rows" (of any other table); empty: rows are
      lines of a log.
    numbered: whether a row of a table without a line has its own number.
    masked: whether the events of a table are lines of a log.
    alone: whether the other parts of a file are not known: then the first lines
      that do not fit belong to a line before, and the numbers of lines are
      unknown but in the first part.
  """

  form: Form
  names: dict[str, str]
  whole: bool = False
  table: str = ""
  numbered: bool = False
  masked: bool = False
  alone: bool = False


class Part(NamedTuple):
  """What is in a part of a file.

  Attributes:
    file: its name.
    start: the first byte of the part.
    lines: number of its lines.
    leading: number of events before a line that fits the format, and how many
      of them belong to no session.
    seen: fields of `Seen`.
    begin, end: the earliest and the latest time; infinite: there is none.
    last_line: of the last event.
    first: line and seconds of the first time.
    last: the last time, as written, and in seconds.
  """

  file: str
  start: int
  lines: int
  leading: tuple[int, int]
  seen: dict[str, Any]
  begin: float
  end: float
  last_line: int
  first: tuple[int, float] | None
  last: tuple[str, float | None]

  def to_json(self) -> str:
    """The part as JSON."""
    return json.dumps(self)


def path_of(uri: str) -> str:
  """The path in a URI as Spark writes it: file:/a%20b, file:///a%20b."""
  return unquote(urlsplit(uri).path)


def parse(
  batches: Iterable[pa.RecordBatch], plan: Plan
) -> Iterator[pa.RecordBatch]:
  """Events of the parts of files, in the order of `SCHEMA`.

  Args:
    batches: the columns of `file`, of `start`, and of lines (`value`, bytes) or
      events (session, event, line, timestamp), in the order of the files.
    plan: how they are read.

  Raises:
    UserError: a line is not as the plan says.
  """
  parts = itertools.groupby(_runs(batches, plan), key=lambda run: run[0])
  for (file, start), runs in parts:
    yield from _part(file, start, (row for _, run in runs for row in run), plan)


def _runs(
  batches: Iterable[pa.RecordBatch], plan: Plan
) -> Iterator[tuple[tuple[str, int], Iterable[Any]]]:
  """Yields the part of some neighbouring rows, and the rows."""
  for batch in batches:
    if not batch.num_rows:
      continue
    file = batch.column("file").dictionary_encode()
    start = np.asarray(batch.column("start"))
    codes = np.asarray(file.indices)
    is_new = (np.diff(codes) != 0) | (np.diff(start) != 0) & (not plan.whole)
    edges = [0, *(np.flatnonzero(is_new) + 1).tolist(), batch.num_rows]
    columns = ("session", "event", "line", "timestamp")
    for first, stop in itertools.pairwise(edges):
      uri = str(file[first].as_py())
      path = path_of(uri)
      name = plan.names.get(path, path)
      some = batch.slice(first, stop - first)
      rows = (
        zip(*(some.column(name).to_pylist() for name in columns), strict=True)
        if plan.table
        else some.column("value").to_pylist()
      )
      at = 0 if plan.whole else int(start[first])
      yield (name, at), rows


def _part(
  file: str, start: int, rows: Iterator[Any], plan: Plan
) -> Iterator[pa.RecordBatch]:
  seen, lines = Seen(), itertools.count(1)
  read = _table if plan.table else _log
  begin, end, last, first, last_line = np.inf, -np.inf, ("", None), None, 0
  leading, alone, found = 0, 0, []
  events = read(rows, file, start, plan, seen, lines)
  for place, (event, seconds) in enumerate(events):
    line, time, fits = event.line, event.timestamp, seen.fits
    if seconds is not None:
      begin, end = min(begin, seconds), max(end, seconds)
      first = first or (line, seconds)
    if event.times:
      last = time, seconds
    last_line = line
    if plan.alone and start:
      if not fits and plan.form.log_format is not None:
        continue
      line = None
    leading += not fits
    alone += not fits and not event.sessions
    for session in event.sessions:
      found.append(
        (session, event.symbol, file, start, place, line, seconds, time)
        + (not fits, not event.times, None)
      )
    if len(found) >= _ROWS:
      yield _batch(found)
      found = []
  record = {name: getattr(seen, name) for name in _COUNTED}
  record["unfit"] = [entry[:2] for entry in seen.unfit]
  record["first"] = seen.first and seen.first[:2]
  part = Part(
    *(file, start, next(lines) - 1, (leading, alone), record),
    *(begin, end, last_line, first, last),
  )
  empty = (None,) * (len(_ARROW.names) - 1)
  yield _batch([*found, (*empty, part.to_json())])


_COUNTED = (
  *("fits", "count", "joined", "strays", "first_stray", "entries", "alone"),
  *("long", "first_long"),
)


def _batch(rows: list[tuple]) -> pa.RecordBatch:
  columns = zip(zip(*rows, strict=True), _ARROW.types, strict=True)
  arrays = [pa.array(values, kind) for values, kind in columns]
  return pa.RecordBatch.from_arrays(arrays, schema=_ARROW)


_Events = Iterator[tuple[logs.Event, float | None]]


def _log(rows, file, start, plan, seen, lines) -> _Events:
  texts = _texts(rows, file, start, plan.form.errors, lines)
  for event in logs.events(texts, file, plan.form, seen=seen):
    yield event, formats.seconds(event.times)


def _texts(
  rows: Iterator[bytes],
  file: str,
  start: int,
  errors: str,
  lines: Iterator[int],
) -> Iterator[str]:
  """The lines of a part as text, as `reading.lines` yields them.

  Spark has removed a byte order mark.
  """
  codec = ("latin-1",) if errors == "latin-1" else ("utf-8", errors)
  for line in rows:
    number = next(lines)
    try:
      text = line.removesuffix(b"\r").decode(*codec)
    except UnicodeDecodeError:
      raise UserError(
        f"{file}: line {number} from byte {start} {reading.NOT_UTF8}"
      ) from None
    yield text


def _table(rows, file, start, plan, seen, lines) -> _Events:
  mask = masker(plan.form.log_codes) if plan.masked else None
  strict = plan.table == "csv" and plan.form.errors == "strict"
  seen.fits = True
  for row in rows:
    number = next(lines)
    session, symbol, line, timestamp = row
    for field, value in (("session", session), ("event", symbol)):
      if not value:
        raise UserError(
          f"{file}: row {number} from byte {start} has no {field}"
        )
      # Spark's csv reader puts this character in place of a wrong byte.
      if strict and "\ufffd" in value:
        raise UserError(
          f"{file}: row {number} from byte {start} {reading.NOT_UTF8}"
        )
    if line is None and plan.numbered:
      line = number
    elif line is not None and not re.fullmatch("[0-9]{1,18}", str(line)):
      raise UserError(
        f"{file}: row {number} from byte {start}: line={line!r}: must be a"
        " whole number"
      )
    text, seconds = _moment(timestamp)
    symbol = mask(symbol) if mask else symbol
    place: Any = None if line is None else int(line)
    event = logs.Event([session], symbol, place, text, "", (text,), file)
    yield event, seconds


def _moment(value: Any) -> tuple[str, float | None]:
  """A time of a table as text, and in seconds since 1970."""
  if value is None or value == "":
    return "", None
  if isinstance(value, datetime):
    time = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return time.replace(tzinfo=None).isoformat(" "), time.timestamp()
  if isinstance(value, str):
    return value, formats.seconds((value,))
  return str(value), float(value)
