"""The scripts that documents name start as a user types them."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
  *ROOT.glob("*.md"),
  *ROOT.glob("docs/**/*.md"),
  ROOT / "benchmarks",
]
SCRIPT = r"(-m docs\.\w+|[\w/]+\.py)"
COMMAND = re.compile(rf"\bpython {SCRIPT}([^`#|\n\\]*)")
PARTS = (
  "hlo",
  "inference_models",
  "pages",
  "peers",
  "programs",
  "recipes",
  "speed_chart",
  "speed_page",
)
# Those of the extra `bench`, which tests do without.
OPTIONAL = {"torch", "keras", "pyspark", "sklearn_crfsuite"}


def commands():
  """The first command of each script, without what a shell would fill in."""
  found = {}
  for path in DOCUMENTS:
    path = path / "README.md" if path.is_dir() else path
    for script, rest in COMMAND.findall(path.read_text("utf-8")):
      arguments = rest if script.startswith("benchmarks/") else ""
      found.setdefault(script, f"{script} {arguments}")
  return found


COMMANDS = commands()
# As user types it: nothing of the tests' own search path.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}


def test_documents_name_all_benchmarks():
  scripts = {f"benchmarks/{p.name}" for p in ROOT.glob("benchmarks/*.py")}
  # Those that others start or import.
  parts = {f"benchmarks/{name}.py" for name in PARTS}
  assert scripts - parts <= set(COMMANDS) and "run.py" in COMMANDS


IMPORTS = """
import importlib.util, json, runpy, sys
path, missing = sys.path[1:], {}
for script, names in json.loads(sys.argv[1]).items():
  sys.path[:] = [script.rpartition("/")[0], *path]
  runpy.run_path(script, run_name="imported")
  none = [name for name in names if importlib.util.find_spec(name) is None]
  missing[script] = none
print(json.dumps(missing))
"""


@pytest.mark.slow
def test_all_that_a_script_imports_is_found():
  """Late imports, of a benchmark that runs, too."""
  wanted = {}
  for path in ROOT.glob("benchmarks/*.py"):
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
      if isinstance(node, ast.Import):
        names |= {alias.name for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        names.add(str(node.module))
    roots = {name.partition(".")[0] for name in names}
    if path.stem != "peers":
      wanted[str(path)] = sorted(roots - OPTIONAL)
  done = subprocess.run(
    [sys.executable, "-c", IMPORTS, json.dumps(wanted)],
    cwd=ROOT.parent,  # Nothing is found by where one happens to be.
    env=ENVIRONMENT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout) == {script: [] for script in wanted}
