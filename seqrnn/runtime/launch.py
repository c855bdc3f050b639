"""Sets up a process before a mode runs, and ends it with an exit status."""

import ctypes
import errno
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
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

from absl import flags

from seqrnn.errors import Interrupted, UserError, visible
from seqrnn.runtime import compiled, devices, private

_LONG = 0.2  # Memory is returned after a compilation of more seconds.
_PROCESS = os.getpid()  # That has imported JAX, or soon will.
_PACKAGE = Path(__file__).parents[1]
# What errors of a machine are about that name no file. Code that writes a file
# names it, so an unnamed full disk is stdout's.
_UNNAMED = dict.fromkeys((errno.ENOSPC, errno.EIO, errno.EDQUOT), "stdout")
_UNNAMED |= {errno.ENOMEM: "memory", errno.EMFILE: "this process"}


def prepare():
  """Configures logs, warnings and the compilation cache; call before JAX.

  JAX reads its environment variables when it is imported.
  """
  # Errors that libraries log are also raised, so no log is needed.
  logging.disable(logging.ERROR)
  if not sys.warnoptions:
    warnings.simplefilter("ignore")
  # Level 3: XLA logs fatal errors only. JAX sets 1, and its child processes
  # inherit that.
  if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
  sys.unraisablehook = _handle_unraisable
  compiled.enable_cache()


def _handle_unraisable(unraisable: "sys.UnraisableHookArgs"):
  """Handles exceptions that Python cannot raise where they occur.

  After a failed save, tensorstore reports to an event loop that Orbax has
  closed; this error is ignored. Python drops a Ctrl-C that arrives in a
  callback, so this function sends the signal again.
  """
  error = unraisable.exc_value
  if isinstance(error, KeyboardInterrupt):
    again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
  elif not private.is_closed_loop(error):
    sys.__unraisablehook__(unraisable)


def open_streams():
  """Opens stdout and stderr if the process was started without them.

  Otherwise the next opened file would get their descriptor, and the output of
  C++ code. Symbols that stdout cannot encode are escaped.
  """
  for name in ("stdout", "stderr"):
    if getattr(sys, name) is None:  # The least descriptor is the closed one.
      setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")


def refuse_windows():
  """Refuses to run on Windows, which lacks locks and signals that runs need.

  Raises:
    UserError: this is Windows.
  """
  if sys.platform == "win32":
    raise UserError(
      "Windows: seqrnn needs functions of Linux or macOS; it runs in WSL, the"
      " Windows Subsystem for Linux, which `wsl --install` installs"
    )


def is_forked() -> bool:
  """Returns whether this process was forked from one that has imported JAX."""
  return os.getpid() != _PROCESS


def refuse_fork():
  """Refuses to compute in a forked process, where JAX would wait for ever.

  Raises:
    UserError: this process was forked.
  """
  if is_forked():
    raise UserError(
      "this process was forked from one that has imported JAX, and lacks the"
      " threads of JAX; start processes by joblib's loky, or multiprocessing's"
      " spawn"
    )


def configure_device(
  cpu_devices: int, cpu_threads: int | None = None, follow: bool = False
):
  """Imports JAX and configures it before its backend starts.

  Args:
    cpu_devices: the number of CPU devices, unless JAX_NUM_CPU_DEVICES is set;
      one with JAX_DISABLE_JIT, where an operation cannot have several.
    cpu_threads: the number of XLA's threads, unless PJRT_NPROC is set; None:
      one for each core. XLA splits some sums between them, so it affects
      rounding. Child processes inherit it.
    follow: whether to compute on the CPU, in the calling thread. Handing a
      computation of microseconds to another thread would take longer.
  """
  import jax

  if private.jax_setting("jax_num_cpu_devices") < 1:
    count = 1 if private.jax_setting("jax_disable_jit") else cpu_devices
    jax.config.update("jax_num_cpu_devices", count)
  if cpu_threads is not None:
    os.environ.setdefault("PJRT_NPROC", str(cpu_threads))
  if follow:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
  _return_memory()


@cache
def _return_memory():
  """Registers a callback that returns memory after each long compilation.

  Otherwise glibc keeps the compiler's memory in addition to the program's.
  """
  if sys.platform != "linux":
    return
  trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
  if trim is not None:  # Else the C library is not glibc.
    private.on_compilation(lambda seconds: seconds > _LONG and trim(0))


def define_distributed(values: flags.FlagValues):
  """Defines the flags of several processes."""
  flags.DEFINE_enum(
    "distributed",
    None,
    ["auto"],
    "Run as one of several processes that a TPU pod, SLURM or Open MPI has"
    " started.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "coordinator",
    None,
    "For processes started by hand: host:port of process 0, the same in all.",
    flag_values=values,
  )
  count = "With --coordinator: the number of processes."
  flags.DEFINE_integer("num_processes", None, count, 1, flag_values=values)
  index = "With --coordinator: the number of this process, from 0."
  flags.DEFINE_integer("process_id", None, index, 0, flag_values=values)


def is_distributed(parsed: flags.FlagValues) -> bool:
  """Returns whether the flags make this process one of several.

  Raises:
    UserError: a flag is missing or invalid, or the mode runs in one process.
  """
  names = "coordinator", "num_processes", "process_id"
  missing = [name for name in names if parsed[name].value is None]
  by_hand = len(missing) < len(names)
  if not by_hand and parsed.distributed is None:
    return False
  if by_hand and (missing or parsed.distributed):
    raise UserError(
      f"--{(missing or ['distributed'])[0]}: --coordinator, --num_processes and"
      " --process_id must be given together, and without --distributed"
    )
  if by_hand and not _is_address(parsed.coordinator):
    raise UserError(
      f"--coordinator={parsed.coordinator}: must be host:port of process 0,"
      " with a known host and a port below 65536"
    )
  if by_hand and parsed.process_id >= parsed.num_processes:
    raise UserError(
      f"--process_id={parsed.process_id}: must be below"
      f" --num_processes={parsed.num_processes}"
    )
  if parsed.mode not in ("train", "evaluate"):
    raise UserError(
      f"--mode={parsed.mode}: runs in one process; only train and evaluate run"
      " in several"
    )
  return True


def _is_address(address: str) -> bool:
  """Returns whether host:port has a valid port and a host that resolves."""
  host, _, port = address.rpartition(":")
  try:
    valid = bool(host) and 0 < int(port) < 2**16
    return valid and bool(socket.getaddrinfo(host.strip("[]"), None))
  except (OSError, ValueError):  # As UnicodeError of a name such as a..b.
    return False


def report(
  error: BaseException, first: bool = True, debug: bool = False
) -> int | None:
  """Reports on stderr the exception that ended a mode.

  Args:
    error: the exception.
    first: whether this is the first of several processes, which reports an
      interruption for all.
    debug: whether to print the traceback of a user's mistake.

  Returns:
    the exit status; None for a bug, which is not reported.
  """
  if isinstance(error, Interrupted):
    if first:
      print(error, file=sys.stderr)
    return error.status
  if isinstance(error, KeyboardInterrupt):
    print("interrupted", file=sys.stderr)
    return 130
  if isinstance(error, BrokenPipeError):  # A reader such as `head` has ended.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
  line = user_message(error)
  if line is None:
    return None
  with suppress(OSError):  # The disk behind stderr may be full.
    if debug:
      error.__suppress_context__ = False  # So that the cause is printed, too.
      traceback.print_exception(error)
    print("error:", visible(line), file=sys.stderr)
  return 2


def user_message(error: BaseException) -> str | None:
  """Returns the message for a user's mistake; None for a bug."""
  if isinstance(error, UserError):
    return str(error)
  if isinstance(error, flags.Error):
    line = str(error).removeprefix("flag ")
    line = re.sub("invalid literal for int.*", "must be a whole number", line)
    return re.sub(r"\('Non-boolean.*", "must be true or false", line)
  if isinstance(error, OSError):
    name = error.filename
    if name is None:
      name = _UNNAMED.get(error.errno or 0)
    # Others are bugs, as of a closed descriptor, or of a file of seqrnn.
    if name is not None and _PACKAGE not in Path(str(name)).parents:
      return f"{name}: {error.strerror}"
  if devices.out_of_memory(error):
    return (
      "out of memory: model.hidden_size, train.batch_size or data.window must"
      " be smaller"
    )
  return None


def end(status: int) -> NoReturn:
  """Ends this process without waiting for its threads."""
  for stream in (sys.stdout, sys.stderr):
    with suppress(OSError):  # A mode has flushed its output, and reported this.
      stream.flush()
  os._exit(status)
