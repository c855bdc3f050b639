"""The type with which seqrnn/config/fields/ declares the fields of a config.

A field has a default, a rule, a help text, and conditions under which it has an
effect. seqrnn/config/read.py uses them to read, override and check configs.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from seqrnn.config.rules import NOT_EMPTY, Rule

Config = Any  # A ConfigDict; type checkers do not know its fields.
# Field -> the values that it must have for the condition to hold.
Condition = dict[str, Sequence[Any]]

READ, WRITTEN = "read", "written"  # Of `Field.place`.


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
  def rule_text(self) -> str:
    """The rule in words; it includes `none` for a field that may be empty."""
    return f"{self.rule.words}{', or none' if self.optional else ''}"

  @property
  def type_rule(self) -> str:
    """The type of the values, in words."""
    kind = "texts" if self.repeated else _KINDS[self.kind]
    return f"must be {kind}{', or none' if self.optional else ''}"

  def parse(self, text: str) -> Any:
    """Returns the value of a flag's text.

    Raises:
      ValueError: the text is not of the field's type; says which it must be.
    """
    if self.optional and text.lower() == "none":
      return None
    try:
      return self._named(_PARSERS[self.kind](text))
    except ValueError:
      raise ValueError(self.type_rule) from None

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


def group(name: str, /, **fields: Field) -> dict[str, Field]:
  """Returns the fields of a group by their dotted names."""
  return {f"{name}.{key}": field for key, field in fields.items()}


def optional(
  kind: type, rule: Rule, help: str, *used: Condition, place: str = ""
) -> Field:
  """Returns a field that is empty by default; the text `none` empties it."""
  either = rule._replace(holds=lambda v: v is None or rule.holds(v))
  return Field(None, either, help, used, kind, place)


def input_path(help: str, *used: Condition) -> Field:
  """Returns an optional field that names a file or folder to read."""
  return optional(str, NOT_EMPTY, help, *used, place=READ)


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
