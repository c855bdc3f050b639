r"""Measures `--mode=detect --follow` on the log of benchmarks/shop_log.py.

  python benchmarks/follow.py --workdir=runs/shop
  nice python benchmarks/follow.py --workdir=runs/shop --replay=10000000

The workdir is that of a detection, made as docs/howto/detect.md says. Lines of
new orders are followed in this process with all that the command does: they are
parsed, judged, and stored in a temporary folder; the rows are
written nowhere. Without a further flag the table has the time from a line to
its rows for lines that come one at a time, and lines a second for chunks; a
thousand sessions are open. --replay follows so many events in chunks of 2,000,
and prints the speed and the memory of each tenth.
"""

import argparse
import contextlib
import datetime
import heapq
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

# An installation has no run.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import shop_log

_START = datetime.datetime(2026, 6, 1)
_PAUSE = 40.0  # Mean seconds between two lines of an order.


def lines(open_sessions: int, bad: float = 0.03) -> Iterator[bytes]:
  """The lines of a shop with so many open orders, without end."""
  rng, number, clock = random.Random(0), 0, 0.0
  between = 12 * _PAUSE / open_sessions
  waiting: list[tuple[float, int, list[str]]] = []
  kinds = ("unpaid", "retries", "lost", "error")
  while True:
    kind = rng.choice(kinds) if rng.random() < bad else "normal"
    events = shop_log.order(rng, kind, ["stock server does not answer"])
    heapq.heappush(waiting, (clock, number, events[::-1]))
    number += 1
    clock += rng.expovariate(1 / between)
    while waiting and waiting[0][0] <= clock:
      seconds, order, events = heapq.heappop(waiting)
      moment = _START + datetime.timedelta(seconds=int(seconds))
      text = f"{moment} INFO shop: order-{order:08} {events.pop()}"
      yield text.encode()
      if events:
        later = seconds + rng.expovariate(1 / _PAUSE)
        heapq.heappush(waiting, (later, order, events))


class Input:
  """Chunks of lines, and when each was asked for.

  Attributes:
    asked: the times at which a chunk was asked for.
  """

  def __init__(self, position, texts: Iterator[bytes], count: int, size: int):
    self.position, self.ended, self.asked = position, False, []
    self._lines, self._left, self._size = texts, count, size

  behind = 0

  def read(self, _: float):
    from seqrnn.data.logs.tail import Chunk

    some = list(islice(self._lines, min(self._size, self._left)))
    self._left -= len(some)
    self.ended = self._left <= 0
    first = self.position.line + 1
    self.position = self.position._replace(line=first - 1 + len(some))
    self.asked.append(time.perf_counter())
    return Chunk(some, first, 0, self.position)


class Following:
  """A service whose state is in a temporary folder."""

  def __init__(self, workdir: Path, folder: str):
    from seqrnn import experiments
    from seqrnn.errors import report
    from seqrnn.logs.detect import deployed
    from seqrnn.logs.follow import follow
    from seqrnn.logs.follow.state import open_state
    from seqrnn.run import load_run

    run = load_run(workdir)
    restored = deployed.restore(experiments.build, run.config, workdir)
    self._open = contextlib.ExitStack()
    state = self._open.enter_context(open_state(Path(folder), report))
    self.service = follow.Service(restored, workdir, state, self._count)
    self.rows = 0
    self.service.recover()

  def _count(self, text: str):
    self.rows += text.count("\n")

  def follow(self, texts: Iterator[bytes], count: int, size: int) -> np.ndarray:
    """Follows lines; the seconds that each chunk took."""
    source = Input(self.service.position, texts, count, size)
    self.service.follow(source, lambda: False)
    return np.diff([*source.asked, time.perf_counter()])

  def close(self):
    self._open.close()


def latency(workdir: Path):
  """Prints the time of lines that come one at a time, and of chunks."""
  print(
    "| lines in a chunk | ms a chunk, median | 90 % | 99 % | 99.9 % |", end=""
  )
  print(" lines a second |\n| --- | --- | --- | --- | --- | --- |")
  for size in (1, 10, 100, 1000):
    with tempfile.TemporaryDirectory() as folder:
      following, texts = Following(workdir, folder), lines(1000)
      following.follow(texts, 20_000, 1000)  # Distinct sessions become known.
      times = following.follow(texts, 4_000, size)
      following.close()
    shown = np.percentile(1e3 * times, [50, 90, 99, 99.9])
    figures = " | ".join(f"{x:.3f}" for x in shown)
    print(f"| {size:,} | {figures} | {size * len(times) / times.sum():,.0f} |")


def replay(workdir: Path, count: int):
  """Prints speed and memory of each tenth of so many events."""
  print("| events | events a second | MB resident | open sessions | alarms |")
  print("| --- | --- | --- | --- | --- |")
  with tempfile.TemporaryDirectory() as folder:
    following, texts = Following(workdir, folder), lines(1000)
    service = following.service
    for _ in range(10):
      begin = time.perf_counter()
      following.follow(texts, count // 10, 2000)
      speed = count // 10 / (time.perf_counter() - begin)
      opened = service.follower.open_sessions
      print(
        f"| {service.health.figures['events']:,} | {speed:,.0f} |"
        f" {_resident() / 1e6:,.0f} | {opened:,} | {following.rows:,} |",
        flush=True,
      )
    following.close()


def _resident() -> int:
  pages = int(Path("/proc/self/statm").read_text().split()[1])
  return pages * os.sysconf("SC_PAGE_SIZE")


def main():
  """Measures what the flags ask for."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--replay", type=int)
  arguments = parser.parse_args()
  from seqrnn.runtime import launch

  launch.prepare()
  launch.configure_device(1, follow=True)
  if arguments.replay:
    replay(arguments.workdir, arguments.replay)
  else:
    latency(arguments.workdir)


if __name__ == "__main__":
  main()
