r"""Measures CPU time and peak memory over the size of the data.

  python benchmarks/sizes.py FOLDER lines 500000 2000000 5000000
  python benchmarks/sizes.py FOLDER characters 10000000 100000000 1000000000
  python benchmarks/sizes.py FOLDER rows 1000 10000 100000 1000000

Lines: a log of an invented shop, four orders a session, which interleave; 60
steps of a training, a detection in the last 40 % of the sessions, and a
follower that reads one line. Characters: a text of random words. Rows: a csv of
texts of 12 words, each with a label. Both are trained for 4 steps. Start,
reading and compiling are included. FOLDER/sizes.json keeps what was measured,
and the page docs/results/sizes.md has all of it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import ticker

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import follow, pages
from seqrnn.runtime import pictures

_PAGE = Path(pages.__file__).parents[1] / "docs" / "results" / "sizes.md"
_MARKS = "<!-- made by benchmarks/sizes.py -->", "<!-- end of the figures -->"
_LOG = r"--config=logs --config.data.log_session=(order-\d+)"
_LOG += " --config.data.log_header=none --config.data.test_fraction=.4"
_FILES = "--config.data.source=files --config.train.max_steps=4"
_VALIDATION = "--config.data.validation_fraction=.001"  # It is evaluated whole.
_COMMANDS = [
  ("lines", "train", f"{_LOG} --config.train.max_steps=60"),
  ("lines", "detect", "--mode=detect"),
  ("lines", "follow", "--mode=detect --follow"),
  ("characters", "train", f"--config=rnn {_FILES} {_VALIDATION}"),
  ("rows", "train", f"--config=sentences --config.data.format=csv {_FILES}"),
]
_UNITS = "CPU seconds", "MB, peak"
_TICKS = (3, 10, 30, 100, 300), (300, 1000, 3000)
_KINDS = ["lines", "characters", "rows"]


def texts(of: str) -> Iterator[bytes]:
  """Lines of a log, or of 86 characters, without end."""
  merged = lambda match: b"order-%08d" % (int(match[1]) // 4)
  for line in follow.lines(1000) if of == "lines" else ():
    yield re.sub(rb"order-(\d+)", merged, line) + b"\n"
  rng = np.random.default_rng(0)
  while True:
    for words in rng.zipf(1.3, (1000, 12)) % 20_000:
      text = " ".join(f"w{n:05x}" for n in words)
      yield f"{text},{'ab'[words[0] % 2]}\n".encode()


def run(arguments: list[str], data: Path) -> list[int]:
  """CPU seconds and peak memory in MB of a command, which reads one line."""
  with data.open("rb") as file, data.with_name("out").open("ab") as out:
    command = [sys.executable, "-m", "seqrnn", *arguments]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out)
    with child.stdin or file as stream:
      stream.write(file.readline())
    _, status, usage = os.wait4(child.pid, 0)
  assert not status, command
  return [round(usage.ru_utime + usage.ru_stime), usage.ru_maxrss // 1024]


def render(rows: list[list]) -> str:
  """The table of all figures; draws the picture."""
  figure = pictures.create(9, 5)
  axes: Any = figure.subplots(2, 3, sharey="row")
  for of, name, _ in _COMMANDS:
    some = [x for x in rows if (x[0], x[2]) == (of, name)]
    for n, plot in enumerate(axes[:, _KINDS.index(of)]):
      x_N, y_N = ([row[column] for row in some] for column in (1, 3 + n))
      plot.loglog(x_N, y_N, "o-", label=name)
      plot.set_xticks(x_N, [ticker.EngFormatter(sep="")(x) for x in x_N])
      plot.set_yticks(_TICKS[n], _TICKS[n])
      plot.set(xlabel=of, ylabel=_UNITS[n])
      plot.minorticks_off()
      if of == "lines":
        plot.legend(loc="upper left")
      pictures.grid(plot)
  pictures.save(figure, _PAGE.with_suffix(".png"))
  cells = [[of, f"{size:,}", name, *map(str, x)] for of, size, name, *x in rows]
  table = pages.table(["data", "size", "command", *_UNITS], cells)
  return f"{pages.machine()}; {pages.versions()}.\n\n{table}"


def main():
  """Measures what the arguments ask for, and writes the page."""
  parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
  parser.add_argument("folder", type=Path)
  parser.add_argument("of", choices=_KINDS)
  parser.add_argument("sizes", type=int, nargs="*")
  flags = parser.parse_args()
  of, folder = flags.of, flags.folder.resolve()
  os.environ["XDG_CACHE_HOME"] = str(folder)
  path, data = folder / "sizes.json", folder / "data"
  rows = json.loads(path.read_text()) if path.exists() else []
  for size in flags.sizes:
    with data.open("wb") as file:
      file.write(b"text,label\n" * (of == "rows"))
      count = size // 86 if of == "characters" else size
      file.writelines(islice(texts(of), count))
    for name, command in [x[1:] for x in _COMMANDS if x[0] == of]:
      arguments = [f"--workdir={folder / of}-{size}", *command.split()]
      arguments += [f"--config.data.path={data}"] * (name == "train")
      rows.append([of, size, name, *run(arguments, data)])
      path.write_text(json.dumps(rows))
  rows.sort(key=lambda row: (_KINDS.index(row[0]), row[1]))
  pages.put(_PAGE, _MARKS, render(rows))


if __name__ == "__main__":
  main()
