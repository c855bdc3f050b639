r"""Formats of the lines of a log: which part is the time, which the content.

A line is read by a header (`data.log_header`), by a named format
(`data.log_format`), or, without both, as content with the time it begins with.
"""

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from seqrnn.data.logs.secrets import excerpt
from seqrnn.data.read.reading import LINE
from seqrnn.errors import UserError, visible

_LONGEST = 2**12  # Characters of a line that a named format reads.
_SHOWN = 60  # Characters of a line in a message.
_DATES = (
  r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?(?:Z|[+-]\d\d:?\d\d))?",
  r"(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?"
  r"(?: \d{4})?",
  r"\d{10}(?:\.\d+|\d{3}|\d{6}|\d{9})?(?!\d)",
  r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:[.,]\d+)?",
  r"\d\d?/\d\d?/\d{2,4},? \d\d?:\d\d:\d\d(?:[.,]\d+)?(?: [AP]M)?",
  r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}",
  r"\d\d[01]\d[0-3]\d [ 0-2]\d:?[0-5]\d:?[0-5]\d(?!\d)",
)
_TIME = rf"(?P<Time>{'|'.join(_DATES)})"
# The time at the start of a line, where no format names it.
_START = re.compile(
  r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
  r"|(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?: \d{4})?"
  r"|\d{10}(?:\.\d+)?(?!\d)"
)
# The fields of a header that together are the time, and the one of the label.
_TIMES = ("Year", "Month", "Day", "Date", "Time", "Timestamp")
_LABEL = "Label"
_BEFORE = "Before"  # Of a named format, what the content begins with.
# Times beside ISO 8601. Each has a year in front, the year of syslog's times.
_FORMATS = (
  "%Y %b %d %H:%M:%S",
  "%Y %m-%d %H:%M:%S",
  "%Y %m%d %H:%M:%S",
  "2000 %y%m%d %H%M%S",
  "2000 %y%m%d %H:%M:%S",
  "2000 %a %b %d %H:%M:%S %Y",
  "2000 %d/%b/%Y:%H:%M:%S %z",
  "2000 %Y/%m/%d %H:%M:%S",
  "2000 %m/%d/%Y %H:%M:%S",
  "2000 %m/%d/%y %H:%M:%S",
  "2000 %y/%m/%d %H:%M:%S",
  "2000 %m/%d/%Y %I:%M:%S %p",
  "2000 %Y-%m-%d-%H.%M.%S",
  "2000 %Y%m%d-%H:%M:%S",
  "2000 %Y%m%d %H:%M:%S",
)
# The format of times of a shape, which is tried first.
_known: dict[tuple[str, bool], str] = {}
# The formats with names, the most special first; all take linear time.
_NAMED = {
  # Of nginx and Apache: the request and its status are the content.
  "access": r'\S++ \S++ .*?\[(?P<Time>[^\[\]]++)\] (?P<Content>"[^"]*+" \d{3})'
  r".*",
  # RFC 5424.
  "syslog5424": r"<\d++>\d++ (?P<Time>\S++) \S++ (?P<Content>\S++ \S++ \S++"
  r" (?:-|\[.*?\])(?: .*)?)",
  # RFC 3164, and what systems write to files.
  "syslog": r"(?:<\d++>)?"
  r"(?P<Time>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S++)"
  r" \S++ (?P<Content>[^\s:\[]++(?:\[\d++\])?:(?: .*)?)",
  # Of Kubernetes and other users of containerd and CRI-O.
  "cri": r"(?P<Time>\d{4}-\d\d-\d\dT\S++) std(?:out|err) [FP]\S*+ ?"
  r"(?P<Content>.*)",
  # Of Android; the number of a process and of a thread are left out.
  "logcat": r"(?P<Time>\d\d-\d\d \d\d:\d\d:\d\d\.\d{3,}+)"
  r"(?:(?:\s++\S++)?\s++\d++\s++\d++)?\s++(?P<Content>[VDIWEFA][ /].*)",
  # Of glog and klog, so of Kubernetes' own programs.
  "klog": r"(?P<Before>[IWEF])(?P<Time>(?:\d{4})?\d{4} \d\d:\d\d:\d\d\.\d++)"
  r"\s++\d++ (?P<Content>.*)",
  "time": rf"[\[(]?{_TIME}[\])]?[,:;|]?\s*+(?P<Content>.*)",
  # A level, then perhaps a thread in brackets and a time.
  "level": r"[\[<(]?(?P<Before>TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|"
  r"SEVERE|CRITICAL|FATAL)[\])>]?(?:[\s|:,-]++(?:\[[^\]]*+\][\s|:,-]++)?"
  rf"[\[(]?{_TIME}[\])]?)?[\s|:,-]++(?P<Content>.*)",
}
FORMATS = ("auto", "json", *_NAMED, "plain")
_PARTIAL = re.compile(r"(\S+ (stdout|stderr) )([FP])\S*(?: |$)")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The start of a line that continues the line before, as in a stack trace.
_TRACE = re.compile(r"\s|Caused by: |\.\.\. \d+ more|Traceback \(most recent ")
# The keys of JSON lines that programs use, where no field names the key.
_KEYS = {
  "log_message": ("message", "msg", "MESSAGE", "log", "body", "Body", "event"),
  "log_time": (
    *("time", "timestamp", "@timestamp", "ts", "__REALTIME_TIMESTAMP"),
    *("Timestamp", "date", "t", "timeUnixNano", "observedTimeUnixNano"),
  ),
}
_SHARED = ("resource", "scope")  # By the records of a line.
_ATTRIBUTES = ("attributes", "Attributes", "Resource", *_SHARED)
SAMPLE = 100  # Lines that data.log_format=auto looks at.
# Of the years 1 to 9999, in seconds since 1970.
_FIRST, _LAST = -62_135_596_800, 253_402_300_799


# A part of a second, which not all formats have.
_FRACTION = re.compile(r"(?<=\d\d[:.]\d\d[:.]\d\d)(?:[.,]\d+|:\d{3,})(?= |$)")


class Form(NamedTuple):
  """The fields of `data` that say how a log is read."""

  errors: str
  log_header: str | None = None
  log_session: str | None = None
  log_gap: float | None = None
  log_lines: int | None = None
  log_format: str | None = None
  log_message: str | None = None
  log_time: str | None = None
  log_level: str | None = None
  log_session_key: str | None = None

  @property
  def consecutive(self) -> bool:
    """Whether sessions do not overlap."""
    return self.log_gap is not None or self.log_lines is not None

  @property
  def names_sessions(self) -> bool:
    """Whether a line of the log names its session."""
    return self.log_session is not None or self.log_session_key is not None


class Parts(NamedTuple):
  """What a format finds in a line.

  Attributes:
    content: the part that the event is made of.
    timestamp: as written.
    times: what may be the whole time, the most likely first.
    label: as written; empty: none.
    session: the value of the key of the session; empty: none.
    record: the part of the line that these are parts of; empty: all of it.
    places: the first character and the end of the content in the line, or of
      two parts of it that a space joins; empty: the line is JSON.
  """

  content: str
  timestamp: str
  times: tuple[str, ...]
  label: str = ""
  session: str = ""
  record: str = ""
  places: tuple[tuple[int, int], ...] = ()


# A function from a line to the parts of each event in it; none: it does not fit
# the format.
Parse = Callable[[str], Sequence[Parts]]


def without_colours(line: str) -> str:
  """A line without the codes by which terminals change colours."""
  return _COLOUR.sub("", line) if "\x1b" in line else line


@functools.lru_cache(maxsize=2**3)  # A follower reads a line at a time.
def parser(form: Form) -> Parse:
  """The function that reads the lines of a form."""
  if form.log_header is not None:
    return _by_pattern(_pattern(form.log_header))
  if form.log_format == "json":
    return _by_keys(form)
  if form.log_format in _NAMED:
    named = _by_pattern(re.compile(_NAMED[form.log_format]), _BEFORE)
    return lambda line: named(line[:_LONGEST])
  trace = _TRACE if form.log_format == "plain" else None

  def plain(line: str) -> Sequence[Parts]:
    if trace and trace.match(line):
      return ()
    begin = _START.match(line)
    times = (begin[0],) if begin else ()
    return (stray(line)._replace(timestamp="".join(times), times=times),)

  return plain


def stray(line: str) -> Parts:
  """The parts of a line that is all content."""
  return Parts(line, "", (), places=((0, len(line)),))


def _by_pattern(pattern: re.Pattern, before: str = "") -> Parse:
  """Reads lines by groups; the content has the group `before` in front."""
  fields = pattern.groupindex
  named = [name for name in fields if name in _TIMES]

  def parse(line: str) -> Sequence[Parts]:
    match = pattern.fullmatch(line)
    if match is None:
      return ()
    times = tuple(match[name] for name in named if match[name] is not None)
    time = " ".join(times)
    if len(times) > 1:  # Together, or each alone, as it is called.
      alone = (match[name] for name in ("Timestamp", "Time") if name in fields)
      times = (time, *alone)
    label = match[_LABEL] if _LABEL in fields else ""
    content, places = match["Content"], (match.span("Content"),)
    if before in fields:
      content = f"{match[before]} {content}"
      places = (match.span(before), *places)
    return (Parts(content, time, times, label, places=places),)

  return parse


def json_records(line: str) -> list[dict[str, Any]]:
  """The object of a line, or the log records in it; none: it is no JSON.

  A record has its resource and its scope. OpenTelemetry writes values and
  attributes as {"stringValue": ...} and [{"key": ..., "value": ...}, ...].
  """
  try:
    value = json.loads(line)
    value = _plain(value) if 'Value"' in line else value
  except (ValueError, RecursionError):
    return []
  if not isinstance(value, dict):
    return []
  if "resourceLogs" not in value:
    return [value]
  return [
    record | {"resource": resource.get("resource"), "scope": scope.get("scope")}
    for resource in _objects(value["resourceLogs"])
    for scope in _objects(resource.get("scopeLogs"))
    for record in _objects(scope.get("logRecords"))
  ]


def _objects(value: Any) -> list[dict[str, Any]]:
  return (
    [x for x in value if isinstance(x, dict)] if type(value) is list else []
  )


def _plain(value: Any) -> Any:
  """A value without the types and the lists of keys of OpenTelemetry."""
  if isinstance(value, list):
    values = list(map(_plain, value))
    is_map = values and all(isinstance(x, dict) and "key" in x for x in values)
    return {str(x["key"]): x.get("value") for x in values} if is_map else values
  if not isinstance(value, dict):
    return value
  if len(value) == 1:
    [(kind, inner)] = value.items()
    if kind in ("arrayValue", "kvlistValue") and isinstance(inner, dict):
      return _plain(inner.get("values"))
    if kind.endswith("Value"):
      return _plain(inner)
  return {key: _plain(inner) for key, inner in value.items()}


def _text(fields: dict[str, Any], key: str) -> str | None:
  """The value of a key as text; None: there is none, or it is too deep."""
  value = fields.get(key)
  if isinstance(value, str) or value is None:
    return value
  if key == "MESSAGE" and isinstance(value, list):  # Not UTF-8, in journald.
    with suppress(TypeError, ValueError):
      return bytes(value).decode("utf-8", "replace")
  with suppress(RecursionError):
    return json.dumps(value)
  return None


def _lookup(fields: dict[str, Any], key: str) -> str | None:
  """The value of a key, of a key of a key, or of an attribute, as text."""
  for name in ("", *_ATTRIBUTES):
    inner = fields.get(name) if name else fields
    for values in (inner, _mapping(inner).get("attributes")):
      if (value := _inside(_mapping(values), key)) is not None:
        return value
  return None


def _mapping(value: Any) -> dict[str, Any]:
  return value if isinstance(value, dict) else {}


def _inside(fields: dict[str, Any], key: str) -> str | None:
  if (value := _text(fields, key)) is not None:
    return value
  for place, letter in enumerate(key):
    if letter == "." and (head := key[:place]) in fields:
      value = _inside(_mapping(fields[head]), key[place + 1 :])
      if value is not None:
        return value
  return None


def _by_keys(form: Form) -> Parse:
  def find(fields: dict, name: str) -> str:
    if key := getattr(form, name):
      return _lookup(fields, key) or ""
    for key in _KEYS.get(name, ()):
      value = _text(fields, key)
      if value is not None and not (name == "log_time" and value == "0"):
        return value
    return ""

  def parse(line: str) -> Sequence[Parts]:
    records, parts = json_records(line), []
    for fields in records:
      content = find(fields, "log_message").rstrip("\n")
      level, time = find(fields, "log_level"), find(fields, "log_time")
      if content:
        content = f"{level} {content}" if level else content
        session = find(fields, "log_session_key")
        alone = {k: v for k, v in fields.items() if k not in _SHARED}
        record = json.dumps(alone) if len(records) > 1 else ""
        parts.append(Parts(content, time, (time,), "", session, record))
    return parts

  return parse


def join_parts(
  numbered: Iterable[tuple[int, str]],
  partial: dict[str, tuple[int, str]] | None = None,
) -> Iterator[tuple[int, str]]:
  """The lines of the format `cri`, each with the parts that it was cut into.

  A line has the number and the time of its first part.

  Args:
    numbered: lines, with their numbers.
    partial: the parts of each stream whose line is not complete; None:
      no lines follow.
  """
  ends = partial is None
  partial = {} if partial is None else partial
  for number, line in numbered:
    match = _PARTIAL.match(line)
    if match is None:
      yield number, line
      continue
    begin, stream, tag = match.groups()
    text = line[match.end() :]
    number, line = partial.pop(stream, (number, f"{begin}F "))
    line = f"{line}{text}"[:LINE]
    if tag == "P":
      partial[stream] = number, line
    else:
      yield number, line
  if ends:
    yield from sorted(partial.values())


def detected(form: Form, lines: Sequence[str], source: str) -> str:
  """The format that most lines of a sample fit.

  Raises:
    UserError: no format fits half of the lines.
  """

  def unfit(name: str) -> list[str]:
    parse = parser(form._replace(log_format=name))
    return [
      line for line in lines if not parse(line) and not _TRACE.match(line)
    ]

  # Of formats that fit as many lines, the most special.
  left, name = min(
    ((unfit(name), name) for name in ("json", *_NAMED)),
    key=lambda pair: len(pair[0]),
  )
  if len(left) > len(lines) / 2:
    shown = " and ".join(repr(excerpt(line, _SHOWN)) for line in left[:2])
    raise UserError(
      f"{source}: data.log_format=auto: knows no format of lines such as"
      f" {shown}; data.log_header describes a line, data.log_format=plain takes"
      " it whole"
    )
  return name


def report(text: str):
  """Prints a line on stderr."""
  print(visible(text), file=sys.stderr)


def _pattern(header: str) -> re.Pattern:
  """The regular expression of a header, which takes linear time.

  A field before white space is a word; another field ends where the text that
  follows it in the header begins. An atomic group has such a field and all up
  to the next one: its first match is also the one that ends first, so that no
  later one need be tried.
  """
  names, texts = re.findall(r"<(\w+)>", header), re.split(r"<\w+>", header)
  is_word = [text[:1].isspace() for text in texts[1:]]
  literals = [r"\s++".join(map(re.escape, re.split(r"\s+", t))) for t in texts]
  pattern = f"(?>{literals[0]}"
  for place, name in enumerate(names):
    after, literal = texts[place + 1], literals[place + 1]
    if is_word[place]:
      pattern += rf"(?P<{name}>\S++){literal}"
    elif any(is_word[place + 1 : place + 2]) and not after[-1:].isspace():
      # In a word, only the first such place can be the one.
      field = rf"(?:\S*+\s++)*?(?>\S*?(?={literal}\S))"
      pattern += rf")(?>(?P<{name}>{field}){literal}"
    else:
      field = ".*?" if place + 1 < len(names) or after else ".*"
      pattern += rf")(?>(?P<{name}>{field}){literal}"
  return re.compile(rf"{pattern}\Z)")


@functools.lru_cache(maxsize=2**10)  # Neighbours often have the same second.
def seconds(times: tuple[str, ...]) -> float | None:
  """The first of several texts that is a time, in seconds; None: none is."""
  return next(filter(lambda t: t is not None, map(_seconds, times)), None)


def _seconds(timestamp: str) -> float | None:
  if re.fullmatch(r"\d{10}(\.\d+)?", timestamp):
    return float(timestamp)
  if re.fullmatch(r"\d{13}|\d{16}|\d{19}", timestamp):
    return int(timestamp) / 10 ** (len(timestamp) - 10)
  with suppress(ValueError):
    return _since_1970(datetime.fromisoformat(timestamp))
  return _by_formats(_FRACTION.sub("", timestamp).replace(", ", " "))


@functools.lru_cache(maxsize=2**10)  # Times of one second are one time here.
def _by_formats(timestamp: str) -> float | None:
  letters = re.sub("[A-Za-z]", "a", re.sub(r"\d", "0", timestamp))
  # 11/06/26 begins with the month, 26/11/06 with the year.
  shape = letters, "01" <= timestamp[:2] <= "12"
  first = _known.get(shape)
  for form in (first, *_FORMATS) if first else _FORMATS:
    with suppress(ValueError):
      seconds = _since_1970(datetime.strptime(f"2000 {timestamp}", form))
      _known[shape] = form
      return seconds
  return None


def _since_1970(time: datetime) -> float:
  """A time in seconds.

  Raises:
    ValueError: in UTC its year has not four digits.
  """
  seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
  if not _FIRST <= seconds <= _LAST:
    raise ValueError
  return seconds
