"""Compiles programs for TPUs and GPUs that need not be here.

  pip install -e '.[tpu]'     # for TPU v5e; x86_64 Linux, no TPU is needed
  pip install -e '.[cuda13]'  # for H100; 4.7 GB, no GPU is needed
  python benchmarks/ahead.py --targets=v5e:1x1 --configs=rnn,brnn

No program is executed. A row has the figures of a program for a target, read
from the program that the target's compiler made. benchmarks/ahead.json keeps
the rows, and --write makes the tables of docs/results/accelerators.md from
them.
"""

import argparse
import json
import multiprocessing
import os
import platform
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import hlo
from pages import put, table
from recipes import write_records

_ROOT = Path(__file__).resolve().parents[1]
_KEPT = _ROOT / "benchmarks" / "ahead.json"
_PAGE = _ROOT / "docs" / "results" / "accelerators.md"
_MARKS = "<!-- made by benchmarks/ahead.py -->", "<!-- end of the tables -->"
_ENVIRONMENT = {
  "JAX_PLATFORMS": "cpu",
  "JAX_ENABLE_COMPILATION_CACHE": "false",
  "TF_CPP_MIN_LOG_LEVEL": "3",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  # Otherwise a second process meets the lock file of the first.
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  # There is no device to time kernels on.
  "XLA_FLAGS": "--xla_gpu_autotune_level=0",
}
TARGETS = {
  "v5e:1x1": "One TPU v5e chip",
  "v5e:2x2": "Four TPU v5e chips",
  "h100": "One H100",
}
CONFIGS = ("rnn", "brnn", "words")
PROGRAMS = ("train", "score", "sample")
_UNROLLED = 16  # Time steps of a loop's body, at most.
_HEAD = (
  *("config", "program", "arguments, MB", "temporaries, MB", "peak, MB"),
  *("forward", "backward", "collectives"),
)


def compile_row(target: str, name: str, program: str) -> dict[str, Any] | None:
  """Returns the row of a program; None: the config has no such program."""
  import programs  # This imports JAX.

  from seqrnn import experiments

  config = programs.read_config(name, {})
  mesh = programs.compile_mesh(target)
  experiment = experiments.build(config, None)
  made = programs.PROGRAMS[program](config, experiment, mesh)
  if made is None:
    return None
  compiled = made.function.lower(*made.args).compile()
  memory, parsed = compiled.memory_analysis(), hlo.Program(compiled.as_text())
  backend = "jax-cuda13-plugin" if target == "h100" else "libtpu"
  versions = {part: metadata.version(part) for part in ("jax", backend)}
  return {
    "versions": {"Python": platform.python_version(), **versions},
    "arguments": memory.argument_size_in_bytes,
    "temporaries": memory.temp_size_in_bytes,
    "peak": memory.peak_memory_in_bytes,
    "loops": [_loop(loop, made.steps) for loop in parsed.loops()],
    "collectives": parsed.collectives(),
    "precisions": parsed.precisions(),
  }


def _loop(loop: hlo.Loop, steps: int) -> dict[str, Any]:
  # A body has several time steps where the loop is unrolled.
  in_body = steps // loop.trips if loop.trips else 1
  in_body = in_body if 1 < in_body <= _UNROLLED else 1
  return {**loop._asdict(), "steps": in_body}


def time_steps(row: dict[str, Any], backward: bool) -> str:
  """Returns the kernels, or the fusions and cycles, of a time step by layer."""
  cells, loops = [], row["loops"]
  for loop, after in zip_longest(loops, loops[1:], fillvalue={"depth": 0}):
    # Loops around others, and those that launch nothing, are no time steps.
    is_inner = loop["kernels"] and after["depth"] <= loop["depth"]
    steps = loop["steps"]
    if is_inner and loop["backward"] == backward:
      cells.append(
        f"{loop['fusions'] / steps:.3g} ({loop['cycles'] // steps:,})"
        if loop["cycles"]
        else f"{loop['kernels'] / steps:.3g}"
      )
  groups = [(cell, len([*same])) for cell, same in groupby(cells)]
  texts = (f"{n} x {cell}" if n > 1 else cell for cell, n in groups)
  return ", ".join(texts) or "-"


def cells(place: str, row: dict[str, Any]) -> list[str]:
  """Returns the cells of a row, by its target, config and program."""
  inside, outside = row["collectives"]
  sizes = (row[part] / 1e6 for part in ("arguments", "temporaries", "peak"))
  return [
    *place.split()[1:],
    *(f"{size:.1f}" for size in sizes),
    *(time_steps(row, backward) for backward in (False, True)),
    f"{inside} + {outside}",
  ]


def tables(rows: dict[str, Any]) -> str:
  """Returns the tables of the page."""
  waiting = [place for place, row in rows.items() if row["collectives"][0]]
  rounded = [p for p, row in rows.items() if {*row["precisions"]} - {"highest"}]
  parts = [
    f"Of {len(rows)} programs, {len(waiting)} have a collective in a loop, and"
    f" {len(rounded)} round a factor of a product."
  ]
  for target, title in TARGETS.items():
    some = {k: row for k, row in rows.items() if k.split()[0] == target}
    if some:
      versions = next(iter(some.values()))["versions"]
      lines = [cells(place, row) for place, row in some.items()]
      listed = ", ".join(map(" ".join, versions.items()))
      parts += [f"## {title}", f"{listed}.", table(_HEAD, lines)]
  return "\n\n".join(parts)


def run(targets: Iterable[str], configs: Iterable[str]):
  """Makes, keeps and prints rows, each target in a process of its own."""
  os.environ.update(_ENVIRONMENT)
  rows = json.loads(_KEPT.read_text("utf-8"))
  for target in targets:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
      for config in configs:
        for program in PROGRAMS:
          row = pool.submit(compile_row, target, config, program).result()
          if row:
            place = f"{target} {config} {program}"
            rows[place] = row
            print(place, *cells(place, row)[2:], sep=" | ", flush=True)
            write_records(_KEPT, rows)


def main(argv: list[str] | None = None):
  """Compiles, keeps and prints rows."""
  title, *_ = (__doc__ or "").split("\n")
  parser = argparse.ArgumentParser(description=title)
  parser.add_argument("--targets", default=",".join(TARGETS))
  parser.add_argument("--configs", default=",".join(CONFIGS))
  parser.add_argument("--write", action="store_true", help="make the tables")
  arguments = parser.parse_args(argv)
  run(arguments.targets.split(","), arguments.configs.split(","))
  if arguments.write:
    rows = json.loads(_KEPT.read_text("utf-8"))
    put(_PAGE, _MARKS, tables(rows))


if __name__ == "__main__":
  main()
