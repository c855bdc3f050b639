"""The types with which seqrnn/config/fields/ declares the fields of a config.

A field has a default, a rule, a help text, and conditions under which it has an
effect. seqrnn/config/read.py uses them to read, override and check configs.
"""

import contextlib
import ctypes
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Config = Any  # A ConfigDict; type checkers do not know its fields.
# Field -> the values that it must have for the condition to hold.
Condition = dict[str, Sequence[Any]]

READ, WRITTEN = "read", "written"  # Of `Field.place`.
LARGEST = (2 - 2**-23) * 2.0**127  # The largest float32.
_SMALLEST = 2.0**-126  # The smallest float32 that XLA does not flush to 0.


class Rule(NamedTuple):
  """A predicate for the values of a field, and its text for errors.

  Attributes:
    holds: returns whether a value is allowed.
    text: the rule in words, or a function that returns them.
    names: the values, if the field is a choice of names.
    fault: returns why a value is not allowed, in words that follow the rule.
  """

  holds: Callable[[Any], bool]
  text: str | Callable[[], str]
  names: Sequence[str] = ()
  fault: Callable[[Any], str] = lambda _: ""

  @property
  def words(self) -> str:
    """The rule in words."""
    return self.text if isinstance(self.text, str) else self.text()


class Registered(Sequence[str]):
  """A sequence of names that is computed at each use.

  A config can thus refer to names that a module registers, without importing
  that module before they are needed.
  """

  def __init__(self, find: Callable[[], list[str]]):
    self._find = find

  def __getitem__(self, index: Any) -> Any:
    return self._find()[index]

  def __len__(self) -> int:
    return len(self._find())


class Field(NamedTuple):
  """A field of the config.

  Attributes:
    default: the default value; None if the field may be empty.
    rule: the values that the field may have.
    help: the meaning, in one or two sentences.
    used: conditions; the field has an effect if one of them holds. Without
      conditions it always has an effect, or other checks refuse it.
    optional: the type of the values of a field that may be empty.
    place: READ if the value is a path of input, which is printed before it is
      read if a workdir names it. WRITTEN if the value is a place to write to or
      to listen at; a workdir does not name it, only flags and --config do.
    repeated: whether its flag may be repeated; the value is a tuple of texts.
  """

  default: Any
  rule: Rule
  help: str
  used: tuple[Condition, ...] = ()
  optional: type | None = None
  place: str = ""
  repeated: bool = False

  @property
  def kind(self) -> type:
    """The type of the values."""
    return self.optional or type(self.default)

  @property
  def type_rule(self) -> str:
    """The type of the values, in words."""
    kind = "texts" if self.repeated else _KINDS[self.kind]
    return f"must be {kind}{', or none' if self.optional else ''}"

  def parse(self, text: str) -> Any:
    """Returns the value of a flag's text.

    Raises:
      ValueError: the text is not of the field's type.
    """
    if self.optional and text.lower() == "none":
      return None
    return self._named(_PARSERS[self.kind](text))

  def cast(self, value: Any) -> Any:
    """Returns a value from a file in the field's type; an int may be a float.

    Names of a choice may be in any case.

    Raises:
      TypeError: the value is of another type.
      OverflowError: a whole number is too large for a float.
    """
    if self.optional and value is None:
      return None
    part = str if self.repeated else float
    return self._named(_cast(value, self.kind, part))

  def _named(self, value: Any) -> Any:
    """Returns the name of a choice that differs from a text by case only."""
    if value == self.default or not isinstance(value, str):
      return value
    names = self.rule.names
    return next((n for n in names if n.lower() == value.lower()), value)


def _cast(value: Any, kind: type, part: type) -> Any:
  if kind is float and type(value) is int:
    return float(value)
  if kind is tuple and type(value) is tuple:
    return tuple(_cast(inner, part, part) for inner in value)
  if type(value) is not kind:
    raise TypeError
  return value


def _parse_bool(text: str) -> bool:
  names = {"true": True, "1": True, "false": False, "0": False}
  if text.lower() not in names:
    raise ValueError
  return names[text.lower()]


def _parse_int(text: str) -> int:
  try:
    return int(text)
  except ValueError:
    number = float(text)  # "1e5" is a whole number, too.
    if not number.is_integer():
      raise
    return int(number)


def _parse_numbers(text: str) -> tuple[float, ...]:
  parts = text.strip("()[] ").removesuffix(",").split(",")
  return tuple(float(part) for part in parts)


_PARSERS: dict[type, Callable[[str], Any]] = {
  str: str,
  bool: _parse_bool,
  int: _parse_int,
  float: float,
  tuple: _parse_numbers,
}
_KINDS = {
  str: "a text",
  bool: "true or false",
  int: "a whole number",
  float: "a number",
  tuple: "numbers separated by commas",
}


def optional(
  kind: type, rule: Rule, help: str, *used: Condition, place: str = ""
) -> Field:
  """Returns a field that is empty by default; the text `none` empties it."""
  either = rule._replace(holds=lambda v: v is None or rule.holds(v))
  return Field(None, either, help, used, kind, place)


def choice(*names: str) -> Rule:
  """Returns the rule of a value that is one of these names."""
  return one_of(names)


def one_of(names: Sequence[str]) -> Rule:
  """Returns the rule of `choice`, for names that may be a register."""
  return Rule(
    lambda value: value in names,
    lambda: f"must be one of {', '.join(names)}",
    names,
  )


def integer(low: int, high: int, words: str) -> Rule:
  """Returns the rule of an integer from low to high; words name the range."""
  return Rule(
    lambda v: type(v) is int and low <= v <= high, f"must be from {words}"
  )


def number(holds: Callable[[float], bool], words: str) -> Rule:
  """Returns the rule of a number that float32 can hold, with a condition."""
  return Rule(
    lambda v: type(v) in (int, float) and abs(v) <= LARGEST and holds(v),
    f"must be {words}",
  )


TEXT = Rule(lambda v: isinstance(v, str), "must be a text")
NOT_EMPTY = Rule(lambda v: isinstance(v, str) and v != "", "must not be empty")
SWITCH = Rule(lambda v: isinstance(v, bool), "must be true or false")
FINITE = number(lambda _: True, "a finite number")
POSITIVE = number(lambda v: v > 0, "above 0")
NOT_NEGATIVE = number(lambda v: v >= 0, "at least 0")
FRACTION = number(lambda v: 0 <= v <= 1, "from 0 to 1")
BELOW_1 = number(lambda v: 0 <= v < 1, "from 0 to below 1")
ABOVE_0 = number(lambda v: 0 < v <= 1, "above 0 and at most 1")
BETWEEN_0_1 = number(lambda v: 0 < v < 1, "above 0, below 1")
COUNT = integer(1, 2**31 - 1, "1 to 2**31 - 1")
PENALTY = number(lambda v: 0.01 <= v <= 100, "from 0.01 to 100")
NATURAL = integer(0, 2**31 - 1, "0 to 2**31 - 1")
SIZE = integer(1, 2**24, "1 to 2**24")
SEED = integer(0, 2**32 - 1, "0 to 2**32 - 1")
SPLIT = choice("train", "validation", "test")


def _is_header(value: Any) -> bool:
  fields = re.findall(r"<(\w+)>", value) if isinstance(value, str) else []
  good = all(name.isidentifier() for name in fields)
  return good and "Content" in fields and len(set(fields)) == len(fields)


def _has_one_group(value: Any) -> bool:
  try:
    return re.compile(value).groups == 1
  except (re.error, TypeError, OverflowError, RecursionError):
    return False


def session_cut(text: str) -> tuple[str, Any]:
  """Returns how `data.log_session` cuts a log, and the value.

  Raises:
    ValueError: it is none of the four forms.
  """
  if _has_one_group(text):
    return "pattern", text
  kind, _, value = text.partition("=")
  if kind == "key" and value:
    return kind, value
  if kind == "lines" and COUNT.holds(int(value)):
    return kind, int(value)
  if kind == "gap" and POSITIVE.holds(float(value)):
    return kind, float(value)
  raise ValueError


def _is_cut(value: Any) -> bool:
  try:
    return bool(session_cut(value))
  except (ValueError, TypeError, AttributeError):
    return False


def keys_of_json(text: str) -> dict[str, str]:
  """Returns the keys that `data.log_keys` names, by message, time and level."""
  pairs = (part.partition("=") for part in text.split(",") if part)
  return {name.strip(): key.strip() for name, _, key in pairs}


def _are_keys(value: Any) -> bool:
  if not isinstance(value, str):
    return False
  keys = keys_of_json(value)
  known = {"message", "time", "level"}
  return keys != {} and keys.keys() <= known and all(keys.values())


def _fault_of(pattern: Any) -> str:
  """What Python says of a text that is no regular expression, else ""."""
  try:
    re.compile(pattern.replace(SECRETS, "(?:x)"))
  except (re.error, OverflowError, RecursionError) as error:
    return f"; Python reads it with an error: {error}"
  except (AttributeError, TypeError):
    pass
  return ""


def _groups_of(pattern: Any) -> str:
  """As `_fault_of`, or the number of groups."""
  fault = _fault_of(pattern)
  if fault or not isinstance(pattern, str):
    return fault
  return f"; it has {re.compile(pattern).groups or 'none'}"


SECRETS = "<secrets>"  # In a pattern of detect.redact: all that is built in.


def _masks(value: Any) -> bool:
  """Whether it is empty or a regular expression that needs some text."""
  try:
    return value == "" or not re.search(value.replace(SECRETS, "(?:x)"), "")
  except (re.error, AttributeError, TypeError, OverflowError, RecursionError):
    return False


_LISTENS = re.compile(r"(.+:)?\d{1,5}")
_PART = re.compile(r"embedding|letters|layers|layer[1-9]\d{0,2}|head|taken")


def _is_fold(value: Any) -> bool:
  match = isinstance(value, str) and re.fullmatch(r"(\d{1,4})/(\d{1,4})", value)
  return bool(match) and 1 <= int(match[1]) <= int(match[2]) > 1


def _are_temperatures(value: Any) -> bool:
  # Dividing logits by a number below 1e-30 may give infinity.
  rule = number(lambda v: v == 0 or v >= 1e-30, "")
  return isinstance(value, tuple) and value != () and all(map(rule[0], value))


def texts(value: str) -> list[str]:
  """The texts of a JSON list; any other value is one text."""
  with contextlib.suppress(ValueError, RecursionError):
    found = json.loads(value, strict=False)  # Also with a newline itself.
    if isinstance(found, list):
      return found
  return [value]


COLUMN = Rule(
  lambda v: isinstance(v, str) and v.strip("-0") != "",
  "must be the number of a column, from 1 or -1, or its name",
)
FITTED = Rule(
  lambda v: (
    isinstance(v, str)
    and {part.strip() for part in v.split(",")}
    <= {
      *("all", "train.batch_size", "train.batches_per_epoch", "train.epochs"),
      "model.dropout",
    }
  ),
  "must be all, or some of train.batch_size, train.batches_per_epoch,"
  " train.epochs, model.dropout, separated by commas",
)
HEADER = Rule(
  _is_header,
  "must have <Content>, and no field twice, as in '<Date> <Time> <Content>'",
)
CUT = Rule(
  _is_cut,
  "must be a regular expression with one group, gap=SECONDS, lines=NUMBER or"
  " key=KEY",
  fault=_groups_of,
)
KEYS = Rule(_are_keys, "must be as message=KEY,time=KEY,level=KEY")
LISTENS = Rule(
  lambda v: isinstance(v, str) and _LISTENS.fullmatch(v) is not None,
  "must be PORT or ADDRESS:PORT",
)
MASKED = Rule(
  _masks,
  f"must be empty or a regular expression that matches no empty text; {SECRETS}"
  " in it stands for e-mail addresses, tokens and passwords",
  fault=_fault_of,
)
PARTS = Rule(
  lambda v: isinstance(v, str) and all(map(_PART.fullmatch, v.split(","))),
  "must be embedding, letters, layers, layer1, layer2 and so on, head or taken,"
  " separated by commas",
)
FOLD = Rule(_is_fold, "must be a part and the number of parts, such as 2/5")
TEMPERATURES = Rule(
  _are_temperatures, "must be numbers, each 0 or at least 1e-30"
)
STOPS = Rule(
  lambda v: (
    isinstance(v, str)
    and texts(v) != []
    and all(isinstance(t, str) and t != "" for t in texts(v))
    and not (v.startswith('["') and texts(v) == [v])  # A broken list.
  ),
  'must be a text, or a JSON list of texts, such as ["\\n"], none of them'
  " empty",
)
FOLDS = Rule(
  lambda v: type(v) is int and (v == 0 or 2 <= v <= 1000),
  "must be from 2 to 1000, or 0",
)


def as_float32(value: Any) -> Any:
  """Returns a value with its floats rounded to float32."""
  if isinstance(value, tuple):
    return tuple(map(as_float32, value))
  if not isinstance(value, float):
    return value
  near = ctypes.c_float(value).value
  return near if abs(near) >= _SMALLEST else 0.0
