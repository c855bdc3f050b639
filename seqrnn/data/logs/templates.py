r"""Templates of log lines: the words that stay the same where values change.

`parse` replaces values in a line that are known by their form, as numbers.
`mine` finds the templates of masked lines, and `matcher` the template of a
line. A blank of a template is a single word.
"""

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from seqrnn.data.logs.secrets import excerpt

BLANK = "<*>"
VALUE = "<value>"
SESSION = "<session>"

# Whatever has a digit: a number, a date, an identifier, a version. Before the
# first digit are letters, and signs between letters.
_DIGITS = r"(?:[^\W\d]|[.@~$+%-](?=\w))*+\d[\w.:@~$+%*-]*(?<![.:])"
# A value within a word, of any of these forms, in time that is linear in the
# length of the word: no match begins within a run of letters and signs.
_VALUES = re.compile(
  # A path or an address of the web.
  r"(?<![\w.\\/)\]>-])(?:\.{0,2}/|[A-Za-z]:[\\/]|\\\\|[a-z][a-z0-9+.-]{0,31}+://)"
  r"[^\s,;\"'()\[\]<>{}|]*(?<![.:!?])"
  # The name of a host.
  r"|(?<![\w.-])(?:[\w-]++\.)+"
  r"(?:com|net|org|edu|gov|(?<=\.\w\w\.)[a-z]{2}|(?<=\.\w{3}\.)[a-z]{2})"
  rf"(?![.-]*+\w)(?:{_DIGITS})?"
  # The address of a network card.
  r"|(?<![\w:])(?:[0-9A-Fa-f]{2}:){5,}[0-9A-Fa-f]{2}(?![\w:])"
  rf"(?:{_DIGITS})?"
  # Not after a letter or a sign that belongs to the same run.
  r"|(?:(?<![^\W\d])(?!(?<=[.@~$+%-])\w)|(?=-\W))"
  rf"-?{_DIGITS}"
  # A value that another program has masked.
  r"|<(?:time|address|hex|number)>"
)
_ALIKE = 6  # Events that differ in one word, for a line about it.
_ADJACENT = re.compile(rf"{VALUE}(?:[.,:;_@/+~-]*{VALUE})+")
_SESSIONS = re.compile(rf"(?<!\S){SESSION},?(?: {SESSION},?)+(?!\S)")
# What follows a value and belongs to it: more values of a list, its unit, and
# in parentheses the same again.
_UNIT = (
  r" (?:[kKMGT]?i?B|[Bb]ytes?|[mun\u00b5]?s|sec(?:ond)?s?|min(?:ute)?s?|hours?"
  r"|days?)(?!\w)"
)
_JOINED = rf"[.,:;_@/+~-]*{VALUE}"
_MORE = rf"{_JOINED}|,? {VALUE}(?:{_JOINED})*+(?![^\s,])|{_UNIT}"
# Values that are one value, with the words of a date before its numbers.
_RUN = re.compile(
  r"(?:(?<![^\s\"'(\[])(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?"
  r"(?:(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) )?)?"
  rf"{VALUE}(?:{_MORE}| \((?:{VALUE}(?:{_MORE})*+)?\))*+"
)
# A word that may be a status code, and where it is one.
_CODE = re.compile(r"([1-5]\d\d)(?=[\"',;)}\]]*$)")
_STATUS = re.compile(rf"(HTTP/{VALUE}[\"']? )<(\d+)>")
_MAYBE = re.compile(r"<([1-5]\d\d)>")

_WORDS, _LINES = 2**16, 2**14  # Whose masks are kept.
_SHORT = 2**10  # Characters of a line of which they are kept.
_LONG = 2**12  # Characters of a word that is a value, whatever is in it.


PLACES = 4  # Numbers of a line, at most.
NO_VALUES = (math.nan,) * PLACES
# What may follow a number and its unit: the unit of a rate, as in `5KB/s`, and
# no sign by which a word goes on.
_AFTER = r"(?:/(?:s|sec|min|h|hour|day|op|req))?(?![\w@~$+/\\*-]|[.,:]\d)"
# A number alone or between signs, as in `took=41.2s`, and its own sign: no part
# of a name, an address or a date. With more digits it is an identifier.
_NUMBER = re.compile(
  r"(\d(?<![\w./\\].)(?<!\d[:,].)(?<!\w[-+].)(?:(?<=(-)\d))?"
  r"(?:\d{0,2}(?:,\d{3})+|\d{0,11})(?:\.\d+)?(?:[eE][+-]?\d+)?)"
  rf"([a-zA-Z\u00b5\u03bc%]{{0,7}}){_AFTER}"
)
_LARGEST = 1e30  # Larger numbers count as this one.
# Each unit in seconds, or as the factor of its prefix.
_UNITS = {
  **{"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3},
  **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
  **dict.fromkeys(("h", "hour", "hours"), 3600.0),
  **dict.fromkeys(("d", "day", "days"), 86400.0),
  **{"s": 1.0, "k": 1e3, "kB": 1e3, "KB": 1e3, "K": 1e3, "M": 1e6, "MB": 1e6},
  **{"G": 1e9, "GB": 1e9, "T": 1e12, "TB": 1e12},
  **{"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40},
}
# A duration as Go writes it, as in `1m30.5s`.
_DURATION = re.compile(
  r"(?<![\w.])(?:(\d{1,6})h)?(\d{1,6})m(\d{1,6}(?:\.\d+)?)s(?!\w)"
)
# The space between a number and its unit. The search for a space is fast.
_SPACE = re.compile(rf" (?<=\d )(?=(?:{'|'.join(_UNITS)}){_AFTER})")

_Parsed = tuple[str, tuple[float, ...]]  # With masks; the numbers.


def _numbers(word: str) -> tuple[float, ...]:
  """The numbers in a word."""
  if "m" in word:
    word = _DURATION.sub(
      lambda x: f"{(int(x[1] or 0) * 60 + int(x[2])) * 60 + float(x[3])}s", word
    )
  return tuple(
    min(float(number.replace(",", "")) * _UNITS.get(unit, 1.0), _LARGEST)
    * (-1 if sign else 1)
    for number, sign, unit in _NUMBER.findall(word)
  )


@functools.lru_cache(_WORDS)
def _word(word: str) -> _Parsed:
  """A word with masks, but `<404>` where it may be a status code; numbers."""
  numbers = _numbers(word[:_LONG])
  if len(word) > _LONG:
    return VALUE, numbers
  if code := _CODE.match(word):
    return f"<{code[1]}>{word[code.end() :]}", numbers
  return _ADJACENT.sub(VALUE, _VALUES.sub(VALUE, word)), numbers


@functools.lru_cache(_WORDS)
def _in_request(word: str) -> _Parsed:
  """As `_word`, but a path has its segments and the keys of its query."""
  masked, numbers = _word(word)
  if word.startswith("/"):
    masked = _path(word, lambda part: _word(part.partition("=")[0])[0])
  return masked, numbers


def _path(word: str, masked: Callable[[str], str]) -> str:
  """A path of masked segments, and the sorted, masked keys of its query."""
  path, _, query = word.partition("?")
  path = "/".join(map(masked, path.split("/")))
  keys = sorted({masked(key) for key in query.split("&")} - {""})
  return _ADJACENT.sub(VALUE, f"{path}?{'&'.join(keys)}" if keys else path)


@functools.lru_cache(_LINES)
def _line(line: str) -> str:
  """A line of masked words, with dates, lists and status codes as one."""
  line = _MAYBE.sub(VALUE, _STATUS.sub(r"\1\2", line))
  return _SESSIONS.sub(SESSION, _RUN.sub(VALUE, line))


def parse(line: str, paths: bool = False) -> _Parsed:
  """A line with `<value>` in place of its values, and its numbers.

  A list of values becomes one, and so does a value with its unit, or with
  another in parentheses after it. Status codes after `HTTP/1.1` stay. Of the
  numbers, the first `PLACES` are returned, filled up with NaN. Durations are in
  seconds and sizes in bytes: `900 ms` is 0.9.

  Args:
    line: any.
    paths: whether words that begin with `/` are paths of requests, of which the
      segments and the keys of the query stay.
  """
  of_word, of_line, words = _in_request if paths else _word, _line, line.split()
  if len(line) > _SHORT:
    of_word, of_line = of_word.__wrapped__, _line.__wrapped__
  parsed = [of_word(word) for word in words]
  masked = of_line(" ".join([mask for mask, _ in parsed]))
  if _SPACE.search(line := " ".join(words)):
    parsed = [_word(x) for x in _SPACE.sub("", line).split()]
  values = [number for _, numbers in parsed for number in numbers]
  return masked, (*values, *NO_VALUES)[:PLACES] if values else NO_VALUES


def without_names(
  line: str,
  names: Sequence[tuple[int, int]],
  span: tuple[int, int],
  word: str = SESSION,
) -> str:
  """A span of a line, with `word` for the names in it."""
  (end, last), parts = span, []
  for start, stop in names:
    start, stop = max(start, end), min(stop, last)
    if start < stop:
      parts += [line[end:start], word]
      end = stop
  return "".join([*parts, line[end:last]])


def without_values(line: str, pattern: re.Pattern[str]) -> str:
  """A line with `<value>` for the groups of a pattern, or for its matches."""
  groups = range(1, pattern.groups + 1) or (0,)
  spans = [m.span(n) for m in pattern.finditer(line) for n in groups]
  return without_names(line, sorted(spans), (0, len(line)), VALUE)


_FEW = 6  # Distinct words at a place that could be a blank.
_MANY = 50  # Distinct words that always are one.
_RARE = 10  # Lines of a word that is rare.
_FRACTION = 10  # Lines of a value for one of other words at its place.

_WordLines = list[tuple[list[str], int]]


def _parts(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
  """The segments of paths in masked lines, and the keys, with their lines."""
  for line in lines:
    for word in line.split() if " /" in line else ():
      if word.startswith("/"):
        yield from ((part, line) for part in re.split("[/?&]", word))


def _with_known(line: str, known: Collection[str]) -> str:
  """A masked line in which the parts of paths that are not known are values."""
  if " /" not in line:
    return line
  masked = lambda part: part if part in known or not part else VALUE
  return " ".join(
    _path(word, masked) if word.startswith("/") else word
    for word in line.split(" ")
  )


def mine(lines: dict[str, int]) -> list[str]:
  """The templates of masked lines, in the order of their first lines.

  Lines of as many words are divided by the place that has the fewest different
  words, again and again. A place is a blank instead if words new to it are to
  be expected, because it has many of them or at least half of several are rare,
  or if its words have the form of a masked value among them. A template has at
  most as many blanks as other words. In a line with a path, its rare parts are
  values.

  Args:
    lines: the frequency of each.
  """
  in_paths: Counter[str] = Counter()
  for part, line in _parts(lines):
    in_paths[part] += lines[line]
  known = {part for part, count in in_paths.items() if count >= _RARE}
  by_length: dict[int, _WordLines] = defaultdict(list)
  templates = {}
  for line, count in lines.items():
    if " /" in line:
      templates[line] = _with_known(line, known)
      continue
    words = line.split(" ")
    by_length[len(words)].append((words, count))
  parts = [(rows, range(n)) for n, rows in by_length.items()]
  while parts:
    rows, places = parts.pop()
    counts = {i: _counts(rows, i) for i in places} if len(rows) > 1 else {}
    counts = {i: words for i, words in counts.items() if len(words) > 1}
    blanks = [i for i, words in counts.items() if _is_open(words)]
    first = rows[0][0]
    fixed = sum(VALUE not in x for i, x in enumerate(first) if i not in blanks)
    if len(blanks) == len(counts) and len(blanks) <= fixed:
      for words, _ in rows:
        filled = [BLANK if i in counts else w for i, w in enumerate(words)]
        templates[" ".join(words)] = " ".join(filled)
      continue
    left = [i for i in counts if i not in blanks] or counts
    index = min(left, key=lambda i: len(counts[i]))
    divided: dict[str, _WordLines] = defaultdict(list)
    for row in rows:
      divided[row[0][index]].append(row)
    parts += [(part, list(counts)) for part in divided.values()]
  return list(dict.fromkeys(templates[line] for line in lines))


def _counts(rows: _WordLines, index: int) -> Counter[str]:
  """The frequencies of the words at a place."""
  counts: Counter[str] = Counter()
  for words, count in rows:
    counts[words[index]] += count
  return counts


def _is_open(counts: Counter[str]) -> bool:
  """Whether other words than these are to be expected at their place."""
  rare = sum(count < _RARE for count in counts.values())
  if len(counts) >= _MANY or _FEW <= len(counts) <= 2 * rare:
    return True
  # `a(b)` has the form of `a(<value>)`; any word has that of `<value>`.
  word, _ = counts.most_common(1)[0]
  form = re.compile(".*".join(map(re.escape, word.split(VALUE))))
  plain = sum(n for x, n in counts.items() if VALUE not in x)
  return (
    VALUE in word
    and all(map(form.fullmatch, counts))
    and (word != VALUE or plain * _FRACTION <= counts.total())
  )


def template_counts(lines: dict[str, int]) -> dict[str, int]:
  """The templates of masked lines, with the number of lines of each."""
  mined = mine(lines)
  match = matcher(mined)
  counts = dict.fromkeys(mined, 0)
  for line, frequency in lines.items():
    place = match(line)
    assert place is not None, "a line fits the template that was mined of it"
    counts[mined[place]] += frequency
  return {template: total for template, total in counts.items() if total}


def alike(templates: Iterable[str]) -> list[str]:
  """The most templates that differ in one of their first words alone.

  Paths, which are no values, do not count.
  """
  groups: dict[tuple[str, str], list[str]] = defaultdict(list)
  for template in templates:
    for place in re.finditer(r"(?<!\S)[^\s/]\S*", template[:_SHORT]):
      key = template[: place.start()], template[place.end() :]
      groups[key].append(template)
  return max(groups.values(), key=len, default=[])


def remarks(templates: Iterable[str], redact: str) -> list[str]:
  """A line about templates that differ in one word, if these are several.

  `redact` is as in `config.detect.redact`.
  """
  some = alike(templates)
  if len(some) < _ALIKE:
    return []
  first, second = (excerpt(text, 80, redact) for text in some[:2])
  return [
    f"{len(some)} events differ in one word, as {first!r} and {second!r}; if it"
    " is a value, say so with data.log_mask"
  ]


def matcher(templates: Sequence[str]) -> Callable[[str], int | None]:
  """A function from a masked line to the index of its template; None: none.

  Of several templates that fit, the one with the fewest blanks; then the first.
  """
  places = {template: n for n, template in enumerate(templates)}
  known = {part for part, _ in _parts(templates)}
  # Number of words -> the positions of the blanks in templates of this length.
  blanks: dict[int, dict[tuple[int, ...], None]] = defaultdict(dict)
  for template in templates:
    words = template.split(" ")
    blank = tuple(i for i, word in enumerate(words) if word == BLANK)
    blanks[len(words)][blank] = None
  tried = {length: sorted(some, key=len) for length, some in blanks.items()}

  def match(line: str) -> int | None:
    words = _with_known(line, known).split()  # An empty line has none.
    for blank in tried.get(len(words), ()):
      fitted = words.copy()
      for i in blank:
        fitted[i] = BLANK
      index = places.get(" ".join(fitted))
      if index is not None:
        return index
    return None

  return match
