"""Measures `detect.engine=spark`: events a second, and where the time goes.

  python benchmarks/spark.py --workdir=runs/shop --log=shop.log

A standalone cluster of Spark runs on this machine. Each worker has one core and
is pinned to it (taskset); so is one machine's engine, which is measured beside.
The log is examined twice: first everything starts and compiles, the second time
counts. Each engine reads the log, scores its sessions and writes their table.
What is learned from the training is there before.

The parts of the time are Spark's own metrics of the tasks, added over workers,
and the time of the Python workers as Spark measures it. On a machine that does
other work, too, compare the CPU seconds of a worker, its Python included.
"""

import argparse
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

# An installation has no run.py.
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"
_SECONDS = 120  # That the cluster may take to start.


def free_port() -> int:
  """A port that no process listens on."""
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


@contextmanager
def program(name: str, folder: Path, cores: str, *arguments: str):
  """A program of Spark, pinned to cores, until the block ends."""
  import pyspark

  home = Path(pyspark.__file__).parent
  command = ["taskset", "-c", cores, home / "bin/spark-class", name, *arguments]
  # No variable of this process's JAX: workers start with their own.
  env = {k: v for k, v in os.environ.items() if not k.startswith("XLA")}
  env |= {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": str(home)}
  with (folder / f"{name.rpartition('.')[2]}-{cores}.log").open("w") as log:
    started = subprocess.Popen(
      command, env=env, stdout=log, stderr=log, start_new_session=True
    )
  try:
    yield started.pid
  finally:
    os.killpg(started.pid, signal.SIGTERM)
    started.wait()


def cpu_seconds(session: int) -> float:
  """The CPU time of the processes that a program has started, and its own."""
  ticks = 0
  for path in Path("/proc").glob("[0-9]*/stat"):
    with suppress(OSError):
      fields = path.read_text().rpartition(")")[2].split()
      if int(fields[3]) == session:
        ticks += sum(map(int, fields[11:15]))
  return ticks / os.sysconf("SC_CLK_TCK")


def session_of(master: str, folder: Path, workers: int):
  """A session of Spark on the cluster."""
  from pyspark.sql import SparkSession

  from seqrnn.logs.spark.session import use_this_python

  use_this_python()
  builder = SparkSession.builder.master(master).appName("benchmark")
  for name, value in {
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.executor.memory": "1g",
    "spark.cores.max": workers,
    "spark.ui.enabled": False,
    "spark.ui.showConsoleProgress": False,
    "spark.log.level": "ERROR",
    "spark.eventLog.enabled": True,
    "spark.eventLog.compress": False,
    "spark.eventLog.rolling.enabled": False,
    "spark.eventLog.dir": folder.as_uri(),
  }.items():
    builder = builder.config(name, value)
  session = builder.getOrCreate()
  begun = time.perf_counter()
  count = session.sparkContext._jsc.sc().getExecutorMemoryStatus
  while count().size() <= workers:  # One more is the driver.
    if time.perf_counter() - begun > _SECONDS:
      sys.exit("the workers do not come")
    time.sleep(0.2)
  return session


def examine(session, deployed, log: Path, output: Path) -> tuple[int, float]:
  """Examines a log; returns the number of events, and the seconds."""
  from seqrnn.logs.spark import batch, read

  begun = time.perf_counter()
  events = read.read(session, deployed.config.data, str(log))
  found = batch.scored(session, events, deployed)
  found.write.mode("overwrite").parquet(str(output))
  seconds = time.perf_counter() - begun
  count = session.read.parquet(str(output)).agg({"events": "sum"}).first()[0]
  events.kept.unpersist(blocking=True)
  return count, seconds


def parts(folder: Path, since: float) -> dict[str, float]:
  """Seconds of the parts of all tasks that were launched since a time."""
  [log] = [path for path in folder.iterdir() if path.name.startswith("app-")]
  found: dict[str, float] = defaultdict(float)
  for line in log.read_text().splitlines():
    event = json.loads(line)
    if event["Event"] != "SparkListenerTaskEnd":
      continue
    info, metrics = event["Task Info"], event["Task Metrics"]
    if info["Launch Time"] < 1000 * since:
      continue
    read, write = (
      metrics["Shuffle Read Metrics"],
      metrics["Shuffle Write Metrics"],
    )
    stage = f"stage {event['Stage ID']}"
    seconds = metrics["Executor Run Time"] / 1000
    found["tasks"] += seconds
    found[stage] += seconds
    found["JVM, CPU"] += metrics["Executor CPU Time"] / 1e9
    found["garbage collection"] += metrics["JVM GC Time"] / 1000
    found["shuffle, write"] += write["Shuffle Write Time"] / 1e9
    found["shuffle, wait"] += read["Fetch Wait Time"] / 1000
    found["shuffle, MB"] += write["Shuffle Bytes Written"] / 1e6
    for value in info["Accumulables"]:
      name = value.get("Name", "")
      if "Python" in name or "sort time" in name:
        scale = 1e9 if "nano" in name else 1e3
        found[f"{stage}: {name}"] += float(value.get("Update", 0)) / scale
  return dict(found)


def on_spark(
  deployed, log: Path, workers: int
) -> tuple[int, list[float], dict]:
  """Events, the seconds of two runs, and the parts of the second."""
  with ExitStack() as stack:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    port, events = free_port(), folder / "events"
    events.mkdir()
    master = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    cores = f"0-{os.cpu_count() - 1}"
    stack.enter_context(program(_MASTER, folder, cores, *master))
    url = f"spark://127.0.0.1:{port}"
    pids = []
    for core in range(workers):
      own = ["--cores", "1", "--memory", "1g", "--webui-port", "0"]
      own += ["--work-dir", str(folder / f"work-{core}"), url]
      pinned = program(_WORKER, folder, str(core), *own)
      pids.append(stack.enter_context(pinned))
    session = session_of(url, events, workers)
    try:
      seconds = []
      for _ in range(2):
        since, before = time.time(), list(map(cpu_seconds, pids))
        count, took = examine(session, deployed, log, folder / "sessions")
        seconds.append(took)
        used = [cpu_seconds(pid) for pid in pids]
    finally:
      session.stop()
    found = parts(events, since)
    for core in range(workers):
      found[f"worker {core}, CPU"] = used[core] - before[core]
    return count, seconds, found


def on_one_machine(deployed, log: Path, config) -> tuple[int, dict]:
  """Events, and the seconds of the parts of the second of two runs."""
  from seqrnn.data.logs import sessions
  from seqrnn.data.sources import cache
  from seqrnn.logs.detect import incidents, tables
  from seqrnn.logs.detect.decision import find_anomalies

  cache.LARGE = sys.maxsize  # Nothing is kept: the log is parsed each time.
  for _ in range(2):
    cache._opened.clear()
    cpu = time.process_time()
    times = [time.perf_counter()]
    read = sessions.read_sessions(config, deployed.detector.names, str(log))
    times.append(time.perf_counter())
    found = find_anomalies(deployed.detector, deployed.normal, read)
    times.append(time.perf_counter())
    with tempfile.TemporaryDirectory() as folder:
      tables.write_sessions(found, incidents.group(found), Path(folder), "csv")
    times.append(time.perf_counter())
  seconds = [after - before for before, after in itertools.pairwise(times)]
  names = ("reading", "scoring", "writing")
  return len(read.ids), {
    "all": sum(seconds),
    **dict(zip(names, seconds, strict=True)),
    "CPU": time.process_time() - cpu,
    "scoring, network": found.seconds,
    "distinct sessions": len(found.p),
  }


def mix(log: Path, mixed: Path):
  """Writes the shop's log with the lines of each order in a random order.

  Then hardly two sessions are equal, and the network reads all of them.
  """
  rng, texts = random.Random(0), defaultdict(list)
  lines = [line.split(" ", 5) for line in log.read_text().splitlines()]
  for *_, name, text in lines:
    texts[name].append(text)
  for some in texts.values():
    rng.shuffle(some)
  with mixed.open("w") as file:
    for *head, name, _ in lines:
      file.write(f"{' '.join(head)} {name} {texts[name].pop()}\n")


def main():
  """Prints a line of JSON for each engine."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--log", type=Path, required=True)
  parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
  parser.add_argument("--mix", action="store_true", help=mix.__doc__)
  parser.add_argument("--one", action="store_true")
  given = parser.parse_args()
  if given.one:  # This process is pinned.
    from seqrnn.runtime import launch

    launch.prepare()
    launch.configure_device(1)
  if given.mix:
    mix(given.log, given.log.with_suffix(".mixed"))
    given.log = given.log.with_suffix(".mixed")
  import experiments
  from seqrnn.logs.spark import batch

  run = experiments.load(given.workdir)
  deployed = batch.restore(experiments.build, run.config, given.workdir)
  if given.one:
    events, seconds = on_one_machine(deployed, given.log, run.config)
    show("one machine", events, seconds["all"], seconds)
    return
  command = [sys.executable, __file__, "--one", f"--workdir={given.workdir}"]
  command.append(f"--log={given.log}")
  subprocess.run(["taskset", "-c", "0", *command], check=True)
  for workers in given.workers:
    events, seconds, found = on_spark(deployed, given.log.absolute(), workers)
    found["first run"] = seconds[0]
    show(f"Spark, {workers} workers", events, seconds[-1], found)


def show(name: str, events: int, seconds: float, parts: dict):
  """Prints what was measured."""
  rounded = {key: round(value, 2) for key, value in parts.items()}
  load = [round(x, 1) for x in os.getloadavg()]
  print(
    json.dumps(
      {
        "engine": name,
        "events": events,
        "seconds": round(seconds, 2),
        "events_per_second": round(events / seconds),
        "parts": rounded,
        "load": load,
      }
    ),
    flush=True,
  )


if __name__ == "__main__":
  main()
