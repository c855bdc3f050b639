"""Sections of a report on the fields of the configuration."""

import re
from typing import Any

from seqrnn.reporting import page
from seqrnn.reporting.page import Child, Element, element, section
from seqrnn.settings import config as config_lib
from seqrnn.settings.config import Config


def settings(runs: dict[str, Config]) -> Element:
  """Fields that differ from the defaults, or between several runs."""
  base = config_lib.defaults()
  columns = {name: config_lib.flat(config) for name, config in runs.items()}
  several = len(runs) > 1
  if base is not None:
    columns["default"] = config_lib.flat(base)
  compared = [columns[name] for name in runs] if several else columns.values()

  def differs(field: str) -> bool:
    values = [own.get(field) for own in compared]
    return len(values) == 1 or any(value != values[0] for value in values)

  fields = {field for name in runs for field in columns[name]}
  rows = [
    [_breakable(field), *(_text(own.get(field)) for own in columns.values())]
    for field in sorted(fields)
    if differs(field)
  ]
  title = "Fields that differ" if several else "Configuration"
  if not rows:
    return section(title, element("p", "No field differs."))
  words = (
    "Fields that differ between the runs."
    if several
    else "Fields that differ from the defaults in configs/base.py."
  )
  names = [*runs] if several else ["this run"]
  return section(
    title,
    element("p", words),
    page.table(
      ["field", *names, *(["default"] if base is not None else [])],
      rows,
      words.removesuffix("."),
      "fields",
    ),
  )


def _breakable(name: str) -> Child:
  """A dotted name that may be broken after each dot."""
  parts = re.findall(r"[^.]*\.|[^.]+", name)
  return [[part, element("wbr")] for part in parts]


def _text(value: Any) -> str:
  if isinstance(value, tuple):
    return ", ".join(map(_text, value))
  if isinstance(value, bool) or value is None:
    return str(value).lower()
  return page.text(value)
