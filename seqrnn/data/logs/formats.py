r"""Formats of the lines of a log: which part is the time, which the content.

A line is read by a header (`data.log_header`), by a named format
(`data.log_format`), or, without both, as content with the time it begins with.
"""

import functools
import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from seqrnn.data.logs.secrets import excerpt
from seqrnn.data.read.reading import LINE
from seqrnn.errors import UserError

_LONGEST = 2**12  # Characters of a line that a named format reads.
_SHOWN = 60  # Characters of a line in a message.
_YEAR_4, _YEAR_5 = (datetime(n, 1, 1, tzinfo=UTC).timestamp() for n in (4, 5))
_DAY, _YEAR = 86400.0, 365.2425 * 86400.0  # In seconds.
_YEAR_10000 = datetime(9999, 12, 31, tzinfo=UTC).timestamp() + 24 * 60 * 60
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
# A line that is all content, with the time that it begins with, if it has one.
_LINE = rf"(?=(?P<Time>{'|'.join(_DATES[:3])})?)(?P<Content>.*)"
# The start of a line that continues the line before, as in a stack trace.
_TRACE = r"\s|Caused by: |\.\.\. \d+ more|Traceback \(most recent "
# The fields of a header that together are the time.
_TIMES = ("Year", "Month", "Day", "Date", "Time", "Timestamp")
# Formats of times beside ISO 8601. The year in front is the year of times that
# have none: a leap year in which no log was written.
_FORMATS = (
  "%Y %b %d %H:%M:%S",
  "%Y %m-%d %H:%M:%S",
  "%Y %m%d %H:%M:%S",
  "0004 %y%m%d %H%M%S",
  "0004 %y%m%d %H:%M:%S",
  "0004 %a %b %d %H:%M:%S %Y",
  "0004 %d/%b/%Y:%H:%M:%S %z",
  "0004 %Y/%m/%d %H:%M:%S",
  "0004 %m/%d/%Y %H:%M:%S",
  "0004 %m/%d/%y %H:%M:%S",
  "0004 %y/%m/%d %H:%M:%S",
  "0004 %m/%d/%Y %I:%M:%S %p",
  "0004 %d.%m.%Y %H:%M:%S",
  "0004 %d.%m.%Y-%H:%M:%S",
  "0004 %Y-%m-%d-%H.%M.%S",
  "0004 %Y%m%d-%H:%M:%S",
  "0004 %Y%m%d %H:%M:%S",
)
# The begin of a minute, its second, and the rest of a time of such a format.
_MINUTE = re.compile(
  r"(.*\d:\d\d:(?<![+-]\d\d:\d\d:)|\d{6} \d{4})([0-5]\d)((?!\d).*)"
)
# The format of times of a shape, which is tried first.
_known: dict[tuple[str, bool], str] = {}
# The formats with names, the most special first; all take linear time. The
# content has the group `_Before` in front.
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
  "klog": r"(?P<_Before>[IWEF])(?P<Time>(?:\d{4})?\d{4} \d\d:\d\d:\d\d\.\d++)"
  r"\s++\d++ (?P<Content>.*)",
  "time": rf"[\[(]?{_TIME}[\])]?[,:;|]?\s*+(?P<Content>.*)",
  # A level, then perhaps a thread in brackets and a time.
  "level": r"[\[<(]?(?P<_Before>TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|"
  r"SEVERE|CRITICAL|FATAL)[\])>]?(?:[\s|:,-]++(?:\[[^\]]*+\][\s|:,-]++)?"
  rf"[\[(]?{_TIME}[\])]?)?[\s|:,-]++(?P<Content>.*)",
}
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The keys of JSON lines that programs use, where no field names the key.
_KEYS = {
  "message": ("message", "msg", "MESSAGE", "log", "body", "event"),
  "time": (
    *("time", "timestamp", "@timestamp", "ts", "__REALTIME_TIMESTAMP"),
    *("Timestamp", "date", "t"),
  ),
}
SAMPLE = 100  # Lines that data.log_format=auto looks at.
# A part of a second, which not all formats have.
_FRACTION = re.compile(r"(?<=\d\d[:.]\d\d[:.]\d\d)(?:[.,]\d+|:\d{3,})(?= |$)")


_PATHS = "auto", "access"  # With paths and a format of these, paths count.


class Form(NamedTuple):
  """How a log is read, as fields of `data` say.

  Attributes:
    errors: as `data.errors`.
    header: as `data.log_header`.
    log_format: as `data.log_format`.
    cut: how `data.log_session` makes sessions: pattern, key, gap or lines;
      file: a file is a session.
    value: the pattern, the key, seconds or the number of lines.
    keys: those of `data.log_keys`, by message, time and level, and that of
      the session.
    paths: as `data.log_paths`.
    mask: as `data.log_mask`.
    near: as of `dated`, for the first time of a file.
  """

  errors: str
  header: str | None = None
  log_format: str | None = None
  cut: str = "file"
  value: Any = None
  keys: tuple[tuple[str, str], ...] = ()
  paths: str = "auto"
  mask: str | None = None
  near: float | None = None

  @property
  def has_paths(self) -> bool:
    """Whether words of a line may be paths whose segments count."""
    return self.paths == "on" or (self.paths, self.log_format) == _PATHS

  @property
  def names_sessions(self) -> bool:
    """Whether a line of the log names its session."""
    return self.cut in ("pattern", "key")


class Entry(NamedTuple):
  """A line of a log, and its parts.

  Attributes:
    text: all of it.
    content: the part that the event is made of.
    times: what may be the whole time, the most likely first, as written.
    label: as written; empty: none.
    session: the value of the key of the session; empty: none.
    places: the first character and the end of the content in the text, or of
      two parts of it that a space joins; empty: the text is JSON.
  """

  text: str
  content: str
  times: tuple[str, ...] = ()
  label: str = ""
  session: str = ""
  places: tuple[tuple[int, int], ...] = ()


# A function from a line to its entry; None: it does not fit the format.
Parse = Callable[[str], Entry | None]


def without_colours(line: str) -> str:
  """A line without the codes by which terminals change colours."""
  return _COLOUR.sub("", line) if "\x1b" in line else line


@functools.lru_cache(maxsize=2**3)  # A follower reads a line at a time.
def parser(form: Form) -> Parse:
  """The function that reads the lines of a form."""
  if form.header is not None:
    return _by_pattern(_pattern(form.header))
  if form.log_format == "json":
    return _by_keys(form)
  if form.log_format in _NAMED:
    return _by_pattern(re.compile(_NAMED[form.log_format]), _LONGEST)
  trace = f"(?!{_TRACE})" if form.log_format == "plain" else ""
  return _by_pattern(re.compile(trace + _LINE))


def stray(line: str) -> Entry:
  """A line that is all content."""
  return Entry(line, line, places=((0, len(line)),))


def _by_pattern(pattern: re.Pattern, longest: int = LINE) -> Parse:
  """Reads the parts of lines by groups, from so many characters."""
  fields = pattern.groupindex
  times_of = [name for name in fields if name in _TIMES]
  alone_of = [name for name in ("Timestamp", "Time") if name in fields]
  has_label, has_before = "Label" in fields, "_Before" in fields

  def parse(line: str) -> Entry | None:
    match = pattern.fullmatch(line, 0, longest)
    if match is None:
      return None
    times = tuple(filter(None, map(match.group, times_of)))
    if len(times) > 1:  # Together, or each alone, as it is called.
      times = (" ".join(times), *map(match.group, alone_of))
    label = match["Label"] if has_label else ""
    content, places = match["Content"], (match.span("Content"),)
    if has_before:
      content = f"{match['_Before']} {content}"
      places = (match.span("_Before"), *places)
    return Entry(line, content, times, label, "", places)

  return parse


def _text(fields: dict, key: str) -> str | None:
  """The value of a key, or of a key of a key after a dot, as text.

  None: there is none, it is too deep, or `fields` is no object.
  """
  if not isinstance(fields, dict):
    return None
  value = fields.get(key)
  if isinstance(value, str):
    return value
  if value is None:
    dots = [place for place, letter in enumerate(key) if letter == "."]
    pairs = ((key[:dot], key[dot + 1 :]) for dot in dots if key[:dot] in fields)
    values = (_text(fields[head], inner) for head, inner in pairs)
    return next((text for text in values if text is not None), None)
  # In journald, a message that is not UTF-8 is a list of bytes.
  if key == "MESSAGE" and isinstance(value, list):
    with suppress(TypeError, ValueError):
      return bytes(value).decode("utf-8", "replace")
  with suppress(RecursionError):
    return json.dumps(value)
  return None


def _by_keys(form: Form) -> Parse:
  """Reads the parts of JSON lines by their keys."""
  keys = _KEYS | {name: (key,) for name, key in form.keys}

  def find(fields: dict, name: str) -> str:
    values = (_text(fields, key) for key in keys.get(name, ()))
    return next((value for value in values if value is not None), "")

  def parse(line: str) -> Entry | None:
    try:
      fields = json.loads(line)
    except (ValueError, RecursionError):
      return None
    content = find(fields, "message").rstrip("\n")
    if not content:
      return None
    level, time = find(fields, "level"), find(fields, "time")
    content = f"{level} {content}" if level else content
    return Entry(line, content, (time,), "", find(fields, "session"))

  return parse


def detected(
  form: Form, sample: Sequence[tuple[int, str]], source: str
) -> Form:
  """The form with the format that most lines of a sample fit.

  Raises:
    UserError: no format fits half of the lines.
  """
  lines = [line for _, line in sample]

  def unfit(name: str) -> list[str]:
    parse = parser(form._replace(log_format=name))
    return [x for x in lines if not parse(x) and not re.match(_TRACE, x)]

  # The first of the formats that fit most lines, as it is the most special.
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
  return form._replace(log_format=name)


def _pattern(header: str) -> re.Pattern:
  """The regular expression of a header, which takes linear time.

  A field before white space alone is a word; another field ends where the text
  that follows it in the header begins. An atomic group has such a field and all
  up to the next one: its first match is also the one that ends first, so that
  no later one need be tried.
  """
  names, texts = re.findall(r"<(\w+)>", header), re.split(r"<\w+>", header)
  is_word = [text.isspace() for text in texts[1:]]
  literals = [r"\s++".join(map(re.escape, re.split(r"\s+", t))) for t in texts]
  pattern = f"(?>{literals[0]}"
  for place, name in enumerate(names):
    after, literal = texts[place + 1], literals[place + 1]
    if is_word[place]:
      pattern += rf"(?P<{name}>\S++){literal}"
      continue
    field = ".*?" if place + 1 < len(names) or after else ".*"
    if any(is_word[place + 1 : place + 2]) and not after[-1:].isspace():
      # Within a word, no match begins after its first such place.
      field = rf"(?:\S*+\s++)*?(?>\S*?(?={literal}\S))"
    pattern += rf")(?>(?P<{name}>{field}){literal}"
  return re.compile(rf"{pattern}\Z)")


def dated(times: tuple[str, ...], near: float | None = None) -> float | None:
  """As `seconds`, but a time without a year gets one.

  Args:
    times: the texts.
    near: the time that it is next to, as the one before in its log; None: it is
      in the year that ends tomorrow, as the zones of logs differ.
  """
  second = seconds(times)
  if second is None or not _YEAR_4 <= second < _YEAR_5:
    return second
  near = near or time.time() + _DAY - _YEAR / 2
  date = datetime.fromtimestamp(second, UTC)
  year = min(max(date.year + round((near - second) / _YEAR), 1), 9996)
  year += -year % 4 * ((date.month, date.day) == (2, 29))
  # From the first of the month, because 2100 has no 29th of February.
  return (date.replace(year=year, day=1) + timedelta(date.day - 1)).timestamp()


def in_words(second: float) -> str:
  """A time as text, in UTC or, of a log without time zones, in its own zone."""
  return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}"


def has_no_year(times: tuple[str, ...]) -> bool:
  """Whether the first of several texts that is a time has no year."""
  return _YEAR_4 <= (seconds(times) or 0.0) < _YEAR_5


def earlier(
  near: float | None, times: tuple[str, ...], last: float | None
) -> float | None:
  """The next `Form.near` to read a log with; None: the last one is right.

  It is not if the log ends in the future because its times have no year.

  Args:
    near: the last one.
    times: what may be the last time of the log, as written.
    last: this time, in seconds.
  """
  end = time.time() + 3 * _DAY  # A year may be a day longer than _YEAR.
  near = near or end - _YEAR / 2
  is_ahead = last is not None and last > end and has_no_year(times)
  return near - _YEAR / 2 if is_ahead and near > end - 20 * _YEAR else None


@functools.lru_cache(maxsize=2**10)  # Neighbours often have the same second.
def seconds(times: tuple[str, ...]) -> float | None:
  """The first of several texts that is a time, in seconds; None: none is.

  A time without a year is of the year 4.
  """
  return next(filter(lambda t: t is not None, map(_seconds, times)), None)


def _seconds(timestamp: str) -> float | None:
  if re.fullmatch(r"\d{10}(\.\d+|\d{3}|\d{6}|\d{9})?", timestamp):
    return float(f"{timestamp[:10]}.{timestamp[10:].lstrip('.') or 0}")
  with suppress(ValueError, OverflowError):
    return _since_1970(datetime.fromisoformat(timestamp))
  timestamp = _FRACTION.sub("", timestamp).replace(", ", " ")
  parts = _MINUTE.fullmatch(timestamp)
  if parts is None:
    return _by_formats(timestamp)
  minute = _by_formats(f"{parts[1]}00{parts[3]}")
  return None if minute is None else minute + int(parts[2])


@functools.lru_cache(maxsize=2**10)  # Times of one minute are one time here.
def _by_formats(timestamp: str) -> float | None:
  letters = re.sub("[A-Za-z]", "a", re.sub(r"\d", "0", timestamp))
  # 11/06/26 begins with the month, 26/11/06 with the year.
  shape = letters, "01" <= timestamp[:2] <= "12"
  for form in (_known.get(shape, _FORMATS[0]), *_FORMATS):
    with suppress(ValueError, OverflowError):
      seconds = _since_1970(datetime.strptime(f"0004 {timestamp}", form))
      _known[shape] = form
      return seconds
  return None


def _since_1970(time: datetime) -> float:
  """A time in seconds.

  Raises:
    OverflowError: in UTC its year has not four digits.
  """
  time = time if time.tzinfo else time.replace(tzinfo=UTC)
  seconds = time.astimezone(UTC).timestamp()
  if seconds >= _YEAR_10000:  # A float rounds the last microseconds up.
    raise OverflowError(f"{time}: its year has not four digits")
  return seconds
