"""Imports go one way: a module imports only from rooms below its own."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the lowest to the highest; a room imports from itself and those before.
ROOMS = (
  ("seqrnn.errors",),
  ("seqrnn.runtime",),
  ("seqrnn.config", "seqrnn.catalogue"),
  ("seqrnn.configs",),
  ("seqrnn.data",),
  ("seqrnn.experiment",),
  ("seqrnn.models",),
  ("seqrnn.scoring", "seqrnn.sampling"),
  ("seqrnn.experiments",),
  ("seqrnn.training",),
  ("seqrnn.logs", "seqrnn.table"),
  ("seqrnn.searching", "seqrnn.reporting", "seqrnn.exporting"),
  ("seqrnn.modes",),
  ("seqrnn.run",),
  ("seqrnn.cli", "seqrnn.usage", "seqrnn.api", "seqrnn.__main__", "run"),
  ("seqrnn.estimators",),
)
# An import that runs back up: the names of cells are where cells are, and are
# read when a config is checked.
EXCEPTION = "seqrnn.config.fields.conditions", "seqrnn.models.cells.CELLS"
PATHS = sorted(
  path.relative_to(ROOT)
  for pattern in (
    "seqrnn/**/*.py",
    "experiments/*.py",
    "configs/*.py",
    "run.py",
  )
  for path in ROOT.glob(pattern)
)


def module_of(path: Path) -> str:
  """The dotted name of a file."""
  name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
  inside = path.parts[0] in ("configs", "experiments")
  return f"seqrnn.{name}" if inside else name


def room_of(name: str) -> int | None:
  """The number of the room of a module; None: it is not of the project."""
  parts = name.split(".")
  for end in range(len(parts), 0, -1):
    for number, room in enumerate(ROOMS):
      if ".".join(parts[:end]) in room:
        return number
  return None


def imported(path: Path) -> set[str]:
  """The modules that a file imports, wherever in it."""
  found = set()
  for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      found |= {f"{node.module}.{alias.name}" for alias in node.names}
  return found


def test_what_any_sequence_needs_knows_nothing_of_logs():
  known = [
    (str(path), module)
    for path in PATHS
    if path.parts[:2] == ("seqrnn", "models")
    or path.parts[:2] == ("seqrnn", "training")
    or path.name in ("vocabulary.py", "documents.py")
    for module in sorted(imported(path))
    if module.startswith(("seqrnn.data.logs", "seqrnn.logs"))
  ]
  # The lines about a log that training prints are still in the loop.
  allowed = "seqrnn/training/train.py"
  assert [one for one in known if one[0] != allowed] == []


def test_a_module_imports_only_from_rooms_below():
  upwards = []
  for path in PATHS:
    name = module_of(path)
    room = room_of(name)
    assert name == "seqrnn" or room is not None, f"{name} is in no room"
    if room is not None:
      upwards += [
        (name, module)
        for module in sorted(imported(path))
        if (other := room_of(module)) is not None and other > room
      ]
  assert upwards == [EXCEPTION]
