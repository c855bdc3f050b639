"""Trains recurrent networks on sequences of symbols, and uses them.

  python run.py --config=configs/brnn.py
  python run.py --config=configs/rnn.py --config.model.hidden_size=256
  python run.py --workdir=runs/rnn --mode=sample --config.sample.temperature=0.5

Every field of configs/base.py is a flag, --config.GROUP.FIELD=VALUE, in any
order on the line.
"""

from __future__ import annotations

import copy
import ctypes
import importlib
import io
import logging
import os
import re
import signal
import socket
import sys
import threading
import traceback
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from configs import base
from seqrnn import config as configs
from seqrnn import settings
from seqrnn.errors import Interrupted, UserError, visible
from seqrnn.runtime import compiled, files, processes

# mode -> the module of seqrnn that does it, imported when it is asked for
MODES = {
  "train": "seqrnn.modes.train",
  "evaluate": "seqrnn.modes.evaluate",
  "predict": "seqrnn.modes.predict",
  "sample": "seqrnn.modes.sample",
  "describe": "seqrnn.modes.describe",
  "search": "seqrnn.modes.search",
  "detect": "seqrnn.modes.detect",
  "report": "seqrnn.modes.report",
}
_HELP = {"--help", "-help", "--helpfull", "--helpshort", "-h"}
_LONG = 0.2  # Seconds of a compilation after which memory is given back.


def main(argv: list[str]) -> int:
  """Does one mode; the exit status."""
  open_streams()
  if isinstance(sys.stdout, io.TextIOWrapper):  # It may not know a symbol.
    sys.stdout.reconfigure(errors="backslashreplace")
  overrides, argv = split(argv)
  parsed = define()
  if not _HELP.isdisjoint(argv):
    print(f"{__doc__}{parsed.get_help(include_special_flags=False)}")
    return 0
  joined, index = False, 0  # Whether this is one of several processes; which.
  together = False  # Whether all of them end as this one does.
  try:
    unparsed = parsed(argv)[1:]
    if unparsed:
      raise UserError(f"{unparsed[0]!r}: not a flag; flags begin with --")
    many = several(parsed)
    if parsed.follow and parsed.mode != "detect":
      raise UserError(f"--follow: goes with --mode=detect, not {parsed.mode}")
    config, workdir = resolve(parsed, overrides)
    settle_device(cpu_devices(config, parsed.mode), inline=parsed.follow)
    if many:
      joined = True
      processes.guard()
      index = processes.join(
        parsed.coordinator, parsed.num_processes, parsed.process_id
      )
    require_device()
    experiments = importlib.import_module("experiments")
    module = "seqrnn.detection.follow" if parsed.follow else MODES[parsed.mode]
    mode = importlib.import_module(module)
    mode.run(experiments.build, config, workdir)
    sys.stdout.flush()
    status, together = 0, True
  except Interrupted as stop:
    if index == 0:  # The first one speaks for all.
      print(stop, file=sys.stderr)
    status, together = stop.status, True
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    status = 130
  except BrokenPipeError:  # Who read the output has gone, as `head` does.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    status = 141
  except Exception as error:
    if joined and processes.lost(error):
      processes.end_lost()
    line = mistake(error)
    if line is None and not joined:
      raise
    if line is not None and parsed["debug"].value:
      # What it came from, too, which its line leaves out.
      error.__suppress_context__ = False
      traceback.print_exception(error)
    if line is None:
      traceback.print_exc()
      status = 1
    else:
      print("error:", visible(line), file=sys.stderr)
      status = 2
  if joined:
    processes.leave(status, together)
  return status


def open_streams():
  """Gives a process something to write to that was started without it.

  Else the next file that is opened would be what C++ prints to.
  """
  for number, name in ((1, "stdout"), (2, "stderr")):
    if getattr(sys, name) is None:
      descriptor = os.open(os.devnull, os.O_WRONLY)
      if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
      setattr(sys, name, os.fdopen(number, "w"))


def split(argv: list[str]) -> tuple[list[tuple[str, str | bool]], list[str]]:
  """The overrides --config.x=v on the line, as (x, v), and what is left.

  --config.x v is the same; --config.x alone gives True, --noconfig.x False.
  """
  overrides, rest = [], []
  left = list(reversed(argv))
  while left:
    argument = left.pop()
    match = re.fullmatch(r"--?(no)?config\.([^=]+)(=.*)?", argument, re.DOTALL)
    if not match or (match[1] and match[3]):
      rest.append(argument)
    elif match[3]:
      overrides.append((match[2], match[3][1:]))
    elif match[1]:
      overrides.append((match[2], False))
    elif left and not left[-1].startswith("--"):
      overrides.append((match[2], left.pop()))
    else:
      overrides.append((match[2], True))
  return overrides, rest


def define() -> flags.FlagValues:
  """The flags beside those of the config."""
  values = flags.FlagValues()
  flags.DEFINE_string(
    "config",
    None,
    "A config: a .py file with get_config(), or JSON.",
    flag_values=values,
  )
  flags.DEFINE_enum(
    "mode", "train", list(MODES), "What to do.", flag_values=values
  )
  flags.DEFINE_string(
    "workdir",
    None,
    "Where the run's files are. Default: runs/ and the name of the config,"
    " with the fields that flags changed. Alone, it stands for the run's own"
    " config. A report compares several, separated by commas.",
    flag_values=values,
  )
  flags.DEFINE_bool(
    "follow",
    False,
    "With --mode=detect: score events of standard input as they come, a session"
    " and an event a line.",
    flag_values=values,
  )
  flags.DEFINE_bool(
    "debug",
    False,
    "Print the traceback of an error, too.",
    flag_values=values,
  )
  flags.DEFINE_enum(
    "distributed",
    None,
    ["auto"],
    "This is one of several processes, as a TPU pod, SLURM or Open MPI start"
    " them.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "coordinator",
    None,
    "Or started by hand: host:port of process 0, the same in all.",
    flag_values=values,
  )
  flags.DEFINE_integer(
    "num_processes",
    None,
    "With --coordinator: how many there are.",
    lower_bound=1,
    flag_values=values,
  )
  flags.DEFINE_integer(
    "process_id",
    None,
    "With --coordinator: which one this is, from 0.",
    lower_bound=0,
    flag_values=values,
  )
  return values


def several(parsed: flags.FlagValues) -> bool:
  """Whether the flags make this one of several processes.

  Raises:
    UserError: they are not complete, or the mode runs in one process.
  """
  by_hand = {
    "coordinator": parsed.coordinator,
    "num_processes": parsed.num_processes,
    "process_id": parsed.process_id,
  }
  missing = [name for name, value in by_hand.items() if value is None]
  if len(missing) == len(by_hand):
    if parsed.distributed is None:
      return False
  elif missing:
    raise UserError(
      f"--{missing[0]}: --coordinator, --num_processes and --process_id go"
      " together"
    )
  elif parsed.distributed:
    raise UserError(
      f"--distributed={parsed.distributed}, --coordinator={parsed.coordinator}:"
      " give one of the two"
    )
  elif not _reachable(parsed.coordinator):
    raise UserError(
      f"--coordinator={parsed.coordinator}: must be host:port of process 0, a"
      " known host and a port below 65536"
    )
  elif parsed.process_id >= parsed.num_processes:
    raise UserError(
      f"--process_id={parsed.process_id}: must be below"
      f" --num_processes={parsed.num_processes}"
    )
  if parsed.mode not in ("train", "evaluate"):
    raise UserError(
      f"--mode={parsed.mode}: runs in one process; train and evaluate run in"
      " several"
    )
  return True


def _reachable(address: str) -> bool:
  """Whether host:port names a host that is known, and a port there may be."""
  host, _, port = address.rpartition(":")
  if not (host and re.fullmatch(r"\d{1,5}", port) and 0 < int(port) < 2**16):
    return False
  try:
    socket.getaddrinfo(host.strip("[]"), int(port))
  except (OSError, UnicodeError):  # The second for a name as a..b.
    return False
  return True


def resolve(
  parsed: flags.FlagValues, overrides: list[tuple[str, str | bool]]
) -> tuple[configs.Config, Path]:
  """The config and the workdir that the flags mean.

  Raises:
    UserError: they mean none, or not the run that the workdir holds.
  """
  path, folder = parsed.config, parsed.workdir
  beside = ""  # Other runs in a report, whose first one is the run.
  if folder and parsed.mode == "report" and not os.path.exists(folder):
    folder, _, beside = folder.partition(",")
  if folder:
    files.check_links(folder)
  defaults = base.get_config()
  # A search may lie where a run of the same config does; a report has both.
  record = "search.json" if parsed.mode == "search" else "config.json"
  if folder and parsed.mode == "report" and not Path(folder, record).exists():
    study = Path(folder, "search.json")
    record = study.name if study.exists() else record
  if path:
    plain = configs.read(path, defaults)
  elif folder:
    plain = configs.read_run(folder, defaults, record)
  else:
    raise UserError("--config: name one, as in --config=configs/brnn.py")
  config = copy.deepcopy(plain)
  if beside:
    config.report.beside = beside
  for name, value in overrides:
    configs.override(config, defaults, name, value)
  if "model.hidden_size" in dict(overrides):
    if "model.parameters" not in dict(overrides):
      config.model.parameters = None  # The flag takes its place.
    elif config.model.parameters is not None:
      raise UserError(
        f"--config.model.hidden_size={config.model.hidden_size},"
        f" --config.model.parameters={config.model.parameters}: give one of the"
        " two"
      )
  configs.check(config)
  if folder:
    workdir = Path(folder)
  else:
    workdir = Path("runs", configs.run_name(Path(path).stem, plain, config))
    files.check_links(workdir)
  begun = plain
  # With no run there yet.
  begins = parsed.mode in ("train", "describe", "search")
  new = begins and not (workdir / record).exists()
  if path and not new:
    begun = configs.read_run(workdir, defaults, record)
  if parsed.mode not in ("train", "search") and not new:
    # Without --config all but the model may differ: other data, say.
    fixed = configs.IDENTITY if path else configs.SHAPE
    config = configs.sized(config, begun)
    configs.refuse_other(begun, config, workdir, fixed)
  if config.train.cpu_devices is None:
    config.train.cpu_devices = begun.train.cpu_devices
  given = {name for name, _ in overrides}
  if path and path.endswith(".py"):  # One in JSON has every field.
    given |= configs.changes(defaults, plain).keys()
  if not parsed.process_id:
    for line in settings.unused(config, given, defaults):
      print("warning:", visible(line), file=sys.stderr)
  return config, workdir


def cpu_devices(config: configs.Config, mode: str = "train") -> int:
  """How many devices JAX makes of the CPU: as the run began, or by a rule.

  A step of small layers is too short to be handed from core to core. Two
  devices, each with half of the rows, need not; with large layers or few rows
  they are slower than one. Another number rounds differently, so config.json
  keeps it.

  A search of small layers has a worker on each core.
  """
  model, train, search = config.model, config.train, config.search
  small = model.hidden_size <= 256
  if model.parameters:  # By which a hidden size is found when JAX is there.
    small = model.parameters <= model.layers * 4 * 256**2
  cores = _cores()
  if mode == "search":
    if search.workers is None:  # Of coarse, each trial rests on the one before.
      search.workers = cores if small and search.method != "coarse" else 1
    cores //= search.workers
  if train.cpu_devices is None:
    few = train.batch_size < 16
    train.cpu_devices = 2 if small and not few and cores > 1 else 1
  return train.cpu_devices


def _cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def settle_device(cpu_devices: int, inline: bool = False):
  """Imports JAX and says what it is to start with, before anything starts it.

  Args:
    cpu_devices: how many of the CPU, where JAX_NUM_CPU_DEVICES does not say.
    inline: computes on the CPU where it is called. What takes microseconds is
      done before another thread would have it.
  """
  import jax

  if jax.config.values["jax_num_cpu_devices"] < 1:
    jax.config.update("jax_num_cpu_devices", cpu_devices)
  if inline:
    jax.config.update("jax_cpu_enable_async_dispatch", False)
  _give_back_memory()


@cache
def _give_back_memory():
  """Has the system take back at once what was needed to compile a program.

  Else it is there beside the memory of the program's first run.
  """
  import jax

  if sys.platform != "linux":
    return
  trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
  if trim is None:  # Another library than glibc.
    return

  def compiled(event: str, duration_secs: float, **_: Any):
    if event.endswith("/backend_compile_duration") and duration_secs > _LONG:
      trim(0)

  jax.monitoring.register_event_duration_secs_listener(compiled)


def require_device():
  """Starts JAX.

  Raises:
    UserError: the platform that the environment names is not there.
  """
  import jax

  try:
    jax.devices()
  except (AssertionError, RuntimeError):
    names = os.environ.get("JAX_PLATFORMS")
    if not names:
      raise
    raise UserError(
      f"JAX_PLATFORMS={names}: no such device here; without it, JAX takes what"
      " there is"
    ) from None


def mistake(error: Exception) -> str | None:
  """What to tell a user of an error; None where it is a bug of ours."""
  if isinstance(error, UserError | flags.Error):
    return str(error)
  if isinstance(error, OSError):
    return (
      f"{error.filename}: {error.strerror}" if error.filename else str(error)
    )
  if isinstance(error, MemoryError) or "Out of memory" in str(error):
    return (
      "out of memory: model.hidden_size, train.batch_size or data.window must"
      " be smaller"
    )
  return None


def end(status: int) -> NoReturn:
  """Ends this process; after a second Ctrl-C no thread may keep it."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def prepare():
  """What must be settled before JAX is imported."""
  # What libraries log stays off the terminal; what matters they raise.
  logging.disable(logging.ERROR)
  if not sys.warnoptions:
    warnings.simplefilter("ignore")
  # XLA's own: fatal ones. JAX sets 1, also for processes that start this one.
  if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
  sys.unraisablehook = _tell
  compiled.enable_cache()


def _tell(unraisable: Any):
  """Of exceptions that Python cannot raise where they come up.

  What tensorstore still has to tell Orbax of a failed save is no news. A Ctrl-C
  that came within a callback, where Python drops it, is sent once more.
  """
  error = unraisable.exc_value
  if isinstance(error, KeyboardInterrupt):
    again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
  elif str(error) != "Event loop is closed":
    sys.__unraisablehook__(unraisable)


def take_huge_pages():
  """Starts this process once more, its memory in huge pages.

  XLA asks for the memory of a step anew at each step, and with pages of 4 kB
  finding them takes a tenth of the time. glibc looks at this once, when it
  begins.
  """
  if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, sys.orig_argv)


if __name__ == "__main__":
  take_huge_pages()
  prepare()
  end(main(sys.argv))
elif __name__ == "__mp_main__":  # In a worker of a search.
  prepare()
