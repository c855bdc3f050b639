"""Files and tables to events, with Spark: a DataFrame for all of a log."""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

import os
from functools import partial
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from pyspark.sql import Column, DataFrame, SparkSession, functions
from pyspark.sql.functions import col, lit, when

from seqrnn.config.read import Config
from seqrnn.data.logs import logs
from seqrnn.errors import UserError
from seqrnn.logs.spark import parts
from seqrnn.logs.spark.parse import SCHEMA, Plan, parse, path_of
from seqrnn.logs.spark.score import Span

TABLE = "table:"  # Before the name of a table of Spark's catalog.
_TIMES = ("timestamp", "time")  # Columns of a table that may have the time.
# Such a csv file is read as Python's csv module reads it; a field with a line
# break is refused.
_CSV = {
  "header": True,
  "enforceSchema": False,
  "mode": "FAILFAST",
  "escape": '"',
  "unescapedQuoteHandling": "RAISE_ERROR",
}


class Events(NamedTuple):
  """The events of a log or of a table.

  Attributes:
    frame: session, symbol, file, line, time, timestamp, and other columns.
    order: the columns that order the events of a session.
    span: of the log.
    files: their names, the oldest first.
    kept: what Spark keeps until it is told to forget it.
  """

  frame: DataFrame
  order: list[str]
  span: Span
  files: list[str]
  kept: DataFrame | None = None


def read(session: SparkSession, data: Config, path: str) -> Events:
  """The events of files, or of a table of the catalog.

  Args:
    session: of Spark.
    data: the fields of `config.data`.
    path: as `detect.path`.

  Raises:
    UserError: the files are not what `data` says.
  """
  if path.startswith(TABLE):
    return of_table(session.table(path.removeprefix(TABLE)), data)
  form, is_log = logs.form(data), data.unit == "log"
  if path.rstrip("/").endswith(".parquet") or _has_parquet(session, path):
    frame = session.read.parquet(path)
    if _order(frame):
      return of_table(frame, data)
    plan = Plan(form, _names(frame, path), table="parquet", masked=is_log)
    return _of_files(_positions(frame, _columns(frame), False), plan)
  if is_log:
    frame = _text(session.read, path)
    # A line may be cut, or a session may begin, anywhere before a part.
    whole = not form.names_sessions or form.log_format in ("auto", "cri")
    plan = Plan(form, _names(frame, path), whole)
    line = col("value").cast("binary").alias("value")
    return _of_files(_positions(frame, [line], whole), plan)
  if data.unit == "session" and data.format == "csv":
    encoding = "ISO-8859-1" if data.errors == "latin-1" else "UTF-8"
    reader = session.read.option("recursiveFileLookup", True)
    frame = reader.csv(path, encoding=encoding, **_CSV)
    numbered = "line" not in frame.columns
    plan = Plan(form, _names(frame, path), table="csv", numbered=numbered)
    return _of_files(_positions(frame, _columns(frame), False), plan)
  raise UserError(
    f"data.unit={data.unit!r}, data.format={data.format!r}:"
    " config.detect.engine='spark' reads logs (data.unit=log) and tables with"
    " a row for each event (data.unit=session with data.format=csv)"
  )


def _text(reader: Any, path: str) -> DataFrame:
  """The lines of files, by a reader of Spark."""
  reader = reader.option("recursiveFileLookup", True)
  return reader.text(path, lineSep="\n")


def lines(reader: Any, path: str) -> DataFrame:
  """What `parse` reads of the lines of files, which may stream."""
  return _text(reader, path).select(
    col("value").cast("binary").alias("value"),
    col("_metadata.file_path").alias("file"),
    col("_metadata.file_block_start").alias("start"),
  )


def _has_parquet(session: SparkSession, path: str) -> bool:
  """Whether a folder has files of Parquet."""
  if any(c in path for c in "*?[{"):
    return False
  files = session.read.format("binaryFile").option(
    "pathGlobFilter", "*.parquet"
  )
  files = files.option("recursiveFileLookup", True).load(path)
  return bool(files.inputFiles())


def _names(frame: DataFrame, path: str) -> dict[str, str]:
  """The path of each file, and its name, as `reading.files` gives it.

  Raises:
    UserError: there is no file, or Spark cannot unpack one.
  """
  files = sorted({path_of(uri) for uri in frame.inputFiles()})
  if not files:
    raise UserError(f"config.detect.path={path!r}: no file in this folder")
  for file in files:
    if file.endswith((".xz", ".zst")):
      raise UserError(
        f"{file}: engine=spark unpacks .gz and .bz2, not this; unpack it first"
      )
  given = PurePosixPath(os.path.abspath(path_of(path)))
  fixed = takewhile(lambda p: not set(p) & set("*?[{"), given.parts)
  root = PurePosixPath(*fixed)
  root = root.parent if files == [str(root)] else root

  def name(file: str) -> str:
    path = PurePosixPath(file)
    inside = path.is_relative_to(root)
    return path.relative_to(root).as_posix() if inside else path.name

  return {file: name(file) for file in files}


def _columns(frame: DataFrame) -> list[Column]:
  """The session, the event, the line and the time of a table.

  Raises:
    UserError: there is no session or no event.
  """
  for name in ("session", "event"):
    if name not in frame.columns:
      raise UserError(
        f"config.detect.path: has the columns {', '.join(frame.columns)}; a"
        " table needs columns session and event"
      )
  time = next((name for name in _TIMES if name in frame.columns), None)
  line = "line" in frame.columns
  return [
    col("session").cast("string").alias("session"),
    col("event").cast("string").alias("event"),
    (col("line") if line else lit(None)).cast("string").alias("line"),
    (col(time) if time else lit(None).cast("string")).alias("timestamp"),
  ]


def _order(frame: DataFrame) -> list[str]:
  """The columns that order the events of a table."""
  if "line" in frame.columns:
    return [*(["file"] if "file" in frame.columns else []), "line"]
  return ["time"] if set(_TIMES) & set(frame.columns) else []


def _positions(
  frame: DataFrame, columns: list[Column], whole: bool
) -> DataFrame:
  """Rows of files with the file and the first byte of their part.

  `whole`: all rows of a file are in one partition, in order.
  """
  start = col("_metadata.file_block_start").alias("start")
  rows = frame.select(
    *(*columns, col("_metadata.file_path").alias("file"), start),
    functions.monotonically_increasing_id().alias("row"),
  )
  if whole:
    rows = rows.repartition("file")
    rows = rows.sortWithinPartitions("file", "start", "row")
  return rows


def of_table(frame: DataFrame, data: Config) -> Events:
  """The events of a table with a column that orders them.

  It is read twice, if it has times: first for the first and the last time.

  Args:
    frame: session, event; timestamp (or time), line, or both; file.
    data: the fields of `config.data`.

  Raises:
    UserError: a column is missing.
  """
  order, rows = _order(frame), table_rows(frame)
  if not order:
    raise UserError(
      "config.detect.path: a table needs a column line, timestamp or time,"
      " which orders the events of a session"
    )
  plan = Plan(logs.form(data), {}, table="rows", masked=data.unit == "log")
  parsed = rows.mapInArrow(partial(parse, plan=plan), SCHEMA)
  events = parsed.where(col("part").isNull())
  span = Span()
  if set(_TIMES) & set(frame.columns):
    least, most = functions.min("time"), functions.max("time")
    [(begin, end)] = events.agg(least, most).collect()
    span = Span() if begin is None else Span("seconds", begin, end)
  return Events(events, [*order, "place"], span, [])


def table_rows(frame: DataFrame) -> DataFrame:
  """What `parse` reads of a table of events, which may stream.

  Raises:
    UserError: there is no session or no event.
  """
  file = col("file") if "file" in frame.columns else lit("")
  start = lit(0).cast("bigint").alias("start")
  return frame.select(
    *_columns(frame), file.cast("string").alias("file"), start
  )


def _of_files(rows: DataFrame, plan: Plan) -> Events:
  """The events of files, which are parsed once, and kept by Spark."""
  parsed = rows.mapInArrow(partial(parse, plan=plan), SCHEMA).persist()
  texts = parsed.where(col("part").isNotNull()).select("part").collect()
  whole = parts.by_file(text for (text,) in texts)
  parts.check(whole, plan)
  names = parts.by_age(whole, plan)
  blocks = rows.sparkSession.createDataFrame(
    parts.blocks(whole, names, plan), parts.BLOCKS
  )
  joined = parsed.where(col("part").isNull()).join(
    functions.broadcast(blocks), ["file", "start"]
  )
  inherits = col("inherits") & col("last_timestamp").isNotNull()
  name = functions.concat(col("log"), lit(":"), col("session"))
  events = joined.where(~(col("leading") & col("joins"))).select(
    when(col("log") == "", col("session")).otherwise(name).alias("session"),
    *("symbol", "rank", "start", "place"),
    (col("file") if len(names) > 1 else lit("")).alias("file"),
    (col("line") + col("offset")).alias("line"),
    *(
      when(inherits, col(f"last_{time}")).otherwise(col(time)).alias(time)
      for time in ("time", "timestamp")
    ),
  )
  order, span = ["rank", "start", "place"], parts.span(whole, names, plan)
  return Events(events, order, span, names, parsed)
