"""Several processes, on one host or many: they start and end together.

JAX's runtime connects them. When one process is lost, the runtime ends the
others from C++ and logs dozens of lines; this module prints one line instead.
"""

import os
import signal
import socket
import sys
from typing import NoReturn

from seqrnn.errors import UserError
from seqrnn.runtime import private

_HEARTBEAT_SECONDS = 30  # Without a heartbeat a process counts as lost.
_DONE = b"\0done"
_LOST = b"\0lost"
_LINE = (
  "error: another process of this run has ended or cannot be reached; repeat"
  " the commands of all processes to resume from the last checkpoint\n"
)


def guard():
  """Keeps the logs of C++ off the terminal; call it before JAX is imported.

  A child process reads them. If this process ends without `leave`, the child
  prints one line if another process was lost, or else the whole log. The child
  holds no resources and ends with this process.
  """
  ends = os.pipe()
  stdout, stderr = os.dup(1), os.dup(2)
  if os.fork() == 0:
    os.close(ends[1])
    _watch(ends[0], stdout, stderr)
  os.close(ends[0])
  for number, copy in ((1, stdout), (2, stderr)):
    os.dup2(ends[1], number)
    os.set_inheritable(copy, False)
  os.close(ends[1])
  sys.stdout = os.fdopen(stdout, "w", buffering=1)
  sys.stderr = os.fdopen(stderr, "w", buffering=1, errors="backslashreplace")


def _watch(source: int, stdout: int, stderr: int) -> NoReturn:
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)  # Meant for the parent.
  for number in (0, 1, 2, stdout):
    os.close(number)  # A copy would keep the pipe open.
  logged = b""
  while part := os.read(source, 1 << 16):
    logged = (logged + part)[-(1 << 16) :]
  if _LOST in logged or private.FATAL_LOG in logged:
    os.write(stderr, _LINE.encode())
  elif not logged.endswith(_DONE):
    lines = logged.splitlines(keepends=True)
    shown = (x for x in lines if not x.startswith(private.GLOO_LOG))
    os.write(stderr, b"".join(shown))
  os._exit(0)


def join(coordinator: str | None, count: int | None, index: int | None) -> int:
  """Connects this process with the others; with None, as JAX detects them.

  Returns:
    the index of the process. All but the first print errors only.

  Raises:
    UserError: JAX detects nothing, or the first process cannot open the port.
  """
  if coordinator is not None and index == 0:
    try:  # JAX would abort if another program used the port.
      socket.create_server(("", int(coordinator.rpartition(":")[2]))).close()
    except OSError as error:
      raise UserError(
        f"--coordinator={coordinator}: its port cannot be opened here:"
        f" {error.strerror}"
      ) from None
  import jax

  try:
    jax.distributed.initialize(
      coordinator, count, index, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
    )
  except ValueError as error:
    if coordinator is not None:
      raise
    raise UserError(
      f"--distributed=auto: no TPU pod, SLURM or Open MPI was found ({error});"
      " --coordinator, --num_processes and --process_id name the processes"
    ) from None
  signal.signal(signal.SIGTERM, signal.SIG_DFL)  # JAX only records it.
  if jax.process_index():
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return jax.process_index()


def leave(status: int, together: bool) -> NoReturn:
  """Ends this process; `together` waits until all processes get here."""
  import jax

  if together:
    jax.distributed.shutdown()
  sys.stdout.flush()
  sys.stderr.flush()
  os.write(2, _DONE)
  os._exit(status)


def lost(error: BaseException | None) -> bool:
  """Whether an error means that another process was lost.

  Only messages of JAX's own errors are searched: others may quote a file name.
  """
  import jax

  while error is not None:
    if isinstance(error, UserError):
      return False
    if isinstance(error, jax.errors.JaxRuntimeError):
      return private.says_process_lost(str(error))
    error = error.__cause__ or error.__context__
  return False


def end_lost() -> NoReturn:
  """Ends this process because another one was lost."""
  os.write(2, _LOST)
  os._exit(1)
