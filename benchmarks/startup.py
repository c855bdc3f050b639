"""Measures the time from the command to the end of the first training step.

  python benchmarks/startup.py [--config=configs/rnn.py] [--rounds=5]

Cold: the cache of compiled programs is empty. Warm: the same command has filled
it. Each start has a new workdir. The result is a Markdown table.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Runs run.py, prints the time after the first step, and ends.
CHILD = """
import os, sys, time
import run
run.launch.prepare()
import jax
from seqrnn import progress

def first(self, loss, symbols):
  loss.block_until_ready()
  print("first step at", time.time(), flush=True)
  os._exit(0)

progress.Progress.step = first
run.main(sys.argv)
"""


def seconds(config: str, cache: str) -> float:
  """Returns the seconds of one start."""
  with tempfile.TemporaryDirectory() as workdir:
    begin = time.time()
    done = subprocess.run(
      [sys.executable, "-c", CHILD, f"--config={config}"]
      + [f"--workdir={workdir}/run"],
      env={
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
      },
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
  line = next(l for l in done.stdout.splitlines() if l.startswith("first step"))
  return float(line.split()[-1]) - begin


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--config", default="configs/rnn.py")
  parser.add_argument("--rounds", type=int, default=5)
  given = parser.parse_args()
  print(f"{given.config}: seconds to the end of the first step, least, median")
  print("\n| start | least | median |\n| --- | --- | --- |")
  with tempfile.TemporaryDirectory() as kept:
    found: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(given.rounds):
      with tempfile.TemporaryDirectory() as empty:
        found["cold"].append(seconds(given.config, empty))
      found["warm"].append(seconds(given.config, kept))
  found["warm"] = found["warm"][1:]  # The first start has filled the cache.
  for name, times in found.items():
    print(f"| {name} | {min(times):.2f} | {statistics.median(times):.2f} |")


if __name__ == "__main__":
  main()
