"""Makes the table of public data sets in howto/data.md: docs/data_sets.py."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))

from seqrnn import catalogue  # noqa: E402
from seqrnn.catalogue import DataSet  # noqa: E402
from seqrnn.runtime import files  # noqa: E402

PAGE = _ROOT / "docs" / "howto" / "data.md"
_HEAD = "| `data.source` | data | splits | MB | terms | cite | files |\n"


def splits(found: DataSet) -> str:
  """The origin of the splits in words."""
  if found.is_music or "validation" in found.files:
    return "published"
  if "all" in found.files:
    return "`data.split`"
  if found.every:
    return f"published; every {found.every}th of training validates"
  return "published; `data.split` takes validation from training"


def size(found: DataSet) -> float:
  """The MB of all files."""
  distinct = {file for some in found.files.values() for file in some}
  return sum(file.size for file in distinct) / 1e6


def row(alike: list[DataSet]) -> str:
  """The row of sets that differ in their names and sizes."""
  found = alike[0]
  sizes = [f"{size(one):.1f}" for one in alike]
  tree = f"https://github.com/{found.repository}/tree/{found.commit}"
  place = f"[{found.repository}]({tree})"
  if found.page:
    place = f"[put there by you]({found.page})"
  cells = (
    ", ".join(f"`{one.name}`" for one in alike),
    found.what,
    splits(found),
    "-".join(sorted({min(sizes, key=float), max(sizes, key=float)}, key=float)),
    found.terms,
    found.cite,
    place,
  )
  return f"| {' | '.join(cells)} |\n"


def table() -> str:
  """The whole table."""
  line = f"|{' --- |' * (_HEAD.count('|') - 1)}\n"
  rows: dict[tuple[str, str], list[DataSet]] = {}
  for found in catalogue.sets().values():
    rows.setdefault((found.what, found.repository), []).append(found)
  return _HEAD + line + "".join(map(row, rows.values()))


def page(old: str) -> str:
  """A page with the table in the place of its old one."""
  before, _, rest = old.partition(_HEAD)
  after = rest[rest.index("\n\n") :]
  return f"{before}{table()}{after[1:]}"


if __name__ == "__main__":
  made = page(PAGE.read_text("utf-8"))
  with files.atomic_write(PAGE) as file:
    file.write(made)
