"""Measures the latency of `--mode=detect --follow` for an event.

  python benchmarks/follow.py [--events=20000]

`follow` runs in this process. It reads the events of a thousand interleaved
opcode sessions from the test split as lines, and writes lines with their
scores. The time of an event is from the read of its line to the write of its
scores; `model` is the part of the model's step, which reads an event and scores
the next one. The models are two LSTM layers with initial parameters.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

# An installation has no run.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_OPEN = 1000  # The number of open sessions.
FOLDS = 5


class Pipe:
  """The input and the output of `follow`, with the time of each line."""

  def __init__(self, lines: list[bytes]):
    self._lines = iter(lines)
    self.read, self.written = [], []

  def readline(self, _: int) -> bytes:
    line = next(self._lines, b"")
    self.read.append(time.perf_counter())
    return line

  def write(self, line: str):
    del line

  def flush(self):
    self.written.append(time.perf_counter())


def lines(config, count: int) -> list[bytes]:
  """Yields events of the test split, interleaved over many sessions."""
  from seqrnn.data import splits

  pieces = splits.reader(config)("test")
  rng = np.random.default_rng(0)
  left = rng.permutation(len(pieces.starts)).tolist()
  waiting, found = [], []
  while len(found) < count:
    while len(waiting) < _OPEN:
      j = left.pop() if left else int(rng.integers(len(pieces.starts)))
      events = pieces.corpus.text(pieces.starts[j], pieces.stops[j])
      waiting.append((f"{j}-{len(found)}-{len(waiting)}", iter(events)))
    place = int(rng.integers(_OPEN))
    name, events = waiting[place]
    event = next(events, None)
    if event is None:
      del waiting[place]
    else:
      found.append(f"{name}\t{event}\n".encode())
  return found


def show(name: str, times: np.ndarray):
  """Prints a line of the table, in milliseconds."""
  figures = [f"{x:.3f}" for x in np.percentile(1e3 * times, [50, 90, 99, 99.9])]
  print(f"| {name} | {' | '.join(figures)} | {1 / times.mean():,.0f} |")


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--events", type=int, default=20_000)
  given = parser.parse_args()
  measure(given.events)


def measure(count: int):
  """Prints the table for a number of events."""
  import jax  # Import slow packages after the arguments are parsed.

  import experiments
  from configs import sessions
  from seqrnn.detection import thresholds
  from seqrnn.detection.conformal import Calibration, CrossCalibration
  from seqrnn.detection.ensemble import Ensemble
  from seqrnn.following import follow
  from seqrnn.runtime import launch

  config = sessions.get_config()
  launch.configure_device(1, inline=True)  # As with --follow.
  read = lines(config, count)
  vocabularies = experiments.TASKS[config.task].prepare(config)
  print("| ms an event | median | 90 % | 99 % | 99.9 % | events a second |")
  print("| --- | --- | --- | --- | --- | --- |")
  for size in (64, 256):
    config.model.hidden_size = size
    experiment = experiments.build(config, vocabularies)
    assert experiment.decoder is not None
    keys = jax.random.split(jax.random.key(0), FOLDS)
    seen = np.ones((FOLDS, len(vocabularies["symbols"])), bool)
    limits = thresholds.Record([], 0.001, False, 20.0, True, 9)
    models = Ensemble(jax.vmap(experiment.init)(keys), seen)
    pipe = Pipe(read)
    normal = CrossCalibration([Calibration(np.linspace(0, 10, 2_000))] * FOLDS)
    follower = follow.Follower(experiment, models, limits, normal)
    follow.follow(follower, config, pipe, pipe)
    # `follow` ends the sessions after all events.
    times = np.subtract(pipe.written[: len(read)], pipe.read[:-1])
    show(f"2x{size}, line to line", times)
    state_S, step = follow.stepper(experiment.decoder, models)
    times = []
    for event in np.random.default_rng(0).integers(4, 40, count):
      begin = time.perf_counter()
      state_S = step(state_S, event)
      times.append(time.perf_counter() - begin)
    show(f"2x{size}, model", np.array(times))


if __name__ == "__main__":
  main()
