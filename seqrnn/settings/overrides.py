"""Flags that set fields of the config, however a user types them."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from seqrnn.errors import UserError
from seqrnn.settings import recipes, suggestions
from seqrnn.settings.recipes import FIELDS

# Flags that are handled before all others, by absl or by the program.
_SPECIAL = ("flagfile", "undefok", "h", "help", "helpfull", "helpshort")


class Override(NamedTuple):
  """A flag that sets a field of the config.

  Attributes:
    flag: the flag as it was typed, without its value.
    field: the field; None: there is no such field.
    value: the text of the flag; True or False if it has none.
  """

  flag: str
  field: str | None
  value: str | bool

  @property
  def typed(self) -> str:
    """The flag with its value."""
    has_value = isinstance(self.value, str)
    return f"{self.flag}={self.value}" if has_value else self.flag


def split(
  argv: list[str], flag_names: Iterable[str]
) -> tuple[list[Override], list[str]]:
  """Splits a command line into overrides of fields and other arguments.

  `--config.GROUP.FIELD=VALUE` sets a field, and so does `--GROUP.FIELD=VALUE`
  and, if only one group has the field, `--FIELD=VALUE`. The value may be the
  next argument. Without a value a switch is turned on, and `--noFIELD` turns it
  off.

  Args:
    argv: the command line.
    flag_names: the names of the flags that are no fields.
  """
  others = {*flag_names, *_SPECIAL}
  overrides, rest = [], []
  remaining = list(reversed(argv))
  while remaining:
    argument = remaining.pop()
    match = re.fullmatch(r"(--?([^\W\d][^=]*))(=.*)?", argument, re.DOTALL)
    if not match or {match[2], match[2].removeprefix("no")} & others:
      rest.append(argument)
      continue
    flag, name, value = match.groups()
    field = find_field(name)
    if value is not None:
      overrides.append(Override(flag, field, value[1:]))
    elif field is None and name.startswith("no") and find_field(name[2:]):
      overrides.append(Override(flag, find_field(name[2:]), False))
    elif remaining and not remaining[-1].startswith("--"):
      overrides.append(Override(flag, field, remaining.pop()))
    else:
      overrides.append(Override(flag, field, True))
  return overrides, rest


def find_field(name: str) -> str | None:
  """Returns the field that a flag of this name sets; None: there is none."""
  name = name.removeprefix("config.").replace("-", "_")
  if name in FIELDS:
    return name
  same = suggestions.with_last_part(name, FIELDS)
  return same[0] if len(same) == 1 else None


def refuse_unknown(overrides: Iterable[Override], flag_names: Iterable[str]):
  """Refuses flags that set no field.

  Raises:
    UserError: suggests the flag that was probably meant.
  """
  for override in overrides:
    if override.field is None:
      raise UserError(f"{override.typed}: {_rule(override, flag_names)}")


def _rule(override: Override, flag_names: Iterable[str]) -> str:
  """Returns why a flag sets no field, and a suggestion."""
  given, value = override.flag.lstrip("-"), override.value
  name = given.removeprefix("config.").replace("-", "_")
  if name in recipes.groups_of_fields():
    one = next(field for field in FIELDS if field.startswith(f"{name}."))
    return (
      f"is a group of fields, which --help={name} lists; a flag sets one field,"
      f" such as --config.{one}"
    )
  near = [f"config.{field}" for field in suggestions.fields(name, FIELDS)]
  if "." not in given:
    flag = suggestions.near(name, flag_names, 0.75)
    near = [flag] if flag else near
  ending = f"={value}" if isinstance(value, str) else ""
  listed = " or ".join(f"--{name}{ending}" for name in near)
  hint = f"; did you mean {listed}?" if near else ""
  several = suggestions.with_last_part(name, FIELDS)
  rule = "several groups have this field" if several else "no such flag"
  return f"{rule}{hint}"


def as_typed(message: str, overrides: Iterable[Override]) -> str:
  """Returns a message with the flags as they were typed.

  Messages name a field and its value, `config.GROUP.FIELD=VALUE`, wherever the
  value is from.
  """
  for override in reversed(list(overrides)):  # The last of a name counts.
    if override.field is None:
      continue
    values = [override.value]
    with suppress(ValueError):
      if isinstance(override.value, str):
        values.append(os.path.expanduser(override.value))
        values.append(FIELDS[override.field].parse(override.value))
        if isinstance(values[-1], tuple) and len(values[-1]) == 1:
          values += values[-1]
    named = re.escape(override.field)
    pattern = "|".join(re.escape(repr(value)) for value in values)
    message = re.sub(
      rf"(?<![\w.-])(config\.)?{named}=({pattern})(?!\w)|"
      rf"^config\.{named}(?=:)",
      lambda _, typed=override.typed: typed,
      message,
    )
  return message
