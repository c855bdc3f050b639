"""The command line: flags -> config -> one mode."""

from __future__ import annotations

import gc
import importlib
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType

from absl import flags

from seqrnn.config import command, help, overrides, recipes, suggestions
from seqrnn.config.read import Config
from seqrnn.config.resolve import this_machine
from seqrnn.errors import Interrupted, UserError, visible
from seqrnn.logs import spark
from seqrnn.runtime import devices, launch, processes

# Flags that ask for lines instead of a mode.
_ASKED = re.compile(r"-h|--?(help(?:full|short)?|version)(?:=(.*))?", re.DOTALL)


def main(argv: list[str]) -> int:
  """Runs one mode; returns the exit status."""
  launch.open_streams()
  parsed = define()
  joined, index = False, 0  # Whether it is one of several processes; its index.
  try:
    if lines := information(argv, parsed):
      for line in lines:
        print(line, flush=True)
      return 0
    distributed = parse(parsed, argv)
    launch.refuse_windows()
    fields = overrides.from_flags(parsed)
    machine = None if parsed.mode == "config" else this_machine(parsed.mode)
    config, workdir = command.resolve(parsed, fields, machine)
    if parsed.mode == "config":  # It needs neither a device nor the tasks.
      _module(parsed, config).run(None, config, workdir)
      return 0
    launch.configure_device(
      config.train.cpu_devices,
      config.train.cpu_threads,
      on_cpu=parsed.follow or command.gpu_workers(config, parsed.mode),
      inline=parsed.follow,
    )
    if distributed:
      joined = True
      processes.guard()
      index = processes.join(
        parsed.coordinator, parsed.num_processes, parsed.process_id
      )
    for line in devices.start(named=parsed.mode == "train"):
      if index == 0:
        print(visible(line), file=sys.stderr)
    experiments = importlib.import_module("experiments")
    module = _module(parsed, config)
    gc.freeze()
    gc.enable()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # As start() sets it.
      signal.signal(signal.SIGINT, signal.default_int_handler)
    module.run(experiments.build, config, workdir)
    sys.stdout.flush()
    status, together = 0, True  # Every process has finished.
  except (Exception, KeyboardInterrupt) as error:
    ended = isinstance(error, Interrupted | KeyboardInterrupt | BrokenPipeError)
    if joined and not ended and processes.lost(error):
      processes.end_lost()
    status = launch.report(error, index == 0, bool(parsed["debug"].value))
    together = isinstance(error, Interrupted)
    if status is None:
      if not joined:
        raise
      traceback.print_exc()
      status = 1
  if joined:
    processes.leave(status, together)
  return status


def _module(parsed: flags.FlagValues, config: Config) -> ModuleType:
  """Imports the module of a mode, which may take seconds."""
  if parsed.follow and config.detect.engine == "spark":
    return spark.import_module("stream")
  name = "following.follow" if parsed.follow else f"modes.{parsed.mode}"
  return importlib.import_module(f"seqrnn.{name}")


def information(
  argv: list[str], parsed: flags.FlagValues
) -> Iterator[str] | list[str]:
  """Returns the lines to print instead of running a mode, if any.

  Args:
    argv: the command line; without arguments, it asks for help.
    parsed: the flags.

  Raises:
    UserError: there is no such field.
  """
  asked, following = None, []
  for index, argument in enumerate(argv):
    if asked := _ASKED.fullmatch(argument):
      following = argv[index + 1 : index + 2]
      break
  name, value = asked.groups() if asked else (None, None)
  if value is None and following and not following[0].startswith("-"):
    [value] = following  # `--help model` is --help=model.
  if name == "version":
    return help.version()
  if value is not None:
    parsed.set_gnu_getopt()  # A field may stand before --config.
    parsed(argv, known_only=True)
    return [help.of_fields(value, *command.named(parsed))]
  if asked or len(argv) < 2:
    return [help.overview(command.program(argv[0]), parsed)]
  return []


def define() -> flags.FlagValues:
  """Defines the flags: those of the program, and one for each field."""
  values = flags.FlagValues()
  for name, default, text in (
    (
      "config",
      None,
      "The name of a config, a .py file with get_config(), or JSON.",
    ),
    ("mode", "train", "What to do. Default: train."),
    (
      "workdir",
      None,
      "The folder of the run. Default: runs/ and the name of the config, with"
      " the fields that flags changed. Without --config, the config in this"
      " folder is used. A report compares several, separated by commas; in"
      " quotation marks, runs/* matches all runs in runs.",
    ),
  ):
    flags.DEFINE_string(name, default, text, flag_values=values)
  for name, text in (
    (
      "follow",
      "With --mode=detect: examine lines as they arrive on standard input, in"
      " the format of the training data.",
    ),
    ("debug", "Also print the traceback of an error."),
    ("version", "Print the versions, the cache folder and the devices."),
  ):
    flags.DEFINE_bool(name, False, text, flag_values=values)
  launch.define_distributed(values)
  overrides.define(values)
  return values


def parse(parsed: flags.FlagValues, argv: list[str]) -> bool:
  """Parses the flags; returns whether this is one of several processes.

  Raises:
    UserError: an argument is not a flag, or flags exclude each other.
    flags.Error: a flag has a value of another type.
  """
  try:
    arguments = parsed(argv)[1:]
  except flags.UnrecognizedFlagError as error:
    names = [name for name in parsed if not name.startswith("config.")]
    overrides.refuse_unknown(error.flagname, names)
  except ValueError as error:  # As of --noconfig.seed=3.
    raise UserError(str(error)) from None
  if arguments:
    hint = _meant(arguments[0])
    raise UserError(f"{arguments[0]!r}: not a flag; flags begin with --{hint}")
  for name in ("config", "mode", "workdir"):
    if parsed[name].value == "":
      raise UserError(f"--{name}=: must not be empty")
  if parsed.mode.lower() not in command.MODES:
    hint = suggestions.hint(parsed.mode, command.MODES)
    raise UserError(
      f"--mode={parsed.mode}: must be one of {', '.join(command.MODES)}{hint}"
    )
  parsed.mode = parsed.mode.lower()
  distributed = launch.is_distributed(parsed)
  if parsed.follow and parsed.mode != "detect":
    raise UserError(f"--follow: needs --mode=detect, not {parsed.mode}")
  return distributed


def _meant(argument: str) -> str:
  """Returns a hint for an argument that is no flag, if there is one."""
  for flag, values in (("mode", command.MODES), ("config", recipes.names())):
    if argument in values:
      return f"; did you mean --{flag}={argument}?"
  return ""
