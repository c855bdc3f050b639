"""Compares a training step of seqrnn with PyTorch, Keras and flax.

  pip install -e '.[bench]'
  python benchmarks/compare.py                  # all cases
  python benchmarks/compare.py 2x512 --rounds=9 # the cases with this prefix

It prints a Markdown table. Each library runs in its own process. In a round the
libraries measure a few steps in turn, so that other load on the machine affects
all of them alike. A figure is the median of the rounds. All columns are in
float32 except the two of bfloat16, which are not compared with other libraries.
The ceiling is the speed of a product of two 2048 x 2048 matrices, measured in
each round. `of ceiling` is the time that the matrix products of seqrnn's step
would take at that speed, relative to the time of the step.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from peers import CEILING_FLOP, LIBRARIES, Case, refuse_missing

# In a round, at most. XLA deadlocks with 32 pending steps of several devices.
_STEPS = 25
SHAPES = {
  "1x64": ("forward", 1, 64, 32, 40, 0.0),
  "2x128": ("forward", 2, 128, 50, 50, 0.0),
  "2x512": ("forward", 2, 512, 128, 40, 0.0),
  "3x512 dropout .5": ("forward", 3, 512, 128, 40, 0.5),
  "towers 2x512": ("towers", 2, 512, 128, 80, 0.0),
  "one of both 1x64": ("one", 1, 64, 32, 100, 0.0),
}
CASES = {
  f"{name} {cell} V{V}": Case(kind, cell, layers, H, B, T, V, dropout)
  for cell in ("lstm", "gru")
  for V in (65, 10_000)
  for name, (kind, layers, H, B, T, dropout) in SHAPES.items()
}


class Worker:
  """A process that runs the training step of one library."""

  def __init__(self, name: str, case: Case):
    script = Path(__file__).with_name("peers.py")
    added = {"PYTHONPATH": str(script.parent.parent)}
    if name.startswith("seqrnn"):  # run.py sets the same for itself.
      added["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    self._process = subprocess.Popen(
      [sys.executable, script, name, json.dumps(case._asdict())],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env={**os.environ, **added},
      text=True,
    )

  def run(self, steps: int) -> tuple[float, float, int]:
    """Returns seconds a step, the loss, and peak kilobytes over imports."""
    assert self._process.stdin and self._process.stdout
    self._process.send_signal(signal.SIGCONT)
    self._process.stdin.write(f"{steps}\n")
    self._process.stdin.flush()
    seconds, loss, peak = json.loads(self._process.stdout.readline())
    self._process.send_signal(signal.SIGSTOP)  # Its threads must not spin.
    return seconds / steps, loss, peak

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


def measure(case: Case, names: list[str], rounds: int) -> dict[str, dict]:
  """Measures the libraries in turn: seconds by round, loss, peak memory."""
  found: dict[str, dict] = {}
  workers: dict[str, Worker] = {}
  try:
    for name in names:  # All processes compile at the same time.
      workers[name] = Worker(name, case)
    for name in names:
      try:
        workers[name].run(1)
      except (json.JSONDecodeError, BrokenPipeError):
        print(f"  {name}: does not run here", file=sys.stderr)
        workers.pop(name).end()
    for name, worker in workers.items():
      steps = max(2, min(_STEPS, round(1 / worker.run(1)[0])))
      found[name] = {"steps": steps, "times": []}
    for _ in range(rounds):
      for name, worker in workers.items():
        seconds, loss, peak = worker.run(found[name]["steps"])
        found[name]["times"].append(seconds)
        found[name].update(loss=loss, peak=peak)
  finally:
    for worker in workers.values():
      worker.end()
  return found


def row(name: str, case: Case, found: dict[str, dict]) -> str:
  """Returns a line of the table."""
  median = {n: statistics.median(f["times"]) for n, f in found.items()}
  rate = CEILING_FLOP / median["ceiling"]
  ours = median["seqrnn"]
  cells = [
    name,
    f"{ours * 1e3:.1f}",
    f"{case.B * case.T / ours:,.0f}",
    f"{products(case) / rate / ours:.0%}",
  ]
  others = {n: t for n, t in median.items() if n not in ("seqrnn", "ceiling")}
  cells += [
    f"{others[n] * 1e3:.1f} ({others[n] / ours:.2f}x)" if n in others else "-"
    for n in LIBRARIES
    if n not in ("seqrnn", "ceiling")
  ]
  peers = {
    n: t
    for n, t in others.items()
    if not n.startswith("seqrnn") and "bfloat16" not in n
  }
  if peers:
    pairs = [
      min(found[n]["times"][i] for n in peers) / found["seqrnn"]["times"][i]
      for i in range(len(found["seqrnn"]["times"]))
    ]
    best = min(peers.values()) / ours
    cells.append(f"{best:.2f}x ({min(pairs):.2f}-{max(pairs):.2f})")
  else:
    cells.append("-")
  return "| " + " | ".join(cells) + " |"


def main():
  """Prints the table, line by line."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("filter", nargs="*", help="how the cases' names begin")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--only", help="libraries, by parts, with commas")
  parser.add_argument("--json", help="append what was measured to this file")
  given = parser.parse_args()
  refuse_missing(parser, "keras", "torch")
  chosen = [
    n
    for n in CASES
    if not given.filter or any(n.startswith(f) for f in given.filter)
  ]
  names = [
    n
    for n in LIBRARIES
    if n in ("seqrnn", "ceiling")
    or not given.only
    or any(part in n for part in given.only.split(","))
  ]
  versions = ", ".join(
    f"{n} {metadata.version(n)}"
    for n in ("jax", "flax", "optax", "torch", "keras", "numpy")
  )
  print(
    f"{_processor()}, {os.cpu_count()} cores, Python"
    f" {platform.python_version()}, {versions}; {given.rounds} rounds\n"
  )
  heads = ["case", "seqrnn ms", "symbols/s", "of ceiling"]
  heads += [f"{n} ms" for n in LIBRARIES if n not in ("seqrnn", "ceiling")]
  heads.append("best peer (rounds)")
  print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
  peaks = []
  for name in chosen:
    found = measure(CASES[name], names, given.rounds)
    print(row(name, CASES[name], found), flush=True)
    peaks.append((name, {n: f["peak"] for n, f in found.items()}))
    if given.json:
      with open(given.json, "a") as file:
        print(json.dumps({"case": name, **found}), file=file)
  names.remove("ceiling")
  print("\nPeak memory in MB, less that after the imports:\n")
  print(f"| case | {' | '.join(names)} |\n|{' --- |' * (1 + len(names))}")
  for case, peak in peaks:
    cells = [f"{peak[n] / 1024:.0f}" if n in peak else "-" for n in names]
    print(f"| {case} | {' | '.join(cells)} |")


def _processor() -> str:
  for line in Path("/proc/cpuinfo").read_text().splitlines():
    if line.startswith("model name"):
      return line.partition(":")[2].strip()
  return platform.machine()


if __name__ == "__main__":
  main()
