"""Entries of logs: the parts of lines, and which lines are entries at all."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

from seqrnn.data.logs import formats
from seqrnn.data.logs.formats import Form, Parts
from seqrnn.data.logs.secrets import SECRETS, excerpt
from seqrnn.data.logs.templates import masker, without_names
from seqrnn.data.read import reading
from seqrnn.data.read.reading import Source
from seqrnn.errors import UserError

Report = Callable[[str], None]


_TEXT = 60  # Characters of a line in an error.
_NO_PARTS = Parts("", "", ())


class Entry(NamedTuple):
  """An entry of a log: a line, or a record in it, and its parts."""

  number: int
  text: str
  parts: Parts


@dataclasses.dataclass
class Seen:
  """The counts and the state of a log, or of its parts that were read.

  Attributes:
    number: of the last line.
    fits: whether a line fits the format.
    count: number of lines with entries.
    joined: number of lines that belong to the line before.
    strays: number of lines that do not fit.
    first_stray: the first of them; 0: there is none.
    unfit: the first entries before a line that fits.
    last: the last parts with a time.
    first: the first entry.
    entries: number of entries.
    alone: number of entries that belong to no session.
    first_alone: the first of them.
    partial: as of `formats.join_parts`.
    session: the name of the last session that times or lines cut.
    time: of the last line of such a session, in seconds.
    cut: number of lines of sessions that lines cut.
    long: number of lines that are left out, as they are longer than LINE.
    first_long: the first of them; 0: there is none.
  """

  number: int = 0
  fits: bool = False
  count: int = 0
  joined: int = 0
  strays: int = 0
  first_stray: int = 0
  unfit: list[Entry] = dataclasses.field(default_factory=list)
  last: Parts = _NO_PARTS
  first: Entry | None = None
  entries: int = 0
  alone: int = 0
  first_alone: Entry | None = None
  partial: dict[str, tuple[int, str]] | None = None
  session: str = ""
  time: float = 0.0
  cut: int = 0
  long: int = 0
  first_long: int = 0


def lines(source: Source, form: Form) -> Iterator[str]:
  """The lines of a log, which may grow."""
  return reading.lines(source, form.errors, may_grow=True)


def settled(
  sources: Iterable[Source], form: Form, redact: str = SECRETS
) -> Form:
  """The form with the format of the files in place of `auto`.

  It stays `auto` if files have different formats. Each format is described on
  stderr, with the masks of `redact`, as `detect.redact`.

  Raises:
    UserError: no format fits half of the first lines of a file.
  """
  if form.log_format != "auto":
    return form
  names: dict[str, None] = {}
  for source in sources:
    if sample := _sample(source, form):
      name = formats.detected(form, [line for _, line in sample], source.name)
      if name not in names:
        describe(source, form._replace(log_format=name), redact)
      names[name] = None
  return (
    form._replace(log_format=next(iter(names))) if len(names) == 1 else form
  )


def describe(source: Source, form: Form, redact: str):
  """Reports on stderr how the first lines of a log are read, if one fits.

  A format may fit by chance, and take another part of a line for the time.
  """
  sample, parse = _sample(source, form), formats.parser(form)
  fits = [
    (number, line, parts[0])
    for number, line in sample
    if (parts := parse(line))
  ]
  if not fits:
    return
  number, line, parts = fits[0]
  sessions, event = reader(form)(Entry(number, parts.record or line, parts))
  if not form.names_sessions:
    cuts = form.consecutive
    sessions = [f"{source.name}:{number}" if cuts else source.name]
  fields = {
    "time": parts.timestamp,
    "content": parts.content,
    "session": ", ".join(sessions),
    "template": event,
  }
  words = (f"{k} {excerpt(v, _TEXT, redact)!r}" for k, v in fields.items())
  unknown = sum(formats.seconds(p.times) is None for *_, p in fits if p.times)
  field = "log_header" if form.log_header is not None else "log_format"
  formats.report(
    f"{source.name}: data.{field}={getattr(form, field)!r}: fits {len(fits)} of"
    f" the first {len(sample)} lines; line {number}: {', '.join(words)}"
    + (f"; in {unknown} of these lines the time is no time" if unknown else "")
  )


def _numbered(
  texts: Iterable[str], form: Form, seen: Seen
) -> Iterator[tuple[int, str]]:
  """The lines that are not blank, with their numbers."""
  for number, line in enumerate(texts, seen.number + 1):
    seen.number = number
    if len(line) > reading.LINE:
      seen.first_long, seen.long = seen.first_long or number, seen.long + 1
    elif line.strip():
      if form.log_format is not None:
        line = formats.without_colours(line)
      yield number, line


def _sample(source: Source, form: Form) -> list[tuple[int, str]]:
  numbered = _numbered(lines(source, form), form, Seen())
  return list(islice(numbered, formats.SAMPLE))


def read_entries(
  texts: Iterable[str],
  source: str,
  form: Form,
  seen: Seen,
) -> Iterator[Entry]:
  """The entries of a log, without lines that belong to the line before.

  A line without content is no entry either.

  Args:
    texts: its lines.
    source: its name.
    form: how it is read.
    seen: of the parts of the log before, to which this one is added entry by
      entry.
  """
  numbered = _numbered(texts, form, seen)
  if form.log_format == "auto":  # One of several files of different formats.
    if sample := list(islice(numbered, formats.SAMPLE)):
      name = formats.detected(form, [line for _, line in sample], source)
      form = form._replace(log_format=name)
    numbered = chain(sample, numbered)
  if form.log_format == "cri":
    numbered = formats.join_parts(numbered, seen.partial)
  parse = formats.parser(form)
  joins = form.log_format is not None  # A line to the line before.
  for number, line in numbered:
    records = parse(line)
    if not records and seen.fits and joins:
      seen.joined += 1
      continue
    seen.count += 1
    if not records:
      seen.first_stray, seen.strays = (
        seen.first_stray or number,
        seen.strays + 1,
      )
    seen.fits = seen.fits or bool(records)
    for parts in records or (formats.stray(line),):
      # An entry without a time has the time of the entry before.
      if parts.times:
        seen.last = parts
      else:
        last = seen.last
        parts = parts._replace(timestamp=last.timestamp, times=last.times)
      if not parts.content or parts.content.isspace():
        continue
      entry = Entry(number, parts.record or line, parts)
      if not seen.fits and len(seen.unfit) < 2:
        seen.unfit.append(entry)
      yield entry


@functools.lru_cache(maxsize=2)  # Its masker keeps words that come again.
def reader(form: Form) -> Callable[[Entry], tuple[list[str], str]]:
  """A function from an entry to the sessions that it names, and its event.

  In the event, a name is masked where it stands in the line.
  """
  names = re.compile(form.log_session) if form.log_session is not None else None
  mask = masker()

  def read(entry: Entry) -> tuple[list[str], str]:
    text, parts = entry.text, entry.parts
    if names is None:
      return [parts.session] if parts.session else [], mask(parts.content)
    spans = [match.span(1) for match in names.finditer(text)]
    sessions = [text[start:stop] for start, stop in spans if start < stop]
    content = parts.content
    if parts.places:
      masked = (without_names(text, spans, place) for place in parts.places)
      content = " ".join(masked)
    else:  # Of JSON, whose places are not those of the content.
      spans = [match.span(1) for match in names.finditer(content)]
      content = without_names(content, spans, (0, len(content)))
    return list(dict.fromkeys(sessions)), mask(content)

  return read


def check(seen: Seen, source: str, form: Form):
  """Refuses a log of which no line fits its form, or is of a session.

  Raises:
    UserError: so.
  """
  field, value, entries = "", None, []
  if seen.unfit and not seen.fits:
    field = "log_header" if form.log_header is not None else "log_format"
    value, entries = getattr(form, field), seen.unfit
  elif form.names_sessions and seen.first and seen.alone == seen.entries:
    field, entries = "log_session", [seen.first]
    value = form.log_session or f"key={form.log_session_key}"
  lines = (f"line {x.number} is {excerpt(x.text, _TEXT)!r}" for x in entries)
  if field:
    raise UserError(
      f"data.{field}={value!r}: fits no line of {source}; {', '.join(lines)}"
    )


def summarize(seen: Seen, source: str, form: Form, report: Report):
  """Reports the lines of a log that are not as the others are."""
  if seen.strays and form.log_header is not None:
    report(
      f"{source}: {seen.strays:,} of {seen.count:,} lines do not fit"
      f" data.log_header and have no time, the first is line {seen.first_stray}"
    )
  if seen.long:
    report(
      f"{source}: {seen.long:,} lines have more than {reading.LINE:,}"
      f" characters and are left out, the first is line {seen.first_long}"
    )
  if seen.joined:
    report(f"{source}: {seen.joined:,} lines were joined to the line before")
  if seen.alone:
    assert seen.first_alone is not None
    number, text, _ = seen.first_alone
    report(
      f"{source}: {seen.alone:,} of {seen.entries:,} lines belong to no"
      f" session; the first is line {number}: {excerpt(text, _TEXT)!r}"
    )


def first_time(source: Source, form: Form) -> float:
  """The first time in a log, in seconds; infinite: it has none at its begin."""
  sample = islice(lines(source, form), formats.SAMPLE)
  times = (
    entry.parts.times
    for entry in read_entries(sample, source.name, form, Seen())
  )
  seconds = map(formats.seconds, times)
  return next((time for time in seconds if time is not None), math.inf)
