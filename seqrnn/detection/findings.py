"""What detection found: written to files, shown on a terminal."""

import csv
import functools
import gzip
import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.padding import Padding

from seqrnn.data.sessions import Distinct, Sessions
from seqrnn.data.vocabulary import UNKNOWN, Vocabulary
from seqrnn.errors import escaped
from seqrnn.inference.predictions import console_text, quoted
from seqrnn.inference.scoring import UNRANKED, Scores
from seqrnn.runtime import files

NAME = "detection"  # Of the files of a result in detect/, as a set.
LOCK = ".detect.lock"  # In the workdir, held as long as a detection runs.


class Findings(NamedTuple):
  """What is said of sessions, of equal ones once.

  D distinct sessions, N events of them that are scored, their ends among them.

  Attributes:
    sessions: all of them.
    distinct: which of them are equal.
    names: of the events.
    nll: surprisal in nats [N].
    rank: 1 and how many events are likelier [N]; NEVER of an unknown one.
    targets: ids of the events [N].
    bounds: int64 [D + 1]; d has the events bounds[d] : bounds[d + 1].
    offsets: the place in the session of the first event that is scored [D].
    event_p: p-values of the events [N].
    event_flags: which of them are flagged [N].
    scores: name -> what is said of a session [D]; higher is odder.
    p: p-values of the sessions [D]; not a number for short ones.
    flags: which of them are flagged [D].
    short: which of them are flagged for their length alone [D].
    seconds: that the network took.
  """

  sessions: Sessions
  distinct: Distinct
  names: Vocabulary
  nll: np.ndarray
  rank: np.ndarray
  targets: np.ndarray
  bounds: np.ndarray
  offsets: np.ndarray
  event_p: np.ndarray
  event_flags: np.ndarray
  scores: dict[str, np.ndarray]
  p: np.ndarray
  flags: np.ndarray
  short: np.ndarray
  seconds: float

  def most_anomalous(self) -> np.ndarray:
    """The distinct sessions, the oddest first; short ones, unranked, last."""
    return np.lexsort((-self.scores["combined"], self.short))

  def first_alarms(self) -> np.ndarray:
    """The place in its session of each one's first odd event; -1: none."""
    which = np.repeat(np.arange(len(self.p)), np.diff(self.bounds))
    odd = np.flatnonzero(self.event_flags)
    some, first = np.unique(which[odd], return_index=True)
    alarms = np.full(len(self.p), -1)
    alarms[some] = self.offsets[some] + odd[first] - self.bounds[some]
    return alarms

  def line(self, j: int, place: int) -> int | None:
    """The line of an event of session j; an end has none."""
    start, stop = self.sessions.bounds[j : j + 2]
    if self.sessions.lines is None or not 0 <= place < stop - start:
      return None
    return int(self.sessions.lines[start + place])

  def events(self, j: int, d: int, first: int, stop: int) -> list[str]:
    """Names of scored events of d as they are in session j, to be displayed.

    One that is unknown is told as it was read, where that is known.
    """
    start = int(self.bounds[d])
    targets = self.targets[start + first : start + stop].tolist()
    names = self.names.names(targets)
    for n, target in enumerate(targets):
      symbol = self.as_read(j, int(self.offsets[d]) + first + n)
      if target == UNKNOWN and symbol is not None:
        names[n] = f"? {symbol}"
    return names

  def as_read(self, j: int, place: int) -> str | None:
    """An event of session j as it was read; an end was not."""
    start, stop = self.sessions.bounds[j : j + 2]
    symbol, symbols = self.sessions.symbol, self.sessions.symbols
    if symbol is None or symbols is None or not 0 <= place < stop - start:
      return None
    return symbols[int(symbol[start + place])]

  def timestamp(self, j: int, place: int) -> str | None:
    """The time of an event of session j; an end has none."""
    start, stop = self.sessions.bounds[j : j + 2]
    if self.sessions.timestamps is None or not 0 <= place < stop - start:
      return None
    return self.sessions.timestamps[start + place]


def _short(value: float) -> float:
  """As many digits as a float32 has."""
  return float(f"{value:.6g}")


@contextmanager
def _table(
  folder: Path, name: str, form: str, columns: list[str]
) -> Iterator[Callable[[list[Any]], Any]]:
  """A function that writes a row of a table; what is None stays empty."""
  kind, _, packed = form.partition(".")
  with files.atomic_write(folder / f"{name}.{form}", "wb") as raw:
    # Without the time, which would make equal tables different files.
    file = gzip.GzipFile("", "wb", 6, raw, mtime=0) if packed else raw
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    if kind == "csv":
      writer = csv.writer(text, lineterminator="\n")
      writer.writerow(columns)
      yield writer.writerow
    else:
      encode = json.JSONEncoder(ensure_ascii=False).encode

      def write(row):
        found = zip(columns, row, strict=True)
        kept = {name: value for name, value in found if value is not None}
        text.write(encode(kept) + "\n")

      yield write
    text.flush()
    text.detach()
    if packed:
      file.close()


def write_sessions(found: Findings, folder: Path, form: str):
  """Writes sessions.csv, or as `form` says: a row a session, as they came."""
  sessions = found.sessions
  alarms = found.first_alarms().tolist()
  columns = ["session", "events", "p_value", "flag", "first_alarm"]
  columns += ["line"] * (sessions.lines is not None) + list(found.scores)
  columns += ["label"] * (sessions.labels is not None)
  sizes = np.diff(sessions.bounds)[found.distinct.first].tolist()
  about = [
    (
      size,
      None if math.isnan(p) else _short(p),
      int(flag),
      None if alarm < 0 else alarm,
    )
    for size, p, flag, alarm in zip(
      sizes, found.p.tolist(), found.flags.tolist(), alarms, strict=True
    )
  ]
  # JSON has no infinity.
  scores = [
    [_short(value) if math.isfinite(value) else "inf" for value in row]
    for row in np.stack(list(found.scores.values()), axis=1).tolist()
  ]
  with _table(folder, "sessions", form, columns) as write:
    for j, d in enumerate(found.distinct.which.tolist()):
      row = [sessions.names[j], *about[d]]
      if sessions.lines is not None:
        row.append(found.line(j, alarms[d]))
      row += scores[d]
      if sessions.labels is not None:
        known = sessions.labelled is None or sessions.labelled[j]
        row.append(int(sessions.labels[j]) if known else None)
      write(row)


def write_events(
  found: Findings,
  which: np.ndarray,
  details: Scores,
  top_k: int,
  folder: Path,
  form: str,
):
  """Writes events.csv, or as `form` says: a row an event.

  Args:
    found: of all sessions.
    which: the distinct sessions whose events are written.
    details: entropy and likelier events of these.
    top_k: up to which rank an event is among the likely ones.
    folder: where.
    form: how.
  """
  sessions = found.sessions
  columns = ["session", "position"]
  columns += ["line"] * (sessions.lines is not None)
  columns += ["timestamp"] * (sessions.timestamps is not None)
  columns += ["event", "nats", "bits", "probability", "rank", "in_top_k"]
  columns += ["lifted_probability", "entropy", "unknown", "p_value", "flag"]
  K = details.values["ids"].shape[-1] if "ids" in details.values else 0
  columns += [
    f"{part}_{k}" for k in range(1, K + 1) for part in ("event", "probability")
  ]
  place_of = np.full(len(found.p), -1)
  place_of[which] = np.arange(len(which))

  @functools.lru_cache(maxsize=2**12)  # Most sessions are like others.
  def rows(d: int) -> list[list[Any]]:
    part = slice(*found.bounds[d : d + 2])
    more = details.document(int(place_of[d]))
    chances = np.exp(-found.nll[part])
    near = found.rank[part] <= top_k
    ranks = found.rank[part].tolist()
    unknown = found.targets[part] == UNKNOWN
    alternatives = [[] for _ in chances]
    if K:
      alternatives = [
        [x for pair in zip(found.names.names(i), c, strict=True) for x in pair]
        for i, c in zip(more["ids"], _shorts(more["chances"]), strict=True)
      ]
    return [
      [event, *figures, *better]
      for event, *figures, better in zip(
        found.names.names(found.targets[part]),
        _shorts(found.nll[part]),
        _shorts(found.nll[part] / math.log(2)),
        _shorts(chances),
        [r if r != UNRANKED else None for r in ranks],
        near.astype(int).tolist(),
        _shorts(np.where(near, 1.0, chances)),
        _shorts(more["entropy"]),
        unknown.astype(int).tolist(),
        _shorts(found.event_p[part]),
        found.event_flags[part].astype(int).tolist(),
        alternatives,
        strict=True,
      )
    ]

  with _table(folder, "events", form, columns) as write:
    for j, d in enumerate(found.distinct.which.tolist()):
      if place_of[d] < 0:
        continue
      name, first = sessions.names[j], int(found.offsets[d])
      targets = found.targets[slice(*found.bounds[d : d + 2])].tolist()
      for n, (event, *row) in enumerate(rows(d)):
        place = first + n
        where: list[Any] = [name, place]
        if sessions.lines is not None:
          where.append(found.line(j, place))
        if sessions.timestamps is not None:
          where.append(found.timestamp(j, place))
        if targets[n] == UNKNOWN:  # Equal sessions may have others.
          event = escaped(found.as_read(j, place) or event)
        write([*where, event, *row])


def _shorts(values: np.ndarray) -> Any:
  """As `_short`, of each."""
  if values.ndim > 1:
    return [_shorts(row) for row in values]
  return [float(f"{value:.6g}") for value in values.tolist()]


def show(console: Console, found: Findings, order: np.ndarray):
  """Prints distinct sessions, in an order, with their oddest event in context.

  Events that are lines of a log stand below each other, with their bits, and
  are cut off where the terminal ends.
  """
  console.print("\n[bold]odd sessions[/bold]\n")
  listed = found.names.unit == "log"
  before, after, between = (2, 1, "\n") if listed else (6, 3, " ")
  for d in order.tolist():
    j = int(found.distinct.first[d])
    count = int(found.distinct.counts[d])
    start, stop = found.bounds[d : d + 2]
    if start == stop:
      continue
    bits, odd = (
      found.nll[start:stop] / math.log(2),
      found.event_flags[start:stop],
    )
    place = int(bits.argmax())
    first, last = max(place - before, 0), min(place + after + 1, len(bits))
    context = ["..."] * (first > 0)
    for n, name in enumerate(found.events(j, d, first, last), first):
      text = quoted(name)
      if odd[n] or n == place:
        text = f"[reverse]{text}[/reverse]"
      context.append(f"{bits[n]:5.1f} {text}" if listed else text)
    context += ["..."] * (last < len(bits))
    where = found.line(j, int(found.offsets[d]) + place)
    name = console_text(found.sessions.names[j])
    if found.flags[d]:
      name = f"[bold]{name}[/bold]"
    name += f", line {where}" if where is not None else ""
    name += f", and {count - 1:,} like it" if count > 1 else ""
    why = "flagged for its length" if found.short[d] else f"p {found.p[d]:.2g}"
    console.print(f"{name}: {why}, {bits[place]:.1f} bits")
    console.print(
      Padding(between.join(context), (0, 0, 0, 2), expand=False),
      no_wrap=listed,
      overflow="ellipsis",
    )
