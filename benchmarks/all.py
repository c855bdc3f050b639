"""Measures the speed of all that has a benchmark, and writes the tables.

  pip install -e '.[bench,search]'
  python benchmarks/all.py --write                     # 20 minutes on 2 cores
  python benchmarks/all.py --only=training,inference   # parts
  python benchmarks/all.py --quick                     # 5 minutes, not kept

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
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compare
import inference
import peers
import speed_chart
import speed_page
from pages import machine, put, versions

_ROOT = Path(__file__).resolve().parents[1]
_KEPT = _ROOT / "benchmarks" / "speed.json"
_PAGE = _ROOT / "benchmarks" / "README.md"
_README = _ROOT / "README.md"
_CHART = _ROOT / "docs" / "speed.png"
_MARKS = "<!-- made by benchmarks/all.py -->", "<!-- end of the figures -->"
CASES = (
  "1x64 lstm V65",
  "2x128 lstm V65",
  "2x512 lstm V65",
  "3x512 dropout .5 lstm V65",
  "towers 2x512 lstm V65",
  "one of both 1x64 lstm V65",
  "1x64 lstm V10000",
  "2x128 lstm V10000",
  "2x512 lstm V10000",
  "1x64 gru V65",
  "2x128 gru V65",
  "2x512 gru V65",
  "2x128 gru V10000",
)
_QUICK = ("2x128 lstm V65", "2x512 lstm V65", "2x128 gru V65")
_LEFT_OUT = ("seqrnn, no token table", "Keras on PyTorch")
_WAIT = 60  # Seconds, at most, until the load average has fallen.
_BUSY = 1.5  # The load average up to which nothing waits.


def training(arguments: argparse.Namespace) -> dict[str, Any]:
  rows = {}
  for name in _QUICK if arguments.quick else CASES:
    case = compare.CASES[name]
    # Large products take half of the time with two threads.
    left_out = ", 1 thread" if case.H >= 512 else "-"
    names = [
      library
      for library in peers.LIBRARIES
      if library not in _LEFT_OUT and not library.endswith(left_out)
    ]
    rows[name] = compare.measure(case, names, arguments.rounds)
    print(f"  {name}", file=sys.stderr)
  return {"rows": rows}


def sampling(arguments: argparse.Namespace) -> dict[str, Any]:
  sizes = inference.SIZES[:1] if arguments.quick else inference.SIZES
  rows: dict[str, Any] = {}
  for size in sizes:
    rows |= inference.rows(size, min(arguments.rounds, 3))
  return {"rows": rows}


def sessions(arguments: argparse.Namespace) -> dict[str, Any]:
  return {"rows": inference.rows("sessions", arguments.rounds)}


def printed(script: str, *arguments: Any) -> dict[str, Any]:
  """Returns what a script prints."""
  command = [sys.executable, script, *arguments]
  done = subprocess.run(
    list(map(str, command)),
    cwd=_ROOT,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  return {"text": done.stdout.strip()}


def startup(arguments: argparse.Namespace) -> dict[str, Any]:
  return printed("benchmarks/startup.py", f"--rounds={arguments.rounds}")


def search(arguments: argparse.Namespace) -> dict[str, Any]:
  trials = 3 if arguments.quick else 6
  return printed(
    "benchmarks/search.py", f"--trials={trials}", "--parts", "processes"
  )


def follow(_: argparse.Namespace) -> dict[str, Any]:
  """Follows the log of a shop, with the models of a short training."""
  with tempfile.TemporaryDirectory() as folder:
    printed("benchmarks/shop_log.py", f"{folder}/shop.log", "--orders=1000")
    workdir = f"--workdir={folder}/run"
    train = [
      "--config=configs/logs.py",
      f"--config.data.path={folder}/shop.log",
      "--config.data.log_header=<Date> <Time> <Level> <Content>",
      r"--config.data.log_session=(order-\d+)",
      "--config.train.max_steps=80",
    ]
    for arguments in (train, ["--mode=detect"]):
      printed("run.py", workdir, *arguments)
    return printed("benchmarks/follow.py", workdir, "--events=5000")


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
  "training": training,
  "inference": sampling,
  "sessions": sessions,
  "startup": startup,
  "search": search,
  "follow": follow,
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


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
  """Returns the figures of a part, and their conditions."""
  load, begin = os.getloadavg()[0], time.monotonic()
  every, ours = processor_seconds()
  record = PARTS[name](arguments)
  seconds = time.monotonic() - begin
  every, ours = (
    after - before
    for after, before in zip(processor_seconds(), (every, ours), strict=True)
  )
  record["about"] = {
    "commit": arguments.commit,
    "date": datetime.date.today().isoformat(),
    "versions": versions(),
    "rounds": arguments.rounds,
    "load": load,
    "others": round(max(every - ours, 0) / seconds, 3),
    "seconds": round(seconds),
  }
  return record


def wait():
  """Waits until the load average has fallen."""
  end = time.monotonic() + _WAIT
  while os.getloadavg()[0] > _BUSY and time.monotonic() < end:
    time.sleep(1)


def keep(name: str, record: dict[str, Any], store: Path):
  """Replaces the figures of a part of this machine."""
  records = read_figures(store)
  records.setdefault(machine(), {})[name] = record
  lines = json.dumps(records).replace('}, "', '},\n"')
  store.write_text(f"{lines}\n", "utf-8")


def read_figures(store: Path) -> dict[str, Any]:
  """Returns the figures of a file, by machine and part."""
  return json.loads(store.read_text("utf-8")) if store.exists() else {}


def write_pages(machines: dict[str, Any]):
  """Writes the tables, the chart and its sentence."""
  put(_PAGE, _MARKS, speed_page.tables(machines))
  if name := speed_page.newest(machines):
    put(_README, _MARKS, speed_chart.sentence(name, machines[name]))
    speed_chart.draw(name, machines[name], _CHART)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the arguments of the command."""
  title, *_ = (__doc__ or "").split("\n")
  parser = argparse.ArgumentParser(description=title)
  add = parser.add_argument
  add("--only", default=",".join(PARTS), help="parts, with commas")
  add("--rounds", type=int, default=5)
  add("--quick", action="store_true", help="fewer cases and rounds")
  add("--store", type=Path, help="of the figures")
  add("--write", action="store_true", help="write the tables and the chart")
  arguments = parser.parse_args(argv)
  arguments.only = [name for name in arguments.only.split(",") if name]
  for name in arguments.only:
    if name not in PARTS:
      parser.error(f"--only={name}: is none of {', '.join(PARTS)}")
  if arguments.only:
    peers.refuse_missing(parser, "torch", "keras", "optuna")
  if arguments.quick:
    arguments.rounds = min(arguments.rounds, 2)
  else:
    arguments.store = arguments.store or _KEPT
  return arguments


def main(argv: list[str] | None = None):
  """Measures, keeps and prints the parts."""
  arguments = parse_arguments(argv)
  arguments.commit = commit()  # Before the figures change a file.
  wait()
  failed = []
  for name in arguments.only:
    try:
      record = measure(name, arguments)
    except (subprocess.CalledProcessError, ValueError, OSError) as error:
      failed.append(name)
      print(f"{name}: {error!r}", file=sys.stderr)
      continue
    if arguments.store:
      keep(name, record, arguments.store)
    print(f"{speed_page.about(record)}\n\n{speed_page.part(name, record)}\n")
  if arguments.write:
    write_pages(read_figures(arguments.store or _KEPT))
  sys.exit(int(bool(failed)))


if __name__ == "__main__":
  main()
