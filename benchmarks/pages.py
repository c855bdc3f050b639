"""Markdown tables, their places on pages, and what a figure depends on."""

import os
import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

_LIBRARIES = ("jax", "flax", "optax", "torch", "keras", "numpy", "optuna")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Returns a table."""
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def put(page: Path, marks: tuple[str, str], text: str):
  """Replaces the text between two marks of a page."""
  begin, end = marks
  head, _, after = page.read_text("utf-8").partition(begin)
  _, _, tail = after.partition(end)
  page.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", "utf-8")


def machine() -> str:
  """Returns the processor and the number of its cores."""
  fields: dict[str, str] = {}
  for line in Path("/proc/cpuinfo").read_text().splitlines():
    name, _, value = line.partition(":")
    fields.setdefault(name.strip(), value.strip())
  name = fields.get("model name", platform.machine())
  numbers = ", ".join(
    f"{field.removeprefix('cpu ')} {fields[field]}"
    for field in ("cpu family", "model")
    if field in fields
  )
  return f"{name}{f' ({numbers})' * bool(numbers)}, {os.cpu_count()} cores"


def versions() -> str:
  """Returns the versions of Python and of the libraries that are installed."""
  installed = [name for name in _LIBRARIES if find_spec(name)]
  return ", ".join(
    [f"Python {platform.python_version()}"]
    + [f"{name} {metadata.version(name)}" for name in installed]
  )
