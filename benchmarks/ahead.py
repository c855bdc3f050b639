"""Compiles every program for TPUs and GPUs that need not be here.

  pip install -e '.[tpu]'     # TPU v5e; x86_64 Linux, no TPU needed
  pip install -e '.[cuda13]'  # H100; 4.7 GB, no GPU needed
  python benchmarks/ahead.py --targets=v5e:1x1 --configs=rnn,brnn --loops

Nothing is executed on a device. A row is the program of a config for a target,
read from what XLA and libtpu made of it. benchmarks/ahead.json keeps the rows;
docs/accelerators.md is renewed from it with --write. Rows that are there are
not compiled again without --again, so that an interrupted run is resumed, and
a program that fails is a row with its error. Each target is compiled in a
process of its own, which a crash of a compiler ends alone.
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import traceback
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

import hlo

_ROOT = Path(__file__).resolve().parents[1]
_KEPT = _ROOT / "benchmarks" / "ahead.json"
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
TARGETS = ("v5e:1x1", "v5e:2x2", "h100:1", "h100:4")
PROGRAMS = ("train", "evaluate", "score", "sample", "follow")
Job = tuple[str, str, tuple[str, ...], str]  # As `compile_row` takes them.


def config_names() -> list[str]:
  """Returns the names of all configs."""
  return sorted(path.stem for path in (_ROOT / "configs").glob("*.py"))


@lru_cache
def _experiment(name: str, fields: tuple[str, ...]) -> tuple[Any, Any]:
  """Returns a config and its experiment."""
  import programs  # This imports JAX.

  import experiments

  folder = Path(os.environ["XDG_CACHE_HOME"])
  given = dict(field.split("=", 1) for field in fields)
  config = programs.read_config(name, given, folder)
  return config, experiments.build(config, None)


def compile_row(
  target: str, name: str, fields: tuple[str, ...], program: str, texts: str
) -> dict[str, Any] | None:
  """Returns the row of a program; None: the task has no such program.

  Args:
    target: of TARGETS.
    name: of the config.
    fields: `field=value`, which replace values of the config.
    program: of PROGRAMS.
    texts: a folder for the program's text; "": none is written.
  """
  try:
    import jax
    import programs

    jax.clear_caches()
    config, experiment = _experiment(name, fields)
    mesh = programs.compile_mesh(target)
    made = programs.PROGRAMS[program](config, experiment, mesh)
    if made is None:
      return None
    traced = made.function.trace(*made.args)
    compiled = traced.lower().compile()
    text = compiled.as_text()
    if texts:
      file = "-".join([target.replace(":", "_"), name, *fields, program])
      Path(texts, f"{file}.hlo").write_text(text)
    return {
      "products": programs.product_operations(traced.jaxpr.jaxpr),
      **_memory(compiled.memory_analysis()),
      **_work(hlo.Program(text), made.steps),
    }
  except Exception as error:  # One failure is a row.
    traceback.print_exc()
    first = str(error).strip().split("\n")[0]
    return {"error": f"{type(error).__name__}: {first}"[:200]}


def _memory(found: Any) -> dict[str, int]:
  return {
    "arguments": found.argument_size_in_bytes,
    "temporaries": found.temp_size_in_bytes,
    "peak": found.peak_memory_in_bytes,
  }


def _work(program: hlo.Program, steps: tuple[int, int]) -> dict[str, Any]:
  """Returns what a row says of loops and collectives."""
  inside, outside = program.collectives()
  loops = [loop._asdict() for loop in program.loops()]
  for loop in loops:
    width = steps["letters" in loop["name"]]
    trips = loop["trips"]
    # A body may have several time steps, with `unroll`.
    unrolled = width // trips if trips and width // trips <= 16 else 1
    loop["steps"] = max(1, unrolled)
  kernels = sum(count for _, count in program.launched(program.entry))
  return {
    "loops": loops,
    "kernels": kernels,
    "collectives": [inside, outside],
    "float_scatters": program.float_scatters(),
  }


def key(target: str, name: str, fields: tuple[str, ...], program: str) -> str:
  """Returns the name of a row in the store."""
  return " ".join([target, name, *fields, program])


def versions(target: str) -> dict[str, str]:
  """Returns the versions of what compiled for a target."""
  backend = "libtpu" if target.startswith("v5e") else "jax-cuda13-plugin"
  found = {name: metadata.version(name) for name in ("jax", backend)}
  return {"python": platform.python_version(), **found}


def run(jobs: list[Job], store: Path, again: bool, texts: str, loops: bool):
  """Compiles the jobs that have no row, and keeps each row once it is made."""
  kept = json.loads(store.read_text()) if store.exists() else {}
  context = multiprocessing.get_context("spawn")
  pool: ProcessPoolExecutor | None = None
  before = None
  for job in jobs:
    place = key(*job)
    if again or "error" in kept.get(place, {"error": ""}):
      if pool is None or job[0] != before:
        pool = ProcessPoolExecutor(1, mp_context=context)
        before = job[0]
      try:
        row = pool.submit(compile_row, *job, texts).result()
      except BrokenProcessPool:
        pool, row = None, {"error": "the compiler ended its process"}
      if row is None:  # The task has no such program.
        continue
      kept[place] = {**row, "versions": versions(job[0])}
      store.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print(f"| {' | '.join(cells(place, kept[place]))} |", flush=True)
    for loop in kept[place].get("loops", []) if loops else []:
      print(f"  {loop}")


def grouped(values: list[str]) -> str:
  """Returns values in their order, equal neighbours once with their number."""
  groups = [(value, len([*same])) for value, same in groupby(values)]
  return ", ".join(
    f"{count} x {value}" if count > 1 else value for value, count in groups
  )


def time_step(loop: dict[str, Any], tpu: bool) -> str:
  """Returns the kernels, or the fusions and cycles, of one time step."""
  if not tpu:
    return f"{loop['kernels'] / loop['steps']:.3g}"
  return f"{loop['fusions']} ({loop['cycles']:,})"


def cells(place: str, row: dict[str, Any]) -> list[str]:
  """Returns the cells of a row of the table."""
  _, name = place.split(" ", 1)
  if "error" in row:
    return [name, row["error"]]
  tpu = "libtpu" in row["versions"]
  inside, outside = row["collectives"]
  # The outer loop of a sample has one inner loop, whose body is a time step.
  own = [loop for loop in row["loops"] if loop["kernels"]]
  forward, backward = (
    grouped(
      [time_step(x, tpu) for x in own if ("transpose(" in x["name"]) == back]
    )
    for back in (False, True)
  )
  megabytes = (
    f"{row[part] / 1e6:.1f}" for part in ("arguments", "temporaries", "peak")
  )
  return [
    name,
    *megabytes,
    forward or "-",
    backward or "-",
    str(row["kernels"]),
    f"{inside} + {outside}",
    f"{row['products'] / 1e9:.2f}",
  ]


def main(argv: list[str] | None = None):
  """Compiles, keeps and prints rows."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  names = lambda text: text.split(",")
  parser.add_argument("--targets", type=names, default=list(TARGETS))
  parser.add_argument("--programs", type=names, default=["train"])
  parser.add_argument("--configs", type=names, default=config_names())
  parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
  parser.add_argument("--store", type=Path, default=_KEPT)
  parser.add_argument("--again", action="store_true")
  parser.add_argument("--loops", action="store_true", help="print each loop")
  parser.add_argument("--texts", default="", help="a folder for programs")
  given = parser.parse_args(argv)
  os.environ.update(_ENVIRONMENT)
  with tempfile.TemporaryDirectory() as folder:
    os.environ["XDG_CACHE_HOME"] = folder
    jobs = [
      (target, name, tuple(given.set), program)
      for target in given.targets
      for name in given.configs
      for program in given.programs
    ]
    run(jobs, given.store, given.again, given.texts, given.loops)


if __name__ == "__main__":
  main()
