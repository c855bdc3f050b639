"""detect --follow on Apache Spark, which keeps the state of open sessions.

The events of a session wait in Spark's keyed state. Silence ends a session, by
the times by which `follower` ends it, in event time; then its events are scored
as those of a log that is examined at once (`score`). The state is kept
until the longest such time is over: if events arrive meanwhile, the session
goes on, and has another verdict later.
"""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, Row, SparkSession, functions
from pyspark.sql.functions import col
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.stateful_processor import StatefulProcessor

from seqrnn.config.read import Config
from seqrnn.data.logs import logs
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.logs.detect.deployed import Deployed, IdleTimes
from seqrnn.logs.spark import batch
from seqrnn.logs.spark.parse import SCHEMA, Plan, parse
from seqrnn.logs.spark.read import lines as lines_of
from seqrnn.logs.spark.read import table_rows
from seqrnn.logs.spark.score import (
  EVENTS,
  Shipped,
  find,
  restored,
  schema,
  sessions_of,
  verdicts,
)
from seqrnn.logs.spark.session import opened, reporting

_STORE = "spark.sql.streaming.stateStore.providerClass"
_ROCKS_DB = (
  "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
)
# Of an event in the state of its session.
_NAMES = ("symbol", "line", "time", "timestamp", "file")
_EVENT = (
  "symbol string, line bigint, time double, timestamp string, file string"
)
_LAST = (
  "first double, last double, before string, after string, ended boolean,"
  " timer bigint"
)
_ENDED = f"session string, begins boolean, events array<struct<{_EVENT}>>"


class _Open(StatefulProcessor):
  """Collects the events of a session; yields it when silence has ended it."""

  def __init__(self, idle: IdleTimes, begin: float):
    """`begin`: of the log, in seconds; -inf: it cuts no session."""
    self._idle, self._begin = idle, begin

  def init(self, handle):
    self._handle = handle
    self._events = handle.getListState("events", _EVENT)
    self._last = handle.getValueState("last", _LAST)

  def handleInputRows(self, key, rows, timerValues):
    del key, timerValues
    new: list[Any] = _ordered(list(rows))
    self._events.appendList(
      [tuple(row[name] for name in _NAMES) for row in new]
    )
    times = [row["time"] for row in new if row["time"] is not None]
    before, after, timer = new[0]["symbol"], new[-1]["symbol"], -1
    if known := self._last.get():
      first, last, before, _, _, timer = known
      times += [first, last]
    first, last = min(times, default=0.0), max(times, default=0.0)
    self._wait((first, last, before, after, False), timer, self._idle.after)
    yield from ()

  def _wait(
    self,
    facts: tuple[float, float, str, str, bool],
    timer: int,
    until: Callable[[str], float],
  ):
    """Sets the only timer of a session to a time after its last event."""
    if timer >= 0:
      self._handle.deleteTimer(timer)
    _, last, _, after, _ = facts
    timer = math.ceil(1000 * (last + until(after)))
    self._handle.registerTimer(timer)
    self._last.update((*facts, timer))

  def handleExpiredTimer(self, key, timerValues, expiredTimerInfo):
    del timerValues, expiredTimerInfo
    known = self._last.get()
    assert known, "a timer is set with it"
    first, last, before, after, ended, _ = known
    if not ended:
      begins = first - self._begin >= self._idle.before(before)
      kept = self._events.get()
      events = [Row(**dict(zip(_NAMES, e, strict=True))) for e in kept]
      yield Row(session=key[0], begins=begins, events=events)
    if ended or self._idle.longest <= self._idle.after(after):
      self._events.clear()
      self._last.clear()
    else:
      longest = lambda _: self._idle.longest
      self._wait((first, last, before, after, True), -1, longest)


def _ordered(rows: list[Any]) -> list[Row]:
  """Events of a session that arrive together, in the order of the log."""
  firsts: dict[str, float] = {}
  for row in rows:
    time = math.inf if row["time"] is None else row["time"]
    firsts[row["file"]] = min(firsts.get(row["file"], math.inf), time)
  of_file = lambda row: (firsts[row["file"]], row["file"] or "")
  return sorted(
    rows, key=lambda row: (*of_file(row), row["start"], row["place"])
  )


def detect(
  session: SparkSession,
  frame: DataFrame,
  deployed: Deployed,
  begin: float = -math.inf,
) -> DataFrame:
  """The sessions of a stream that have ended, with scores and verdicts.

  An event that is older than the latest one by more than the longest silence of
  a session is left out, and counted by Spark.

  Args:
    session: of Spark, whose workers have this package.
    frame: a stream with the columns session, event, timestamp (or time), and
      perhaps line and file.
    deployed: the detector, of `batch.restore`.
    begin: of the log, in seconds since 1970, where it may cut sessions.

  Raises:
    UserError: a column is missing, or silence ends no session of the run.
  """
  rows = table_rows(frame)
  data = deployed.config.data
  plan = Plan(logs.form(data), {}, table="rows", masked=data.unit == "log")
  return _ended(session, _parsed(rows, plan), deployed, begin)


def _parsed(rows: DataFrame, plan: Plan) -> DataFrame:
  parsed = rows.mapInArrow(partial(parse, plan=plan), SCHEMA)
  return parsed.where(col("part").isNull())


def _ended(
  session: SparkSession, events: DataFrame, deployed: Deployed, begin: float
) -> DataFrame:
  """The verdicts on the sessions of parsed events."""
  idle = deployed.idle
  if idle.clock != "seconds" or not math.isfinite(idle.longest):
    raise UserError(
      f"config.detect.idle={deployed.config.detect.idle!r}: silence ends no"
      " session, because the training's log has no times; give the idle time in"
      " seconds"
    )
  session.conf.set(_STORE, _ROCKS_DB)
  at = functions.timestamp_micros((1e6 * col("time")).cast("bigint"))
  late = f"{math.ceil(idle.longest)} seconds"
  timed = events.withColumn("at", at).withWatermark("at", late)
  ended = timed.groupBy("session").transformWithState(
    statefulProcessor=_Open(idle, begin),
    outputStructType=_ENDED,
    outputMode="Append",
    timeMode="EventTime",
  )
  shipped = batch.ship(session, deployed)
  return ended.mapInArrow(
    partial(score, shipped=shipped),
    from_arrow_schema(schema(deployed.detector)),
  )


def score(
  batches: Iterable[pa.RecordBatch], shipped: Shipped
) -> Iterator[pa.RecordBatch]:
  """Scores ended sessions, which are rows of `_ENDED`."""
  held, count = [], 0
  for some in batches:
    held.append(some)
    count += len(some.column("events").flatten())
    if count >= EVENTS:
      yield _verdicts(held, shipped)
      held, count = [], 0
  if count:
    yield _verdicts(held, shipped)


def _verdicts(batches: list[pa.RecordBatch], shipped: Shipped):
  deployed = restored(shipped)
  [rows] = pa.Table.from_batches(batches).combine_chunks().to_batches()
  events = rows.column("events")
  flat = zip(_NAMES, events.flatten().flatten(), strict=True)
  columns: dict[str, Any] = dict(flat)
  bounds = events.offsets.to_numpy() - events.offsets[0].as_py()
  sessions = sessions_of(
    deployed, rows.column("session").to_pylist(), bounds, columns
  )
  begins = rows.column("begins").to_numpy(zero_copy_only=False)
  sessions = sessions._replace(begins=begins, ends=begins | True)
  found = find(deployed, sessions)
  return verdicts(found, schema(deployed.detector))


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
      read once, when it is there as a whole, as rotated parts are.
    output: of the table of the sessions, and of the stream's state.
    trigger: as of `writeStream.trigger`; None: at once, for ever.

  Raises:
    UserError: the run has no log whose lines name their sessions.
  """
  data = deployed.config.data
  form = logs.form(data)
  if data.unit != "log" or not form.names_sessions:
    raise UserError(
      f"data.unit={data.unit!r}: --follow with engine=spark reads logs whose"
      " lines have the name of a session (data.log_session)"
    )
  if form.log_format in ("auto", "cri"):
    raise UserError(
      f"data.log_format={form.log_format!r}: lines of a stream are read by"
      " themselves; config.data.log_format must be another"
    )
  begin = -math.inf
  if deployed.idle.first:
    begin = _begin(session, deployed, path, f"{output}/begin")
  lines = lines_of(session.readStream, path)
  plan = Plan(form, {}, alone=True)
  found = _ended(session, _parsed(lines, plan), deployed, begin)
  writer = found.writeStream.format("parquet").outputMode("append")
  writer = writer.option("path", f"{output}/sessions")
  writer = writer.option("checkpointLocation", f"{output}/state")
  return (writer.trigger(**trigger) if trigger else writer).start()


def _begin(
  session: SparkSession, deployed: Deployed, path: str, kept: str
) -> float:
  """The begin of the log, which is found once, when it is first followed."""
  with_begin = "begin double"
  try:
    [(begin,)] = session.read.schema(with_begin).json(kept).collect()
    return begin
  except (AnalysisException, ValueError):
    plan = Plan(logs.form(deployed.config.data), {}, alone=True)
    events = _parsed(lines_of(session.read, path), plan)
    [(begin,)] = events.agg(functions.min("time")).collect()
  begin = -math.inf if begin is None else begin
  frame = session.createDataFrame([(begin,)], with_begin).coalesce(1)
  frame.write.mode("overwrite").json(kept)
  return begin


def run(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Follows the files of detect.path until it is stopped.

  Raises:
    UserError: as `start`, or there is no Spark, no detection or no file.
  """
  batch.refuse(config.detect)
  deployed = batch.restore(build, config, workdir)
  output = config.detect.output or batch.default_output(workdir)
  with reporting(), opened() as session:
    query = start(session, deployed, config.detect.path, output)
    try:
      query.awaitTermination()
    finally:
      query.stop()
