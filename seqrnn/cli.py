"""The command line: flags, and one mode."""

import gc
import importlib
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from seqrnn import usage
from seqrnn.config import command, suggestions
from seqrnn.config.field import FieldValue
from seqrnn.config.read import FIELDS, MODES, Config, converted
from seqrnn.errors import Interrupted, UserError, needs_package, report
from seqrnn.runtime import devices, launch, processes
from seqrnn.usage import PREFIX

if TYPE_CHECKING:  # It imports JAX, which starts later.
  from seqrnn.experiment import Build

  # What it returns is of use in Python alone; `config` needs no experiment.
  Mode = Callable[[Build | None, Config, Path], None]

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
    if not usage.explained(argv[0], parsed):
      _run(parsed, peer, distributed)
    sys.stdout.flush()
    status, together = 0, True  # Every process has finished.
  except (Exception, KeyboardInterrupt) as error:
    status = _failed(error, peer, bool(parsed["debug"].value))
    together = isinstance(error, Interrupted)
  if peer.joined:
    processes.leave(status, together)
  return status


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
      report(line)
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
    flag = f"{PREFIX}{name}"
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
  typed = {name: values[f"{PREFIX}{name}"] for name in FIELDS}
  return {
    name: converted(name, flag.value)
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
    flag = error.flagname.removeprefix(PREFIX).replace("-", "_")
    near = [f"--{PREFIX}{x}" for x in suggestions.fields(flag, FIELDS)]
    others = [name for name in parsed if not name.startswith(PREFIX)]
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
