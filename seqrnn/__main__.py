"""Starts the program, as `seqrnn`, `python -m seqrnn` and run.py do."""

import gc
import signal
import sys
from typing import NoReturn


def start() -> NoReturn:
  """Runs the command line of this process, and ends the process."""
  from seqrnn.runtime import pages

  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until the mode begins, Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
  pages.take_huge_pages()  # Before the imports, which the restart repeats.
  gc.disable()  # Collections during the imports find nothing.

  from seqrnn import program
  from seqrnn.runtime import launch

  launch.prepare()
  launch.end(program.main(sys.argv))


if __name__ == "__main__":
  start()
