"""Lines of logs as events of sessions."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from seqrnn.data.logs import formats
from seqrnn.data.logs.formats import Entry, Form
from seqrnn.data.logs.secrets import SECRETS, excerpt
from seqrnn.data.logs.templates import (
  NO_VALUES,
  parse,
  without_names,
  without_values,
)
from seqrnn.data.read import reading
from seqrnn.data.read.reading import Source
from seqrnn.errors import UserError, report

_TEXT = 60  # Characters of a line in a message.
_SET_BACK = 10  # Late lines in a row after which the log's clock was set back.
# Kinds of lines that are counted, as messages name them.
_STRAY = "do not fit the format"
_JOINED = "were joined to the line before"
_ALONE = "belong to no session"
_LONG = f"have more than {reading.LINE:,} characters and are left out"
_NO_TIME = (
  "is no time that data.log_session=gap knows: ISO 8601, syslog's, seconds"
  " since 1970 and others; data.log_header says where the time is"
)


class LogEvent(NamedTuple):
  """A line of a log, or a row of a table.

  Attributes:
    sessions: the names of its sessions; none: the event is left out.
    symbol: the event; of a line, its masked content.
    label: as written; empty: none.
    file: its name.
    timestamp: as written; empty: none.
    line: in the file, from 1.
    seconds: its time; None: unknown.
    values: the numbers in its content, as `parse`.
  """

  sessions: list[str]
  symbol: str
  label: str
  file: str
  timestamp: str
  line: int
  seconds: float | None
  values: tuple[float, ...] = NO_VALUES


@dataclasses.dataclass
class LineContext:
  """How the lines of a log depend on the lines before.

  Attributes:
    fits: number of lines that fit the format.
    times: of the last entry with a time.
    near: the last time that is known, in seconds; before, that of the `Form`.
    session: the name of the last session that times or lines cut.
    position: its latest time in seconds, or its number of lines.
    late: the last lines that are earlier than this time by more than the gap.
  """

  fits: int = 0
  times: Sequence[str] = ()
  near: float | None = None
  session: str = ""
  position: float = 0.0
  late: int = 0


class LogReader:
  """Makes events of the lines of a log, one for each line that is not blank.

  With `data.log_format`, a line that does not fit belongs to the line before,
  and is no event.

  Attributes:
    source: the name of the file.
    number: of the last line.
    context: after this line.
  """

  def __init__(
    self,
    source: str,
    form: Form,
    log: str = "",
    leave_out: Callable[[int, str], None] | None = None,
  ):
    """Begins before the first line.

    Args:
      source: the name of the file.
      form: how it is read.
      log: its name, which precedes those of its sessions; empty: none does.
      leave_out: called with the number and the fault of a line without the time
        that a gap needs; None: such a line is refused.
    """
    self.source, self.number = source, 0
    self.context = LineContext(near=form.near)
    self._form, self._log, self._leave_out = form, log, leave_out
    self._names = re.compile(form.value if form.cut == "pattern" else "()")
    self._mask = re.compile(form.mask) if form.mask else None
    self._has_sessions = False
    # For each kind of line: how many, and the number and text of the first.
    self._counts: dict[str, tuple[int, int, str]] = {}

  def read(
    self, source: Source, report: Callable[[str], None] | None
  ) -> Iterator[LogEvent]:
    """The events of a file.

    Args:
      source: the file.
      report: called with messages about its lines; None: they are not checked.

    Raises:
      UserError: as `check`, or a time is missing that a gap needs.
    """
    yield from self.events(_lines(source, self._form))
    if report is None:
      return
    self.check()
    for kind, (count, number, text) in self._counts.items():
      report(
        f"{self.source}: {count:,} of {self.number:,} lines {kind}; the first"
        f" is line {number}: {excerpt(text, _TEXT)!r}"
      )

  def check(self):
    """Checks that a log has lines of its form, and lines of sessions.

    Raises:
      UserError: no line fits the form, or none is of a session.
    """
    form = self._form
    if _STRAY in self._counts and not self.context.fits:
      kind, field = _STRAY, _described(form)
    elif _ALONE in self._counts and not self._has_sessions:
      key = "key=" * (form.cut == "key")
      kind, field = _ALONE, f"data.log_session={key + form.value!r}"
    else:
      return
    _, number, text = self._counts[kind]
    raise UserError(
      f"{field}: fits no line of {self.source}; line {number} is"
      f" {excerpt(text, _TEXT)!r}"
    )

  def events(self, texts: Iterable[str]) -> Iterator[LogEvent]:
    """The events of the next lines."""
    form, context = self._form, self.context
    numbered = self.numbered(texts)
    if form.log_format == "auto":  # One of several files of different formats.
      if sample := list(islice(numbered, formats.SAMPLE)):
        form = formats.detected(form, sample, self.source)
      numbered = chain(sample, numbered)
    parse = formats.parser(form)
    for number, line in numbered:
      entry = parse(line)
      if entry is not None:
        context.fits += 1
      elif context.fits and form.log_format is not None:
        self._count(_JOINED, number, line)
        continue
      else:
        self._count(_STRAY, number, line)
        entry = formats.stray(line)
      if entry.times:
        context.times = entry.times
      else:  # It has the time of the entry before.
        entry = entry._replace(times=tuple(context.times))  # JSON has lists.
      if entry.content and not entry.content.isspace():
        event = self._event(number, entry, form.has_paths)
        if event is not None:
          yield event

  def numbered(self, texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers, without colours."""
    for number, line in enumerate(texts, self.number + 1):
      self.number = number
      if len(line) > reading.LINE:
        self._count(_LONG, number, line)
      elif line.strip():
        if self._form.log_format is not None:
          line = formats.without_colours(line)
        yield number, line

  def _count(self, kind: str, number: int, text: str):
    """Counts a line of a kind."""
    count, first, shown = self._counts.get(kind, (0, number, text))
    self._counts[kind] = count + 1, first, shown

  def _event(self, number: int, entry: Entry, paths: bool) -> LogEvent | None:
    """The event of an entry; None: it is left out."""
    form, context, content = self._form, self.context, entry.content
    now = formats.dated(entry.times, context.near)
    context.near = now or context.near
    if form.cut == "pattern":
      sessions, content = self._named(entry)
    elif form.cut == "key":
      sessions = [entry.session] if entry.session else []
    elif form.cut == "file":
      sessions = [self.source]
    else:
      if form.cut == "lines":
        begins = context.position % form.value == 0
        context.position += 1
      else:
        if now is None:
          fault = f"{''.join(entry.times[:1])!r}: {_NO_TIME}"
          if self._leave_out is None:
            raise UserError(f"{self.source}:{number}: {fault}")
          self._leave_out(number, fault)
          return None
        begins = (silence := now - context.position) > form.value
        context.late = context.late + 1 if -silence > form.value else 0
        if silence > 0 or context.late >= _SET_BACK:
          context.position = now
      if begins or not context.session:
        context.session = f"{self.source}:{number}"
      sessions = [context.session]
    if sessions:
      self._has_sessions = True
    else:
      self._count(_ALONE, number, entry.text)
    if self._log:
      sessions = [f"{self._log}:{name}" for name in sessions]
    if self._mask:
      content = without_values(content, self._mask)
    masked, values = parse(content, paths)
    time = next(iter(entry.times), ""), number, now
    return LogEvent(sessions, masked, entry.label, self.source, *time, values)

  def _named(self, entry: Entry) -> tuple[list[str], str]:
    """The sessions that an entry names, and its content with masked names."""
    text, places = entry.text, entry.places
    spans = [match.span(1) for match in self._names.finditer(text)]
    sessions = [text[start:stop] for start, stop in spans if start < stop]
    if not places:  # JSON escapes signs of the content.
      text, places = entry.content, ((0, len(entry.content)),)
      spans = [match.span(1) for match in self._names.finditer(text)]
    parts = [without_names(text, spans, place) for place in places]
    if len(sessions) > 1:
      sessions = list(dict.fromkeys(sessions))
    return sessions, " ".join(parts)


def _lines(source: Source, form: Form) -> Iterator[str]:
  """The lines of a log, which may grow."""
  return reading.lines(source, form.errors, None, may_grow=True)


def _described(form: Form) -> str:
  """The field that describes the lines."""
  if form.header is not None:
    return f"data.log_header={form.header!r}"
  return f"data.log_format={form.log_format!r}"


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
  forms: list[Form] = []
  for source in sources:
    numbered = LogReader(source.name, form).numbered(_lines(source, form))
    if sample := list(islice(numbered, formats.SAMPLE)):
      known = formats.detected(form, sample, source.name)
      if known not in forms:
        describe(source, known, redact)
        forms.append(known)
  return forms[0] if len(forms) == 1 else form


def describe(source: Source, form: Form, redact: str):
  """Reports on stderr how the first lines of a log are read, if one fits.

  A format may fit by chance, and take another part of a line for the time.
  """
  reader = LogReader(source.name, form, leave_out=lambda *_: None)
  sample = islice(_lines(source, form), formats.SAMPLE)
  events = [event for event in reader.events(sample) if reader.context.fits]
  if not events:
    return
  event = next((event for event in events if event.sessions), events[0])
  fields = {
    "time": event.timestamp,
    "session": ", ".join(event.sessions),
    "template": event.symbol,
  }
  words = (f"{k} {excerpt(v, _TEXT, redact)!r}" for k, v in fields.items())
  unknown = sum(e.seconds is None for e in events if e.timestamp)
  report(
    f"{source.name}: {_described(form)}: fits {reader.context.fits} of the"
    f" first {reader.number} lines; line {event.line}: {', '.join(words)}"
    + (f"; in {unknown} of these lines the time is no time" if unknown else "")
    + "; times have no year: the log ends in the last 12 months"
    * formats.has_no_year(tuple(reader.context.times))
  )


def first_time(source: Source, form: Form) -> float:
  """The first time in a log, in seconds; infinite: it has none at its begin."""
  reader = LogReader(source.name, form, leave_out=lambda *_: None)
  events = reader.events(islice(_lines(source, form), formats.SAMPLE))
  times = (event.seconds for event in events)
  return next((time for time in times if time is not None), math.inf)
