"""The tables and the chart of speed, from the figures of all.py.

A part has rows by case. A row has `seconds`, by library the seconds of every
round for `symbols` symbols. The name of a library may be followed by its type
and its number of threads: "PyTorch, bfloat16, 1 thread".
"""

import statistics
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pages import table

OURS = "seqrnn"
TYPES = ("float32", "bfloat16")
# Load of other programs, in cores, above which a part is marked.
QUIET = 0.1
_SLOWER = 1.5  # A number of threads that is slower by this is left out.
Row = dict[str, Any]


class Ratio(NamedTuple):
  """The time of the best other library relative to seqrnn's.

  Attributes:
    peer: the library.
    median: the ratio of the medians.
    least: the smallest ratio of a round, whichever library is best in it.
    most: the largest.
  """

  peer: str
  median: float
  least: float
  most: float


def variants(row: Row, products: str) -> dict[str, str]:
  """Returns the names of the libraries in a type, with their best threads."""
  fastest: dict[str, str] = {}
  for name, times in row["seconds"].items():
    words = name.split(", ")
    if ("bfloat16" in words) != (products == "bfloat16"):
      continue
    parts = [w for w in words if w != "bfloat16" and "thread" not in w]
    library = ", ".join(parts)
    best = row["seconds"].get(fastest.get(library), times)
    if statistics.median(times) <= statistics.median(best):
      fastest[library] = name
  return fastest


def series(row: Row, products: str) -> dict[str, list[float]]:
  """Returns the seconds of the libraries in a type, with their best threads."""
  fastest = variants(row, products)
  return {library: row["seconds"][name] for library, name in fastest.items()}


def slower(seconds: dict[str, float]) -> list[str]:
  """Returns the libraries that are faster with another number of threads."""
  names = []
  for name, time in seconds.items():
    library, _, threads = name.rpartition(", ")
    if "thread" in threads:
      same = [s for n, s in seconds.items() if n.rpartition(", ")[0] == library]
      names += [name] * (time > _SLOWER * min(same))
  return names


def ratio(row: Row, products: str) -> Ratio | None:
  """Returns the ratio to the best peer in the same type, if there is one."""
  times = series(row, products)
  peers = {n: times for n, times in times.items() if not n.startswith(OURS)}
  if not peers or OURS not in times:
    return None
  best = min(peers, key=lambda name: statistics.median(peers[name]))
  pairs = [
    min(theirs) / ours
    for ours, *theirs in zip(times[OURS], *peers.values(), strict=True)
  ]
  medians = [statistics.median(times[name]) for name in (best, OURS)]
  return Ratio(best, medians[0] / medians[1], min(pairs), max(pairs))


def short(value: float) -> str:
  """Returns a number with three digits, or without a fraction."""
  return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def comparison(
  rows: dict[str, Row],
  products: str,
  head: str,
  show: Callable[[Row, float], str],
) -> str:
  """Returns a table of all libraries in a type.

  Args:
    rows: the figures by case.
    products: of TYPES.
    head: the head of the first column.
    show: what a cell has of a row and its seconds.
  """
  rows = {case: r for case, r in rows.items() if OURS in series(r, products)}
  every = [name for row in rows.values() for name in variants(row, products)]
  others = [name for name in dict.fromkeys(every) if name != OURS]
  heads = [head, OURS, *others, "best peer (rounds)"]
  lines = [
    [case, *_cells(row, products, others, show)] for case, row in rows.items()
  ]
  # The ceiling is that of products in float32.
  if products == "float32" and all("products" in r for r in rows.values()):
    heads.append("products")
    for line, row in zip(lines, rows.values(), strict=True):
      middle = statistics.median(series(row, products)[OURS])
      line.append(f"{row['products'] / middle:.0%}")
  if all("peak" in row for row in rows.values()):
    heads.append("MB, in this order")
    for line, row in zip(lines, rows.values(), strict=True):
      names = variants(row, products)
      chosen = [row["peak"].get(names.get(n, n), "-") for n in (OURS, *others)]
      line.append(" / ".join(map(str, chosen)))
  return table(heads, lines)


def _cells(
  row: Row, products: str, others: list[str], show: Callable[[Row, float], str]
) -> list[str]:
  """Returns the cells of the libraries, and of the ratio to the best peer."""
  medians = {n: statistics.median(t) for n, t in series(row, products).items()}
  cells = [show(row, medians[OURS])]
  for name in others:
    cell = "-"
    if name in medians:
      cell = (
        f"{show(row, medians[name])} ({medians[name] / medians[OURS]:.2f}x)"
      )
      if medians[name] < medians[OURS] and not name.startswith(OURS):
        cell = f"**{cell}**"
    cells.append(cell)
  best = ratio(row, products)
  if not best:
    return [*cells, "-"]
  shown = f"{best.median:.2f}x ({best.least:.2f}-{best.most:.2f})"
  return [*cells, f"**{shown}**" if best.median < 1 else shown]


_milliseconds = lambda _, seconds: short(1e3 * seconds)
# Other parts have the table that a script makes.
_TABLES = {
  "training": ("ms a step", _milliseconds),
  "inference": ("symbols a second", lambda r, s: f"{r['symbols'] / s:,.0f}"),
  "cells": ("ms a layer", _milliseconds),
}
TITLES = {
  "training": "A training step",
  "inference": "Sampling and scoring",
  "cells": "Layers of linear and matrix-state cells",
  "startup": "Start-up time",
}


def about(record: dict[str, Any]) -> str:
  """Returns when and how a part was measured, bold if others disturbed it."""
  facts = record["about"]
  load = (
    f"other programs used {facts['others']:.2f} cores, and the load average"
    f" before it was {facts['load']:.1f}"
  )
  if facts["others"] > QUIET:
    load = f"**disturbed: {load}**"
  rounds = f"{facts['rounds']} rounds, " if facts["rounds"] > 1 else ""
  return f"Commit {facts['commit']}, {facts['date']}; {rounds}{load}."


def part(name: str, record: dict[str, Any]) -> str:
  """Returns the tables of a part."""
  if "text" in record:
    return record["text"]
  head, show = _TABLES[name]
  return "\n\n".join(
    comparison(record["rows"], products, f"{head}, {products}", show)
    for products in TYPES
    if any(ratio(row, products) for row in record["rows"].values())
  )


def printed(name: str, measured: Iterable[tuple[str, Row]]) -> dict[str, Row]:
  """Returns the rows of a part by case; prints each when it is measured."""
  rows = {}
  for case, row in measured:
    rows[case] = row
    print(part(name, {"rows": {case: row}}), flush=True)
  return rows


def tables(machines: dict[str, Any]) -> str:
  """Returns the tables of all machines."""
  parts = []
  for machine, records in machines.items():
    used = sorted({r["about"]["versions"] for r in records.values()})
    parts.append(f"## {machine}\n\n{'; '.join(used)}.")
    for name, title in TITLES.items():
      if name in records:
        record = records[name]
        parts += [f"### {title}", about(record), part(name, record)]
  return "\n\n".join(parts)


def newest(machines: dict[str, Any]) -> str:
  """Returns the machine whose training was measured last."""
  trained = [name for name in machines if "training" in machines[name]]
  return max(trained, key=lambda m: machines[m]["training"]["about"]["date"])
