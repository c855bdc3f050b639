"""The tables of docs/accelerators.md, from the rows of ahead.py."""

from collections.abc import Iterable
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

TARGETS = {
  "v5e:1x1": "One TPU v5e chip",
  "v5e:2x2": "Four TPU v5e chips",
  "h100:1": "One H100",
  "h100:4": "Four H100",
}
PROGRAMS = (
  "train",
  "evaluate",
  "score",
  "predict",
  "sample",
  "sample_likely",
  "follow",
)
_MARKS = "<!-- made by benchmarks/ahead.py -->", "<!-- end of the tables -->"
_HEAD = (
  "config",
  "program",
  "arguments, MB",
  "temporaries, MB",
  "peak, MB",
  "forward",
  "backward",
  "collectives",
  "products, MFLOP",
)


def grouped(values: Iterable[str]) -> str:
  """Returns values in their order, equal neighbours once with their number."""
  groups = [(value, len([*same])) for value, same in groupby(values)]
  texts = (f"{n} x {value}" if n > 1 else value for value, n in groups)
  return ", ".join(texts) or "-"


def time_steps(row: dict[str, Any], backward: bool) -> str:
  """Returns the kernels, or the fusions and cycles, of a time step by layer."""
  found = []
  loops = row["loops"]
  for loop, after in zip_longest(loops, loops[1:], fillvalue={"depth": 0}):
    # Loops around others, and those that launch nothing, are no time steps.
    own = loop["kernels"] and after["depth"] <= loop["depth"]
    steps = loop["steps"]
    if own and loop["backward"] == backward:
      found.append(
        f"{loop['fusions'] / steps:.3g} ({loop['cycles'] // steps:,})"
        if loop["cycles"]
        else f"{loop['kernels'] / steps:.3g}"
      )
  return grouped(found)


def line(place: str, row: dict[str, Any]) -> str:
  """Returns a row of a table."""
  _, *config, program = place.split(" ")
  cells = [" ".join(config), program]
  if "error" in row:
    return f"| {' | '.join([*cells, row['error'], *['-'] * 6])} |"
  inside, outside = row["collectives"]
  cells += [
    f"{row[part] / 1e6:.1f}" for part in ("arguments", "temporaries", "peak")
  ]
  cells += [time_steps(row, False), time_steps(row, True)]
  cells += [f"{inside} + {outside}", f"{row['products'] / 1e6:,.1f}"]
  return f"| {' | '.join(cells)} |"


def summary(rows: dict[str, Any]) -> str:
  """Returns in one paragraph what holds for all rows, and what does not."""
  compiled = {k: row for k, row in rows.items() if "error" not in row}
  rounded = [
    place
    for place, row in compiled.items()
    if "model.products=" not in place and set(row["precisions"]) - {"highest"}
  ]
  faults = {
    "do not compile": set(rows) - set(compiled),
    "have a collective in a loop": {
      place for place, row in compiled.items() if row["collectives"][0]
    },
    "add floats in no fixed order": {
      place for place, row in compiled.items() if row["float_scatters"]
    },
    "round a factor of a product, with `model.products=float32`": rounded,
  }
  parts = [
    f"{len(places)} {fault}"
    + (f" ({', '.join(sorted(places))})" if places else "")
    for fault, places in faults.items()
  ]
  return f"Of {len(rows)} programs, {'; '.join(parts)}."


def tables(rows: dict[str, Any]) -> str:
  """Returns the tables of the page."""
  parts = [summary(rows)]
  for target, name in TARGETS.items():
    own = {k: row for k, row in rows.items() if k.startswith(f"{target} ")}
    if not own:
      continue
    used = sorted({", ".join(row_versions(row)) for row in own.values()})
    order = sorted(own, key=lambda place: _order(place.split(" ")))
    lines = [
      f"## {name}",
      "",
      f"{'; '.join(used)}.",
      "",
      f"| {' | '.join(_HEAD)} |",
      f"|{' --- |' * len(_HEAD)}",
      *(line(place, own[place]) for place in order),
    ]
    parts.append("\n".join(lines))
  return "\n\n".join(parts)


def row_versions(row: dict[str, Any]) -> list[str]:
  """Returns the versions of a row as text."""
  return [f"{name} {version}" for name, version in row["versions"].items()]


def _order(words: list[str]) -> tuple[Any, ...]:
  """Configs as they are come first, in the order of PROGRAMS."""
  _, config, *fields, program = words
  return len(fields), fields, config, PROGRAMS.index(program)


def write(rows: dict[str, Any], page: Path):
  """Replaces the tables of the page."""
  begin, end = _MARKS
  text = page.read_text("utf-8")
  head, _, rest = text.partition(begin)
  _, _, tail = rest.partition(end)
  made = f"{head}{begin}\n\n{tables(rows)}\n\n{end}{tail}"
  page.write_text(made, "utf-8")
