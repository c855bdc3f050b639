"""Several processes, on one host or many: they join, agree and end together.

JAX's own runtime connects them. When one of them is lost, it ends the others
from C++ and logs dozens of lines; here that becomes one.
"""

import os
import re
import signal
import socket
import sys
from typing import NoReturn

from seqrnn.errors import UserError

_HEARTBEAT_SECONDS = 30  # Without a sign of life a process counts as lost.
_DONE = b"\0done"
_LOST = b"\0lost"
_FATAL = b"distributed service detected fatal errors"
_SIGNS = re.compile(
  "gloo|nccl|coordination|barrier|heartbeat|connection reset|socket closed"
  "|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED",
  re.IGNORECASE,
)
_LINE = (
  "error: another process of this run has ended or cannot be reached; start all"
  " of them again with the same commands, they go on from the last checkpoint\n"
)


def guard():
  """Takes what C++ logs off the terminal; call it before JAX is imported.

  A second process reads it. Where this one ends without `leave`, the second
  one tells why: in one line where a peer was lost, else in all that was
  logged. It holds nothing and needs no care: it ends with this one.
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
    signal.signal(number, signal.SIG_IGN)  # They mean the other process.
  for number in (0, 1, 2, stdout):
    os.close(number)  # Or a pipe of it would stay open.
  logged = b""
  while part := os.read(source, 1 << 16):
    logged = (logged + part)[-(1 << 16) :]
  if _LOST in logged or _FATAL in logged:
    os.write(stderr, _LINE.encode())
  elif not logged.endswith(_DONE):
    lines = logged.splitlines(keepends=True)
    os.write(stderr, b"".join(x for x in lines if not x.startswith(b"[Gloo]")))
  os._exit(0)


def join(coordinator: str | None, count: int | None, index: int | None) -> int:
  """Makes this process one of several; with None, as JAX detects them.

  Returns:
    which one it is. All but the first print nothing but errors.

  Raises:
    UserError: nothing is detected, or the first process cannot open the port.
  """
  if coordinator is not None and index == 0:
    try:  # Where another program has the port, JAX dies without a word.
      socket.create_server(("", int(coordinator.rpartition(":")[2]))).close()
    except OSError as error:
      raise UserError(
        f"--coordinator={coordinator}: its port cannot be opened here:"
        f" {error.strerror}"
      ) from None
  import jax

  try:
    jax.distributed.initialize(
      coordinator,
      count,
      index,
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )
  except ValueError as error:
    if coordinator is not None:
      raise
    raise UserError(
      f"--distributed=auto: no TPU pod, SLURM or Open MPI was found ({error});"
      " --coordinator, --num_processes and --process_id name the processes"
    ) from None
  signal.signal(signal.SIGTERM, signal.SIG_DFL)  # JAX would only note it.
  if jax.process_index():
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return jax.process_index()


def leave(status: int, together: bool) -> NoReturn:
  """Ends this process; where all come to this, the others are awaited."""
  import jax

  if together:
    jax.distributed.shutdown()
  sys.stdout.flush()
  sys.stderr.flush()
  os.write(2, _DONE)
  os._exit(status)


def lost(error: BaseException | None) -> bool:
  """Whether an error means that another process was lost.

  Of JAX's own errors alone: what others say may quote a name of the user's.
  """
  import jax

  while error is not None:
    if isinstance(error, UserError):
      return False
    if isinstance(error, jax.errors.JaxRuntimeError):
      return bool(_SIGNS.search(str(error)))
    error = error.__cause__ or error.__context__
  return False


def end_lost() -> NoReturn:
  """Ends this process because another one was lost."""
  os.write(2, _LOST)
  os._exit(1)
