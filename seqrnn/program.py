"""Trains, evaluates and uses recurrent networks on sequences of symbols.

  python run.py --config=configs/brnn.py
  python run.py --config=configs/rnn.py --config.model.hidden_size=256
  python run.py --workdir=runs/rnn --mode=sample --config.sample.temperature=0.5

Every field of configs/base.py is a flag, --config.GROUP.FIELD=VALUE. Flags may
be in any order. --help=data explains the fields of the group data, --help=all
explains all fields.
"""

from __future__ import annotations

import gc
import importlib
import re
import sys
import traceback

from absl import flags

from seqrnn import command
from seqrnn.errors import Interrupted, UserError, visible
from seqrnn.runtime import devices, launch, processes
from seqrnn.spark import engine

# Mode -> its module, which is imported only when the mode runs.
MODES = {
  "train": "seqrnn.modes.train",
  "evaluate": "seqrnn.modes.evaluate",
  "predict": "seqrnn.modes.predict",
  "sample": "seqrnn.modes.sample",
  "describe": "seqrnn.modes.describe",
  "search": "seqrnn.modes.search",
  "detect": "seqrnn.modes.detect",
  "review": "seqrnn.modes.review",
  "report": "seqrnn.modes.report",
}
_HELP = re.compile(r"-h|--?help(full|short)?(=.*)?", re.DOTALL)


def main(argv: list[str]) -> int:
  """Runs one mode; returns the exit status."""
  launch.open_streams()
  overrides, argv = command.split_overrides(argv)
  parsed = define()
  joined, index = False, 0  # Whether it is one of several processes; its index.
  try:
    if wanted := next(filter(None, map(_HELP.fullmatch, argv)), None):
      text = f"{__doc__}{parsed.get_help(include_special_flags=False)}"
      text = command.help_text(wanted[2][1:]) if wanted[2] else text
      print(text, flush=True)
      return 0
    distributed = parse(parsed, argv)
    config, workdir = command.resolve(parsed, overrides)
    counts = command.share_cores(config, parsed.mode)
    on_cpu = parsed.follow or command.gpu_workers(config, parsed.mode)
    launch.configure_device(*counts, on_cpu=on_cpu, inline=parsed.follow)
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
    name = "seqrnn.following.follow" if parsed.follow else MODES[parsed.mode]
    if parsed.follow and config.detect.engine == "spark":
      module = engine.of_spark("seqrnn.spark.stream")
    else:
      module = importlib.import_module(name)
    gc.freeze()
    gc.enable()
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


def define() -> flags.FlagValues:
  """Defines the flags that are not fields of the config."""
  values = flags.FlagValues()
  modes = list(MODES)
  for name, help in (
    ("config", "A config: a .py file with get_config(), or JSON."),
    (
      "workdir",
      "The folder of the run. Default: runs/ and the name of the config, with"
      " the fields that flags changed. Without --config, the config in this"
      " folder is used. A report compares several, separated by commas.",
    ),
  ):
    flags.DEFINE_string(name, None, help, flag_values=values)
  flags.DEFINE_enum("mode", "train", modes, "The mode.", flag_values=values)
  for name, help in (
    (
      "follow",
      "With --mode=detect: score events as they arrive on standard input. Each"
      " line has a session and an event.",
    ),
    ("debug", "Also print the traceback of an error."),
  ):
    flags.DEFINE_bool(name, False, help, flag_values=values)
  launch.define_distributed(values)
  return values


def parse(parsed: flags.FlagValues, argv: list[str]) -> bool:
  """Parses the flags; returns whether this is one of several processes.

  Raises:
    UserError: an argument is not a flag, or flags exclude each other.
    flags.Error: a flag is unknown or has a value of another type.
  """
  rest = parsed(argv)[1:]
  if rest:
    raise UserError(f"{rest[0]!r}: not a flag; flags begin with --")
  distributed = launch.is_distributed(parsed)
  if parsed.follow and parsed.mode != "detect":
    raise UserError(f"--follow: needs --mode=detect, not {parsed.mode}")
  return distributed
