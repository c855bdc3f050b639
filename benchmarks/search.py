"""Measures the cost of a search, in Markdown tables.

  python benchmarks/search.py                       # 15 minutes on 2 cores
  python benchmarks/search.py --parts processes pruning --trials=4 --steps=60

The model has two layers of 64 units and reads the Python standard library.
processes: trials a minute of two processes and of one, and the overhead of a
trial.
pruning: the time of the same trials with and without pruning.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
# An installation has no run.py.
sys.path.insert(0, str(_ROOT))
_FIELDS = {
  "data.stateful": False,
  "data.validation_fraction": 0.01,  # Evaluations are short.
  "model.layers": 2,
  "model.hidden_size": 64,
  "model.embedding_size": 64,
  "model.dropout": 0.0,
  "schedule.name": "constant",
  "train.batch_size": 32,
  "search.method": "random",
  "search.pruning": "none",
}


def flags(arguments: Any, fields: dict[str, Any]) -> list[str]:
  """Returns the flags of run.py for a number of trials and steps."""
  fields = {
    **_FIELDS,
    "train.max_steps": arguments.steps,
    "train.eval_every": arguments.steps // 2,
    "search.trials": arguments.trials,
    **fields,
  }
  return [
    "--config=configs/rnn.py",
    *(f"--config.{name}={value}" for name, value in fields.items()),
  ]


def search(
  arguments: Any, fields: dict[str, Any], workdir: Path, processes: int = 1
) -> float:
  """Searches with run.py; returns the seconds until all processes end."""
  begin = time.monotonic()
  command = [sys.executable, "run.py", "--mode=search", f"--workdir={workdir}"]
  command += flags(arguments, fields)
  if processes > 1:
    command.append("--config.train.cpu_threads=1")
  started = [
    subprocess.Popen(
      ["taskset", "-c", str(n), *command] if processes > 1 else command,
      cwd=_ROOT,
      stdout=subprocess.DEVNULL,
    )
    for n in range(processes)
  ]
  if any([process.wait() for process in started]):
    raise SystemExit("a search has failed")
  return time.monotonic() - begin


def rows(path: Path) -> list[dict[str, str]]:
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


def best(workdir: Path) -> float:
  """Returns the lowest loss of a search."""
  return min(
    float(r["loss"]) for r in rows(workdir / "trials.csv") if r["loss"]
  )


def overhead(workdir: Path) -> list[float]:
  """Returns the overhead of each trial but the first, in seconds.

  It is the time between the ends of two trials, less the time of the steps and
  evaluations, for which the rate after the first evaluation is used, when all
  programs are compiled.
  """
  ends = {}
  for line in (workdir / "trials.log").read_text().splitlines():
    record = json.loads(line)
    if "datetime_complete" in record:
      end = datetime.fromisoformat(record["datetime_complete"])
      ends[record["trial_id"]] = end.timestamp()
  overheads = []
  for number in sorted(ends)[1:]:
    timing = rows(workdir / "trials" / f"{number:04}" / "timing.csv")
    seconds = [
      float(row["seconds"]) + float(row["evaluation_seconds"]) for row in timing
    ]
    trained = statistics.median(seconds[1:]) * len(seconds)
    overheads.append(ends[number] - ends[number - 1] - trained)
  return overheads


def processes(arguments: Any, folder: Path):
  """Compares two processes with one, in turn; then the overhead of a trial."""
  print("| searches | trials a minute, 1 process | 2 processes | ratio |")
  print("| --- | --- | --- | --- |")
  for turn in range(arguments.rounds):
    rates = []
    for count in (1, 2):
      workdir = folder / f"processes-{count}-{turn}"
      seconds = search(arguments, {}, workdir, count)
      rates.append(60 * arguments.trials / seconds)
    print(
      f"| {turn + 1} | {rates[0]:.2f} | {rates[1]:.2f} |"
      f" {rates[1] / rates[0]:.2f}x |",
      flush=True,
    )
  print("\n| a trial | seconds beyond its training, median (all) |")
  print("| --- | --- |")
  # Enough evaluations to measure the steps between them.
  fields = {
    "search.trials": max(arguments.trials // 3, 3),
    "train.eval_every": max(arguments.steps // 6, 1),
  }
  sizes = "model.hidden_size=log_uniform(48, 80)"
  for what, more in (
    ("of the same shape", {}),
    ("of another hidden size each", {"search.space": sizes}),
  ):
    workdir = folder / f"overhead-{len(more)}"
    search(arguments, fields | more, workdir)
    overheads = overhead(workdir)
    print(
      f"| {what} | {statistics.median(overheads):.2f}"
      f" ({', '.join(f'{seconds:.1f}' for seconds in sorted(overheads))}) |",
      flush=True,
    )


def pruning(arguments: Any, folder: Path):
  """Runs the same trials with and without median pruning, in one process."""
  print("\n| pruning | seconds | symbols | pruned | best validation loss |")
  print("| --- | --- | --- | --- | --- |")
  for name in ("none", "median"):
    fields = {
      "search.pruning": name,
      "train.eval_every": max(arguments.steps // 10, 1),
    }
    workdir = folder / f"pruning-{name}"
    seconds = search(arguments, fields, workdir)
    table = rows(workdir / "trials.csv")
    pruned = sum(row["state"] == "pruned" for row in table)
    symbols = sum(int(row["symbols"]) for row in table)
    print(
      f"| {name} | {seconds:.0f} | {symbols:,} | {pruned} of {len(table)} |"
      f" {best(workdir):.4f} |",
      flush=True,
    )


PARTS = {"processes": processes, "pruning": pruning}


def main(argv: list[str] | None = None):
  """Prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
  parser.add_argument("--trials", type=int, default=20)
  parser.add_argument("--steps", type=int, default=250)
  parser.add_argument("--rounds", type=int, default=1)
  arguments = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    # A shared cache: otherwise the first search would compile for all others.
    once = argparse.Namespace(**{**vars(arguments), "trials": 1})
    for count in (1, 2):
      search(once, {}, Path(folder, f"warm-{count}"), count)
    for name in arguments.parts:
      PARTS[name](arguments, Path(folder))


if __name__ == "__main__":
  main()
