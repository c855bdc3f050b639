"""Measures the cost of a search, in Markdown tables.

  python benchmarks/search.py                       # 15 minutes on 2 cores
  python benchmarks/search.py --trials=4 --steps=60

The model has two layers of 64 units and reads the Python standard library.
processes: trials a minute of two processes and of one.
pruning: the time of the same trials with and without pruning.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import recipes

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


def search(
  arguments: Any, fields: dict[str, Any], workdir: Path, processes: int = 1
) -> float:
  """Searches with run.py; returns the seconds until all processes end."""
  fields = {
    **_FIELDS,
    "train.max_steps": arguments.steps,
    "train.eval_every": arguments.steps // 2,
    "search.trials": arguments.trials,
    **fields,
  }
  begin = time.monotonic()
  command = [sys.executable, "run.py", "--config=configs/rnn.py"]
  command += ["--mode=search", f"--workdir={workdir}", *recipes.flags(fields)]
  if processes > 1:
    command.append("--config.train.cpu_threads=1")
  started = [
    subprocess.Popen(
      ["taskset", "-c", str(n), *command] if processes > 1 else command,
      cwd=recipes.ROOT,
      stdout=subprocess.DEVNULL,
    )
    for n in range(processes)
  ]
  if any([process.wait() for process in started]):
    raise SystemExit("a search has failed")
  return time.monotonic() - begin


def processes(arguments: Any, folder: Path):
  """Compares two processes with one, in turn."""
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
    with (workdir / "trials.csv").open(newline="") as file:
      table = list(csv.DictReader(file))
    best = min(float(row["loss"]) for row in table if row["loss"])
    pruned = sum(row["state"] == "pruned" for row in table)
    symbols = sum(int(row["symbols"]) for row in table)
    print(
      f"| {name} | {seconds:.0f} | {symbols:,} | {pruned} of {len(table)} |"
      f" {best:.4f} |",
      flush=True,
    )


def main(argv: list[str] | None = None):
  """Prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--trials", type=int, default=20)
  parser.add_argument("--steps", type=int, default=250)
  parser.add_argument("--rounds", type=int, default=1)
  arguments = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    # A shared cache: otherwise the first search would compile for all others.
    once = argparse.Namespace(**{**vars(arguments), "trials": 1})
    for count in (1, 2):
      search(once, {}, Path(folder, f"warm-{count}"), count)
    processes(arguments, Path(folder))
    pruning(arguments, Path(folder))


if __name__ == "__main__":
  main()
