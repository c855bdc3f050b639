"""Lines that arrive, as events of sessions."""

import codecs
import json
from collections.abc import Iterator

from seqrnn.config.read import Config
from seqrnn.data.logs import formats, log_corpus
from seqrnn.data.logs.entries import LineContext, LogReader
from seqrnn.data.logs.tail import LONGEST, Chunk
from seqrnn.data.read.reading import LINE, NOT_UTF8
from seqrnn.errors import UserError, report
from seqrnn.logs.follow.follower import Event

_REPORTED = 10  # Skipped lines that are reported; all are counted.
_TRIED = 1000  # Lines without an event, after which this is reported.
_FORM = (
  "must be a session and an event: two words, or two fields with a tab between,"
  ' or {"session": ..., "event": ...}, or {"session": ..., "end": true}'
)


class Parser:
  """Makes events of the lines of an input.

  Lines are parsed as a log if data.unit is log, else by `parse_pair`. The end
  of a session that has no name only moves event time.

  Attributes:
    skipped: number of lines that are not events.
  """

  def __init__(self, data: Config, name: str):
    """Begins before the first line.

    Args:
      data: of the config.
      name: of the input.
    """
    self.skipped, self._name = 0, name
    self._reader = LogReader(name, log_corpus.form(data), leave_out=self.skip)
    self._is_log = data.unit == "log"
    codec = ("utf-8", data.errors)
    self._codec = ("latin-1",) if data.errors == "latin-1" else codec
    self._lines, self._has_events = 0, False  # Lines before the first event.

  def skip(self, number: int, fault: str):
    """Counts a line that is no event, and reports the first ones."""
    self.skipped += 1
    if self.skipped <= _REPORTED:
      report(f"line {number}: skipped, {fault}")
    if self.skipped == _REPORTED:
      report("further skipped lines are only counted")

  def events(self, chunk: Chunk) -> list[Event]:
    """The events of lines."""
    numbered = enumerate(chunk.lines, chunk.first)
    texts = (self._decode(number, line) for number, line in numbered)
    self._reader.number = chunk.first - 1
    parse = self._log_events if self._is_log else self._pairs
    events = list(parse(texts, chunk))
    if not self._has_events:
      self._has_events = any(event.session for event in events)
      before, self._lines = self._lines, self._lines + len(chunk.lines)
      if before < _TRIED <= self._lines:  # They may have another form.
        try:
          self.finish()
        except UserError as error:
          report(f"no event in {self._lines:,} lines: {error}")
    return events

  def finish(self):
    """Refuses a log without any event.

    Raises:
      UserError: it is a log, and no line fits its form.
    """
    if not self._has_events:
      self._reader.check()

  def _decode(self, number: int, line: bytes) -> str:
    """The text of a line; empty if the line is skipped."""
    if number == 1:
      line = line.removeprefix(codecs.BOM_UTF8)
    fault = f"has more than {LINE:,} characters"
    if len(line) <= LONGEST:
      try:
        text = line.removesuffix(b"\r").decode(*self._codec)
        if len(text) <= LINE:
          return text
      except UnicodeDecodeError:
        fault = NOT_UTF8
    self.skip(number, fault)
    return ""

  def _log_events(self, texts: Iterator[str], chunk: Chunk) -> Iterator[Event]:
    # Sessions that lines or times cut are named by their first line.
    part = f"+{chunk.part}" if chunk.part else ""
    self._reader.source = self._name + part
    for event in self._reader.events(texts):
      time, line = event.seconds, event.line
      for session in event.sessions:
        yield Event(session, event.symbol, time, line, event.values)
      if not event.sessions and time is not None:
        yield Event("", None, time, line)

  def _pairs(self, texts: Iterator[str], chunk: Chunk) -> Iterator[Event]:
    for number, text in enumerate(texts, chunk.first):
      if events := parse_pair(text, number):
        yield from events
      elif text.strip():
        self.skip(number, _FORM)

  @property
  def context(self) -> LineContext:
    """How later lines depend on those that were read."""
    return self._reader.context

  def restore(self, context: LineContext):
    """Resumes after lines that had events."""
    self._has_events, self._reader.context = True, context


def parse_pair(text: str, number: int) -> list[Event]:
  """The event of a line, and the end of its session if the line has it.

  A line is two words, two fields separated by a tab, or a JSON object with the
  field `session`, and `event` or a true `end`, and perhaps `timestamp`. Any
  other line has no event.
  """
  if not text.startswith("{"):
    pair = text.split("\t") if "\t" in text else text.split()
    is_event = len(pair) == 2 and all(pair)
    return [Event(pair[0], pair[1], line=number)] if is_event else []
  try:
    fields = json.loads(text)
  except (ValueError, RecursionError):
    return []
  session, event = fields.get("session"), fields.get("event")
  ends, words = fields.get("end", False), (str, int)
  # A bool is an int, but names neither a session nor an event.
  is_event = type(event) in words or (event is None and ends)
  is_pair = is_event and type(session) in words and type(ends) is bool
  if not is_pair or "" in (session, event):
    return []
  time = formats.dated((str(fields.get("timestamp", "")),))
  end = Event(str(session), None, time, number)
  events = [] if event is None else [end._replace(symbol=str(event))]
  return [*events, end] if ends else events
