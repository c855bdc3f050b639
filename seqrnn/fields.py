"""What a field of a config is: its default, its rule, its help, its effect.

`configs/base.py` declares every field with these; `seqrnn/config.py` reads,
overrides and checks configs by what is declared there.
"""

import ctypes
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# Fields and the values that each of them must have.
Condition = dict[str, Sequence[Any]]

# Of float32: its largest number, and the smallest that XLA does not flush to 0.
LARGEST = (2 - 2**-23) * 2.0**127
_SMALLEST = 2.0**-126


class Rule(NamedTuple):
  """Whether a value is allowed, and the rule in words for an error.

  Attributes:
    holds: whether a value is allowed.
    text: the rule in words, or a function that makes them.
  """

  holds: Callable[[Any], bool]
  text: str | Callable[[], str]

  @property
  def words(self) -> str:
    """The rule in words."""
    return self.text if isinstance(self.text, str) else self.text()


class Registered(Sequence[str]):
  """Names that are looked up in a register each time they are needed.

  So a config can name what is registered in a module that takes long to import.
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
    default: of a field that may be empty, None.
    rule: the values that the field may have.
    help: what it means, in one or two sentences.
    used: conditions; the field has an effect where one of them holds. None:
      it always has, or it is refused where it has none.
    optional: the type of a field that may be empty.
  """

  default: Any
  rule: Rule
  help: str
  used: tuple[Condition, ...] = ()
  optional: type | None = None

  @property
  def kind(self) -> type:
    """The type of its values."""
    return self.optional or type(self.default)

  @property
  def type_rule(self) -> str:
    """What its values must be, in words."""
    return f"must be {_KINDS[self.kind]}{', or none' if self.optional else ''}"

  def parse(self, text: str) -> Any:
    """The value that the text of a flag means.

    Raises:
      ValueError: the text is not of the field's type.
    """
    if self.optional and text.lower() == "none":
      return None
    return _PARSERS[self.kind](text)

  def cast(self, value: Any) -> Any:
    """The value of a file in the field's type; whole numbers may be floats.

    Raises:
      TypeError: the value is of another type.
      OverflowError: a whole number is too large for a float.
    """
    return None if self.optional and value is None else _cast(value, self.kind)


def _cast(value: Any, kind: type) -> Any:
  if kind is float and type(value) is int:
    return float(value)
  if kind is tuple and type(value) is tuple:
    return tuple(_cast(part, float) for part in value)
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
    number = float(text)  # 1e5 is a whole number too.
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


def optional(kind: type, rule: Rule, help: str, *used: Condition) -> Field:
  """A field that is empty by default; `none` empties it again."""
  either = Rule(lambda v: v is None or rule.holds(v), rule.text)
  return Field(None, either, help, used, kind)


def choice(*names: str) -> Rule:
  """One of these names."""
  return one_of(names)


def one_of(names: Sequence[str]) -> Rule:
  """One of these names, which may be those of a register."""
  return Rule(
    lambda value: value in names, lambda: f"must be one of {', '.join(names)}"
  )


def whole(low: int, high: int, words: str) -> Rule:
  """A whole number of this range, which the words name."""
  return Rule(
    lambda v: type(v) is int and low <= v <= high, f"must be from {words}"
  )


def number(holds: Callable[[float], bool], words: str) -> Rule:
  """A number that float32 can hold, with a condition of its own."""
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
UNIT = number(lambda v: 0 <= v <= 1, "from 0 to 1")
BELOW_1 = number(lambda v: 0 <= v < 1, "from 0 to below 1")
ABOVE_0 = number(lambda v: 0 < v <= 1, "above 0 and at most 1")
BETWEEN = number(lambda v: 0 < v < 1, "above 0, below 1")
WHOLE = whole(1, 2**31 - 1, "1 to 2**31 - 1")
NATURAL = whole(0, 2**31 - 1, "0 to 2**31 - 1")
SIZE = whole(1, 2**24, "1 to 2**24")
SEED = whole(0, 2**32 - 1, "0 to 2**32 - 1")
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


def _is_fold(value: Any) -> bool:
  match = isinstance(value, str) and re.fullmatch(r"(\d{1,4})/(\d{1,4})", value)
  return bool(match) and 1 <= int(match[1]) <= int(match[2]) > 1


def _are_temperatures(value: Any) -> bool:
  # Logits divided by a number below 1e-30 may be infinite.
  rule = number(lambda v: v == 0 or v >= 1e-30, "")
  return isinstance(value, tuple) and value != () and all(map(rule[0], value))


HEADER = Rule(
  _is_header,
  "must have <Content>, and each field once, as '<Date> <Time> <Content>'",
)
ONE_GROUP = Rule(_has_one_group, "must be a regular expression with one group")
FOLD = Rule(_is_fold, "must be a part and how many there are, as 2/5")
TEMPERATURES = Rule(
  _are_temperatures,
  "must be one or several numbers from 0, those above 0 at least 1e-30",
)
FOLDS = Rule(
  lambda v: type(v) is int and (v == 0 or 2 <= v <= 1000),
  "must be from 2 to 1000, or 0",
)


def as_float32(value: Any) -> Any:
  """A value as the arrays of a model hold it: numbers have 32 bits."""
  if isinstance(value, tuple):
    return tuple(map(as_float32, value))
  if not isinstance(value, float):
    return value
  near = ctypes.c_float(value).value
  return near if abs(near) >= _SMALLEST else 0.0
