"""The types with which seqrnn/config/fields/ declares the fields of a config.

A rule says which values a field may have. Called with a help text, it declares
a field: `COUNT("The maximum number of epochs.", default=10)`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ml_collections import ConfigDict

if TYPE_CHECKING:

  class Config(ConfigDict):
    """A ConfigDict; type checkers do not know the types of its fields."""

    def __getattr__(self, name: str) -> Any: ...
    def __getitem__(self, key: str) -> Any: ...

else:
  Config = ConfigDict

# The value of a field; a sequence is a tuple, in JSON a list.
FieldValue = bool | int | float | str | Sequence[float] | Sequence[str] | None
# Values of fields by their dotted names.
Fields = Mapping[str, Any]
# Field -> the values that it must have for the condition to hold.
Condition = dict[str, Sequence[FieldValue]]

READ, WRITTEN = "read", "written"  # Of `Field.place`.


class Rule(NamedTuple):
  """The values of a field.

  Attributes:
    kind: their type; tuple for numbers, list for texts in a tuple.
    holds: returns whether a value of this type is allowed.
    text: the rule in words; what follows the names of a choice.
    names: the values, if the field is a choice of names.
    default: of a field that declares no other; None: it may be empty.
  """

  kind: type
  holds: Callable[[Any], object]
  text: str = ""
  names: Sequence[str] = ()
  default: FieldValue = None

  def __call__(self, help: str, *used: Condition, **attributes: Any) -> "Field":
    default = attributes.pop("default", self.default)
    return Field(self, help, used, default, **attributes)


class Field(NamedTuple):
  """A field of the config.

  Attributes:
    rule: the values that the field may have.
    help: the meaning, in one or two sentences.
    used: conditions; the field has an effect if one of them holds. Without
      conditions it always has an effect, or other checks refuse it.
    default: the default value. If it is None, the field may be empty, and the
      text `none` empties it.
    place: READ if the value is a path of input, which is printed before it is
      read if a workdir names it. WRITTEN if the value is a place to write to or
      to listen at; a workdir does not name it, only flags and --config do.
  """

  rule: Rule
  help: str
  used: tuple[Condition, ...] = ()
  default: FieldValue = None
  place: str = ""

  @property
  def words(self) -> str:
    """The rule in words."""
    names = ", ".join(self.rule.names)
    return (f"must be one of {names}" if names else "") + self.rule.text

  @property
  def optional(self) -> bool:
    """Whether the field may be empty."""
    return self.default is None

  @property
  def rule_text(self) -> str:
    """The rule in words; it includes `none` for a field that may be empty."""
    return self.words + ", or none" * self.optional

  @property
  def repeated(self) -> bool:
    """Whether its flag may be repeated; the value is a tuple of texts."""
    return self.rule.kind is list

  def holds(self, value: FieldValue) -> bool:
    """Returns whether a value of the field's type is allowed."""
    return self.optional if value is None else bool(self.rule.holds(value))

  def read(self, value: Any) -> Any:
    """Returns a value of the field's type.

    Args:
      value: the text of a flag, or a value of Python or JSON. `none` empties a
        field that may be empty; names of a choice may be in any case.

    Raises:
      ValueError, TypeError: the value is not of the field's type.
    """
    kind, empty = self.rule.kind, value is None or str(value).lower() == "none"
    if empty and self.optional:
      return None
    if value is None or isinstance(value, bytes | dict):
      raise ValueError
    if kind is list:
      return (value,) if isinstance(value, str) else tuple(value)
    if kind is str and isinstance(value, list | tuple):
      return json.dumps(value, default=lambda _: None)  # As rules refuse null.
    text = str(value)
    if value != self.default:
      names = {name.lower(): name for name in self.rule.names}
      text = names.get(text.lower(), text)
    return _PARSERS[kind](text)


def group(name: str, /, *used: Condition, **fields: Field) -> dict[str, Field]:
  """Returns the fields of a group by their dotted names.

  Args:
    name: of the group.
    *used: the conditions of the fields that declare none.
    **fields: the fields by their last names.
  """
  return {
    f"{name}.{key}": field._replace(used=field.used or used)
    for key, field in fields.items()
  }


def nested(fields: Fields) -> dict[str, Any]:
  """Returns fields by their dotted names as nested dicts."""
  groups: dict[str, Any] = {}
  for name, value in fields.items():
    group, _, key = name.rpartition(".")
    (groups.setdefault(group, {}) if group else groups)[key] = value
  return groups


def choice(
  names: str, help: str, *used: Condition, empty: bool = False
) -> Field:
  """Returns a field of a choice of names; the first is the default.

  Args:
    names: separated by white space.
    help: as of `Field`.
    *used: as of `Field`.
    empty: whether the field is empty by default.
  """
  listed = names.split()
  rule = Rule(str, listed.__contains__, names=listed)
  return rule(help, *used, default=None if empty else listed[0])


def input_path(help: str, *used: Condition) -> Field:
  """Returns an optional field that names a file or folder to read."""
  return Rule(str, bool, "must not be empty")(help, *used, place=READ)


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


_PARSERS: dict[type, Callable[[str], FieldValue]] = {
  str: str,
  bool: _parse_bool,
  int: _parse_int,
  float: float,
  tuple: _parse_numbers,
}
