"""The fields of the config as absl flags, `--config.GROUP.FIELD=VALUE`."""

from typing import Any, NoReturn

from absl import flags

from seqrnn.config import recipes, suggestions
from seqrnn.config.field import Field
from seqrnn.config.recipes import FIELDS
from seqrnn.errors import UserError

_PREFIX = "config."


class _Parser(flags.ArgumentParser):
  """Parses the text of a flag as its field does."""

  def __init__(self, field: Field):
    self._field = field

  def parse(self, argument: str) -> Any:
    try:
      return self._field.parse(argument)
    except ValueError:
      raise ValueError(self._field.type_rule) from None


def define(values: flags.FlagValues):
  """Defines a flag for each field; none has a value before it is parsed."""
  for name, field in FIELDS.items():
    flag = f"{_PREFIX}{name}"
    if field.repeated:
      flags.DEFINE_multi_string(flag, None, field.help, flag_values=values)
    elif field.kind is bool:
      flags.DEFINE_boolean(flag, None, field.help, flag_values=values)
    else:
      flags.DEFINE(_Parser(field), flag, None, field.help, values)


def from_flags(values: flags.FlagValues) -> dict[str, Any]:
  """Returns the values of the fields that flags set, by their names."""
  overrides = {}
  for name, field in FIELDS.items():
    flag = values[f"{_PREFIX}{name}"]
    if flag.present:
      value: Any = flag.value
      overrides[name] = tuple(value) if field.repeated else value
  return overrides


def refuse_unknown(flag: str, flag_names: list[str]) -> NoReturn:
  """Refuses a flag that is not defined.

  Args:
    flag: its name, without dashes and value.
    flag_names: the names of the flags that are no fields.

  Raises:
    UserError: suggests the flag that was probably meant.
  """
  name = flag.removeprefix(_PREFIX).replace("-", "_")
  if name in recipes.groups_of_fields():
    one = next(field for field in FIELDS if field.startswith(f"{name}."))
    raise UserError(
      f"--{flag}: is a group of fields, which --help={name} lists; a flag sets"
      f" one field, such as --{_PREFIX}{one}"
    )
  near = [f"{_PREFIX}{field}" for field in suggestions.fields(name, FIELDS)]
  if "." not in flag and (other := suggestions.near(name, flag_names, 0.75)):
    near = [other]
  hint = (
    f"; did you mean {' or '.join(f'--{x}' for x in near)}?" if near else ""
  )
  raise UserError(f"--{flag}: no such flag{hint}")
