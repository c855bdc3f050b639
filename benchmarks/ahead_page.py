"""The tables of docs/results/accelerators.md, from the rows of ahead.py."""

from collections.abc import Iterable
from itertools import groupby, zip_longest
from typing import Any, NamedTuple

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


class Change(NamedTuple):
  """A program that was compiled before its loops were made leaner.

  Attributes:
    target: of TARGETS.
    fields: `field=value`, which replace values of configs/rnn.py.
    program: of PROGRAMS.
    rounded: the `model.products` that rounds as JAX did by default.
    before: the figures of commit cb33566, as `figures` gives them.
  """

  target: str
  fields: tuple[str, ...]
  program: str
  rounded: str
  before: str

  @property
  def places(self) -> tuple[str, str]:
    """The rows whose products are rounded as before, and exact."""
    fields = *self.fields, f"model.products={self.rounded}"
    rounded = self.target, "rnn", *fields, self.program
    return " ".join(rounded), " ".join([*rounded[:-2], self.program])


_LARGE = "model.hidden_size=512", "train.batch_size=128"
_NORM = ("model.cell=layer_norm_lstm",)
CHANGES = (
  Change("h100:1", (), "train", "tf32", "2 x 10 + 2 x 5"),
  Change(
    "v5e:1x1", (), "train", "bfloat16", "28,010: 2 x 4 (5,997) + 2 x 5 (8,008)"
  ),
  Change(
    "v5e:1x1",
    _LARGE,
    "train",
    "bfloat16",
    "87,857: 4 (16,616), 4 (17,149) + 5 (25,980), 5 (28,112)",
  ),
  Change(
    "v5e:1x1",
    _NORM,
    "train",
    "bfloat16",
    "141,274: 2 x 13 (22,909) + 24 (46,487), 24 (48,969)",
  ),
  Change("h100:1", _NORM, "train", "tf32", "2 x 17 + 2 x 23"),
  Change("h100:1", (), "sample_likely", "tf32", "18"),
)
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


def figures(row: dict[str, Any]) -> str:
  """Returns the figures of a time step, after the sum of the cycles if any."""
  passes = [time_steps(row, backward) for backward in (False, True)]
  cycles = sum(loop["cycles"] // loop["steps"] for loop in row["loops"])
  text = " + ".join(found for found in passes if found != "-")
  return f"{cycles:,}: {text}" if cycles else text


def changes(rows: dict[str, Any]) -> str:
  """Returns the table of CHANGES, as far as it has rows."""
  lines = [
    "| program | before | now, rounded as before | now, exact |",
    "| --- | --- | --- | --- |",
  ]
  for change in CHANGES:
    if all(place in rows for place in change.places):
      rounded, exact = (figures(rows[place]) for place in change.places)
      named = change.places[1]
      lines.append(f"| {named} | {change.before} | {rounded} | {exact} |")
  return "\n".join(lines)


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
      place
      for place, row in compiled.items()
      if row["float_scatters"] and place.startswith("h100")
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
  parts = [summary(rows), "## Before and after", changes(rows)]
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
