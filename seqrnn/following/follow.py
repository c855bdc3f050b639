"""detect --follow: judges the sessions of a log as its lines arrive."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from seqrnn.config import Config
from seqrnn.data import corpora, formats, logs
from seqrnn.data.reading import NOT_UTF8
from seqrnn.detection import deployed
from seqrnn.errors import UserError, visible
from seqrnn.experiment import Experiment
from seqrnn.following.alarms import Alarms, session_row
from seqrnn.following.follower import Event, Follower

_LONGEST = 2**16  # Bytes of a line, at most.
_REPORTED = 10  # Skipped lines that are reported; all are counted.


class SkippedLines:
  """Warns on stderr about lines that are not events: the first, then a count.

  Attributes:
    count: number of skipped lines.
  """

  def __init__(self):
    self.count = 0

  def add(self, number: int, fault: str):
    """Counts a line, and reports the number and fault of an early line."""
    self.count += 1
    if self.count <= _REPORTED:
      self._print(f"line {number}: skipped, {fault}")
    if self.count == _REPORTED:
      self._print("further skipped lines are only counted")

  def finish(self):
    """Reports the count, unless each line was reported."""
    if self.count > _REPORTED:
      self._print(f"{self.count:,} lines were skipped")

  def _print(self, text: str):
    try:
      print(visible(text), file=sys.stderr, flush=True)
    except OSError:  # stderr is closed; events are still scored.
      with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())


def lines(
  stdin: IO[bytes], errors: str, skipped: SkippedLines
) -> Iterator[str]:
  """Lines as they arrive, without line ends; "" in place of a skipped line."""
  codec = ("latin-1",) if errors == "latin-1" else ("utf-8", errors)
  number = 0
  while line := stdin.readline(_LONGEST):
    number += 1
    text, fault = "", f"has more than {_LONGEST:,} bytes"
    if len(line) < _LONGEST or line.endswith(b"\n"):
      try:
        text, fault = line.rstrip(b"\r\n").decode(*codec), ""
      except UnicodeDecodeError:
        fault = NOT_UTF8
    while len(line) == _LONGEST and not line.endswith(b"\n"):
      line = stdin.readline(_LONGEST)
    if fault:
      skipped.add(number, fault)
    yield text


def parse(text: str) -> tuple[str, str | None, bool] | None:
  """The session and the event of a line, and whether it ends the session.

  A line is two words, two fields separated by a tab, or a JSON object with the
  field `session`, and `event` or a true `end`. Any other line gives None.
  """
  if not text.startswith("{"):
    pair = text.split("\t") if "\t" in text else text.split()
    return (pair[0], pair[1], False) if len(pair) == 2 and all(pair) else None
  try:
    fields = json.loads(text)
  except (ValueError, RecursionError):
    return None
  session, event = fields.get("session"), fields.get("event")
  ends = fields.get("end", False)
  # bool is a subclass of int, but names neither a session nor an event.
  if not isinstance(ends, bool) or type(session) not in (str, int):
    return None
  if type(event) not in (str, int) and (event is not None or not ends):
    return None
  session, event = str(session), None if event is None else str(event)
  return (session, event, ends) if session and event != "" else None


def events(
  stdin: IO[bytes], data: Config, skipped: SkippedLines
) -> Iterator[Event]:
  """The events of lines as they arrive.

  Lines are parsed as a log if data.unit is log, else by `parse`.

  Raises:
    UserError: the input has ended, and no line matched the format of the log.
  """
  texts = lines(stdin, data.errors, skipped)
  if data.unit == "log":
    form = logs.form(data)
    name, leave_out = "standard input", skipped.add
    for event in logs.events(texts, name, form, leave_out=leave_out):
      time = formats.seconds(event.times)
      for session in event.sessions:
        yield Event(session, event.symbol, time, event.line)
    return
  for number, text in enumerate(texts, 1):
    if parsed := parse(text):
      session, symbol, ends = parsed
      if symbol is not None:
        yield Event(session, symbol, None, number)
      if ends:
        yield Event(session, None, None, number)
    elif text.strip():
      skipped.add(
        number,
        "must be a session and an event: two words, or two fields with a tab"
        ' between, or {"session": ..., "event": ...}, or {"session": ...,'
        ' "end": true}',
      )


def follow(
  follower: Follower, config: Config, stdin: IO[bytes], stdout: IO[str]
):
  """Writes rows of JSON as lines arrive.

  Lines that are not events are skipped with a warning on stderr.

  Args:
    follower: judges the sessions.
    config: of the run.
    stdin: read by `events`.
    stdout: flushed after each line.

  Raises:
    UserError: as `events`.
  """
  alarms = Alarms(60 * config.detect.quiet)
  wanted = config.detect.follow

  def write(row: dict[str, Any]):
    stdout.write(json.dumps(row) + "\n")
    stdout.flush()

  skipped = SkippedLines()
  try:
    for event in events(stdin, config.data, skipped):
      if event.symbol is None and event.session not in follower:
        skipped.add(
          event.line or 0,
          f"ends session {event.session!r}, which is not open",
        )
      found = follower.feed_many([event], rows=wanted == "events")
      for row in found.rows:
        write({"type": "event", **row})
      for verdict in found.verdicts:
        if wanted == "sessions" and verdict.ended:
          write(session_row(verdict))
        if row := alarms.take(verdict):
          write(row)
  finally:
    skipped.finish()


def run(build: Callable[..., Experiment], config: Config, workdir: Path):
  """Judges the sessions of standard input until it ends.

  Raises:
    UserError: the model does not predict the next event, or there is no
      detection.
  """
  config = corpora.with_format(config)  # Of a run of an earlier version.
  if config.data.log_format == "auto":
    raise UserError(
      "--follow: data.log_format='auto': the files of the training have"
      " different formats; --config.data.log_format names that of the input"
    )
  follower = Follower(deployed.restore(build, config, workdir))
  follow(follower, follower.deployed.config, sys.stdin.buffer, sys.stdout)
