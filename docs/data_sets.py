"""Makes the table of data sets in reference/data_sets.md: docs/data_sets.py."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))

from seqrnn import catalogue  # noqa: E402
from seqrnn.catalogue import DataSet  # noqa: E402
from seqrnn.runtime import files  # noqa: E402

PAGE = _ROOT / "docs" / "reference" / "data_sets.md"
_HEAD = "| `data.source` | data | splits | MB | terms | cite | files |\n"


def splits(known: DataSet) -> str:
  """The origin of the splits in words."""
  if known.is_music or "validation" in known.files:
    return "published"
  if "all" in known.files:
    return "`data.split`"
  if known.every:
    return f"published; every {known.every}th of training validates"
  return "published; `data.split` takes validation from training"


def size(known: DataSet) -> float:
  """The MB of all files."""
  distinct = {file for some in known.files.values() for file in some}
  return sum(file.size for file in distinct) / 1e6


def row(alike: list[DataSet]) -> str:
  """The row of sets that differ in their names and sizes."""
  known = alike[0]
  sizes = [f"{size(one):.1f}" for one in alike]
  tree = f"https://github.com/{known.repository}/tree/{known.commit}"
  place = f"[{known.repository}]({tree})"
  if known.page:
    place = f"[put there by you]({known.page})"
  cells = (
    ", ".join(f"`{one.name}`" for one in alike),
    known.what,
    splits(known),
    "-".join(sorted({min(sizes, key=float), max(sizes, key=float)}, key=float)),
    known.terms,
    known.cite,
    place,
  )
  return f"| {' | '.join(cells)} |\n"


def table() -> str:
  """The whole table."""
  line = f"|{' --- |' * (_HEAD.count('|') - 1)}\n"
  rows: dict[tuple[str, str], list[DataSet]] = {}
  for known in catalogue.sets().values():
    rows.setdefault((known.what, known.repository), []).append(known)
  return _HEAD + line + "".join(map(row, rows.values()))


def page(old: str) -> str:
  """A page with the table in the place of its old one."""
  before, _, tail = old.partition(_HEAD)
  after = tail[tail.index("\n\n") :]
  return f"{before}{table()}{after[1:]}"


if __name__ == "__main__":
  content = page(PAGE.read_text("utf-8"))
  with files.atomic_write(PAGE) as file:
    file.write(content)
