"""Imports go one way: a module imports only from rooms below its own."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the lowest to the highest; a room imports from itself and those before.
ROOMS = (
  "seqrnn.errors",
  "seqrnn.table",
  "seqrnn.config",
  "seqrnn.config.suggestions",
  "seqrnn.runtime",
  "seqrnn.catalogue",
  "seqrnn.config.field",
  "seqrnn.config.rules",
  "seqrnn.config.fields",
  "configs.base",
  "seqrnn.config.recipes",
  "seqrnn.config.read",
  "seqrnn.config.resolve",
  "seqrnn.config.overrides",
  "seqrnn.config.warned",
  "seqrnn.config.command",
  "seqrnn.experiment",
  "seqrnn.data",
  "seqrnn.models",
  "seqrnn.scoring",
  "seqrnn.sampling",
  "seqrnn.training",
  "seqrnn.logs",
  "seqrnn.logs.detect",
  "seqrnn.logs.follow",
  "seqrnn.logs.spark",
  "seqrnn.searching",
  "seqrnn.reporting",
  "seqrnn.exporting",
  "seqrnn.modes",
  "seqrnn.calls",
  "configs",
  "experiments",
  "seqrnn.config.help",
  "seqrnn.program",
  "seqrnn.__main__",
  "run",
)
# Imports that run back up, as (module, room), each with its reason.
EXCEPTIONS: dict[tuple[str, str], str] = {
  ("seqrnn.config.fields.conditions", "seqrnn.models"): (
    "the names of cells are where cells are, and are read when a config is"
    " checked"
  ),
}
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
  return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str) -> str | None:
  """The room that a module is in; None: it is not one of the project."""
  parts = name.split(".")
  for end in range(len(parts), 0, -1):
    if (room := ".".join(parts[:end])) in ROOMS:
      return room
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


def test_a_module_imports_only_from_rooms_below():
  wrong = []
  for path in PATHS:
    name = module_of(path)
    if name == "seqrnn":
      continue
    room = room_of(name)
    assert room is not None, f"{name} is in no room"
    above = ROOMS[ROOMS.index(room) + 1 :]
    wrong += [
      f"{name} imports {module}"
      for module in imported(path)
      if (other := room_of(module)) in above and (name, other) not in EXCEPTIONS
    ]
  assert not wrong, "\n".join(wrong)


def test_the_exceptions_are_needed():
  for name, room in EXCEPTIONS:
    path = Path(*name.split(".")).with_suffix(".py")
    assert room in {room_of(module) for module in imported(path)}
