r"""Measures how well and how fast the lines of logs are grouped into events.

  python benchmarks/templates.py DATA

DATA has the folder `loghub2k` with 2,000 lines of each of eight systems,
`NAME.log.xz`, and the event of each line, `NAME.events.xz` (loghub, Zhu et al.
2023), and may have `hdfs_raw/hdfs.log.xz`. A line is grouped correctly if the
lines with its template are those with its event (grouping accuracy, Zhu et al.
2019). Settings are the same for all systems, except the headers. Status codes
are values here, as they are in the events; `with codes` has the accuracy when
they are kept, as by default. Lines a second are of one core: reading, masking
and mining.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

# An installation has no run.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seqrnn.data import vocabulary  # noqa: E402
from seqrnn.data.logs import logs  # noqa: E402
from seqrnn.data.logs.logs import Form  # noqa: E402
from seqrnn.data.read.reading import Source, lines  # noqa: E402

HEADERS = {
  "Apache": "[<Time>] [<Level>] <Content>",
  "BGL": "<Label> <Timestamp> <Day> <Node> <Date> <Where> <Type> <Component>"
  " <Level> <Content>",
  "HDFS": "<Date> <Time> <Pid> <Level> <Component>: <Content>",
  "Hadoop": "<Date> <Time> <Level> [<Process>] <Component>: <Content>",
  "HealthApp": "<Time>|<Component>|<Pid>|<Content>",
  "OpenSSH": "<Month> <Day> <Time> <Host> <Component>: <Content>",
  "OpenStack": "<File> <Date> <Time> <Pid> <Level> <Component> [<Request>]"
  " <Content>",
  "Windows": "<Date> <Time>, <Level> <Component> <Content>",
}


def events(path: Path, form: Form) -> tuple[np.ndarray, float]:
  """The number of each line's template, and the lines a second of CPU."""
  begin = time.process_time()
  corpus = logs.read_logs([Source(path.name, path)], form)
  counts = np.bincount(corpus.ids, minlength=len(corpus.symbols))
  made = vocabulary.make(corpus.symbols, counts, "log", 1, None)
  ids = made.encode(corpus.symbols)[corpus.ids]
  return ids, len(ids) / (time.process_time() - begin)


def accuracy(found: np.ndarray, true: list[str]) -> float:
  """The share of lines whose group is that of their event."""
  pairs = Counter(zip(found.tolist(), true, strict=True))
  of_found, of_true = Counter(found.tolist()), Counter(true)
  whole = (
    count
    for (template, event), count in pairs.items()
    if count == of_found[template] == of_true[event]
  )
  return sum(whole) / len(true)


def main(arguments: list[str] | None = None):
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("data", type=Path)
  data = parser.parse_args(arguments).data
  if not (data / "loghub2k").is_dir():
    parser.error(f"DATA={data}: has no folder loghub2k")
  print(
    "| system | accuracy | with codes | lines/s |\n| --- | --- | --- | --- |"
  )
  rows = []
  for name, header in HEADERS.items():
    path = data / "loghub2k" / f"{name}.events.xz"
    true = list(lines(Source(path.name, path), "strict"))
    form = Form("replace", header, log_codes=False)
    found, speed = events(path.with_name(f"{name}.log.xz"), form)
    kept, _ = events(
      path.with_name(f"{name}.log.xz"), form._replace(log_codes=True)
    )
    rows.append((accuracy(found, true), accuracy(kept, true), speed))
    print(f"| {name} | {rows[-1][0]:.3f} | {rows[-1][1]:.3f} | {speed:,.0f} |")
  mean = np.mean(rows, 0)
  print(f"| mean | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:,.0f} |")
  path = data / "hdfs_raw" / "hdfs.log.xz"
  if path.exists():
    form = Form("strict", HEADERS["HDFS"], r"(blk_-?\d+)")
    found, speed = events(path, form)
    print(f"\nhdfs_raw: {len(found):,} events, {speed:,.0f} lines/s")


if __name__ == "__main__":
  main()
