"""Files to events; a file is read by one of Spark's workers.

A worker reads a file from its first line with the functions of one machine: the
numbers of lines, lines that belong to the line before, and times that a line
inherits are theirs. Workers that only read do not import JAX.
"""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from functools import partial
from operator import itemgetter
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pandas as pd
from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql.functions import col, lit
from pyspark.sql.streaming.readwriter import DataStreamReader

from seqrnn.config.read import Config
from seqrnn.data.logs import formats, log_corpus
from seqrnn.data.logs.entries import LogEvent, LogReader
from seqrnn.data.read.reading import Source
from seqrnn.errors import UserError, report

_ROWS = 2**13  # The most rows of a frame that is sent to Spark.
# The columns of an event. `rank`, the name of the file and `place` order
# events. `at` is its time, or else a neighbour's. A row without a session is an
# event of no session or, if it has a symbol, a message.
_SCHEMA = (
  "session string, symbol string, file string, place bigint, line bigint,"
  " time double, timestamp string, values array<double>, rank double, at double"
)
COLUMNS = [field.split()[0] for field in _SCHEMA.split(", ")]


class Span(NamedTuple):
  """The begin and the end of a log, which decide the sessions that it cuts.

  Attributes:
    clock: "seconds" or "lines"; empty: no session is cut.
    begin: of the log.
    end: of the log.
  """

  clock: str = ""
  begin: float = -math.inf
  end: float = math.inf


class Events(NamedTuple):
  """The events of a log.

  Attributes:
    frame: a row for each event of a session, with the columns `COLUMNS`.
    count: the number of its rows.
    span: of the log.
    rows: all rows of the workers, which Spark keeps until `unpersist`.
  """

  frame: DataFrame
  count: int
  span: Span
  rows: DataFrame


class Plan(NamedTuple):
  """How workers read files.

  Attributes:
    data: the fields of `config.data`.
    near: as of a `Form`.
    root: the folder to which the names of files are relative.
    logs: the name of a file -> the log that precedes the names of its
      sessions, or ""; None: a stream, whose files are not known yet, and need
      not fit their format.
    several: whether there are several files, or they are not known yet.
  """

  data: Config
  near: float | None = None
  root: PurePosixPath = PurePosixPath()
  logs: dict[str, str] | None = None
  several: bool = True

  def name(self, uri: str) -> str:
    """The name of a file, as `reading.files` gives it."""
    return os.path.relpath(_path(uri), self.root)

  def events(self, source: Source, messages: list[str]) -> Iterator[LogEvent]:
    """The events of a file, which adds messages about its lines."""
    if self.data.unit != "log":
      return log_corpus.table_events(source, self.data, self.several)
    log = "" if self.logs is None else self.logs[source.name]
    form = log_corpus.form(self.data)._replace(near=self.near)
    reader = LogReader(source.name, form, log)
    return reader.read(source, None if self.logs is None else messages.append)


def _path(uri: str) -> PurePosixPath:
  """The path in a URI as Spark writes it: file:/a%20b, file:///a%20b."""
  return PurePosixPath(os.path.abspath(unquote(urlsplit(uri).path)))


def parse_files(
  frames: Iterable[pd.DataFrame], plan: Plan
) -> Iterator[pd.DataFrame]:
  """The events of files, by `_SCHEMA`, and messages about them.

  Args:
    frames: the columns `file` and `value`, the bytes of a line; the lines of a
      file are neighbours and in order.
    plan: how they are read.

  Raises:
    UserError: as `log_corpus.events` and `log_corpus.table_events`.
  """
  parts = (
    part
    for frame in frames
    for part in frame.groupby("file", sort=False)["value"]
  )
  for uri, lines in itertools.groupby(parts, key=itemgetter(0)):
    content: Any = (b"\n".join(some) + b"\n" for _, some in lines)
    name, messages = plan.name(str(uri)), []
    # Logs are ordered by their first times, tables by their names.
    rank = None if plan.data.unit == "log" else 0.0
    rows = _rows(plan.events(Source(name, content), messages))
    while some := list(itertools.islice(rows, _ROWS)):
      frame = pd.DataFrame(some, columns=COLUMNS[:-2])
      if rank is None:
        rank = next(iter(frame["time"].dropna()), math.inf)
      yield frame.assign(rank=rank, at=frame["time"].ffill().bfill())
    if messages:
      yield pd.DataFrame({**dict.fromkeys(COLUMNS), "symbol": messages})


def _rows(events: Iterator[LogEvent]) -> Iterator[tuple]:
  for place, event in enumerate(events):
    for session in event.sessions or (None,):
      symbol = session and event.symbol
      row = session, symbol, event.file, place, event.line, event.seconds
      yield *row, event.timestamp, list(event.values)


def read_events(
  session: SparkSession, data: Config, path: str, near: float | None = None
) -> Events:
  """The events of files, which Spark keeps, and the span of their log.

  Args:
    session: of Spark, in `whole_files`.
    data: the fields of `config.data`.
    path: as `detect.path`.
    near: as of a `Form`.

  Raises:
    UserError: the files are not what `data` says.
  """
  rows, plan = file_rows(session.read, Plan(data, near), path)
  if not plan.several:
    rows = rows.withColumn("file", lit(""))
  cut = log_corpus.form(data).cut if data.unit == "log" else "table"
  rows, span = rows.persist(), Span()
  facts = "min(time) max(time) max(line) count(session) max_by(timestamp,time)"
  begin, end, last, count, time = rows.selectExpr(*facts.split()).first()
  if near := formats.earlier(near, (time or "",), end):
    rows.unpersist()
    return read_events(session, data, path, near)
  if begin is not None and cut not in ("file", "lines"):
    span = Span("seconds", begin, end)
  elif last is not None and cut not in ("table", "file") and not plan.several:
    span = Span("lines", 1, last)
  messages = rows.where("session is null and symbol is not null")
  for (message,) in messages.select("symbol").collect():
    report(message)
  return Events(rows.where("session is not null"), count, span, rows)


def file_rows(
  reader: DataFrameReader | DataStreamReader,
  plan: Plan,
  path: str,
  is_stream: bool = False,
) -> tuple[DataFrame, Plan]:
  """The rows of `parse_files`, and how the files are read.

  Args:
    reader: of Spark.
    plan: without what depends on the path.
    path: as `detect.path`.
    is_stream: whether the files are not known yet.

  Raises:
    UserError: there is no file.
  """
  reader = reader.option("recursiveFileLookup", True)
  lines = reader.text(path, lineSep="\n").select(
    col("value").cast("binary").alias("value"),
    col("_metadata.file_path").alias("file"),
  )
  fixed = itertools.takewhile(
    lambda part: not set(part) & set("*?[{"), _path(path).parts
  )
  plan = plan._replace(root=PurePosixPath(*fixed))
  if not is_stream:
    if not (files := lines.inputFiles()):
      raise UserError(f"config.detect.path={path!r}: no file in this folder")
    if _path(files[0]) == plan.root:
      plan = plan._replace(root=plan.root.parent)
    names = sorted(map(plan.name, files))
    of_logs = log_corpus.of_logs(names, log_corpus.form(plan.data))
    plan = plan._replace(logs=of_logs, several=len(files) > 1)
  return lines.mapInPandas(partial(parse_files, plan=plan), _SCHEMA), plan
