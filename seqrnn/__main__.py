"""Starts the program, as `seqrnn`, `python -m seqrnn` and run.py do."""

import gc
import signal
import sys
from typing import NoReturn


def start() -> NoReturn:
  """Runs the command line of this process, and ends the process."""
  from seqrnn.runtime import pages

  handler = signal.getsignal(signal.SIGINT)
  if handler is signal.default_int_handler:
    # Ctrl-C during the imports ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
  pages.take_huge_pages()  # Before the imports, which the restart repeats.
  gc.disable()  # Collections during the imports find nothing.

  from seqrnn import program
  from seqrnn.runtime import launch

  launch.prepare()
  signal.signal(signal.SIGINT, handler)
  launch.end(program.main(sys.argv))


if __name__ == "__main__":
  start()
