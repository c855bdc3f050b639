"""detect on Apache Spark: a log that is too large for one machine.

Spark reads the lines, brings sessions together and keeps what it needs for
that; its Python workers parse the lines (`parse`) and score the sessions
(`score`) with the detector of the last detection.
"""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame, Row, SparkSession, functions
from pyspark.sql.functions import col
from pyspark.sql.pandas.types import from_arrow_schema
from rich.console import Console

from seqrnn.config.read import Config
from seqrnn.data.logs import formats
from seqrnn.data.logs.sessions import Sessions
from seqrnn.data.read.columns import Tokens
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.logs.detect import decision, incidents, printing, tables
from seqrnn.logs.detect import deployed as deployment
from seqrnn.logs.detect.calibration import COMBINED
from seqrnn.logs.detect.decision import find_anomalies
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.findings import Findings
from seqrnn.logs.detect.incidents import Incident
from seqrnn.logs.spark.read import Events, of_table
from seqrnn.logs.spark.read import read as read_events
from seqrnn.logs.spark.score import Shipped, Span, pack, schema, score
from seqrnn.logs.spark.session import opened, reporting

_GROUPED = 2**20  # Events of flagged sessions that are grouped to incidents.
_RULES = ("rate", "events", "topk")  # They judge each session by itself.
_INCIDENTS = (
  "incident int, severity string, sessions bigint, p_value double,"
  " reason string, score string, event string, example string, file string,"
  " line bigint, timestamp string, before string, after string"
)


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Findings | None:
  """Finds anomalous sessions, and writes them and their incidents as tables.

  Returns:
    the findings on the flagged sessions; None: there is none.

  Raises:
    UserError: there is no Spark, no detection or no file, or a field has a
      value that needs one machine.
  """
  settings = config.detect
  refuse(settings)
  deployed = restore(build, config, workdir)
  output = settings.output or default_output(workdir)
  with reporting(), opened() as session:
    events = read_events(session, config.data, settings.path)
    found = scored(session, events, deployed).persist()
    counts, short = _counts(found)
    if not sum(counts):
      raise UserError(
        f"config.detect.path={settings.path!r}: has no event of a session"
      )
    rows = _flagged(found, events.files)
    flagged, grouped, numbers = None, [], []
    if rows:
      # Few are flagged, so this process scores them again, to explain them.
      flagged = find_anomalies(
        deployed.detector, deployed.normal, _sessions(rows)
      )
      grouped = incidents.group(flagged)
      number = {d: n for n, one in enumerate(grouped, 1) for d in one.members}
      which = [number[d] for d in flagged.distinct.which.tolist()]
      numbers = [
        (row["session"], n) for row, n in zip(rows, which, strict=True)
      ]
    _write_sessions(session, found, numbers, output)
    _write_incidents(session, flagged, grouped, output)
    for kept in filter(None, (events.kept, found)):
      kept.unpersist()
  if flagged is not None:
    console = Console(highlight=False)
    printing.print_incidents(console, flagged, grouped)
    printing.print_sessions(console, flagged)
  print(f"{output}: {printing.summary_of(counts, short)}")
  return flagged


def detect(
  session: SparkSession, frame: DataFrame, deployed: Deployed
) -> DataFrame:
  """The sessions of a table of events, with scores and verdicts.

  Args:
    session: of Spark, whose workers have this package.
    frame: the columns session and event; line, timestamp (or time), or both;
      perhaps file. It is read twice, if it has times.
    deployed: the detector, of `restore`.

  Returns:
    the columns of sessions.csv, without incidents, and `content`, the events
    of flagged sessions.
  """
  _refuse_rule(deployed.config.detect)
  events = of_table(frame, deployed.config.data)
  return scored(session, events, deployed)


def restore(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Deployed:
  """The detector of the last detection; reports settings that it decides.

  Raises:
    UserError: as `deployed.restore`, or the rule needs all sessions at once.
  """
  deployed = deployment.restore(build, config, workdir)
  asked, last = config.detect, deployed.config.detect
  for name in ("rule", "rate", "top_k", "short"):
    if asked[name] != last[name]:
      formats.report(
        f"detect.{name}={last[name]}, as in the last detection, not"
        f" {asked[name]}"
      )
  _refuse_rule(last)
  return deployed


def _refuse_rule(settings: Config):
  if settings.rule not in _RULES:
    raise UserError(
      f"config.detect.rule={settings.rule!r}: engine=spark has"
      f" {', '.join(_RULES)}; this rule compares all sessions"
    )


def refuse(settings: Config):
  """Refuses fields that the engine does not read.

  Raises:
    UserError: one has a value that needs one machine, or there is no path.
  """
  if settings.path is None:
    raise UserError(
      "config.detect.path=None: engine=spark needs the path of what it reads"
    )
  for name in ("anomalous_path", "labels", "inject"):
    if settings[name]:
      raise UserError(
        f"config.detect.{name}={settings[name]!r}: evaluates a detection, for"
        " which config.detect.engine must be 'local'"
      )


def default_output(workdir: Path) -> str:
  """The folder of the tables if `detect.output` names none."""
  return (workdir / "detect-spark").absolute().as_uri()


def ship(session: SparkSession, deployed: Deployed) -> Shipped:
  """Sends a detector to the workers."""
  content = pack(deployed)
  key = hashlib.sha256(content).hexdigest()
  return Shipped(key, session.sparkContext.broadcast(content))


def scored(
  session: SparkSession, events: Events, deployed: Deployed
) -> DataFrame:
  """The rows of `score.score`."""
  span, clock = events.span, deployed.cut.clock
  if span.clock and span.clock != clock:
    formats.report(
      f"the training's clock is {clock or 'none'}, this log's {span.clock}: no"
      " session is taken as cut by the begin or the end of the log"
    )
    span = Span()
  columns = schema(deployed.detector)
  names = ["session", "symbol", "file", "line", "time", "timestamp"]
  together = events.frame.repartition("session")
  together = together.sortWithinPartitions("session", *events.order)
  return together.select(*names).mapInArrow(
    partial(score, shipped=ship(session, deployed), span=span),
    from_arrow_schema(columns),
  )


def _counts(found: DataFrame) -> tuple[list[int], int]:
  """The number of sessions of each severity, and of short ones."""
  rows = found.groupBy("severity", "score").count().collect()
  counts, short = [0] * len(decision.NAMES), 0
  for row in rows:
    counts[decision.NAMES.index(row["severity"] or "")] += row["count"]
    short += row["count"] * (row["score"] == decision.SHORT)
  return counts, short


def _flagged(found: DataFrame, files: list[str]) -> list[Row]:
  """The flagged sessions, in the order of the log.

  Those of the highest scores, if they are more than fit in memory.
  """
  rows, left = [], _GROUPED
  some = found.where("flag = 1").orderBy(col(COMBINED).desc(), "session")
  names = ("session", "open", "cut", "content")
  for row in some.select(*names).toLocalIterator():
    left -= len(row["content"])
    if rows and left < 0:
      formats.report(
        f"of the flagged sessions, the {len(rows):,} of the highest scores are"
        " grouped to incidents; the others have none"
      )
      break
    rows.append(row)
  rank = {name: n for n, name in enumerate(files)}

  def place(row: Row) -> tuple[int, int]:
    event = row["content"][0]
    return rank.get(event["file"], 0), event["line"] or 0

  return sorted(rows, key=place)


def _sessions(rows: list[Row]) -> Sessions:
  """Flagged sessions, with the events of their content."""
  columns = {name: Tokens() for name in ("symbol", "timestamp", "file")}
  ids, lines, bounds = [], [], [0]
  for row in rows:
    for event in row["content"]:
      for name, tokens in columns.items():
        tokens.append(event[name] or "")
      ids.append(event["id"])
      lines.append(event["line"])
    bounds.append(len(lines))
  texts = {name: tokens.texts() for name, tokens in columns.items()}
  given = {name: x if any(x.symbols) else None for name, x in texts.items()}
  whole = lambda name: np.array([row[name] != 1 for row in rows], bool)
  return Sessions(
    np.array(ids, np.int32),
    np.array(bounds),
    [row["session"] for row in rows],
    None if None in lines else np.array(lines, np.int64),
    given["timestamp"],
    as_read=texts["symbol"],
    begins=whole("cut"),
    ends=whole("open"),
    files=given["file"],
  )


def _write_sessions(
  session: SparkSession,
  found: DataFrame,
  numbers: list[tuple[str, int]],
  output: str,
):
  """Writes the table of all sessions, with the incidents of some."""
  known = session.createDataFrame(numbers, "session string, incident int")
  joined = found.drop("incident").join(
    functions.broadcast(known), "session", "left"
  )
  sessions = joined.select(*found.columns)
  sessions.write.mode("overwrite").parquet(f"{output}/sessions")


def _write_incidents(
  session: SparkSession,
  flagged: Findings | None,
  grouped: list[Incident],
  output: str,
):
  """Writes the table of the incidents, of a single file."""
  rows = []
  if flagged is not None:
    columns, found = tables.incident_rows(flagged, grouped)
    rows = [dict(zip(columns, row, strict=True)) for row in found]
  frame = session.createDataFrame(rows, _INCIDENTS).coalesce(1)
  frame.write.mode("overwrite").parquet(f"{output}/incidents")
