"""Measures the memory and the time of training on large corpora.

  python benchmarks/memory.py

The texts have 1 MB, 100 MB and 1 GB, in hundreds of distinct characters of one
to four bytes. run.py trains on each for a few steps, in a new process and with
its own cache folder: a first time, when it encodes the text, and a second time,
when it reads the cache. The table has megabytes (10**6 bytes) of text a second
for the encoding; seconds from the start of each process to its first metrics,
after five steps; the peaks of anonymous and of file-backed memory over both
runs, in MB; and the anonymous memory in addition to that of the text of 1 MB.
Windows start at every symbol, so there are as many windows as symbols.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from seqrnn.data import encoding, reading

_ROOT = Path(__file__).resolve().parents[1]
_BLOCK = 2**20  # The number of characters generated at once.


def write(path: Path, size: int):
  """Writes a reproducible text of about `size` bytes."""
  letters = [*range(0x20, 0x7F), 0x0A]
  foreign = [
    *range(0xC0, 0x250),
    *range(0x4E00, 0x4E80),
    *range(0x1F600, 0x1F640),
  ]
  # One character in eight is not ASCII.
  codes = np.array(letters * 32 + foreign, "<u4")
  rng = np.random.default_rng(0)
  with path.open("wb") as file:
    while (left := size - file.tell()) > 0:
      text = codes[rng.integers(len(codes), size=_BLOCK)].tobytes()
      content = text.decode("utf-32-le").encode()[:left]
      file.write(content.decode("utf-8", "ignore").encode() or b"\n")


def encoding_seconds(path: Path, unit: str) -> float:
  """Returns the seconds of encoding to a file, without hashing."""
  source = reading.Source(path.name, path)
  with tempfile.TemporaryFile() as ids, tempfile.TemporaryFile() as documents:
    start = time.perf_counter()
    named = [((source.name, 0), reading.chunks(source))]
    encoding.encode(named, unit, "strict", ids, documents)
    return time.perf_counter() - start


def train(
  path: Path, unit: str, workdir: Path, cache: Path
) -> dict[str, float]:
  """Trains in a new process; returns seconds to the metrics, peaks in MB."""
  fields = {
    "data.source": "files",
    "data.path": path,
    "data.unit": unit,
    "data.step": 1,
    "data.validation_fraction": 1e-4,
    "data.test_fraction": 0,
    "train.max_steps": 20,
    "train.eval_every": 5,
  }
  command = [
    sys.executable,
    "run.py",
    "--config=configs/base.py",
    f"--workdir={workdir}",
    *(f"--config.{name}={value}" for name, value in fields.items()),
  ]
  environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
  log = workdir.with_name(f"{workdir.name}.log")
  peaks = {"RssAnon": 0.0, "RssFile": 0.0}
  seconds = None
  start = time.perf_counter()
  with log.open("wb") as output:
    process = subprocess.Popen(
      command, cwd=_ROOT, env=environment, stdout=output, stderr=output
    )
    while process.poll() is None:
      for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in peaks:
          peaks[name] = max(peaks[name], int(value.split()[0]) * 1024 / 1e6)
      if seconds is None and (workdir / "metrics.csv").exists():
        seconds = time.perf_counter() - start
      time.sleep(0.02)
  if process.returncode or seconds is None:
    raise SystemExit(log.read_text())
  return {"seconds": seconds, **peaks}


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument(
    "--megabytes", type=int, nargs="*", default=[1, 100, 1000]
  )
  arguments = parser.parse_args()
  print(
    "| unit | corpus, MB | encoding, MB/s | first, s | again, s"
    " | RssAnon, MB | RssFile, MB | more than the first |"
  )
  print("| --- | --- | --- | --- | --- | --- | --- | --- |")
  with tempfile.TemporaryDirectory() as folder:
    for unit in ("char", "byte"):
      least = None
      for size in arguments.megabytes:
        path = Path(folder, "text.txt")
        write(path, size * 10**6)
        rate = path.stat().st_size / 1e6 / encoding_seconds(path, unit)
        name = Path(folder, f"{unit}{size}")
        cache = Path(folder, f"cache-{unit}{size}")
        first = train(path, unit, name.with_suffix(".first"), cache)
        again = train(path, unit, name.with_suffix(".again"), cache)
        anonymous, mapped = (
          max(first[peak], again[peak]) for peak in ("RssAnon", "RssFile")
        )
        least = anonymous if least is None else least
        print(
          f"| {unit} | {size} | {rate:.0f} | {first['seconds']:.1f}"
          f" | {again['seconds']:.1f} | {anonymous:.0f} | {mapped:.0f}"
          f" | {anonymous - least:+.0f} |",
          flush=True,
        )


if __name__ == "__main__":
  main()
