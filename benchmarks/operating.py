"""Draws the metrics of a follower: docs/howto/operate.png.

  python benchmarks/operating.py WORKDIR docs/howto/operate.png

WORKDIR is of a run on the log of benchmarks/shop_log.py, with a detection, as
docs/howto/detect.md trains it. A log of the shop grows by an hour in six
seconds. It is followed, and /metrics is read twice a second. After 8 hours the
follower is stopped for an hour, and after 16 the shop has a new version.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

# An installation has no run.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import shop_log
from seqrnn.runtime import figures

_ROOT = Path(__file__).resolve().parents[1]
_HOUR = 6.0  # Seconds in which the log grows by an hour.
_STOP, _GO, _NEW, _END = 8.0, 9.0, 16.0, 22.0  # Hours.
_ORDERS = 180  # In an hour.
_TIME = "%Y-%m-%d %H:%M:%S"
Metrics = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Look(NamedTuple):
  """What /metrics had.

  Attributes:
    hour: of the log.
    run: number of the process.
    metrics: (name, labels) -> value.
  """

  hour: float
  run: int
  metrics: Metrics


def write_log(folder: Path) -> tuple[list[float], list[str]]:
  """The hours and the lines of a log, in the middle with a new version."""
  first, second = folder / "first.log", folder / "second.log"
  flags = [f"--orders={round(_ORDERS * _NEW)}", "--seed=7"]
  shop_log.main([str(first), *flags])
  flags = [f"--orders={round(_ORDERS * (_END - _NEW))}", "--seed=8"]
  shop_log.main([str(second), *flags, "--version=2"])
  found = []
  for path, shift in ((first, 0.0), (second, _NEW)):
    for line in path.read_text().splitlines(keepends=True):
      at = datetime.strptime(line[:19], _TIME) + timedelta(hours=shift)
      rest = line[19:].replace("order-", f"order-{shift:.0f}")
      found.append((at, f"{at:{_TIME}}{rest}"))
  found.sort(key=lambda pair: pair[0])
  begin = found[0][0]
  hours = [(at - begin) / timedelta(hours=1) for at, _ in found]
  return hours, [line for _, line in found]


class Follower:
  """The command, in a process of its own."""

  def __init__(self, workdir: Path, log: Path, folder: Path):
    """Starts it; the URL is written when it listens."""
    self._errors = (folder / "errors").open("a+")
    self._begin = self._errors.tell()
    command = [sys.executable, "run.py", f"--workdir={workdir}"]
    command += ["--mode=detect", "--follow", "--config.detect.port=0"]
    command += [f"--config.detect.input={log}"]
    command += [f"--config.detect.output={folder / 'state'}"]
    self._process = subprocess.Popen(
      command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=self._errors
    )

  def look(self) -> Metrics | None:
    """Its metrics; None: it does not listen yet."""
    from prometheus_client.parser import text_string_to_metric_families

    assert self._process.poll() is None, self.said()
    found = re.search(r"http://\S+/metrics", self.said())
    if found is None:
      return None
    with urllib.request.urlopen(found[0], timeout=10) as answer:
      text = answer.read().decode()
    return {
      (sample.name, tuple(sorted(sample.labels.items()))): sample.value
      for family in text_string_to_metric_families(text)
      for sample in family.samples
    }

  def said(self) -> str:
    """What it has written on stderr."""
    return os.pread(self._errors.fileno(), 2**20, self._begin).decode()

  def stop(self):
    """Ends it as systemd does."""
    self._process.send_signal(signal.SIGTERM)
    self._process.wait()


def watch(workdir: Path, folder: Path) -> list[Look]:
  """Follows a log that grows, and looks at the metrics."""
  hours, lines = write_log(folder)
  log = folder / "live.log"
  log.touch()
  followers = [Follower(workdir, log, folder)]
  while followers[0].look() is None:
    time.sleep(0.2)
  looks, written, begin = [], 0, time.monotonic()
  running: Follower | None = followers[0]
  with log.open("a") as file:
    while (hour := (time.monotonic() - begin) / _HOUR) < _END:
      stop = int(np.searchsorted(hours, hour))
      written = _append(file, lines, written, stop)
      if hour >= _STOP and running is followers[0]:
        followers[0].stop()
        running = None
      if hour >= _GO and len(followers) == 1:
        running = Follower(workdir, log, folder)
        followers.append(running)
      if running and (metrics := running.look()):
        looks.append(Look(hour, len(followers), metrics))
      time.sleep(0.5)
  print(followers[-1].said())
  followers[-1].stop()
  return looks


def _append(file: IO[str], lines: list[str], start: int, stop: int) -> int:
  file.writelines(lines[start:stop])
  file.flush()
  return max(start, stop)


def counters(looks: list[Look], name: str, **labels: str) -> np.ndarray:
  """A counter at each look, over all processes."""
  total, last, found = 0.0, (1, 0.0), []
  for look in looks:
    value = sum(
      v
      for (of, pairs), v in look.metrics.items()
      if of == f"seqrnn_{name}" and {*labels.items()} <= {*pairs}
    )
    if look.run != last[0]:
      total, last = total + last[1], (look.run, 0.0)
    last = look.run, value
    found.append(total + value)
  return np.array(found)


def rates(looks: list[Look], name: str, **labels: str) -> np.ndarray:
  """Growth of a counter for each hour of the log, over some four looks."""
  hours = np.array([look.hour for look in looks])
  values, before = counters(looks, name, **labels), np.arange(len(looks)) - 4
  before = np.maximum(before, 0)
  return (values - values[before]) / np.maximum(hours - hours[before], 0.1)


def p_values(looks: list[Look]) -> tuple[list[float], np.ndarray]:
  """The bounds of the histogram, and the shares of sessions up to each."""
  name, first, last = "seqrnn_session_p_value_bucket", *looks
  found = {
    float(dict(pairs)["le"]): value - first.metrics[of, pairs]
    for (of, pairs), value in last.metrics.items()
    if of == name
  }
  bounds = sorted(found)[:-1]
  return bounds, np.array([found[b] for b in bounds]) / max(found[np.inf], 1)


def draw(looks: list[Look], path: Path):
  """Draws six figures over the hours of the log."""
  drawn = figures.create(10, 7)
  axes_AB: Any = drawn.subplots(3, 2)
  hours = np.array([look.hour for look in looks])
  gauge = lambda name: [look.metrics[f"seqrnn_{name}", ()] for look in looks]
  # No line where nobody looked.
  gap = int(np.argmax(np.diff(hours))) + 1
  cut = lambda values: np.insert(np.array(values, float), gap, np.nan)
  x = np.insert(hours, gap, np.nan)
  events, waiting, opened, unknown, alarms, p = axes_AB.T.ravel()
  title = lambda axes, name: axes.set_title(name, fontsize=9)
  events.plot(x, cut(rates(looks, "events_total") / 60), "k")
  events.set(ylabel="a minute", ylim=(0, None))
  title(events, "seqrnn_events_total")
  waiting.plot(x, cut(gauge("input_lag_bytes")) / 1024, "k")
  waiting.set(ylabel="KiB")
  title(waiting, "seqrnn_input_lag_bytes")
  opened.plot(x, cut(gauge("open_sessions")), "k")
  opened.set(ylabel="sessions", ylim=(0, None), xlabel="hour of the log")
  title(opened, "seqrnn_open_sessions")
  share = rates(looks, "unknown_events_total") / np.maximum(
    rates(looks, "events_total"), 1
  )
  unknown.plot(x, cut(100 * share), "k")
  unknown.set(ylabel="%")
  title(unknown, "seqrnn_unknown_events_total / seqrnn_events_total")
  for severity, style in (("low", ":"), ("medium", "--"), ("high", "-")):
    found = counters(looks, "alarms_total", severity=severity)
    alarms.plot(x, cut(found), f"k{style}", label=severity)
  alarms.set(ylabel="alarms", xlabel="hour of the log")
  title(alarms, "seqrnn_alarms_total, by severity")
  alarms.legend(loc="upper left")
  drift = hours[np.argmax(gauge("drift"))]
  for axes in (events, waiting, opened, unknown, alarms):
    axes.axvspan(_STOP, _GO, color="0.9")
    axes.axvline(_NEW, color="0.5", linestyle=":")
    axes.axvline(drift, color="tab:red")
    axes.set(xlim=(0, _END))
    figures.grid(axes)
  opened.text(_STOP, 1, " stopped", va="bottom", fontsize=8)
  opened.text(_NEW, 1, "new version ", va="bottom", ha="right", fontsize=8)
  opened.text(
    drift, 1, " seqrnn_drift", va="bottom", fontsize=8, color="tab:red"
  )
  last = [look for look in looks if look.hour < _NEW][-1]
  again = next(look for look in looks if look.run == 2)
  for pair, style, label in (
    ((again, last), "-", "version 1"),
    ((last, looks[-1]), "--", "version 2"),
  ):
    bounds, shares = p_values(list(pair))
    shares[shares == 0] = np.nan  # A logarithm has no 0.
    p.plot(bounds, shares, f"k{style}", marker=".", label=label)
  p.plot([5e-4, 1], [5e-4, 1], "0.5", linestyle=":", label="uniform")
  title(p, "seqrnn_session_p_value, cumulative")
  p.set(
    xscale="log", yscale="log", xlabel="p-value", ylabel="share of sessions"
  )
  p.legend(loc="lower right")
  figures.grid(p)
  figures.save(drawn, path)
  ended = counters(looks, "session_p_value_count")
  sessions = ended[np.argmax(gauge("drift"))] - ended[looks.index(last)]
  print(
    f"drift is noticed {60 * (drift - _NEW):.0f} minutes of the log after the"
    f" change, when {sessions:.0f} sessions had ended"
  )


def main():
  """Draws the picture."""
  parser = argparse.ArgumentParser(description="Draws metrics.")
  parser.add_argument("workdir", type=Path)
  parser.add_argument("picture", type=Path)
  given = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    looks = watch(given.workdir.resolve(), Path(folder))
  draw(looks, given.picture)


if __name__ == "__main__":
  main()
