"""Compares a training step of seqrnn with PyTorch, Keras and flax.

  pip install -e '.[bench]'
  python benchmarks/compare.py                  # all cases
  python benchmarks/compare.py 2x512 --rounds=9 # the cases with this prefix

It prints the Markdown tables of each case when it is measured, and those of all
cases at the end. Each library runs in its own process, which is stopped while
others are measured. In a round the libraries measure a few steps in turn, so
that other load on the machine affects all of them alike. A figure is the median
of the rounds; in brackets is the time relative to seqrnn's in the same type,
float32 or bfloat16 (PyTorch: autocast). PyTorch has the better of one and two
threads. The speed of a product of two 2048 x 2048 matrices is measured in each
round; `products` is the time that the matrix products of seqrnn's step would
take at that speed, relative to the time of the step.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pages import machine, versions
from peers import CEILING_FLOP, LIBRARIES, Case, refuse_missing
from speed_page import part, printed, slower

# In a round, at most. XLA deadlocks with 32 pending steps of several devices.
_STEPS = 25
_SHORT = 0.1  # Seconds of a step whose time varies by chance.
_SECONDS = 0.4  # Of a library in a round, if a step is no longer.
SHAPES = {
  "1x64": ("forward", 1, 64, 32, 40, 0.0),
  "2x128": ("forward", 2, 128, 50, 50, 0.0),
  "2x512": ("forward", 2, 512, 128, 40, 0.0),
  "3x512 dropout .5": ("forward", 3, 512, 128, 40, 0.5),
  "towers 2x512": ("towers", 2, 512, 128, 80, 0.0),
  "one of both 1x64": ("one", 1, 64, 32, 100, 0.0),
}
_SIZES = ("1x64", "2x128", "2x512")
CASES = {
  f"{name} {cell} V{V}": Case(kind, cell, layers, H, B, T, V, dropout)
  for cell, V, names in (
    ("lstm", 65, SHAPES),
    ("lstm", 10_000, _SIZES),
    ("gru", 65, _SIZES),
    ("gru", 10_000, ("2x128",)),
  )
  for name in names
  for kind, layers, H, B, T, dropout in [SHAPES[name]]
}


class Worker:
  """A process that answers each line by one of JSON, and stops in between."""

  def __init__(self, *command: str | Path, huge_pages: bool):
    added = {"PYTHONPATH": str(Path(__file__).parents[1])}
    if huge_pages:  # run.py sets the same for itself.
      added["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    self._process = subprocess.Popen(
      [sys.executable, *command],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env={**os.environ, **added},
      text=True,
    )

  def ask(self, line: str | int) -> Any:
    """Returns the answer to a line."""
    assert self._process.stdin and self._process.stdout
    self._process.send_signal(signal.SIGCONT)
    self._process.stdin.write(f"{line}\n")
    self._process.stdin.flush()
    answer = json.loads(self._process.stdout.readline())
    self._process.send_signal(signal.SIGSTOP)  # Its threads must not spin.
    return answer

  def end(self):
    """Ends the process."""
    self._process.kill()
    self._process.wait()


def products(case: Case) -> float:
  """Returns the FLOP of a step's matrix products, forward and backward."""
  gates = {"lstm": 4, "gru": 3}[case.cell] * case.H
  directions = 1 if case.kind == "forward" else 2
  tokens = case.B * case.T
  flop = 0
  for layer in range(case.layers):
    flop += 6 * tokens * case.H * gates * directions
    # The first layer multiplies the table of all symbols instead of each input,
    # if the table is smaller.
    rows = min(tokens, case.V) if layer == 0 else tokens
    flop += 6 * rows * case.H * gates * directions
  targets = case.B if case.kind == "one" else tokens
  return flop + 6 * targets * case.H * directions * case.V


def _look(worker: Worker) -> float:
  """Returns the seconds of a step, of several looks if it is short."""
  seconds = worker.ask(1)[0]
  if seconds < _SHORT:
    seconds = min(seconds, *(worker.ask(3)[0] for _ in range(3)))
  return seconds


def steps_of_round(seconds: float) -> int:
  """Returns the number of steps of so many seconds that a round has."""
  return max(1, min(_STEPS, round(_SECONDS / seconds)))


def measure(case: Case, rounds: int) -> dict[str, Any]:
  """Measures libraries in turn; returns a row of speed_page."""
  times: dict[str, list[float]] = {}
  peaks: dict[str, float] = {}
  workers: dict[str, Worker] = {}
  script = Path(__file__).with_name("peers.py")
  try:
    for name in LIBRARIES:  # All processes compile at the same time.
      command = script, name, json.dumps(case._asdict())
      workers[name] = Worker(*command, huge_pages=name.startswith("seqrnn"))
    for name in LIBRARIES:
      try:
        workers[name].ask(1)
      except (json.JSONDecodeError, BrokenPipeError):
        print(f"  {name}: does not run here", file=sys.stderr)
        workers.pop(name).end()
    first = {name: _look(worker) for name, worker in workers.items()}
    for name in slower(first):
      workers.pop(name).end()
    for _ in range(rounds):
      for name, worker in workers.items():
        # The host of a virtual machine takes back large pages that are free
        # for two seconds; the first step waits for new ones.
        worker.ask(1)
        seconds, _, peak = worker.ask(steps_of_round(first[name]))
        times.setdefault(name, []).append(float(f"{seconds:.4g}"))
        peaks[name] = round(peak / 1024)
  finally:
    for worker in workers.values():
      worker.end()
  row = {"symbols": case.B * case.T, "seconds": times, "peak": peaks}
  if "ceiling" in times:
    rate = CEILING_FLOP / statistics.median(times.pop("ceiling"))
    row["products"] = products(case) / rate
    del peaks["ceiling"]
  return row


def rows(rounds: int, names: Iterable[str] = CASES) -> dict[str, Any]:
  """Measures cases, by their names; prints the tables of each."""
  return printed("training", ((n, measure(CASES[n], rounds)) for n in names))


def main():
  """Prints the tables of each case, and at the end those of all."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("filter", nargs="*", help="how the cases' names begin")
  parser.add_argument("--rounds", type=int, default=5)
  arguments = parser.parse_args()
  refuse_missing(parser, "keras", "torch")
  chosen = [n for n in CASES if n.startswith(tuple(arguments.filter or [""]))]
  print(f"{machine()}; {versions()}; {arguments.rounds} rounds\n", flush=True)
  print(part("training", {"rows": rows(arguments.rounds, chosen)}))


if __name__ == "__main__":
  main()
