"""Sixty faults, put into a copy of the sources one at a time: do tests fail?

  python tests/mutants.py [NUMBER ...]

Each mutant of mutants.toml replaces a text that occurs once in seqrnn/,
experiments/ and configs/, in whichever file. First the tests named in `hints`
run, which are expected to fail; if they pass, README's test command decides.
The exit status is 1 if fewer than 57 mutants, or fewer than all of the numbers,
are killed.

A mutant is gone if its text has changed. Whoever changed that line writes the
same fault for the new line.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = "seqrnn", "experiments", "configs"
NOT_COPIED = ".git", ".venv", "__pycache__", ".*_cache", "runs", "_build"
ENOUGH = 57
TABLE = Path(__file__).with_suffix(".toml")  # Of the mutants.
PYTEST = sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"
LIMIT = 3600  # Seconds of a test run; a mutant that never ends is killed.


class Mutant(NamedTuple):
  """A fault.

  Attributes:
    name: the behaviour of the faulty program.
    old: the text that is replaced.
    new: its replacement.
    hints: names of test functions that fail, separated by spaces.
  """

  name: str
  old: str
  new: str
  hints: str


MUTANTS = [
  Mutant(**one) for one in tomllib.loads(TABLE.read_text("utf-8"))["mutant"]
]


def place_of(old: str) -> Path | None:
  """The one file of the sources with a text; None: there is none."""
  files = (path for name in SOURCES for path in (ROOT / name).rglob("*.py"))
  counts = {path: path.read_text("utf-8").count(old) for path in files}
  places = [path for path, count in counts.items() if count]
  if sum(counts.values()) > 1:
    raise SystemExit(
      f"{old!r}: is more than once in {', '.join(map(str, places))}"
    )
  return places[0] if places else None


def tests_of(hints: str) -> list[str]:
  """The tests of these names, as pytest takes them."""
  return [
    f"{path.relative_to(ROOT).as_posix()}::{name}"
    for path in sorted((ROOT / "tests").rglob("test_*.py"))
    for name in hints.split()
    if re.search(rf"^def {name}\(", path.read_text("utf-8"), re.MULTILINE)
  ]


def failure(copy: Path, *arguments: str) -> str | None:
  """The first test that fails in the copy; None: all pass."""
  # Programs of XLA are compiled once for all mutants; caches of data, which
  # depend on the sources, are not shared.
  environment = {
    **os.environ,
    "PYTHONPATH": str(copy),  # Before an editable installation.
    "PYTHONDONTWRITEBYTECODE": "1",
    "JAX_COMPILATION_CACHE_DIR": str(copy.parent / "programs"),
  }
  command = [*PYTEST, *arguments]
  try:
    done = subprocess.run(
      command, cwd=copy, env=environment, capture_output=True, timeout=LIMIT
    )
  except subprocess.TimeoutExpired:
    return f"no end after {LIMIT} seconds"
  if done.returncode == 0:
    return None
  lines = done.stdout.decode("utf-8", "replace").splitlines()
  failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
  return (failed or lines[-1:] or ["no test begins"])[0].split(" - ")[0]


def tried(mutant: Mutant, copy: Path) -> str:
  """`killed` by a test, `survived` or `gone`."""
  source = place_of(mutant.old)
  if source is None:
    return "gone"
  target = copy / source.relative_to(ROOT)
  text = source.read_text("utf-8")
  target.write_text(text.replace(mutant.old, mutant.new), "utf-8")
  try:
    tests = tests_of(mutant.hints)
    killed = failure(copy, *tests) if tests else None
    killed = killed or failure(copy, "-n", "2")
  finally:
    target.write_text(text, "utf-8")
  return f"killed    {killed}" if killed else "survived"


def main():
  """Tries the mutants, and prints a line for each."""
  title = (__doc__ or "").split("\n")[0]
  parser = argparse.ArgumentParser(description=title)
  parser.add_argument("numbers", nargs="*", type=int, metavar="N")
  numbers = parser.parse_args().numbers or range(1, len(MUTANTS) + 1)
  chosen = [(n, MUTANTS[n - 1]) for n in numbers]
  with tempfile.TemporaryDirectory() as folder:
    copy = Path(folder) / "copy"
    copytree(ROOT, copy, ignore=ignore_patterns(*NOT_COPIED), symlinks=True)
    tests = tests_of(" ".join({mutant.hints: None for _, mutant in chosen}))
    if fault := failure(copy, *dict.fromkeys(tests)):
      raise SystemExit(f"without any mutant: {fault}")
    results = []
    for n, mutant in chosen:
      results.append(tried(mutant, copy))
      print(f"{n:2}  {mutant.name}\n    {results[-1]}", flush=True)
  count = {
    word: sum(result.startswith(word) for result in results)
    for word in ("killed", "survived", "gone")
  }
  print(", ".join(f"{number} {word}" for word, number in count.items()))
  sys.exit(count["killed"] < min(ENOUGH, len(chosen)))


if __name__ == "__main__":
  main()
