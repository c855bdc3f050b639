"""What results.py and detection.py share: fields, runs and records of seeds."""

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from seqrnn.runtime import files

ROOT = Path(__file__).resolve().parents[1]


def inherit(fields: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
  """Returns fields, after those of the shared tables that `like` names."""
  inherited: dict[str, Any] = {}
  for name in fields.get("like", ()):
    inherited |= inherit(shared[name], shared)
  inherited |= fields
  inherited.pop("like", None)
  return inherited


def flags(fields: dict[str, Any]) -> list[str]:
  """Returns the flags of run.py."""
  return [f"--config.{name}={value}" for name, value in fields.items()]


def run(flags: list[str]) -> dict[str, float]:
  """Runs run.py in its own process; returns the seconds.

  Raises:
    SystemExit: run.py ended with a status other than 0.
  """
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  began = time.perf_counter()
  done = subprocess.run([sys.executable, "run.py", *flags], cwd=ROOT)
  wall = time.perf_counter() - began
  if done.returncode:
    raise SystemExit(done.returncode)
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  user, system = after.ru_utime - before.ru_utime, after.ru_stime
  return {"wall": wall, "cpu": user + system - before.ru_stime}


def evaluate(workdir: Path, split: str) -> dict[str, Any]:
  """Evaluates a run; returns its figures."""
  flag = f"--config.evaluate.split={split}"
  run([f"--workdir={workdir}", "--mode=evaluate", flag])
  return json.loads((workdir / "evaluation.json").read_text())


def workdir(cache: Path, name: str, commands: Any, seed: int) -> Path:
  """Returns the folder of a run; other commands are another run."""
  settled = zlib.crc32(json.dumps(commands).encode())
  return cache / f"{name}-{settled:08x}-{seed}"


def keep(
  store: Path, name: str, commands: list[str], seed: int, run: dict[str, Any]
) -> dict[str, Any]:
  """Adds a seed to the records of a file; returns all of them.

  Seeds of other commands or versions are removed.
  """
  records = json.loads(store.read_text("utf-8"))
  libraries = map(metadata.version, ("jax", "flax"))
  record = {
    "commands": commands,
    "versions": [platform.python_version(), *libraries],
  }
  old = records.get(name, {})
  same = all(old.get(key) == value for key, value in record.items())
  runs = {**(old["runs"] if same else {}), str(seed): run}
  records[name] = record | {"runs": dict(sorted(runs.items()))}
  write_records(store, records)
  return records


def write_records(store: Path, records: dict[str, Any]):
  """Writes records as JSON, a few of them in a line."""
  lines = json.dumps(records).replace('}, "', '},\n"')
  files.write(store, f"{lines}\n")


def spread(values: Iterable[float], digits: int = 3) -> str:
  """Returns mean ± standard deviation; for equal values, only the mean."""
  values = list(values)
  mean = f"{statistics.mean(values):.{digits}f}"
  if len(set(values)) == 1:
    return mean
  return f"{mean} ± {statistics.stdev(values):.{digits}f}"
