"""detect --follow on Apache Spark, which keeps the events of open sessions.

A session is a session window of Spark: it ends when it was silent for the
longest time, in event time, that a session of the training may be silent. Then
its events are scored as those of a log that is examined at once (`score`).
"""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession, functions
from pyspark.sql.functions import col
from pyspark.sql.streaming.query import StreamingQuery

from seqrnn.config.read import Config
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.spark import batch, read
from seqrnn.logs.spark.read import Span
from seqrnn.logs.spark.score import score_ended, ship
from seqrnn.logs.spark.session import open_session, reporting, whole_files


def detect(
  session: SparkSession,
  frame: DataFrame,
  deployed: Deployed,
  begin: float = -math.inf,
) -> DataFrame:
  """The sessions of a stream that have ended, with scores and verdicts.

  An event that is older than the latest one by more than the longest silence of
  a session is left out, and counted by Spark; so is an event without a time.

  Args:
    session: of Spark, whose workers have this package.
    frame: a stream with the columns session, event, timestamp (or time), and
      perhaps line and file.
    deployed: the detector, of `batch.restore`.
    begin: of the log, in seconds since 1970, where it may cut sessions.

  Raises:
    UserError: a column is missing, or silence ends no session of the run.
  """
  rows = read.table_rows(frame, deployed.config.data)
  return _ended(session, rows, deployed, begin)


def _ended(
  session: SparkSession, rows: DataFrame, deployed: Deployed, begin: float
) -> DataFrame:
  """The verdicts on the sessions of parsed events."""
  idle = deployed.idle
  if idle.clock != "seconds" or not math.isfinite(idle.longest):
    raise UserError(
      f"config.detect.idle={deployed.config.detect.idle!r}: silence ends no"
      " session, because the training's log has no times; give the idle time in"
      " seconds"
    )
  at = functions.timestamp_micros((1e6 * col("time")).cast("bigint"))
  silence = functions.session_window("at", f"{math.ceil(idle.longest)} seconds")
  events = rows.where("session is not null").withColumn("at", at)
  listed = functions.collect_list(functions.struct(*read.COLUMNS))
  ended = events.withWatermark("at", "0 seconds").groupBy(silence, "session")
  shipped, span = ship(session, deployed), Span("seconds", begin)
  score = partial(score_ended, shipped=shipped, span=span)
  rows = ended.agg(listed.alias("events")).select("events")
  return rows.mapInPandas(score, ", ".join(shipped.columns)).drop("key")


def start(
  session: SparkSession,
  deployed: Deployed,
  path: str,
  output: str,
  trigger: dict[str, Any] | None = None,
) -> StreamingQuery:
  """Starts to follow the files of a folder; the query is Spark's.

  Args:
    session: of Spark.
    deployed: the detector.
    path: of text files of a log, or of a folder or glob of them; a file is
      read once, when it is complete, as rotated parts are.
    output: of the table of the sessions, and of the stream's state.
    trigger: as of `writeStream.trigger`; None: at once, for ever.

  Raises:
    UserError: silence ends no session of the run.
  """
  plan = read.plan_files(deployed.config.data, path, None)
  with whole_files(session):
    begin = -math.inf
    if deployed.idle.first:
      rows = read.parsed(read.read_lines(session.read, path), plan)
      begin = _begin(session, rows, f"{output}/begin")
    rows = read.parsed(read.read_lines(session.readStream, path), plan)
    verdicts = _ended(session, rows, deployed, begin)
    writer = verdicts.writeStream.format("parquet").outputMode("append")
    writer = writer.option("path", f"{output}/sessions")
    writer = writer.option("checkpointLocation", f"{output}/state")
    return (writer.trigger(**trigger) if trigger else writer).start()


def _begin(session: SparkSession, rows: DataFrame, path: str) -> float:
  """The begin of the log, which is stored when it is first followed."""
  try:
    [(begin,)] = session.read.schema("begin double").json(path).collect()
  except (AnalysisException, ValueError):
    [(begin,)] = rows.agg(functions.min("time")).collect()
    begin = -math.inf if begin is None else begin
    frame = session.createDataFrame([(begin,)], "begin double").coalesce(1)
    frame.write.mode("overwrite").json(path)
  return begin


def run(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Follows the files of detect.path until it is stopped.

  Raises:
    UserError: as `start`, or there is no Spark, no detection or no file.
  """
  batch.refuse(config.detect)
  deployed = batch.restore(build, config, workdir)
  output = config.detect.output or batch.default_output(workdir)
  with reporting(), open_session() as session:
    query = start(session, deployed, config.detect.path, output)
    try:
      query.awaitTermination()
    finally:
      query.stop()
