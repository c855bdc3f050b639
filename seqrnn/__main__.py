"""Starts the program, as `seqrnn`, `python -m seqrnn` and run.py do."""

import gc
import os
import signal
import sys
from typing import NoReturn


def take_huge_pages():
  """Restarts this process with huge memory pages.

  XLA allocates memory at each step, and with pages of 4 kB page faults take a
  tenth of the time. glibc reads the setting only when a process starts.
  """
  if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, sys.orig_argv)


def start() -> NoReturn:
  """Runs the command line of this process, and ends the process."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until the mode begins, Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
  take_huge_pages()  # Before the imports, which the restart repeats.
  gc.disable()  # Collections during the imports find nothing.
  try:
    from seqrnn import cli
    from seqrnn.runtime import launch

    launch.prepare()
    status = cli.main(sys.argv)
  except ModuleNotFoundError as error:
    if (error.name or "seqrnn").partition(".")[0] == "seqrnn":
      raise
    print(f"error: {error}: pip install -e .", file=sys.stderr)
    sys.exit(2)
  launch.end(status)


if __name__ == "__main__":
  start()
