"""A trained run as a line and as a table, with what is asked first."""

import html
from contextlib import suppress
from typing import Any

import jax

from seqrnn.data.vocabulary import RESERVED
from seqrnn.errors import UserError
from seqrnn.training.history import read_rows

_FIRST = 20  # Symbols of a vocabulary that a table names.


def line(run: Any) -> str:
  """A `Run` as a line."""
  found = [f"{name} {value}" for name, value in _facts(run).items()]
  return f"Run({run.workdir}: {', '.join(found)})"


def table(run: Any) -> str:
  """A `Run` as a table in HTML."""
  found = _facts(run)
  for name, v in run.experiment.vocabularies.items():
    first = " ".join(v.names(range(len(RESERVED), len(v)))[:_FIRST])
    found[name] += f": {first}" + " \u2026" * (len(v.symbols) > _FIRST)
  rows = "".join(
    f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
    for name, value in found.items()
  )
  caption = html.escape(str(run.workdir))
  return f"<table><caption>{caption}</caption>{rows}</table>"


def _facts(run: Any) -> dict[str, str]:
  count = sum(leaf.size for leaf in jax.tree.leaves(run.params))
  found = {
    "task": run.config.task,
    "step": f"{run.step:,}",
    "parameters": f"{count:,}",
  }
  for name, v in run.experiment.vocabularies.items():
    found[name] = f"{len(v.symbols):,}"
  with suppress(UserError):  # A table that is damaged takes nothing away.
    for row in read_rows(run.workdir / "metrics.csv"):
      if int(row["step"]) == run.step:
        for name, value in row.items():
          if name.startswith("validation_"):
            found[name.replace("_", " ")] = f"{float(value):.4f}"
  return found
