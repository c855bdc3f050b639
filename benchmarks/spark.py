"""Measures `detect.engine=spark`: events a second.

  python benchmarks/spark.py --workdir=runs/shop --log=shop.log

Spark's workers run on this machine, each with one core; one machine's engine,
pinned to one core, is measured beside. Both read the log in eight rotated
parts, score its sessions and write their table. The log is examined twice:
first everything starts and compiles, the second time counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_PARTS = 8
_SETTINGS = {
  "spark.driver.memory": "1g",
  "spark.sql.shuffle.partitions": 8,
  "spark.ui.enabled": False,
  "spark.ui.showConsoleProgress": False,
  "spark.log.level": "ERROR",
}


def second_time(examine: Callable[[], int]) -> tuple[int, float]:
  """Runs a function twice; returns its result and the second run's seconds."""
  examine()
  begin = time.perf_counter()
  events = examine()
  return events, time.perf_counter() - begin


def on_spark(deployed, log: Path, workers: int) -> tuple[int, float]:
  """Returns the number of events, and the seconds of a cluster."""
  from pyspark.sql import SparkSession

  from seqrnn.logs.spark.read import read_events
  from seqrnn.logs.spark.score import score_events
  from seqrnn.logs.spark.session import use_this_python, whole_files

  use_this_python()
  master = f"local-cluster[{workers},1,1024]"
  builder = SparkSession.builder.master(master).appName("benchmark")
  for name, value in _SETTINGS.items():
    builder = builder.config(name, value)

  def examine() -> int:
    events = read_events(session, deployed.config.data, str(log))
    verdicts = score_events(session, events, deployed)
    verdicts.write.mode("overwrite").parquet(str(log / "../sessions"))
    events.rows.unpersist(blocking=True)
    return events.count

  with builder.getOrCreate() as session, whole_files(session):
    return second_time(examine)


def on_one_machine(deployed, log: Path, config) -> tuple[int, float]:
  """Returns the number of events, and the seconds of this process."""
  from seqrnn.data.logs import sessions
  from seqrnn.data.sources import cache
  from seqrnn.logs.detect import tables
  from seqrnn.logs.detect.findings import find_anomalies, group_incidents

  cache.LARGE = sys.maxsize  # Nothing is kept: the log is parsed each time.

  def examine() -> int:
    cache._opened.clear()
    parsed = sessions.read_sessions(config, deployed.detector.names, str(log))
    findings = find_anomalies(deployed.detector, deployed.normal, parsed)
    grouped = group_incidents(findings)
    rows = tables.session_rows(findings, grouped)
    tables.write_csv_table(log.parent / "sessions.csv", rows)
    return len(parsed.ids)

  return second_time(examine)


def write_parts(lines: list[str], folder: Path):
  """Writes lines as rotated parts of a log, the oldest with the last number."""
  folder.mkdir()
  size = -(-len(lines) // _PARTS)
  for part in range(_PARTS):
    some = lines[part * size : (part + 1) * size]
    path = folder / f"shop.log.{_PARTS - part}"
    path.write_text("".join(f"{line}\n" for line in some))


def main():
  """Prints a line of JSON for each engine."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--log", type=Path, required=True)
  parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.one:  # This process is pinned, and the log a folder.
    from seqrnn.runtime import launch

    launch.prepare()
    launch.configure_device(1)
  from seqrnn import experiments
  from seqrnn.logs.detect import deployed as deployment
  from seqrnn.run import load_run

  run = load_run(arguments.workdir)
  deployed = deployment.restore(
    experiments.build, run.config, arguments.workdir
  )
  if arguments.one:
    show("one machine", *on_one_machine(deployed, arguments.log, run.config))
    return
  with tempfile.TemporaryDirectory() as folder:
    log = Path(folder) / "log"
    write_parts(arguments.log.read_text().splitlines(), log)
    command = [sys.executable, __file__, "--one", f"--log={log}"]
    command.append(f"--workdir={arguments.workdir}")
    subprocess.run(["taskset", "-c", "0", *command], check=True)
    for workers in (1, 2):
      show(f"Spark, {workers} workers", *on_spark(deployed, log, workers))


def show(engine: str, events: int, seconds: float):
  """Prints the speed of an engine, and the load average."""
  row = {"engine": engine, "events": events, "seconds": round(seconds, 2)}
  row["events_per_second"] = round(events / seconds)
  load = [round(x, 1) for x in os.getloadavg()]
  print(json.dumps({**row, "load": load}), flush=True)


if __name__ == "__main__":
  main()
