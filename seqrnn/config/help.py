"""What --help and --version print; imports no JAX before it needs it."""

import ast
import os
import platform
import textwrap
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import flags

from seqrnn.config import read as config_lib
from seqrnn.config import recipes, suggestions
from seqrnn.config.command import MODES
from seqrnn.config.read import FIELDS, Config
from seqrnn.config.warned import needs
from seqrnn.errors import UserError
from seqrnn.runtime import devices

_USAGE = """\
Trains, evaluates and uses recurrent networks on sequences of symbols.

  {program} --config=brnn
  {program} --config=rnn --config.model.hidden_size=256
  {program} --workdir=runs/rnn --mode=sample --config.sample.temperature=0.5
"""
_SETTINGS = """\
Each is a flag, --config.GROUP.FIELD=VALUE. --help=model explains the settings\
 of the group model, --help=model.cell one, --help=all all of them. The groups\
 are {groups}."""
_PACKAGES = ("jax", "jaxlib", "flax", "optax")
_WIDTH = 80
_INDENT: Any = {"initial_indent": "    ", "subsequent_indent": "    "}


def overview(program: str, parsed: flags.FlagValues) -> str:
  """Returns the modes, the configs and the flags, with a line for each.

  Args:
    program: the command as it was typed.
    parsed: the flags that are no fields.
  """
  groups = ", ".join(recipes.groups_of_fields())
  settings = _SETTINGS.format(groups=groups)
  described = {f"--{name}": str(parsed[name].help) for name in _own(parsed)}
  return "\n".join(
    [
      _USAGE.format(program=program),
      "Modes, --mode=MODE:",
      *_table(mode_lines()),
      "",
      "Configs, --config=NAME:",
      *_table(config_lines()),
      "",
      "Settings:",
      textwrap.fill(
        settings, _WIDTH, initial_indent="  ", subsequent_indent="  "
      ),
      "",
      "Flags:",
      *_table(described),
    ]
  )


def _own(parsed: flags.FlagValues) -> Iterator[str]:
  """Yields the names of the flags in the order of their definition."""
  for module in parsed.flags_by_module_dict().values():
    for flag in module:
      if not flag.name.startswith("config."):
        yield flag.name


def mode_lines() -> dict[str, str]:
  """Returns the modes, each with the first line of its module."""
  folder = Path(__file__).parents[1] / "modes"
  lines = {mode: _first_line(folder / f"{mode}.py") for mode in MODES}
  return {
    mode: line.removeprefix(f"{mode}: ").rstrip(".")
    for mode, line in lines.items()
  }


def config_lines() -> dict[str, str]:
  """Returns the names of the configs, each with the first line of its file."""
  return {
    name: _first_line(recipes.find(name)).rstrip(".")
    for name in recipes.names()
  }


def _first_line(path: Path) -> str:
  """Returns the first line of the docstring of a file, without running it."""
  try:
    text = ast.get_docstring(ast.parse(path.read_bytes()))
  except (OSError, SyntaxError, ValueError):  # A file of the user's.
    text = None
  return (text or "").partition("\n")[0]


def _table(lines: dict[str, str]) -> Iterator[str]:
  width = max(map(len, lines)) + 4
  for name, text in lines.items():
    yield textwrap.fill(
      text,
      _WIDTH,
      initial_indent=f"  {name}".ljust(width),
      subsequent_indent=" " * width,
    )


def of_fields(wanted: str, config: Config, flag: str) -> str:
  """Returns the values, defaults, rules and meanings of fields.

  Args:
    wanted: a field, such as `data.window`; a group, such as `data`; or `all`.
    config: the values.
    flag: the flag that names the config.

  Raises:
    UserError: there is no such field or group.
  """
  names = [
    name
    for name in FIELDS
    if wanted == "all" or name == wanted or name.startswith(f"{wanted}.")
  ]
  if not names:
    groups = recipes.groups_of_fields()
    near = " or ".join(suggestions.fields(wanted, FIELDS))
    near = near or suggestions.near(wanted, groups)
    raise UserError(
      f"--help={wanted}: must be all, a field such as data.window, or one of"
      f" {', '.join(groups)}{f'; did you mean {near}?' if near else ''}"
    )
  values = config_lib.flat(config)
  return "\n".join(_explained(name, values[name], flag) for name in names)


def _explained(name: str, value: Any, flag: str) -> str:
  """Returns the help of a field, with its value, rule and conditions."""
  field = FIELDS[name]
  origin = "default"
  if value != field.default:
    origin = f"{flag}; the default is {config_lib.text(field.default)}"
  rule = f"{field.rule.words}{', or none' if field.optional else ''}."
  if field.used:
    rule += f" It has an effect with {needs(field.used)}."
  texts = field.help, rule[0].upper() + rule[1:]
  lines = [textwrap.fill(text, 76, **_INDENT) for text in texts]
  return "\n".join(
    [f"--config.{name}={config_lib.text(value)}  ({origin})", *lines]
  )


def version() -> Iterator[str]:
  """Yields the versions, the cache and the devices; the last starts JAX."""
  yield f"seqrnn {_version('seqrnn')}"
  yield f"python {platform.python_version()} ({platform.platform()})"
  yield from (f"{name} {_version(name)}" for name in _PACKAGES)
  yield f"cache {os.environ.get('JAX_COMPILATION_CACHE_DIR', 'none')}"
  try:
    warned = devices.start(named=True)
  except UserError as error:
    yield f"devices none: {error}"
    return
  from seqrnn.runtime import sharding  # It imports JAX.

  yield f"devices {devices.words(sharding.mesh())}"
  yield from warned


def _version(package: str) -> str:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return "(not installed)"
