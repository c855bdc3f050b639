"""The types with which seqrnn/config/fields/ declares the fields of a config.

A rule says which values a field may have. Called with a help text, it declares
a field: `COUNT("The maximum number of epochs.", default=10)`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Config = Any  # A ConfigDict; type checkers do not know its fields.
# Field -> the values that it must have for the condition to hold.
Condition = dict[str, Sequence[Any]]

READ, WRITTEN = "read", "written"  # Of `Field.place`.


class Rule(NamedTuple):
  """The values of a field.

  Attributes:
    kind: their type; tuple for numbers, list for texts in a tuple.
    holds: returns whether a value of this type is allowed.
    text: the rule in words; empty for a choice of names.
    names: the values, if the field is a choice of names.
    default: of a field that declares no other; None: it may be empty.
  """

  kind: type
  holds: Callable[[Any], Any]
  text: str = ""
  names: Sequence[str] = ()
  default: Any = None

  def __call__(self, help: str, *used: Condition, **attributes: Any) -> "Field":
    return Field(self, help, used, **{"default": self.default} | attributes)


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
  default: Any = None
  place: str = ""

  @property
  def words(self) -> str:
    """The rule in words."""
    return self.rule.text or f"must be one of {', '.join(self.rule.names)}"

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

  def holds(self, value: Any) -> bool:
    """Returns whether a value is of the field's type and allowed."""
    if value is None:
      return self.optional
    kinds = {float: (float, int), list: (tuple,)}
    kind = self.rule.kind
    typed = type(value) in kinds.get(kind, (kind,))
    return typed and bool(self.rule.holds(value))

  def parse(self, text: str) -> Any:
    """Returns the value of a flag's text.

    Raises:
      ValueError: the text is not of the field's type; has the rule in words.
    """
    if self.optional and text.lower() == "none":
      return None
    try:
      return self._named(_PARSERS[self.rule.kind](text))
    except ValueError:
      raise ValueError(self.rule_text) from None

  def cast(self, value: Any) -> Any:
    """Returns a value from a file in the field's type; an int may be a float.

    Names of a choice may be in any case.

    Raises:
      TypeError: the value is of another type.
      OverflowError: a whole number is too large for a float.
    """
    kind = self.rule.kind
    if self.optional and value is None:
      return None
    if kind in (tuple, list) and type(value) is tuple:
      part = float if kind is tuple else str
      return tuple(_cast(inner, part) for inner in value)
    return self._named(_cast(value, kind))

  def _named(self, value: Any) -> Any:
    """Returns the name of a choice that differs from a text by case only."""
    if value == self.default or not isinstance(value, str):
      return value
    names = self.rule.names
    return next((n for n in names if n.lower() == value.lower()), value)


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


def nested(fields: dict[str, Any]) -> dict[str, Any]:
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


def _cast(value: Any, kind: type) -> Any:
  if kind is float and type(value) is int:
    return float(value)
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
