"""The help of the command line, and the versions."""

import ast
import os
import platform
import textwrap
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from absl import flags

from seqrnn.config import command, suggestions
from seqrnn.config import read as config_lib
from seqrnn.config.read import FIELDS, MODES
from seqrnn.errors import UserError
from seqrnn.runtime import devices

PREFIX = "config."  # Of the flags of fields.
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
_WIDTH = 80


def explained(program: str, parsed: flags.FlagValues) -> bool:
  """Prints what --version or --help ask for; returns whether they do."""
  if parsed.version:
    print_versions()
  elif parsed.help:
    print(fields_help(parsed.help), flush=True)
  elif parsed.help is not None:
    print(overview(program, parsed), flush=True)
  return bool(parsed.version) or parsed.help is not None


def overview(path: str, parsed: flags.FlagValues) -> str:
  """Returns the modes, the configs and the flags, with a line for each.

  Args:
    path: of the program, argv[0].
    parsed: the flags.
  """
  names, find = config_lib.config_names(), config_lib.find_config
  settings = _SETTINGS.format(groups=", ".join(config_lib.groups_of_fields()))
  described = {
    f"--{name}": str(parsed[name].help)
    for name in parsed
    if not name.startswith(PREFIX)
  }
  return "\n".join(
    [
      _USAGE.format(program=command.program(path)),
      "Modes, --mode=MODE:",
      *_table(mode_lines()),
      "\nConfigs, --config=NAME:",
      *_table({name: _first_line(find(name)) for name in names}),
      "\nSettings:",
      textwrap.indent(textwrap.fill(settings, _WIDTH - 2), "  "),
      "\nFlags:",
      *_table(described),
    ]
  )


def mode_lines() -> dict[str, str]:
  """Returns the modes, each with the first line of its module."""
  folder = Path(__file__).parent / "modes"
  lines = {mode: _first_line(folder / f"{mode}.py") for mode in MODES}
  return {mode: text.partition(": ")[2] for mode, text in lines.items()}


def _first_line(path: Path) -> str:
  """Returns the first line of the docstring of a file, without running it."""
  try:
    text = ast.get_docstring(ast.parse(path.read_bytes()))
  except (OSError, SyntaxError, ValueError):  # A file of the user's.
    text = None
  return (text or "").partition("\n")[0].rstrip(".")


def _table(lines: dict[str, str]) -> Iterator[str]:
  width = max(map(len, lines)) + 4
  for name, text in lines.items():
    first, indent = f"  {name}".ljust(width), " " * width
    yield textwrap.fill(
      text, _WIDTH, initial_indent=first, subsequent_indent=indent
    )


def fields_help(wanted: str) -> str:
  """Returns the defaults, rules and meanings of fields.

  Args:
    wanted: a field, such as `data.window`; a group, such as `data`; or `all`.

  Raises:
    UserError: there is no such field or group.
  """
  names = [
    name
    for name in FIELDS
    if wanted in ("all", name) or name.startswith(f"{wanted}.")
  ]
  if not names:
    groups = config_lib.groups_of_fields()
    near = suggestions.question(suggestions.fields(wanted, FIELDS))
    hint = suggestions.hint(wanted, groups) or near
    raise UserError(
      f"--help={wanted}: must be all, a field such as data.window, or one of"
      f" {', '.join(groups)}{hint}"
    )
  lines = []
  for name in names:
    field = FIELDS[name]
    rule = f"{field.rule_text}."
    if field.used:
      rule += f" It has an effect with {command.needs(field.used)}."
    lines.append(f"--config.{name}={config_lib.text(field.default)}")
    for text in (field.help, rule[0].upper() + rule[1:]):
      lines += textwrap.indent(textwrap.fill(text, 72), "    ").splitlines()
  return "\n".join(lines)


def print_versions():
  """Prints the versions, the cache and the devices; the last starts JAX."""
  print(f"python {platform.python_version()} ({platform.platform()})")
  for name in ("seqrnn", "jax", "jaxlib", "flax", "optax"):
    try:
      print(name, metadata.version(name))
    except metadata.PackageNotFoundError:  # A clone that is not installed.
      print(f"{name} (not installed)")
  cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "none")
  print(f"cache {cache}", flush=True)
  devices.start()
  from seqrnn.runtime import sharding  # It imports JAX.

  print(f"devices {devices.words(sharding.mesh())}")
