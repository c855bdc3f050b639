"""detect on Apache Spark: logs that are too large for one machine, or a stream.

Spark reads the lines and brings the events of a session together; its Python
workers parse the lines (`read`) and score the sessions (`score`) with the
detector of the last detection.

In a stream a session is a session window of Spark: it ends when it was silent
for the longest time, in event time, that a session of the training may be
silent. Then its events are scored as those of a log that is examined at once.
"""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

import math
from functools import partial
from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, Row, SparkSession, functions
from pyspark.sql.functions import broadcast, col
from pyspark.sql.streaming.query import StreamingQuery
from rich.console import Console

from seqrnn.config.combinations import require
from seqrnn.config.read import Config
from seqrnn.errors import UserError, report
from seqrnn.experiment import Build
from seqrnn.logs.detect import deployed as deployment
from seqrnn.logs.detect import tables
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.findings import SEVERITIES, Findings, group_incidents
from seqrnn.logs.detect.scores import COMBINED, SHORT
from seqrnn.logs.spark import read
from seqrnn.logs.spark.read import Span
from seqrnn.logs.spark.score import examine, score_ended, score_events, ship
from seqrnn.logs.spark.session import open_session, reporting, whole_files

_GROUPED = 10_000  # Flagged sessions that are grouped to incidents.
_INCIDENTS = (
  "incident int, severity string, sessions bigint, p_value double,"
  " reason string, score string, event string, example string, file string,"
  " line bigint, timestamp string, before string, after string"
)


def run(build: Build, config: Config, workdir: Path) -> Findings | None:
  """Finds anomalous sessions, and writes them and their incidents as tables.

  Returns:
    the findings on the flagged sessions; None: there is none.

  Raises:
    UserError: there is no Spark, no detection or no file, or a field has a
      value that needs one machine.
  """
  path, output = paths(config, workdir)
  deployed = restore(build, config, workdir)
  with reporting(), open_session() as session, whole_files(session):
    events = read.read_events(session, config.data, path)
    if not events.count:
      raise UserError(f"config.detect.path={path!r}: has no event of a session")
    scored = score_events(session, events, deployed).persist()
    counts, short = _counts(scored)
    flagged, rows, numbers = None, [], []
    keys = _flagged_keys(scored, sum(counts[1:]))
    if keys:
      # Few are flagged, so this process scores them again, to explain them.
      frame = session.createDataFrame(keys, "session string")
      some = events.frame.join(broadcast(frame), "session", "left_semi")
      flagged, names = examine(deployed, some.toPandas(), events.span)
      grouped = group_incidents(flagged)
      number = {d: n for n, one in enumerate(grouped, 1) for d in one.members}
      # The last digit of a score may differ from that of the workers, so that
      # a session which they flag has no incident here.
      which = [number.get(d) for d in flagged.distinct.which.tolist()]
      numbers = list(zip(names, which, strict=True))
      rows = list(tables.incident_rows(flagged, grouped))
      tables.print_findings(Console(highlight=False), flagged, grouped)
    known = session.createDataFrame(numbers, "key string, incident int")
    joined = scored.drop("incident").join(broadcast(known), "key", "left")
    sessions = joined.select(*scored.columns).drop("key")
    sessions.write.mode("overwrite").parquet(f"{output}/sessions")
    one_file = session.createDataFrame(rows, _INCIDENTS).coalesce(1)
    one_file.write.mode("overwrite").parquet(f"{output}/incidents")
    for frame in (events.rows, scored):
      frame.unpersist()
  print(f"{output}: {tables.summary_of(counts, short)}")
  return flagged


def restore(build: Build, config: Config, workdir: Path) -> Deployed:
  """The detector of the last detection, which decides the settings.

  Raises:
    UserError: as `deployed.restore`, or the rule needs all sessions at once.
  """
  deployed = deployment.restore(build, config, workdir)
  deployment.refuse_comparing(deployed, "detect.engine=spark")
  return deployed


def paths(config: Config, workdir: Path) -> tuple[str, str]:
  """The path of the log, and the folder of the tables.

  Raises:
    UserError: a field has a value that needs one machine, or there is no path.
  """
  settings = config.detect
  why = "engine=spark needs the path of a log"
  require(config, settings.path is not None, why, "detect.path")
  why = "evaluates a detection, for which config.detect.engine must be 'local'"
  for name in ("anomalous_path", "labels", "inject"):
    require(config, not settings[name], why, f"detect.{name}")
  folder = (workdir / "detect-spark").absolute()
  return settings.path, settings.output or folder.as_uri()


def _counts(scored: DataFrame) -> tuple[list[int], int]:
  """The number of sessions of each severity, and of short ones."""
  rows = scored.groupBy("severity", "score").count().collect()
  counts, short = [0] * len(SEVERITIES), 0
  for row in rows:
    counts[SEVERITIES.index(row["severity"] or "")] += row["count"]
    short += row["count"] * (row["score"] == SHORT)
  return counts, short


def _flagged_keys(scored: DataFrame, count: int) -> list[Row]:
  """The flagged sessions, or some of the highest scores if they are many."""
  if count > _GROUPED:
    report(
      f"of the {count:,} flagged sessions, the {_GROUPED:,} of the highest"
      " scores are grouped to incidents; the others have none"
    )
  flagged = scored.where("flag = 1").orderBy(col(COMBINED).desc(), "key")
  return flagged.limit(_GROUPED).select("key").collect()


def start(
  session: SparkSession,
  deployed: Deployed,
  path: str,
  output: str,
  trigger: dict[str, str | bool] | None = None,
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
  plan, begin, idle = read.Plan(deployed.config.data), -math.inf, deployed.idle
  if idle.clock != "seconds" or not math.isfinite(idle.longest):
    raise UserError(
      f"config.detect.idle={deployed.config.detect.idle!r}: silence ends no"
      " session, because the training's log has no times; give the idle time in"
      " seconds"
    )
  with whole_files(session):
    if idle.first:
      rows, _ = read.file_rows(session.read, plan, path, is_stream=True)
      begin = _begin(session, rows, f"{output}/begin")
    rows, _ = read.file_rows(session.readStream, plan, path, is_stream=True)
    at = functions.timestamp_micros((1e6 * col("at")).cast("bigint"))
    silence = functions.session_window(
      "at", f"{math.ceil(idle.longest)} seconds"
    )
    events = rows.where("session is not null").withColumn("at", at)
    listed = functions.collect_list(functions.struct(*read.COLUMNS[:-1]))
    ended = events.withWatermark("at", "0 seconds").groupBy(silence, "session")
    rows = ended.agg(listed.alias("events")).select("events")
    shipped, span = ship(session, deployed), Span("seconds", begin)
    score = partial(score_ended, shipped=shipped, span=span)
    verdicts = rows.mapInPandas(score, ", ".join(shipped.columns)).drop("key")
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


def follow(build: Build, config: Config, workdir: Path):
  """Follows the files of detect.path until it is stopped.

  Raises:
    UserError: as `start`, or there is no Spark, no detection or no file.
  """
  path, output = paths(config, workdir)
  deployed = restore(build, config, workdir)
  with reporting(), open_session() as session:
    query = start(session, deployed, path, output)
    try:
      query.awaitTermination()
    finally:
      query.stop()
