"""Measures steps, inference, cells and start-up; writes the tables of speed.

  pip install -e '.[bench]'
  python benchmarks/all.py --write                     # 40 minutes on 2 cores
  python benchmarks/all.py --only=training,inference   # parts

benchmarks/speed.json keeps the figures of each machine, by part; --write makes
the tables of benchmarks/README.md, the chart docs/speed.png and its sentence in
README.md from them (`--only= --write`: without measuring). The load of other
programs is measured during a part; the tables mark a part that was disturbed.
"""

import argparse
import datetime
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cells
import compare
import inference
import peers
import speed_chart
import speed_page
import startup
from pages import machine, put, versions
from recipes import write_records

_ROOT = Path(__file__).resolve().parents[1]
_KEPT = _ROOT / "benchmarks" / "speed.json"
_PAGE = _ROOT / "benchmarks" / "README.md"
_README = _ROOT / "README.md"
_CHART = _ROOT / "docs" / "speed.png"
_MARKS = "<!-- made by benchmarks/all.py -->", "<!-- end of the figures -->"


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
  "training": lambda rounds: {"rows": compare.rows(rounds)},
  "inference": lambda rounds: {"rows": inference.rows(min(rounds, 3))},
  "cells": lambda rounds: {"rows": cells.rows(min(rounds, 3))},
  "startup": lambda rounds: {"text": startup.measure("configs/rnn.py", rounds)},
}


def processor_seconds() -> tuple[float, float]:
  """Returns the seconds of all programs, and those of this one."""
  first = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
  user, nice, system, _, _, *interrupts = map(int, first)
  # Interrupts, and what the host took; time of guests is in user.
  ticks = user + nice + system + sum(interrupts[:3])
  return ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def commit() -> str:
  """Returns the commit of the code, with `-dirty` if files were changed."""
  done = subprocess.run(
    ["git", "describe", "--always", "--dirty", "--exclude=*"],
    cwd=_ROOT,
    capture_output=True,
    text=True,
  )
  return done.stdout.strip() or "unknown"


def measure(name: str, rounds: int) -> dict[str, Any]:
  """Returns the figures of a part, and their conditions."""
  load, begin = os.getloadavg()[0], time.monotonic()
  every, ours = processor_seconds()
  record = PARTS[name](rounds)
  seconds = time.monotonic() - begin
  every_after, ours_after = processor_seconds()
  others = every_after - every - (ours_after - ours)
  record["about"] = {
    "date": datetime.date.today().isoformat(),
    "versions": versions(),
    "rounds": rounds,
    "load": load,
    "others": round(max(others, 0) / seconds, 3),
    "seconds": round(seconds),
  }
  return record


def write_pages(machines: dict[str, Any]):
  """Writes the tables, the chart and its sentence."""
  put(_PAGE, _MARKS, speed_page.tables(machines))
  name = speed_page.newest(machines)
  put(_README, _MARKS, speed_chart.sentence(name, machines[name]))
  speed_chart.draw(name, machines[name], _CHART)


def main(argv: list[str] | None = None):
  """Measures, keeps and prints the parts."""
  title, *_ = (__doc__ or "").split("\n")
  parser = argparse.ArgumentParser(description=title)
  add = parser.add_argument
  add("--only", default=",".join(PARTS), help="parts, with commas")
  add("--rounds", type=int, default=5)
  add("--write", action="store_true", help="write the tables and the chart")
  arguments = parser.parse_args(argv)
  names = [name for name in arguments.only.split(",") if name]
  if unknown := set(names) - set(PARTS):
    parser.error(f"--only: {unknown.pop()} is none of {', '.join(PARTS)}")
  if {"training", "inference"} & {*names}:
    peers.refuse_missing(parser, "torch", "keras")
  if "cells" in names:
    peers.refuse_missing(parser, "memax")
  code = commit()  # Before the figures change a file.
  machines = json.loads(_KEPT.read_text("utf-8"))
  for name in names:
    record = measure(name, arguments.rounds)
    record["about"]["commit"] = code
    machines.setdefault(machine(), {})[name] = record
    write_records(_KEPT, machines)
    print(f"{speed_page.about(record)}\n\n{speed_page.part(name, record)}\n")
  if arguments.write:
    write_pages(machines)


if __name__ == "__main__":
  main()
