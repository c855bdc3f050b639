"""What parts of files say about each other, once all of them are read."""

import json
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from seqrnn.data.logs import entries, formats, logs, rotation
from seqrnn.data.logs.entries import Entry, Seen
from seqrnn.data.logs.formats import Parts
from seqrnn.logs.spark.parse import Part, Plan
from seqrnn.logs.spark.score import Span

# What is known of a part when all parts of its file are read.
BLOCKS = (
  "file string, start bigint, rank int, log string, offset bigint,"
  " joins boolean, last_time double, last_timestamp string"
)


def by_file(texts: Iterable[str]) -> dict[str, list[Part]]:
  """The parts of each file, in order, of parts as JSON."""
  parts = sorted(
    (Part(*json.loads(text)) for text in texts),
    key=lambda part: (part.file, part.start),
  )
  return {
    file: list(some) for file, some in groupby(parts, lambda part: part.file)
  }


def check(files: dict[str, list[Part]], plan: Plan):
  """Refuses logs that the form does not fit, and reports what is odd.

  Raises:
    UserError: as `logs.read`.
  """
  if plan.table:
    return
  for file, parts in files.items():
    seen, offset = Seen(), 0
    for part in parts:
      _add(seen, part, offset, plan.form.log_format is not None)
      offset += part.lines
    entries.check(seen, file, plan.form)
    if plan.form.names_sessions:
      logs.check(seen, file, plan.form)
    entries.summarize(seen, file, plan.form, formats.report)
    logs.summarize(seen, file, formats.report)


def _add(seen: Seen, part: Part, offset: int, joins: bool):
  """Adds a part of a file to what was seen of the parts before it.

  Args:
    seen: of the parts before it.
    part: of the file.
    offset: number of the lines before it.
    joins: whether lines that do not fit may belong to the line before.
  """
  count, own = dict(part.seen), seen.fits and joins
  if own:
    lines, alone = part.leading
    count["joined"] += lines
    for name, less in (
      *(("count", lines), ("strays", lines), ("entries", lines)),
      ("alone", alone),
    ):
      count[name] -= less
  for name in ("count", "joined", "strays", "entries", "alone", "long"):
    setattr(seen, name, getattr(seen, name) + count[name])
  for name in ("first_stray", "first_long"):
    first = getattr(seen, name) or (count[name] and count[name] + offset)
    setattr(seen, name, first)
  entry = lambda pair: Entry(pair[0] + offset, pair[1], Parts("", "", ()))
  if not seen.fits:
    seen.unfit += map(entry, count["unfit"][: 2 - len(seen.unfit)])
  seen.first = seen.first or (count["first"] and entry(count["first"]))
  seen.fits |= count["fits"]


def by_age(files: dict[str, list[Part]], plan: Plan) -> list[str]:
  """The names of files, in the order in which `logs.read` reads them."""
  names, form = list(files), plan.form
  rotated = form.names_sessions and len(set(rotation.log_names(names))) < len(
    names
  )
  if plan.table or not (rotated or form.log_format is not None):
    return names

  def age(name: str) -> tuple[float, str, int]:
    offset = 0
    for part in files[name]:
      if part.first is not None:
        line, seconds = part.first
        known = line + offset <= formats.SAMPLE
        return seconds if known else math.inf, *rotation.age(name)
      offset += part.lines
    return math.inf, *rotation.age(name)

  return sorted(names, key=age)


def blocks(
  files: dict[str, list[Part]], names: list[str], plan: Plan
) -> list[tuple[Any, ...]]:
  """The rows of `BLOCKS`."""
  logs_of = dict.fromkeys(names, "")
  if plan.table == "csv" and len(names) > 1:
    logs_of = dict(zip(names, names, strict=True))
  elif not plan.table and plan.form.names_sessions:
    found = rotation.log_names(names)
    if len(set(found)) > 1:
      logs_of = dict(zip(names, found, strict=True))
  rows = []
  for rank, name in enumerate(names):
    fits, last = False, (None, None)
    # The header of a csv file is its first line.
    offset = int(plan.numbered)
    for part in files[name]:
      joins = fits and plan.form.log_format is not None
      timestamp, seconds = last
      rows.append(
        (name, part.start, rank, logs_of[name], offset, joins)
        + (seconds, timestamp)
      )
      fits |= part.seen["fits"]
      last = part.last if part.last[0] else last
      if not plan.table or plan.numbered:
        offset += part.lines
  return rows


def span(
  files: dict[str, list[Part]], names: Sequence[str], plan: Plan
) -> Span:
  """The span of logs, by the clock that `logs.read` gives them."""
  form, parts = plan.form, [part for some in files.values() for part in some]
  cut = (
    form.log_lines is not None
    or form.log_gap is not None
    or form.names_sessions
  )
  if not (cut or plan.table):
    return Span()
  begin = min((part.begin for part in parts), default=math.inf)
  end = max((part.end for part in parts), default=-math.inf)
  if end >= begin and (plan.table or form.log_lines is None):
    return Span("seconds", begin, end)
  if plan.table or len(names) > 1:
    return Span()
  last, offset = 0, 0
  for part in parts:
    last = part.last_line + offset if part.last_line else last
    offset += part.lines
  return Span("lines", 1, last)
