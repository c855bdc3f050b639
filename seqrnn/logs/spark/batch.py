"""detect on Apache Spark: a log that is too large for one machine.

Spark reads the lines and brings the events of a session together; its Python
workers parse the lines (`read`) and score the sessions (`score`) with the
detector of the last detection.
"""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

from collections.abc import Callable
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import broadcast, col
from rich.console import Console

from seqrnn.config.read import Config
from seqrnn.data.logs import formats
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment
from seqrnn.logs.detect import deployed as deployment
from seqrnn.logs.detect import tables
from seqrnn.logs.detect.deployed import Deployed
from seqrnn.logs.detect.findings import SEVERITIES, Findings, group_incidents
from seqrnn.logs.detect.scores import COMBINED, SHORT
from seqrnn.logs.spark.read import of_table, read_events
from seqrnn.logs.spark.score import examine, score_events
from seqrnn.logs.spark.session import open_session, reporting, whole_files

_GROUPED = 10_000  # Flagged sessions that are grouped to incidents.
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
  with reporting(), open_session() as session, whole_files(session):
    events = read_events(session, config.data, settings.path)
    if not events.count:
      raise UserError(
        f"config.detect.path={settings.path!r}: has no event of a session"
      )
    scored = score_events(session, events, deployed).persist()
    counts, short = _counts(scored)
    flagged, rows, numbers = None, [], []
    keys = _flagged_keys(scored, sum(counts[1:]))
    if keys:
      # Few are flagged, so this process scores them again, to explain them.
      frame = session.createDataFrame(
        [(key,) for key in keys], "session string"
      )
      some = events.frame.join(broadcast(frame), "session", "left_semi")
      flagged, names = examine(deployed, some.toPandas(), events.span)
      grouped = group_incidents(flagged)
      number = {d: n for n, one in enumerate(grouped, 1) for d in one.members}
      which = [number[d] for d in flagged.distinct.which.tolist()]
      numbers = list(zip(names, which, strict=True))
      rows = tables.incident_rows(flagged, grouped)
      console = Console(highlight=False)
      tables.print_findings(console, flagged, grouped)
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


def detect(
  session: SparkSession, frame: DataFrame, deployed: Deployed
) -> DataFrame:
  """The sessions of a table of events, with scores and verdicts.

  Args:
    session: of Spark, whose workers have this package.
    frame: the columns session and event; line, timestamp (or time), or both;
      perhaps file. Spark keeps its events until the session ends.
    deployed: the detector, of `restore`.

  Returns:
    the columns of sessions.csv, without incidents.
  """
  events = of_table(frame, deployed.config.data)
  return score_events(session, events, deployed).drop("key", "incident")


def restore(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> Deployed:
  """The detector of the last detection, which decides the settings.

  Raises:
    UserError: as `deployed.restore`, or the rule needs all sessions at once.
  """
  deployed = deployment.restore(build, config, workdir)
  rule = deployed.config.detect.rule
  if rule not in _RULES:
    raise UserError(
      f"config.detect.rule={rule!r}: engine=spark has {', '.join(_RULES)}; this"
      " rule compares all sessions"
    )
  return deployed


def refuse(settings: Config):
  """Refuses fields that the engine does not read.

  Raises:
    UserError: one has a value that needs one machine, or there is no path.
  """
  if settings.path is None:
    raise UserError(
      "config.detect.path=None: engine=spark needs the path of a log or a table"
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


def _counts(scored: DataFrame) -> tuple[list[int], int]:
  """The number of sessions of each severity, and of short ones."""
  rows = scored.groupBy("severity", "score").count().collect()
  counts, short = [0] * len(SEVERITIES), 0
  for row in rows:
    counts[SEVERITIES.index(row["severity"] or "")] += row["count"]
    short += row["count"] * (row["score"] == SHORT)
  return counts, short


def _flagged_keys(scored: DataFrame, count: int) -> list[str]:
  """The flagged sessions, or some of the highest scores if they are many."""
  if count > _GROUPED:
    formats.report(
      f"of the {count:,} flagged sessions, the {_GROUPED:,} of the highest"
      " scores are grouped to incidents; the others have none"
    )
  flagged = scored.where("flag = 1").orderBy(col(COMBINED).desc(), "key")
  return [key for (key,) in flagged.limit(_GROUPED).select("key").collect()]
