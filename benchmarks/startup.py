"""Measures the time from the command to the end of the first training step.

  python benchmarks/startup.py [--config=configs/rnn.py] [--rounds=5]

Cold: the cache of compiled programs is empty. Warm: the same command has filled
it. Each start has a new workdir. Imports: the time of a process that imports
jax, flax.linen and optax, in the same rounds; the other times are also given as
multiples of it. The result is a Markdown table.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pages import table

ROOT = Path(__file__).parent.parent
IMPORTS = "import jax, flax.linen, optax"
# Runs run.py, prints the time after the first step, and ends.
CHILD = """
import importlib, os, runpy, time
load = importlib.import_module

def first(self, loss, symbols):
  loss.block_until_ready()
  print("first step at", time.time(), flush=True)
  os._exit(0)

def loaded(name, package=None):
  module = load(name, package)
  if name == "seqrnn.modes.train":
    load("seqrnn.training.progress").Progress.step = first
  return module

importlib.import_module = loaded
runpy.run_path("run.py", run_name="__main__")
"""


def imports() -> float:
  """Returns the seconds of a process that imports the libraries."""
  begin = time.time()
  subprocess.run([sys.executable, "-c", IMPORTS], check=True)
  return time.time() - begin


def seconds(config: str, cache: str) -> float:
  """Returns the seconds of one start."""
  with tempfile.TemporaryDirectory() as workdir:
    begin = time.time()
    done = subprocess.run(
      [sys.executable, "-c", CHILD, f"--config={config}"]
      + [f"--workdir={workdir}/run"],
      env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
      cwd=ROOT,
      stdout=subprocess.PIPE,
      text=True,
      check=True,
    )
  line = next(l for l in done.stdout.splitlines() if l.startswith("first step"))
  return float(line.split()[-1]) - begin


def measure(config: str, rounds: int) -> str:
  """Returns the table of a config."""
  times_of: dict[str, list[float]] = {"imports": [], "cold": [], "warm": []}
  with tempfile.TemporaryDirectory() as warm:
    seconds(config, warm)  # Fills the cache, and the disk's.
    for _ in range(rounds):
      times_of["imports"].append(imports())
      with tempfile.TemporaryDirectory() as empty:
        times_of["cold"].append(seconds(config, empty))
      times_of["warm"].append(seconds(config, warm))
  unit = statistics.median(times_of["imports"])
  lines = []
  for name, times in times_of.items():
    median = statistics.median(times)
    figures = (min(times), median, median / unit)
    lines.append([name, *(f"{figure:.2f}" for figure in figures)])
  head = ("start", "least", "median", "times imports")
  title = f"{config}: seconds to the end of the first step"
  return f"{title}\n\n{table(head, lines)}"


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--config", default="configs/rnn.py")
  parser.add_argument("--rounds", type=int, default=5)
  arguments = parser.parse_args()
  print(measure(arguments.config, arguments.rounds))


if __name__ == "__main__":
  main()
