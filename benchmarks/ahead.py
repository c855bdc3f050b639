"""Compiles the programs of all configs for TPUs and GPUs that need not be here.

  pip install -e '.[tpu]'     # for TPU v5e; x86_64 Linux, no TPU is needed
  pip install -e '.[cuda13]'  # for H100; 4.7 GB, no GPU is needed
  python benchmarks/ahead.py --targets=v5e:1x1 --configs=rnn,brnn --loops

No program is executed. A row has the figures of a program for a target, read
from what the target's compiler made of it. benchmarks/ahead.json keeps the rows
and --write makes the tables of docs/results/accelerators.md from them. A
program that does not compile is a row with its error. A row is kept while its
program and the compiler stay the same, so that an interrupted command can be
repeated, and a change compiles only what it changes. Compilation runs in a
process of its own, so that a crash of a compiler is an error of one row.
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import hlo
from ahead_page import CHANGES, PROGRAMS, TARGETS, line, tables
from pages import put

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
# The programs of every config on the page.
_EVERY = ("train", "evaluate", "score", "sample", "follow")
# Those of which all programs are compiled for H100.
_THREE = ("rnn", "brnn", "words")
_UNROLLED = 16  # Time steps of a loop's body, at most.


class Job(NamedTuple):
  """A program to compile.

  Attributes:
    target: of TARGETS.
    config: the name of a config.
    fields: `field=value`, which replace values of the config.
    program: of PROGRAMS.
  """

  target: str
  config: str
  fields: tuple[str, ...]
  program: str


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
  job: Job, kept: dict[str, Any], texts: str
) -> dict[str, Any] | None:
  """Returns the row of a program; None: the task has no such program.

  Args:
    job: the program.
    kept: its last row; {} compiles it.
    texts: a folder for the program's text; "": none is written.
  """
  try:
    import jax
    import programs

    jax.clear_caches()
    config, experiment = _experiment(job.config, job.fields)
    mesh = programs.compile_mesh(job.target)
    made = programs.PROGRAMS[job.program](config, experiment, mesh)
    if made is None:
      return None
    traced = made.function.trace(*made.args)
    lowered = traced.lower()
    same = {
      "checksum": zlib.crc32(lowered.as_text().encode()),
      "versions": versions(job.target),
    }
    if same.items() <= kept.items():
      return kept
    compiled = lowered.compile()
    text = compiled.as_text()
    if texts:
      Path(texts, f"{' '.join(_words(job))}.hlo").write_text(text)
    return {
      **same,
      "products": programs.product_operations(traced.jaxpr.jaxpr),
      **memory(compiled.memory_analysis()),
      **work(hlo.Program(text), made.steps),
    }
  except Exception as error:  # One failure is a row.
    traceback.print_exc()
    first = str(error).strip().split("\n")[0]
    return {"error": f"{type(error).__name__}: {first}"[:200]}


def _words(job: Job) -> list[str]:
  return [job.target, job.config, *job.fields, job.program]


def memory(found: Any) -> dict[str, int]:
  """Returns the bytes that a compiled program takes on each device."""
  return {
    "arguments": found.argument_size_in_bytes,
    "temporaries": found.temp_size_in_bytes,
    "peak": found.peak_memory_in_bytes,
  }


def work(program: hlo.Program, steps: tuple[int, int]) -> dict[str, Any]:
  """Returns what a row has of kernels, loops, collectives and precision.

  Args:
    program: the compiled program.
    steps: as in programs.Program.
  """
  loops = []
  for loop in program.loops():
    width = steps["/letters/" in loop.name]
    # A body has several time steps where the loop is unrolled.
    in_body = width // loop.trips if loop.trips else 1
    found = loop._asdict()
    found["steps"] = in_body if 1 < in_body <= _UNROLLED else 1
    loops.append(found)
  return {
    "loops": loops,
    "kernels": sum(count for _, count in program.launched(program.entry)),
    "collectives": program.collectives(),
    "float_scatters": program.float_scatters(),
    "precisions": program.precisions(),
  }


def versions(target: str) -> dict[str, str]:
  """Returns the versions of what compiles for a target."""
  backend = "libtpu" if target.startswith("v5e") else "jax-cuda13-plugin"
  found = {name: metadata.version(name) for name in ("jax", backend)}
  return {"Python": platform.python_version(), **found}


def run(jobs: Iterable[Job], store: Path, given: argparse.Namespace):
  """Makes, keeps and prints rows.

  Args:
    jobs: the programs.
    store: the file of the rows.
    given: the arguments of the command.
  """
  rows = read(store)
  pool: ProcessPoolExecutor | None = None
  before = None
  for job in jobs:
    place = " ".join(_words(job))
    kept = {} if given.again else rows.get(place, {})
    if pool is None or job.target != before:
      context = multiprocessing.get_context("spawn")
      pool = ProcessPoolExecutor(1, mp_context=context)
      before = job.target
    try:
      row = pool.submit(compile_row, job, kept, given.texts).result()
    except BrokenProcessPool:
      pool, row = None, {"error": "the compiler ended its process"}
    if row is None:
      rows.pop(place, None)
      continue
    rows[place] = {"versions": versions(job.target), **row}
    lines = json.dumps(rows, sort_keys=True).replace('}, "', '},\n"')
    store.write_text(f"{lines}\n")
    print(job.target, line(place, rows[place]), flush=True)
    for loop in rows[place].get("loops", []) if given.loops else []:
      print(f"  {loop}")


def read(store: Path) -> dict[str, Any]:
  """Returns the rows of a file, by target, config, fields and program."""
  return json.loads(store.read_text()) if store.exists() else {}


def jobs(given: argparse.Namespace) -> Iterator[Job]:
  """Yields the programs that the arguments name."""
  if given.page:
    yield from page_jobs()
    return
  sets = [tuple(given.set)]
  if given.cells:
    sets = [(*given.set, f"model.cell={cell}") for cell in given.cells]
  yield from _products(given.targets, given.configs, sets, given.programs)


def _products(
  targets: Iterable[str],
  configs: Iterable[str],
  sets: Iterable[tuple[str, ...]],
  programs: Iterable[str],
) -> Iterator[Job]:
  yield from map(Job._make, product(targets, configs, sets, programs))


def page_jobs() -> Iterator[Job]:
  """Yields the programs of docs/results/accelerators.md."""
  tpus, names = ["v5e:1x1", "v5e:2x2"], config_names()
  cells = [(f"model.cell={cell}",) for cell in _cells()]
  yield from _products(tpus, names, [()], _EVERY)
  yield from _products(tpus, ["rnn"], cells, ["train"])
  yield from _products(["h100:1"], names, [()], ["train"])
  yield from _products(["h100:1"], ["rnn"], cells, ["train"])
  yield from _products(["h100:1", "h100:4"], _THREE, [()], PROGRAMS)
  for change in CHANGES:
    for place in change.places:
      target, config, *fields, program = place.split(" ")
      yield Job(target, config, tuple(fields), program)


def _names(known: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
  """Returns a function that splits an argument into names; `all`: all."""

  def parse(text: str) -> list[str]:
    names = list(known())
    chosen = names if text == "all" else text.split(",")
    if unknown := [name for name in chosen if name not in names]:
      raise argparse.ArgumentTypeError(
        f"{unknown[0]!r} is none of {', '.join(names)}"
      )
    return chosen

  return parse


def _cells() -> Iterable[str]:
  from seqrnn.models.cells import CELLS  # This imports JAX.

  return CELLS


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the arguments of the command."""
  title, *_ = (__doc__ or "").split("\n")
  parser = argparse.ArgumentParser(description=title)
  add = parser.add_argument
  add("--targets", type=_names(lambda: TARGETS), default=list(TARGETS))
  add("--configs", type=_names(config_names), default=config_names())
  add("--cells", type=_names(_cells), help="each instead of the config's own")
  add("--programs", type=_names(lambda: PROGRAMS), default=["train"])
  add("--page", action="store_true", help="all programs of the page")
  add("--set", nargs="*", default=[], metavar="FIELD=VALUE")
  add("--store", type=Path, default=_KEPT)
  add("--again", action="store_true", help="keep no row")
  add("--loops", action="store_true", help="print each loop")
  add("--texts", default="", help="a folder for the programs' texts")
  add("--write", action="store_true", help="make the tables of the page")
  return parser.parse_args(argv)


def main(argv: list[str] | None = None):
  """Compiles, keeps and prints rows."""
  given = parse(argv)
  os.environ.update(_ENVIRONMENT)
  with tempfile.TemporaryDirectory() as folder:
    os.environ["XDG_CACHE_HOME"] = folder
    run(jobs(given), given.store, given)
  if given.write:
    put(_PAGE, _MARKS, tables(read(given.store)))


if __name__ == "__main__":
  main()
