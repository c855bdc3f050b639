"""Runs the tutorials and writes their outputs: docs/outputs.py [--check].

A page of docs/tutorials has blocks `sh` and `python`, which run one after the
other in docs/_build/tutorials. A block `text` directly after one of them has
its output. --check compares instead, with numbers masked; an output that
follows from the last bits of a training is a block `text varies`, which is not
compared.
"""

import ast
import contextlib
import difflib
import io
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "tutorials"
SCRATCH = ROOT / "docs" / "_build" / "tutorials"
LINKED = ("run.py", "configs", "experiments", "seqrnn", "benchmarks")
# A block that runs, and the block of its output, if there is one.
BLOCK = re.compile(
  r"^```(?P<kind>sh|python)\n(?P<code>.*?)^```\n"
  r"(?P<head>\n```text(?P<varies> varies)?\n)?(?(head)(?P<output>.*?)^```\n)",
  re.M | re.S,
)
PICTURE = re.compile(r"!\[[^]]*\]\(([\w-]+\.png)\)")


def run(kind: str, code: str, names: dict) -> str:
  """Returns what a block prints, and the value of its last expression."""
  if kind == "sh":
    done = subprocess.run(
      ["bash", "-eo", "pipefail", "-c", code],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    if done.returncode:
      sys.exit(f"{code}\n{done.stdout}")
    return done.stdout
  printed, tree = io.StringIO(), ast.parse(code)
  with contextlib.redirect_stdout(printed):
    last = tree.body[-1]
    value = None
    if isinstance(last, ast.Expr):
      tree.body.pop()
      exec(compile(tree, "tutorial", "exec"), names)
      value = eval(
        compile(ast.Expression(last.value), "tutorial", "eval"), names
      )
    else:
      exec(compile(tree, "tutorial", "exec"), names)
  return printed.getvalue() + (f"{value!r}\n" if value is not None else "")


def renewed(text: str, check: bool = False) -> str:
  """Runs the blocks of a page; returns it with their outputs.

  Args:
    text: the page.
    check: whether outputs that vary stay as they are.
  """
  names: dict = {"__name__": "__main__"}

  def replace(match: re.Match[str]) -> str:
    output = run(match["kind"], match["code"], names)
    if not match["head"] or (check and match["varies"]):
      return match[0]
    begin = match[0][: match.start("output") - match.start()]
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    return begin + "\n".join(lines) + "\n```\n"

  return BLOCK.sub(replace, text)


def masked(text: str) -> list[str]:
  """The lines of a page without its numbers."""
  return re.sub(r"\d[\d,.]*", "#", text).splitlines()


def main(page: Path, check: bool) -> None:
  """Runs one page in the folder of the tutorials."""
  old = page.read_text("utf-8")
  new = renewed(old, check)
  if not check:
    for name in PICTURE.findall(old):
      shutil.copy(next(SCRATCH.rglob(name)), PAGES / name)
    page.write_text(new, "utf-8")
  elif masked(old) != masked(new):
    sys.exit("\n".join(difflib.unified_diff(masked(old), masked(new))))


if __name__ == "__main__":
  arguments = sys.argv[1:]
  check = "--check" in arguments
  pages = [PAGES / f"{name}.md" for name in arguments if name != "--check"]
  if len(pages) == 1:
    main(pages[0], check)
    sys.exit()
  shutil.rmtree(SCRATCH, ignore_errors=True)
  SCRATCH.mkdir(parents=True)
  for name in LINKED:
    (SCRATCH / name).symlink_to(ROOT / name)
  # The python of a page's commands is this one; its figures are the CPU's.
  paths = str(Path(sys.executable).parent), os.environ["PATH"]
  environment = {
    **os.environ,
    "PATH": os.pathsep.join(paths),
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "MPLBACKEND": "agg",
    "COLUMNS": "80",
  }

  def start(page: Path):
    command = [sys.executable, "-m", "docs.outputs", page.stem]
    command += ["--check"] * check
    subprocess.run(command, cwd=SCRATCH, env=environment, check=True)

  with ThreadPoolExecutor(2) as pool:  # No page needs another one's runs.
    list(pool.map(start, sorted(PAGES.glob("*.md"))))
