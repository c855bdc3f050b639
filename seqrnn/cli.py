"""The command line: flags, help, and one mode."""

import ast
import gc
import importlib
import os
import platform
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from seqrnn.config import command, suggestions
from seqrnn.config import read as config_lib
from seqrnn.config.field import FieldValue
from seqrnn.config.read import FIELDS, MODES, Config
from seqrnn.errors import Interrupted, UserError, needs_package, visible
from seqrnn.runtime import devices, launch, processes

if TYPE_CHECKING:  # It imports JAX, which starts later.
  from seqrnn.experiment import Build

  # What it returns is of use in Python alone; `config` needs no experiment.
  Mode = Callable[[Build | None, Config, Path], None]

_PREFIX = "config."
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
_TEXT_FLAGS = {
  "config": "The name of a config, a .py file, or JSON. FILE.py:ARGUMENT calls"
  " get_config(ARGUMENT).",
  "mode": "The mode. Default: train.",
  "help": "Explain a group of settings, a setting, or all; --help alone lists"
  " the modes, the configs and the flags.",
  "workdir": "The folder of the run. Default: runs/, the name of the config and"
  " the fields that flags changed, but for train.epochs and train.max_steps."
  " Without --config, its config is used. A"
  " report compares several, separated by commas, or those that 'runs/*'"
  " matches.",
}
_SWITCHES = {
  "follow": "With --mode=detect: examine lines as they arrive on standard"
  " input, in the format of the training data.",
  "debug": "Also print the traceback of an error.",
  "version": "Print the versions, the cache folder and the devices.",
}


@dataclass
class Peer:
  """This process among those of a training.

  Attributes:
    joined: whether it is one of several.
    index: its number, from 0.
  """

  joined: bool = False
  index: int = 0


def main(argv: list[str]) -> int:
  """Runs one mode; returns the exit status."""
  launch.open_streams()
  parsed, peer = define_flags(), Peer()
  try:
    distributed = parse_flags(parsed, argv)
    if not explained(argv[0], parsed):
      _run(parsed, peer, distributed)
    sys.stdout.flush()
    status, together = 0, True  # Every process has finished.
  except (Exception, KeyboardInterrupt) as error:
    status = _failed(error, peer, bool(parsed["debug"].value))
    together = isinstance(error, Interrupted)
  if peer.joined:
    processes.leave(status, together)
  return status


def explained(program: str, parsed: flags.FlagValues) -> bool:
  """Prints what --version or --help ask for; returns whether they do."""
  if parsed.version:
    print_versions()
  elif parsed.help:
    print(fields_help(parsed.help), flush=True)
  elif parsed.help is not None:
    print(overview(program, parsed), flush=True)
  return bool(parsed.version) or parsed.help is not None


def _run(parsed: flags.FlagValues, peer: Peer, distributed: bool):
  """Resolves the config, starts the devices, and runs the mode."""
  launch.refuse_windows()
  request = command.Command(
    parsed.mode, parsed.config, parsed.workdir, parsed.process_id
  )
  config, workdir = command.resolve(request, overrides_of_flags(parsed))
  build = None
  if parsed.mode != "config":  # It needs neither a device nor the tasks.
    build = _start(parsed, config, peer, distributed)
    if command.in_zoo(parsed.workdir):
      tensors = importlib.import_module("seqrnn.exporting.tensors")
      tensors.complete(build, workdir)
  run_mode = _mode(parsed, config)
  gc.freeze()
  gc.enable()
  if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # As start() sets it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
  run_mode(build, config, workdir)


def _start(
  parsed: flags.FlagValues, config: Config, peer: Peer, distributed: bool
) -> "Build":
  """Starts JAX, with the other processes; returns what builds experiments."""
  train = config.train
  launch.configure_device(
    train.cpu_devices, train.cpu_threads, follow=parsed.follow
  )
  if distributed:
    peer.joined = True
    processes.guard()
    peer.index = processes.join(
      parsed.coordinator, parsed.num_processes, parsed.process_id
    )
  for line in devices.start(named=parsed.mode == "train"):
    if peer.index == 0:
      print(visible(line), file=sys.stderr)
  return importlib.import_module("seqrnn.experiments").build


def _failed(error: BaseException, peer: Peer, debug: bool) -> int:
  """Reports the error that is handled; returns the exit status."""
  ended = isinstance(error, Interrupted | KeyboardInterrupt | BrokenPipeError)
  if peer.joined and not ended and processes.lost(error):
    processes.end_lost()
  status = launch.report(error, peer.index == 0, debug)
  if status is None:
    if not peer.joined:
      raise
    traceback.print_exc()
    status = 1
  return status


def _mode(parsed: flags.FlagValues, config: Config) -> "Mode":
  """The function of a mode, whose import may take seconds."""
  if parsed.follow and config.detect.engine == "spark":
    with needs_package("config.detect.engine='spark'", "pyspark", "spark"):
      return importlib.import_module("seqrnn.logs.spark.engine").follow
  name = "logs.follow.follow" if parsed.follow else f"modes.{parsed.mode}"
  return importlib.import_module(f"seqrnn.{name}").run


def define_flags() -> flags.FlagValues:
  """Defines the flags: those of the program, and one for each field."""
  values = flags.FlagValues()
  for name, text in _TEXT_FLAGS.items():
    default = "train" if name == "mode" else None
    flags.DEFINE_string(name, default, text, flag_values=values)
  for name, text in _SWITCHES.items():
    flags.DEFINE_bool(name, False, text, flag_values=values)
  launch.define_distributed(values)
  for name, field in FIELDS.items():
    flag = f"{_PREFIX}{name}"
    if field.repeated:
      flags.DEFINE_multi_string(flag, None, field.help, flag_values=values)
    elif field.rule.kind is bool:
      flags.DEFINE_boolean(flag, None, field.help, flag_values=values)
    else:
      flags.DEFINE_string(flag, None, field.help, flag_values=values)
  return values


def overrides_of_flags(values: flags.FlagValues) -> dict[str, FieldValue]:
  """Returns the values of the fields that flags set, by their names.

  Raises:
    UserError: a value is of another type.
  """
  typed = {name: values[f"{_PREFIX}{name}"] for name in FIELDS}
  return {
    name: config_lib.converted(name, flag.value)
    for name, flag in typed.items()
    if flag.present
  }


def parse_flags(parsed: flags.FlagValues, argv: list[str]) -> bool:
  """Parses the flags; returns whether this is one of several processes.

  Raises:
    UserError: an argument is not a flag, or flags exclude each other.
    flags.Error: a flag of the program has a value of another type.
  """
  bare = {"--help": "--help=", "-h": "--help="}  # A text flag needs a value.
  asked = [bare.get(part, part) for part in argv[1:]]
  try:
    arguments = parsed([argv[0], *(asked or ["--help="])])[1:]
  except flags.UnrecognizedFlagError as error:
    flag = error.flagname.removeprefix(_PREFIX).replace("-", "_")
    near = [f"--{_PREFIX}{x}" for x in suggestions.fields(flag, FIELDS)]
    others = [name for name in parsed if not name.startswith(_PREFIX)]
    other = suggestions.near(error.flagname, others, 0.75)
    near = near or ([f"--{other}"] if other else [])
    hint = suggestions.question(near)
    raise UserError(f"--{error.flagname}: no such flag{hint}") from None
  except ValueError as error:  # As of --noconfig.seed=3.
    raise UserError(str(error)) from None
  if arguments:
    raise UserError(f"{arguments[0]!r}: not a flag; flags begin with --")
  if parsed.workdir == "":
    raise UserError("--workdir=: must not be empty")
  if parsed.mode not in MODES:
    hint = suggestions.hint(parsed.mode, MODES)
    raise UserError(
      f"--mode={parsed.mode}: must be one of {', '.join(MODES)}{hint}"
    )
  distributed = launch.is_distributed(parsed)
  if parsed.follow and parsed.mode != "detect":
    raise UserError(f"--follow: needs --mode=detect, not {parsed.mode}")
  return distributed


def overview(path: str, parsed: flags.FlagValues) -> str:
  """Returns the modes, the configs and the flags, with a line for each.

  Args:
    path: of the program, argv[0].
    parsed: the flags.
  """
  settings = _SETTINGS.format(groups=", ".join(config_lib.groups_of_fields()))
  described = {
    f"--{name}": str(parsed[name].help)
    for name in parsed
    if not name.startswith(_PREFIX)
  }
  return "\n".join(
    [
      _USAGE.format(program=command.program(path)),
      "Modes, --mode=MODE:",
      *_table(mode_lines()),
      "\nConfigs, --config=NAME:",
      *_table(config_lines()),
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


def config_lines() -> dict[str, str]:
  """Returns the names of the configs, each with the first line of its file."""
  names = config_lib.config_names()
  return {name: _first_line(config_lib.find_config(name)) for name in names}


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
